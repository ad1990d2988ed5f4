"""Contents of what a recipe names beside itself: files, folders, code. The results of stages depend on them."""

import sys
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.curation.examples import find_examples
from skillfactory.formats.raw import raw_digest, split_revision
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.rounds import stage_of

_PACKAGE = Path(__file__).parent


def hashes(recipe: Recipe) -> dict[str, str]:
    """Of what settings name, by the setting; "" where there is none (the stage that needs it says so)."""
    teacher, examples = Path(recipe.attempts.model).expanduser(), recipe.attempts.examples
    folder = model_folder(recipe)
    return {
        "model": files.model_fingerprint(folder) if folder else "",
        "attempts.prompts": _data_hash(recipe.attempts.prompts, "prompts.yaml"),
        "attempts.examples": _data_hash(str(find_examples(examples)) if examples else "", ""),
        "attempts.model": files.model_fingerprint(teacher) if teacher.is_dir() and recipe.attempts.model else "",
        "traces.phrases": _data_hash(recipe.traces.phrases, "phrases.yaml"),
    }


def of_stage(name: str, recipe: Recipe) -> dict[str, Any]:
    """Of what only one stage reads, as settings of it."""
    found: dict[str, Any] = _question_files(recipe) if name == "questions" else {}
    if stage_of(name) in ("questions", "attempts") and recipe.attempts.given:
        found["attempts.given (content)"] = raw_digest(split_revision(recipe.attempts.given)[0])
    if stage_of(name) == "traces":
        patterns = recipe.traces.pattern if isinstance(recipe.traces.pattern, dict) else (recipe.traces.pattern,)
        own = (pattern for pattern in patterns if pattern.endswith(".py"))
        found |= {f"traces.pattern {file} (content)": _data_hash(file, "") for file in own}
    if name == "evaluation":
        folders = {other: Path(model).expanduser() for other, model in recipe.evaluation.models.items()}
        found |= {
            f"evaluation.models.{other} (content)": files.model_fingerprint(folder)
            for other, folder in folders.items()
            if folder.is_dir()
        }
    return found


def model_folder(recipe: Recipe) -> Path | None:
    """The folder of the recipe's model; None for a hub id."""
    if recipe.model == "tiny":
        return next((path.parent for path in sorted((_PACKAGE / "tiny").rglob("config.json"))), None)
    path = Path(recipe.model).expanduser()
    return path if path.is_dir() else None


def _specs(recipe: Recipe) -> dict[str, TaskSpec]:
    sets = {f"evaluation.sets.{name}.task": each.task for name, each in recipe.evaluation.sets.items()}
    return {"questions.task": recipe.questions.task} | sets


def _question_files(recipe: Recipe) -> dict[str, Any]:
    """Content hashes of local question files and grading functions, and whether training draws on a given stock."""
    from skillfactory.tasks.loading import digest
    from skillfactory.tasks.own_rows import READERS

    found: dict[str, Any] = {"questions.shared stock": shares_stock(recipe)}
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


def shares_stock(recipe: Recipe) -> bool:
    """Whether training questions come from a given stock: then evaluation sets may take some of them away."""
    from skillfactory.tasks.questions import Pool, task_of

    return isinstance(task_of(recipe.questions.task), Pool)


def _data_hash(path: str, shipped: str) -> str:
    """Hash of a data file of the user's, or ours; "" where there is none (the stage that needs it says so)."""
    file = Path(path) if path or not shipped else _PACKAGE / "curation" / shipped
    return files.sha256(file.read_bytes())[:16] if file.is_file() else ""
