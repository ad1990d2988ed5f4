"""What there is to choose from: the facts that `skillfactory tasks` and `skillfactory recipes` print."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skillfactory import recipes, tasks
from skillfactory.errors import QuestionError, SkillFactoryError
from skillfactory.tasks import base, reasoning_gym
from skillfactory.tasks.base import Task
from skillfactory.tasks.params import Params
from skillfactory.tasks.questions import grade

LIBRARY = "reasoning_gym"
MEMBER = "chain_sum"  # of that library, the example


def tasks_facts() -> list[dict[str, Any]]:
    """Each registered task in full; see `task_facts`."""
    return [task_facts(name) for name in tasks.names()]


def tasks_in_brief() -> list[dict[str, Any]]:
    """Each registered task with one example, of its first level."""
    found = []
    for name in tasks.names():
        example = _example(name, next(iter(tasks.levels(name).values()), {}))
        found.append(_summary(name) | ({"example": example} if example else {}))
    return found


def task_facts(name: str) -> dict[str, Any]:
    """One task: what it is, its parameters and levels, and examples with the grade of their reference answers.

    There is an example a level. Where a task needs a library that is not there, or something that only the user can
    give, there are none. Raises QuestionError for an unknown name.
    """
    facts = _summary(name)
    wanted = facts["levels"] or {"": {}}
    examples = [each for params in wanted.values() if (each := _example(name, params))]
    return facts | ({"example": examples[0], "examples": examples} if examples else {})


def _summary(name: str) -> dict[str, Any]:
    family, _, member = name.partition(":")
    if family == LIBRARY:
        return _library(member)
    if name not in tasks.names():
        tasks.get(name)  # raises, naming the nearest
    task = _instance(name, {})
    return {
        "name": name,
        "about": _about(name),
        "graded_by": _graded_by(task),
        "parameters": _parameters(task),
        "levels": {label: dict(params) for label, params in tasks.levels(name).items()},
    }


def _library(member: str) -> dict[str, Any]:
    """The tasks of reasoning-gym: all their names, or one with its parameters."""
    facts = {"name": LIBRARY, "about": _about(LIBRARY), "graded_by": "its scorer", "parameters": [], "levels": {}}
    if not member:
        return facts | {"members": reasoning_gym.names()}
    given = reasoning_gym.parameters(member)
    shown = [{"parameter": key, "default": repr(default), "what": ""} for key, default in given.items()]
    return facts | {"name": f"{LIBRARY}:{member}", "parameters": shown}


def _instance(name: str, params: Mapping[str, Any]) -> Task:
    """The task; one that needs a file gets the name of one, which is not read."""
    try:
        return tasks.get(name, **params)
    except QuestionError:
        return tasks.get(name, **{"path": f"questions.{name}", **params})


def _example(name: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        task = _instance(f"{LIBRARY}:{MEMBER}" if name == LIBRARY else name, params)
        question = task.example() if hasattr(task, "example") else task.generate(1, seed=0)[0]
    except (SkillFactoryError, TypeError):
        return None
    return {
        "text": question.text,
        "answer": question.answer,
        "level": question.level,
        "outcome": grade(task, question, f"<answer>{question.answer}</answer>").outcome,
    }


def _about(name: str) -> str:
    """The first line of what a task's factory or module says."""
    factory = base.factory(name)
    said = factory if not inspect.isclass(factory) else sys.modules[factory.__module__]
    return (inspect.getdoc(said) or "").partition("\n")[0]


def _graded_by(task: Task) -> str:
    if hasattr(getattr(task, "params", None), "grade"):
        return "the setting `grade`"
    return str(getattr(getattr(task, "about", None), "rule", "")) or "its verifier"


def _parameters(task: Task) -> list[dict[str, str]]:
    params = getattr(task, "params", None)
    if not isinstance(params, Params):
        return []
    return [
        {
            "parameter": name,
            "default": "required" if field.is_required() else repr(field.default),
            "what": field.description or "",
        }
        for name, field in type(params).model_fields.items()
    ]


def recipe_facts() -> list[dict[str, str]]:
    """Each recipe that comes with the package, and each in ./recipes: name, first comment, file."""
    local = {str(path): path for path in sorted(Path("recipes").glob("*.yaml"))}
    shipped = recipes.shipped()
    same = {path.resolve() for path in shipped.values()}
    found = shipped | {name: path for name, path in local.items() if path.resolve() not in same}
    return [{"recipe": name, "what": _first_comment(path), "file": str(path)} for name, path in found.items()]


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    first = next((line for line in lines if not line.startswith("# yaml-language-server:")), "")
    return first.lstrip("# ").strip() if first.startswith("#") else ""
