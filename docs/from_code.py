"""What docs/make_reference.py takes from docstrings: functions and records for programs, deviations from the paper."""

import ast
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import skillfactory
from skillfactory import pipeline, recipes, records, tasks
from skillfactory.training.deviations import STANDING

PACKAGE = Path(skillfactory.__file__).parent
RECORDS = (
    records.Question, records.Grade, records.Attempt, records.Reflection, records.Trace, records.Step, records.Response,
)  # fmt: skip
PUBLIC: dict[str, Any] = {
    "skillfactory.load_run": skillfactory.load_run,
    "skillfactory.LoadedRun": skillfactory.LoadedRun,
    "skillfactory.tasks.get": tasks.get,
    "skillfactory.tasks.Task": tasks.Task,
    "skillfactory.recipes.load_recipe": recipes.load_recipe,
    "skillfactory.pipeline.run": pipeline.run,
}
# Where docstrings say what is done otherwise: a module, or FILE:FUNCTION. They are read, not imported (torch).
DEVIATING = {
    "Attempts": "curation/attempts.py",
    "Reflections": "curation/reflections.py",
    "Phrases": "curation/phrases.py",
    "The pattern fail_first": "curation/patterns.py:fail_first",
    "Traces": "curation/traces.py",
    "Samples made elsewhere": "curation/given.py",
    "RL": "training/rl.py",
    "Budget forcing": "evaluation/forcing.py",
    "STaR": "methods/star.py",
    "BOLT": "methods/bolt.py",
    "SFT by LLaMA-Factory": "training/elsewhere/llamafactory.py",
    "RL by verl": "training/elsewhere/verl.py",
}
_DEVIATION = re.compile(r"Deviations?( from [^:]+)?:\s+")

PYTHON = """\
# Python

What is kept stable for programs: rows and figures of runs, tasks and their grading, recipes.
[Errors](commands.md#exit-codes) are those of the command line.
"""

DEVIATIONS = """\
# Deviations

Where this code does otherwise than the paper, or than the authors' code, by stage. What a recipe sets otherwise is
said by each run.
"""


def deviations() -> list[str]:
    """What the docstrings say after the word, a section each."""
    parts = []
    for title, place in DEVIATING.items():
        _, what, told = _DEVIATION.split(_docstring(place), maxsplit=1)
        parts += [f"## {title}\n", f"Deviations{what}:\n" if what else "", f"{told[0].upper()}{told[1:].rstrip()}\n"]
    standing = "\n".join(f"{number}. {text}" for number, text in enumerate(STANDING, start=1))
    return [part for part in parts if part] + [f"## Every training\n\n{standing}\n"]


def _docstring(place: str) -> str:
    file, _, function = place.partition(":")
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    found = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function]
    return ast.get_docstring(found[0] if function else tree) or ""


def functions() -> list[str]:
    """Functions, and classes with their methods."""
    parts = []
    for name, found in PUBLIC.items():
        parts += [f"## {name}\n", f"{_signature(name, found)}\n", f"{inspect.getdoc(found)}\n"]
        if inspect.isclass(found):
            told = [(each, inspect.getdoc(each) or "") for key, each in vars(found).items() if key[0] != "_"]
            parts += [
                f"- {_signature(f'.{_plain(each).__name__}', each)}: {_indented(doc)}" for each, doc in told if doc
            ]
            parts.append("")
    return parts


def _signature(name: str, found: Any) -> str:
    """How it is called, as the code has it; of a property the type alone."""
    if inspect.isclass(found):
        return f"Class {_code(name)}"
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(_plain(found)))).body
    assert isinstance(definition, ast.FunctionDef)
    returned = ast.unparse(definition.returns).strip("'") if definition.returns else "None"
    if isinstance(found, property):
        return _code(f"{name}: {returned}")
    arguments = ast.unparse(definition.args).removeprefix("self").removeprefix(", ")
    return _code(f"{name}({arguments}) -> {returned}")


def _code(text: str) -> str:
    return f"`{text}`"


def _plain(found: Any) -> Any:
    return found.fget if isinstance(found, property) else found


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ").lstrip()


def rows() -> list[str]:
    parts = ["## Records\n", "One row of a Parquet file each (`skillfactory.records`).\n"]
    for kind in RECORDS:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        types = {each.target.id: ast.unparse(each.annotation) for each in body.body if isinstance(each, ast.AnnAssign)}  # type: ignore[attr-defined,union-attr]
        columns = ", ".join(_code(f"{field.name}: {types[field.name]}") for field in fields(kind))
        parts += [f"### {kind.__name__}\n", f"{inspect.getdoc(kind)}\n", f"{columns}\n"]
    return parts
