"""The whole story: which stages there are, what each depends on, and how a run goes through them. Start here.

    questions -> attempts -> reflections -> traces -> sft -> rl -> evaluation -> report

A method (skillfactory/methods) runs some of them, in this order. Every stage is a module with `run(recipe, run)`, which
reads the rows of earlier stages from the run directory and leaves its own there. Running again does what is missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from skillfactory import contents, files, methods, shortage
from skillfactory.errors import ModelError, RecipeError, StoreError
from skillfactory.evaluation.responses import check as check_evaluation
from skillfactory.machine import report_nothing
from skillfactory.recipe import REPEATED, Recipe, Sampling
from skillfactory.report.report import remove as remove_report
from skillfactory.rounds import recipe_of, stage_of, starts_from, suffix_of
from skillfactory.stage import Stage
from skillfactory.store import RECIPE, Run, load_run
from skillfactory.training import checks as training

MODEL = ("model", "revision", "machine.dtype")


def _sampling(section: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in Sampling.model_fields)


@dataclass(frozen=True)
class StageSpec:
    """A stage: its module, the parts of the recipe that decide its result, and the stages that it reads.

    Where it is `filled_by` another stage, beside that one's own rows, it has no module and is not run by itself.
    """

    module: str
    settings: tuple[str, ...]  # keys or whole sections; those marked `speed` are left out
    inputs: tuple[str, ...]
    filled_by: str = ""


STAGES: dict[str, StageSpec] = {
    "questions": StageSpec("skillfactory.tasks.questions", ("seed", "questions", "evaluation.sets"), ()),
    # An attempt or reflection depends on how it is sampled, not on how many there are or what becomes of them.
    "attempts": StageSpec(
        "", ("seed", *MODEL, *_sampling("attempts"), "attempts.prompts", "attempts.given", "attempts.model",
             "attempts.examples", "attempts.whole", "attempts.split", "attempts.instruct"), ("questions",),
        filled_by="traces",
    ),
    "reflections": StageSpec(
        "", ("seed", *MODEL, *_sampling("reflections"), "attempts.prompts"), ("attempts",), filled_by="traces",
    ),
    "traces": StageSpec(
        "skillfactory.curation.curate",
        ("seed", "model", "revision", "traces", "attempts.prompts", "attempts.variants", "attempts.per_variant",
         "attempts.hints", "attempts.budget", "attempts.instruct", "reflections.per_attempt"),
        ("reflections",),
    ),
    "sft": StageSpec("skillfactory.training.sft", ("seed", "model", "revision", "sft"), ("traces",)),
    "rl": StageSpec(
        "skillfactory.training.rl",
        ("seed", *MODEL, "rl", "attempts.prompts", "attempts.instruct"),
        ("questions", "sft"),
    ),
    "evaluation": StageSpec(
        "skillfactory.evaluation.responses",
        ("seed", *MODEL, "evaluation", "attempts.prompts", "attempts.instruct", "traces.phrases"),
        ("questions", "sft", "rl"),
    ),
    "report": StageSpec(
        "skillfactory.report.report", ("name",),
        ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What a stage's result depends on, as its manifest keeps it."""

    settings: dict[str, Any]
    inputs: dict[str, str]

    @property
    def digest(self) -> str:
        return files.digest_of(self.settings, self.inputs)


def run(
    recipe: Recipe,
    path: Path,
    until: str | None = None,
    fresh: str | None = None,
    tell: Callable[[str, Stage, bool], None] = lambda name, stage, finished: None,
) -> None:
    """Run the recipe's method in the directory `path`: whatever is not finished yet, up to and with stage `until`.

    `fresh` is a stage to redo, with all that depends on it. `tell(name, stage, finished)` is called before a stage runs
    and once it is finished (also where it already was). Raises StoreError where the directory cannot be used, and
    other SkillFactoryErrors for a recipe that cannot work, before anything in the directory is changed.
    """
    report_nothing()
    stages = stages_of(recipe, until)
    if fresh is not None:
        _known(fresh, recipe)
    check(recipe, until)
    wanted = identities(recipe)
    with Run.open(path, recipe) as opened:
        doomed = _doomed(recipe, opened, wanted, fresh)
        for name in methods.stages(recipe):
            if name not in doomed:
                opened.stage(name).check(wanted[name].settings, wanted[name].inputs, _to_redo(name, opened, wanted))
        for name in reversed(doomed):
            opened.drop(name)
            opened.log(name, "dropped", why=f"--fresh {fresh}")
        if "report" in doomed:
            remove_report(path)
        opened.write_recipe(recipe)
        for name in stages:
            if not filled_by(name):
                _run_stage(name, recipe, opened, wanted, tell)


