"""The whole story: which stages there are, what each depends on, and how a run goes through them. Start here.

    questions -> attempts -> reflections -> traces -> sft -> rl -> evaluation -> report

A method (skillfactory/methods) runs some of them, in this order. Every stage is a module with `run(recipe, run)`, which
reads the rows of earlier stages from the run directory and leaves its own there. Running again does what is missing.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from skillfactory import files, methods
from skillfactory.curation.examples import find_examples
from skillfactory.errors import ModelError, RecipeError
from skillfactory.evaluation.responses import check as check_evaluation
from skillfactory.formats.raw import raw_digest, split_revision
from skillfactory.recipe import REPEATED, Recipe, Sampling, TaskSpec
from skillfactory.report.report import remove as remove_report
from skillfactory.rounds import recipe_of, stage_of, starts_from, suffix_of
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training.checks import check as check_training
from skillfactory.training.loggers import check as check_loggers

_PACKAGE = Path(__file__).parent
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
    and once it is finished (also where it already was). Raises StoreError where the directory cannot be used, before
    anything in it is changed.
    """
    stages = stages_of(recipe, until)
    if fresh is not None:
        _known(fresh, recipe)
    check(recipe)
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


def check(recipe: Recipe) -> None:
    """Raises SkillFactoryError for what is known to be wrong with a recipe before anything is made."""
    _check_models(recipe)
    check_loggers(recipe)
    check_training(recipe)
    if "traces" in methods.stages(recipe):
        _check_curation(recipe)
    check_evaluation(recipe)


def _run_stage(
    name: str, recipe: Recipe, opened: Run, wanted: dict[str, Identity], tell: Callable[[str, Stage, bool], None]
) -> None:
    stage = opened.stage(name)
    filled = [other for other in methods.stages(recipe) if filled_by(other) == name]
    if not stage.is_finished():
        for other in filled:
            opened.begin(other, wanted[other].settings, wanted[other].inputs, filled_by=name)
        stage = opened.begin(name, wanted[name].settings, wanted[name].inputs)
        opened.log(name, "begin", rows_kept=sum(1 for _ in stage.path.glob("part-*.parquet")))
        tell(name, stage, False)
        try:
            with files.told(str(stage.path)):
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


def identities(recipe: Recipe) -> dict[str, Identity]:
    """What each stage of the method depends on. Known before anything runs: every stage follows from these."""
    teacher = Path(recipe.attempts.model).expanduser()
    examples = recipe.attempts.examples
    known = {
        "model": _model_identity(recipe),
        "attempts.prompts": _data_hash(recipe.attempts.prompts, "prompts.yaml"),
        "attempts.examples": _data_hash(str(find_examples(examples)) if examples else "", ""),
        "attempts.model": files.model_fingerprint(teacher) if teacher.is_dir() and recipe.attempts.model else "",
        "traces.phrases": _data_hash(recipe.traces.phrases, "phrases.yaml"),
    }
    patterns = recipe.traces.pattern if isinstance(recipe.traces.pattern, dict) else (recipe.traces.pattern,)
    pattern_files = {name: _data_hash(name, "") for name in patterns if name.endswith(".py")}
    found: dict[str, Identity] = {}
    for name in methods.stages(recipe):
        settings = _settings(name, recipe)
        settings |= {f"{key} (content)": known[key] for key in known if known[key] and settings.get(key) is not None}
        if name == "questions":
            settings |= _question_files(recipe)
        if stage_of(name) in ("questions", "attempts") and recipe.attempts.given:
            settings["attempts.given (content)"] = raw_digest(split_revision(recipe.attempts.given)[0])
        if stage_of(name) == "traces":
            settings |= {f"traces.pattern {file} (content)": content for file, content in pattern_files.items()}
        if name == "evaluation":
            settings |= {
                f"evaluation.models.{other} (content)": files.model_fingerprint(Path(model).expanduser())
                for other, model in recipe.evaluation.models.items()
                if Path(model).expanduser().is_dir()
            }
        engine = recipe.evaluation.engine if name == "evaluation" else recipe.attempts.engine
        if (filled_by(name) or name == "evaluation") and engine == "openai":
            server = recipe.engines.openai
            changed = {"engines.openai.model": server.model, "engines.openai.plain": server.plain}
            settings |= {key: value for key, value in changed.items() if value}
        sources = {role: found[other] for role, other in inputs_of(name, recipe).items()}
        if name not in ("evaluation", "report") and "questions" in sources and not _shares_stock(recipe):
            # Training does not depend on what is evaluated: its questions are drawn on their own.
            trained = {key: value for key, value in found["questions"].settings.items() if not _is_evaluated(key)}
            sources["questions"] = Identity(trained, {})
        found[name] = Identity(settings, {other: source.digest for other, source in sources.items()})
    return found


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


def _specs(recipe: Recipe) -> dict[str, TaskSpec]:
    sets = {f"evaluation.sets.{name}.task": each.task for name, each in recipe.evaluation.sets.items()}
    return {"questions.task": recipe.questions.task} | sets


def _question_files(recipe: Recipe) -> dict[str, Any]:
    """Content hashes of local question files and grading functions, and whether training draws on a given stock."""
    from skillfactory.tasks.loading import digest
    from skillfactory.tasks.own_rows import READERS

    found: dict[str, Any] = {"questions.shared stock": _shares_stock(recipe)}
    for key, spec in _specs(recipe).items():
        path, rule = Path(str(spec.params.get("path", ""))).expanduser(), str(spec.params.get("grade", ""))
        if path.is_file():
            found[f"{key}.params.path (content)"] = files.sha256(path.read_bytes())
        elif spec.params.get("path") and path.is_dir() and spec.name not in READERS:
            found[f"{key}.params.path (content)"] = digest(str(path))
        if module := _module_file(rule.rpartition(".")[0]):
            found[f"{key}.params.grade (content)"] = files.sha256(module.read_bytes())
    return found


def _module_file(module: str) -> Path | None:
    """The file of a module of the user's, found without importing it; None where there is none."""
    parts = [part for part in module.split(".") if part]
    places = [Path(place or ".").joinpath(*parts) for place in [*sys.path, "."] if parts]
    found = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())
    return next(found, None)


def _shares_stock(recipe: Recipe) -> bool:
    """Whether training questions come from a given stock: then evaluation sets may take some of them away."""
    from skillfactory.tasks.questions import Pool, task_of

    return isinstance(task_of(recipe.questions.task), Pool)


def _data_hash(path: str, shipped: str) -> str:
    """Hash of a data file of the user's, or ours; "" where there is none (the stage that needs it says so)."""
    file = Path(path) if path or not shipped else _PACKAGE / "curation" / shipped
    return files.sha256(file.read_bytes())[:16] if file.is_file() else ""


def model_folder(recipe: Recipe) -> Path | None:
    """The folder of the recipe's model; None for a hub id."""
    if recipe.model == "tiny":
        return next((path.parent for path in sorted((_PACKAGE / "tiny").rglob("config.json"))), None)
    path = Path(recipe.model).expanduser()
    return path if path.is_dir() else None


def _model_identity(recipe: Recipe) -> str:
    folder = model_folder(recipe)
    return files.model_fingerprint(folder) if folder else ""


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
