"""What there is to choose from: the facts that `skillfactory tasks` and `skillfactory recipes` print."""

import inspect
import sys
from pathlib import Path
from typing import Any

from skillfactory import recipes, tasks
from skillfactory.errors import SkillFactoryError
from skillfactory.tasks import base
from skillfactory.tasks.params import Params


def task_facts() -> list[dict[str, Any]]:
    """Each registered task: its parameters, and an example question with the grade of its reference answer."""
    return [_task(name) for name in tasks.names()]


def _task(name: str) -> dict[str, Any]:
    module = sys.modules[base._registry[name].__module__]
    about = (inspect.getdoc(module) or "").partition("\n")[0]
    facts: dict[str, Any] = {"name": name, "about": about, "parameters": _parameters(module)}
    try:
        task = tasks.get(name)
        question = task.generate(1, seed=0)[0]
    except (SkillFactoryError, TypeError):  # it needs parameters that only the user can give
        return facts
    grade = task.grade(question, f"<answer>{question.answer}</answer>")
    facts["example"] = {
        "text": question.text,
        "answer": question.answer,
        "level": question.level,
        "outcome": grade.outcome,
    }
    return facts


def _parameters(module: Any) -> list[dict[str, str]]:
    kinds = [
        kind for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Params) and kind.__module__ == module.__name__
    ]  # fmt: skip
    return [
        {
            "parameter": name,
            "default": "required" if field.is_required() else repr(field.default),
            "what": field.description or "",
        }
        for kind in kinds
        for name, field in kind.model_fields.items()
    ]


def recipe_facts() -> list[dict[str, str]]:
    """Each recipe that comes with the package, and each in ./recipes: name, first comment, file."""
    local = {str(path): path for path in sorted(Path("recipes").glob("*.yaml"))}
    shipped = recipes.shipped()
    same = {path.resolve() for path in shipped.values()}
    found = shipped | {name: path for name, path in local.items() if path.resolve() not in same}
    return [{"recipe": name, "what": _first_comment(path), "file": str(path)} for name, path in found.items()]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
