"""Make docs/reference/ from the code: recipe, commands, tasks, Python.

    python docs/make_reference.py

Nothing in these pages is written by hand, and `tests/test_docs.py` fails when they are not what this script makes.
"""

import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import from_code
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from skillfactory import errors, methods, pipeline
from skillfactory.catalog import tasks_facts
from skillfactory.cli import app
from skillfactory.recipe import Recipe

FOLDER = Path(__file__).parent / "reference"

MADE = "Made from the code by `python docs/make_reference.py`; do not edit it by hand.\n"

RECIPE = f"""\
# Recipe

{MADE}
A recipe is a YAML file. Any setting can be given on the command line as `section.key=value`, the value in YAML. What is
not given has the default below, which is the paper's value where the paper names one. Unknown keys are refused.
*(speed)*: changes how fast a stage runs, not what it makes, so it may change between two starts of one run.
"""

COMMANDS = f"""\
# Command line

{MADE}
`skillfactory COMMAND --help` says the same. `python -m skillfactory` does as well as `skillfactory`.
"""

EXITS = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug, with a traceback |
| 2 | a mistake that the message says how to mend |
| 130, 143 | stopped by Ctrl-C or SIGTERM; finished work is kept, and the same command goes on |

Errors of the second kind, in Python `skillfactory.errors`:
"""


def make() -> dict[str, str]:
    """The pages, by file name."""
    parts = {
        "recipe.md": [RECIPE, *_recipe(), *_methods()],
        "commands.md": [COMMANDS, *_commands(), EXITS, *_errors()],
        "tasks.md": _tasks(),
        "python.md": [from_code.PYTHON, MADE, *from_code.functions(), *from_code.rows()],
        "deviations.md": [from_code.DEVIATIONS, MADE, *from_code.deviations()],
    }
    return {name: "\n".join(each).rstrip() + "\n" for name, each in parts.items()}


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)]) + "\n"


def _code(text: object) -> str:
    """Inline code, with line breaks shown; text that holds back-ticks gets longer ones around it."""
    shown = str(text).replace("\n", "↵")
    fence = "`" if "`" not in shown else "````" if "```" in shown else "``"
    return f"{fence} {shown} {fence}" if shown[:1] == "`" or shown[-1:] == "`" else f"{fence}{shown}{fence}"


def _recipe() -> list[str]:
    top = {name: field for name, field in Recipe.model_fields.items() if not _section(field)}
    parts = ["## Top level\n", _settings(top, "")]
    for name, field in Recipe.model_fields.items():
        if section := _section(field):
            parts += [f"## {name}\n", _settings(section.model_fields, f"{name}.")]
    return parts


def _settings(shown: dict[str, FieldInfo], prefix: str) -> str:
    return _table(["key", "value", "default", "meaning"], _rows(shown, prefix))


def _rows(shown: dict[str, FieldInfo], prefix: str) -> list[list[str]]:
    rows = []
    for name, field in shown.items():
        inner = _section(field)
        named = get_args(field.annotation)[1] if get_origin(field.annotation) is dict else None
        if isinstance(named, type) and issubclass(named, BaseModel):
            rows.append([_code(prefix + name), "named sections", "required", field.description or ""])
            rows += _rows(named.model_fields, f"{prefix}{name}.NAME.")
        elif inner:
            rows += _rows(inner.model_fields, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra
            speed = " *(speed)*" if isinstance(extra, dict) and extra.get("speed") else ""
            rows.append([_code(prefix + name), _kind(field), _default(field), f"{field.description}{speed}"])
    return rows


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _kind(field: FieldInfo) -> str:
    """The type of a setting with its limits."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(_code(value) for value in get_args(field.annotation))
    if get_origin(field.annotation) is UnionType:
        return "text, or mapping to weights"
    if get_origin(field.annotation) is list:
        inner = get_args(field.annotation)[0]
        if get_origin(inner) is Literal:
            return f"list of {', '.join(_code(value) for value in get_args(inner))}"
        return "list of whole numbers" if inner is int else "list of texts"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    kind = names.get(field.annotation, "mapping")  # type: ignore[arg-type]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [f"{signs[key]} {value:g}" for each in field.metadata for key, value in _limits(each) if key in signs]
    return f"{kind} {', '.join(limits)}".strip()