@files.named()
def check(recipe: Recipe, until: str | None = None) -> None:
    """Raises SkillFactoryError for what is known to be wrong with a recipe before anything is made.

    What has to be installed is looked for as far as stages up to `until` want it: `--until traces` needs no trainer.
    """
    _check_models(recipe)
    training.check(recipe)
    training.check_installed(recipe, {stage_of(name) for name in stages_of(recipe, until)})
    if "traces" in methods.stages(recipe):
        _check_curation(recipe)
    check_evaluation(recipe)


def _run_stage(
    name: str, recipe: Recipe, opened: Run, wanted: dict[str, Identity], tell: Callable[[str, Stage, bool], None]
) -> None:
    stage = opened.stage(name)
    filled = [other for other in methods.stages(recipe) if filled_by(other) == name]
    if stage.is_finished():
        stage.clear_temporary()
    else:
        _check_unchanged(name, recipe, opened, wanted)
        for other in filled:
            opened.begin(other, wanted[other].settings, wanted[other].inputs, filled_by=name)
        stage = opened.begin(name, wanted[name].settings, wanted[name].inputs)
        opened.log(name, "begin", rows_kept=sum(1 for _ in stage.path.glob("part-*.parquet")))
        tell(name, stage, False)
        try:
            with files.told(str(stage.path)), shortage.told(name):
                module = import_module(STAGES[stage_of(name)].module)
                module.run(recipe_of(name, recipe, opened.path), opened.of_round(suffix_of(name)))
        except BaseException as error:
            with files.told(str(opened.path)):
                opened.log(name, "stopped", why=f"{type(error).__name__}: {error}")
            raise
        if not stage.is_finished():
            raise RuntimeError(f"stage {name} returned without finishing its manifest")
        manifest = stage.manifest
        opened.log(name, "finished", seconds=manifest["seconds"], rows=manifest["rows"], **manifest["counts"])
    for other in filled:
        tell(other, opened.stage(other), True)
    tell(name, stage, True)


def _check_unchanged(name: str, recipe: Recipe, opened: Run, wanted: dict[str, Identity]) -> None:
    """Raises StoreError where a file or model that a stage is about to read is not what it was before."""
    now = identities(recipe)[name].settings
    if changed := [key for key, value in now.items() if wanted[name].settings.get(key) != value]:
        key = changed[0].removesuffix(" (content)")
        raise StoreError(
            f"{name}: what {key} names ({now.get(key, 'there')}) has changed since this command began; put back what "
            "was there and run the same command again, or give another --run."
        )
    for source in inputs_of(name, recipe).values():
        opened.stage(source).check_models()


def stages_of(recipe: Recipe, until: str | None = None) -> tuple[str, ...]:
    """The stages of the recipe's method, up to and with `until`. Raises RecipeError for one that is none to stop at."""
    stages = methods.stages(recipe)
    if until is None:
        return stages
    if other := filled_by(_known(until, recipe)):
        raise RecipeError(f"Stage {until} is drawn as {other} need it and cannot be had alone; use --until {other}.")
    return stages[: stages.index(until) + 1]


def dependents(name: str, recipe: Recipe) -> list[str]:
    """The stage and every stage of the method that depends on it, in order."""
    found = [name]
    for other in methods.stages(recipe):
        if set(inputs_of(other, recipe).values()) & set(found) and other not in found:
            found.append(other)
    return found


def filled_by(name: str) -> str:
    """The stage that makes this one's rows beside its own; "" for none."""
    other = STAGES[stage_of(name)].filled_by
    return f"{other}{suffix_of(name)}" if other else ""


def inputs_of(name: str, recipe: Recipe) -> dict[str, str]:
    """The stages of the method that a stage reads: {as its round calls them: by name}.

    So the first round's stages depend on the same as those of a method that has one round only.
    """
    there = methods.stages(recipe)
    found = {}
    for other in STAGES[stage_of(name)].inputs:
        if stage_of(name) in REPEATED:
            found[other] = f"{other}{suffix_of(name)}" if other in REPEATED else other
        else:
            found |= {each: each for each in there if stage_of(each) == other}
    if source := starts_from(name, recipe):
        found["model"] = source
    return {role: each for role, each in found.items() if each in there}


