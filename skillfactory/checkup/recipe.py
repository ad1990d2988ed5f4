"""Checks of a recipe on this machine: what it needs to be installed, its questions, model, memory, disk and server."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from skillfactory import methods, pipeline, recipes
from skillfactory.checkup import model, questions, template
from skillfactory.checkup.check import Check, failed, ok, problem, warning
from skillfactory.checkup.machine import disk
from skillfactory.checkup.questions import Asked
from skillfactory.console import bytes_text
from skillfactory.errors import ModelError, SkillFactoryError
from skillfactory.recipe import OpenAI, Recipe
from skillfactory.rounds import stage_of

_PACKAGES = {
    "vllm": "pip install vllm",
    "openai": "pip install 'skillfactory[openai]'",
    "ray": "pip install 'skillfactory[ray]'",
}
SECONDS = 5.0  # to wait for a server


def checks(source: str, overrides: Sequence[str], run_folder: Path | None = None) -> Iterator[Check]:
    """All of them; of a recipe that cannot be run that alone."""
    try:
        recipe = recipes.load_recipe(source, overrides)
        pipeline.check(recipe)
    except SkillFactoryError as error:
        yield failed("recipe", error)
        return
    yield ok("recipe", f"{recipe.name}: method {recipe.method}, stages {', '.join(methods.stages(recipe))}.")
    yield from packages(recipe)
    if uses_server(recipe):
        yield server(recipe.engines.openai, recipe.engines.openai.model or recipe.model)
    placed = devices(recipe)
    yield placed
    check, some = questions.drawn(recipe)
    yield check
    if some:
        yield questions.references(some)
    found = model.weights(recipe)
    yield found
    if found.state != "problem":
        yield from template.checks(recipe)
        yield from _lengths(recipe, some)
    if placed.state != "problem":  # else there is nothing to hold it against
        yield from memory(recipe)
    yield room(recipe, run_folder or Path("runs") / recipe.name)


def _lengths(recipe: Recipe, some: Sequence[Asked]) -> Iterator[Check]:
    if some:
        try:
            prompt = questions.longest_prompt(recipe, some)
        except SkillFactoryError:
            return  # what is wrong is said already
        try:
            context = model.context_of(recipe)
        except ModelError as error:
            yield failed("context", error)
        else:
            yield model.lengths(recipe, prompt, context)
    if {"traces", "sft"} <= set(methods.stages(recipe)):
        yield model.trace_lengths(recipe)


def engines(recipe: Recipe) -> dict[str, str]:
    """The engines that the recipe's method uses, and the setting that says so."""
    stages = set(map(stage_of, methods.stages(recipe)))
    found = {recipe.evaluation.engine: "evaluation.engine"} if "evaluation" in stages else {}
    if "traces" in stages and not recipe.attempts.given:
        found |= {recipe.attempts.engine: "attempts.engine"}
    if "ray" in found:
        found |= {recipe.engines.ray.worker: "engines.ray.worker"}
    return {str(engine): key for engine, key in found.items()}


def uses_server(recipe: Recipe) -> bool:
    """Whether the recipe's method asks a server."""
    return "openai" in engines(recipe)


def packages(recipe: Recipe) -> Iterator[Check]:
    """A problem for each package that an engine of the recipe wants and that is not there."""
    for engine, key in engines(recipe).items():
        if engine in _PACKAGES and find_spec(engine) is None:
            yield problem(
                "engine", f"{key}: {engine} wants the package {engine}, which is not installed.", _PACKAGES[engine]
            )


def devices(recipe: Recipe) -> Check:
    """Whether there are as many GPUs as the recipe trains on."""
    import torch

    wanted, there = recipe.training.devices, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if recipe.machine.device.startswith("cuda") and not there:
        return problem("devices", f"machine.device is {recipe.machine.device}, but there is no GPU.", "Set it to auto.")
    if recipe.training.backend == "verl" or recipe.training.accelerate:
        return ok("devices", "Another program places the training.")
    if there and recipe.machine.device != "cpu":
        if wanted > there:
            return problem("devices", f"training.devices is {wanted}, but torch sees {there} GPUs.", "Lower it.")
        return ok("devices", f"Training takes {wanted} of {there} GPUs.")
    if recipe.training.shard != "none":
        return problem(
            "devices", f"training.shard is {recipe.training.shard}, but there is no GPU here.",
            "Run it on GPUs, or set training.devices to 1 and training.shard to none.",
        )  # fmt: skip
    return ok("devices", f"Training is on the CPU, in {wanted} process{'es' if wanted > 1 else ''}.")


def server(options: OpenAI, name: str, seconds: float = SECONDS) -> Check:
    """Whether the server answers, and has the model: one request for the list of its models."""
    if find_spec("openai") is None:
        return warning("server", f"{options.base_url} is not asked: the package openai is not installed.")
    import openai

    key = os.environ.get(options.api_key_env, "")
    try:
        with openai.OpenAI(base_url=options.base_url, api_key=key or "none", timeout=seconds, max_retries=0) as client:
            known = [each.id for each in client.models.list().data]
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        return problem(
            "server", f"{options.base_url} wants another key than {options.api_key_env} holds.",
            f"Set the environment variable {options.api_key_env}.",
        )  # fmt: skip
    except openai.APIConnectionError as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        return problem(
            "server", f"{options.base_url} does not answer ({why}).", "Start it, or mend engines.openai.base_url."
        )
    except Exception as error:  # a server may say anything
        why = str(error).partition("\n")[0][:200]
        return warning("server", f"{options.base_url} answers, but does not list its models ({why}).")
    if name not in known:
        listed = ", ".join(known[:5]) or "none"
        return problem(
            "server", f"{options.base_url} has no model {name}; it has: {listed}.", "Set engines.openai.model."
        )
    return ok("server", f"{options.base_url} answers, and has {name}.")


def memory(recipe: Recipe) -> Iterator[Check]:
    """What SFT and RL may take of this machine's memory, by estimate."""
    from skillfactory.planning import memory as needs
    from skillfactory.planning import room as rooms
    from skillfactory.planning.sizes import weights_of

    weights = weights_of(recipe)
    for name in dict.fromkeys(stage_of(each) for each in methods.stages(recipe)):
        if name not in ("sft", "rl"):
            continue
        if recipe.training.backend == "verl" and name == "rl":
            yield ok("memory of rl", "verl trains elsewhere: `run --dry-run` has an estimate for its GPUs.")
            continue
        if not weights.parameters:
            yield warning("memory", "How large the model is is not known before it is fetched.")
            return
        try:
            signs = rooms.check_memory(recipe, name)
        except SkillFactoryError as error:
            yield failed(f"memory of {name}", error)
            continue
        for text in signs.values():
            yield warning(f"memory of {name}", f"It {text}.")
        if not signs:
            device, free, _ = rooms.here(recipe, weights.parameters)
            taken = needs.of_stage(recipe, name, weights, device).total
            yield ok(f"memory of {name}", f"At most {bytes_text(taken)} by estimate; {bytes_text(free)} are free.")


def room(recipe: Recipe, run_folder: Path) -> Check:
    """Whether the run fits its disk, by the estimate of a dry run."""
    from skillfactory.planning import plan

    stages = plan.plan(recipe, run_folder)
    most, expected = (plan.total([getattr(stage, kind) for stage in stages]).disk for kind in ("most", "expected"))
    if most is None or expected is None:
        return disk("disk of run", run_folder)
    return disk("disk of run", run_folder, most, expected)