def _limits(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, getattr(metadata, key)) for key in ("ge", "gt", "le", "lt") if hasattr(metadata, key)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, list):
        return ", ".join(map(_code, value))
    if isinstance(value, bool):
        return _code(str(value).lower())
    return _code(f"{value:g}" if isinstance(value, float) else value) if value not in ("", {}) else "none"


def _methods() -> list[str]:
    stages = _table(
        ["stage", "module", "reads", "result depends on"],
        [
            [
                _code(name),
                _code(spec.module) if spec.module else f"filled by {_code(spec.filled_by)}",
                ", ".join(spec.inputs) or "–",
                ", ".join(map(_code, spec.settings)),
            ]
            for name, spec in pipeline.STAGES.items()
        ],
    )
    rows = [
        [_code(name), method.about, ", ".join(methods.stages(_example(name))), ", ".join(map(_code, _decides(name)))]
        for name, method in methods.METHODS.items()
    ]
    about = (
        "What a method decides takes the place of what the recipe says. Of a method of several rounds the stages of "
        "the earlier ones carry a number.\n"
    )
    return [
        "## Methods and stages\n",
        about,
        _table(["method", "what", "stages", "decides"], rows),
        stages,
    ]


def _example(method: str) -> Recipe:
    task = {"name": "countdown"}
    return Recipe.model_validate(
        {"name": "any", "method": method, "questions": {"task": task}, "evaluation": {"sets": {"any": {"task": task}}}}
    )


def _decides(method: str) -> list[str]:
    found = methods.METHODS[method]
    return list(dict.fromkeys([*found.settings(_example(method)), *found.again(_example(method))]))


def _commands() -> list[str]:
    parts = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["skillfactory", name, *map(_argument, arguments)])
        rows = [[_code(_argument(p)), "", p.help or ""] for p in arguments]
        for option in command.params:
            if option.param_type_name == "option":
                default = "" if option.is_flag or option.default is None else _code(option.default)
                rows.append([_code(", ".join(option.opts)), default, option.help or ""])
        about = inspect.cleandoc(command.help or "")
        parts += [f"## {name}\n", f"`{usage}`. {about}\n", _table(["argument or option", "default", "meaning"], rows)]
    return parts


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper() + ("…" if parameter.nargs == -1 else "")).replace("...", "…")
    return str(name if parameter.required or name.startswith("[") else f"[{name}]")


def _errors() -> list[str]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    return [_table(["error", "meaning"], [[_code(k.__name__), " ".join((k.__doc__ or "").split())] for k in kinds])]


def _tasks() -> list[str]:
    parts = ["# Tasks\n", MADE, "What goes under `task: {name: …, params: …}`. Also: `skillfactory tasks`.\n"]
    for each in tasks_facts():
        rows = [[_code(p["parameter"]), _code(p["default"]), p["what"]] for p in each["parameters"]]
        parts += [f"## {each['name']}\n", f"{each['about'].rstrip('.')}. Graded by {each['graded_by']}.\n"]
        if rows:
            parts.append(_table(["parameter", "default", "meaning"], rows))
        if members := each.get("members"):
            parts.append(
                f"{len(members)} tasks, with the parameters that `skillfactory tasks {each['name']}:NAME` shows:"
            )
            parts.append(f"{', '.join(map(_code, members))}.\n")
        if each["levels"]:
            rows = [[name, _code(json.dumps(params))] for name, params in each["levels"].items()]
            parts.append(_table(["level", "params"], rows))
        for example in each.get("examples", ()):
            told = f"```text\n{example['text']}\n\n<answer>{example['answer']}</answer>\n```\n"
            parts.append(f"For example ({example['level']}), {example['outcome']}:\n\n{told}")
    return parts


if __name__ == "__main__":
    for name, text in make().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"Wrote {FOLDER / name}")