@files.named()
def identities(recipe: Recipe) -> dict[str, Identity]:
    """What each stage of the method depends on. Known before anything runs: every stage follows from these."""
    known = contents.hashes(recipe)
    found: dict[str, Identity] = {}
    for name in methods.stages(recipe):
        settings = _settings(name, recipe)
        settings |= {f"{key} (content)": known[key] for key in known if known[key] and settings.get(key) is not None}
        settings |= contents.of_stage(name, recipe)
        engine = recipe.evaluation.engine if name == "evaluation" else recipe.attempts.engine
        if (filled_by(name) or name == "evaluation") and engine == "openai":
            server = recipe.engines.openai
            changed = {"engines.openai.model": server.model, "engines.openai.plain": server.plain}
            settings |= {key: value for key, value in changed.items() if value}
        sources = {role: found[other] for role, other in inputs_of(name, recipe).items()}
        if name not in ("evaluation", "report") and "questions" in sources and not contents.shares_stock(recipe):
            # Training does not depend on what is evaluated: its questions are drawn on their own.
            trained = {key: value for key, value in found["questions"].settings.items() if not _is_evaluated(key)}
            sources["questions"] = Identity(trained, {})
        found[name] = Identity(settings, {other: source.digest for other, source in sources.items()})
    return found


def states(recipe: Recipe, path: Path) -> dict[str, str]:
    """Each stage's in the directory `path`: `missing`, `partial`, `finished`, `running`, or `other settings`."""
    names = methods.stages(recipe)
    if not (path / RECIPE).is_file():
        return dict.fromkeys(names, "missing")
    there, wanted = load_run(path), identities(recipe)
    found = {name: there.state(name) for name in names}
    others = {name for name in names if there.manifest(name).get("digest") != wanted[name].digest}
    return {name: "other settings" if name in others and state != "missing" else state for name, state in found.items()}


def _settings(name: str, recipe: Recipe) -> dict[str, Any]:
    """What a stage depends on in the recipe. A model that an earlier round makes is known by that stage alone."""
    seen = recipe_of(name, recipe, Path())
    settings = {key: value for part in STAGES[stage_of(name)].settings for key, value in _values(seen, part)}
    return settings | ({"model": None} if starts_from(name, recipe) else {})


def _doomed(recipe: Recipe, opened: Run, wanted: dict[str, Identity], fresh: str | None) -> list[str]:
    """The stages to delete before running, in order."""
    if fresh is None:
        return []
    doomed = dependents(_known(fresh, recipe), recipe)
    if fresh != "questions" and _to_redo("questions", opened, wanted) == fresh:
        doomed.insert(0, "questions")  # only evaluation sets changed: what was trained on stays as it is
    return doomed


def _to_redo(name: str, opened: Run, wanted: dict[str, Identity]) -> str:
    """The stage to name after --fresh where stage `name` holds other work."""
    changed = opened.stage(name).differing(wanted[name].settings)
    stock = wanted["questions"].settings["questions.shared stock"]
    return "evaluation" if name == "questions" and not stock and changed and all(map(_is_evaluated, changed)) else name


def _is_evaluated(key: str) -> bool:
    return key.startswith("evaluation.")


def _known(name: str, recipe: Recipe) -> str:
    stages = methods.stages(recipe)
    if name in stages:
        return name
    near = get_close_matches(name, stages, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"its stages are: {', '.join(stages)}."
    raise RecipeError(f"Method `{recipe.method}` has no stage `{name}`; {hint}")


def _values(recipe: Recipe, key: str) -> Iterator[tuple[str, Any]]:
    """The settings under a key of the recipe, dotted, without those that only change the speed."""
    at: Any = recipe
    for part in key.split("."):
        at = getattr(at, part)
    yield from _flat(key, at)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            extra = field.json_schema_extra
            if not (isinstance(extra, dict) and extra.get("speed")):
                yield from _flat(f"{key}.{name}", getattr(value, name))
    elif isinstance(value, dict):
        for name, inner in sorted(value.items()):
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value


def _check_models(recipe: Recipe) -> None:
    """Raises ModelError for what looks like a path but is none; a hub id is left to the engine."""
    served = recipe.evaluation.models if recipe.evaluation.engine != "openai" else {}
    named_by = {"model": recipe.model, **{f"evaluation.models.{k}": v for k, v in served.items()}}
    if recipe.attempts.model and recipe.attempts.engine != "openai":
        named_by["attempts.model"] = recipe.attempts.model
    for key, named in named_by.items():
        looks_local = named.startswith((".", "/", "~")) or named.count("/") > 1
        if named != "tiny" and looks_local and not Path(named).expanduser().is_dir():
            raise ModelError(
                f"There is no model folder {named} ({key}); give a Hugging Face folder, a hub id, or `tiny`."
            )


def _check_curation(recipe: Recipe) -> None:
    """Raises RecipeError for prompts, phrases or patterns that cannot be used, before anything is made."""
    from skillfactory.curation.drawing import slots_of
    from skillfactory.curation.patterns import patterns_of
    from skillfactory.curation.phrases import load_phrases

    slots_of(recipe)
    phrases = load_phrases(recipe.traces.phrases)
    for pattern, _ in patterns_of(recipe.traces).values():
        phrases.before_answer(pattern.closing)
