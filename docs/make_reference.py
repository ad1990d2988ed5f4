"""Make docs/reference.md from the code: recipe, commands, tasks, answer extraction, records.

    python docs/make_reference.py

Nothing in that page is written by hand, and `tests/test_docs.py` fails when it is not what this script makes. The
results in the tables of answers are not stated here: they are what the graders say.
"""

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from skillfactory import errors, methods, pipeline, records, tasks
from skillfactory.catalog import tasks_facts
from skillfactory.cli import app
from skillfactory.recipe import Recipe
from skillfactory.tasks.answers import extract_answer

PAGE = Path(__file__).parent / "reference.md"

HEAD = """\
# Reference

Made from the code by `python docs/make_reference.py`; do not edit it by hand.

Contents: [recipe](#recipe), [methods and stages](#methods-and-stages), [commands](#commands),
[exit codes](#exit-codes), [tasks](#tasks), [how an answer is read](#how-an-answer-is-read), [records](#records).

## Recipe

A recipe is a YAML file. Any setting can be given on the command line as `section.key=value`, the value in YAML. What is
not given has the default below, which is the paper's value where the paper names one. Unknown keys are refused.
*(speed)*: changes how fast a stage runs, not what it makes, so it may change between two starts of one run.
"""

COMMANDS = """\
## Commands

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

ANSWERS = """\
## How an answer is read

One rule for every task, attempt, reward and evaluation (`skillfactory/tasks/answers.py`). The tables show what the code
says of each case; `↵` is a line break.
"""

# What a completion may look like -> what is read from it.
CASES = [
    ("plain", "It is <answer>42</answer>"),
    ("several: the last complete one", "<answer>1</answer> no, <answer>2</answer>"),
    ("an opening tag inside: the innermost", "<answer>1 <answer>2</answer>"),
    ("cut inside the tag", "<answer>1</answer> or <answer>2"),
    ("no tag", "The answer is 42."),
    ("empty tag", "<answer> </answer>"),
    ("after thinking", "<think><answer>1</answer></think><answer>2</answer>"),
    ("only inside thinking", "<think><answer>1</answer></think> done"),
    ("cut inside thinking", "<think><answer>1</answer>"),
    ("thinking again after the answer, cut", "<think>a</think><answer>1</answer><think>b"),
    ("thinking opened by the prompt", "hm</think><answer>2</answer>"),
    ("dollar signs", "<answer>$$42$$</answer>"),
    ("code fence", "<answer>```python\n42\n```</answer>"),
    ("back-ticks", "<answer>`42`</answer>"),
    ("tag in capitals", "<ANSWER>42</ANSWER>"),
    ("more than 2,000 characters", f"<answer>{'1' * 2001}</answer>"),
]
# (task, its parameters, data of the question, answers)
GRADED: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (
        "countdown", {}, {"numbers": [3, 4, 2], "target": 14},
        ["3 * 4 + 2", "2 + (4 * 3)", "3 * 4 + 2 = 14", "3 × 4 + 2", "3 * 4 + 2 = 15", "3 * 4", "14", "7 * 2",
         "3 * 4 + 2 + 2", "3 * 4 +", "3 ** 4", "4 / (3 - 3)"],
    ),
    ("countdown", {"use_all": True}, {"numbers": [3, 4, 1], "target": 12}, ["3 * 4", "3 * 4 * 1"]),
    (
        "countdown", {"operators": "+-", "in_order": True}, {"numbers": [12, 4, 2], "target": 10},
        ["12 - 4 + 2", "12 + 2 - 4", "12 - (4 - 2)", "-4 + 12 + 2", "12 * 4 - 38"],
    ),
    (
        "multiplication", {}, {"a": 12, "b": 34},
        ["408", "12 * 34 = 408", "408.0", "12 * 34", "four hundred and eight"],
    ),
    (
        "jsonl", {"path": "questions.jsonl"}, {"question": "What is the capital of Peru?", "answer": "Lima"},
        ["Lima", "lima.", "  LIMA ", "Lima, Peru"],
    ),
    (
        "jsonl", {"path": "questions.jsonl", "grade": "number"}, {"question": "Half of 2401?", "answer": "1,200.5"},
        ["1200.5", "2401/2", "x = 1200.50", "$1,200.5$", "1200", "about 1200.5", "1.2005e3"],
    ),
]  # fmt: skip


def make() -> str:
    """The whole page."""
    parts = [HEAD, *_recipe(), *_methods(), COMMANDS, *_commands(), EXITS, *_errors(), *_tasks(), ANSWERS, *_answers()]
    return "\n".join([*parts, *_records()]).rstrip() + "\n"


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
    parts = ["### Top level\n", _settings(top, "")]
    for name, field in Recipe.model_fields.items():
        if section := _section(field):
            parts += [f"### {name}\n", _settings(section.model_fields, f"{name}.")]
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
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    kind = names.get(field.annotation, "list of texts" if get_origin(field.annotation) is list else "mapping")  # type: ignore[arg-type]
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
            [_code(name), _code(spec.module), ", ".join(spec.inputs) or "–", ", ".join(map(_code, spec.settings))]
            for name, spec in pipeline.STAGES.items()
        ],
    )
    rows = [[_code(name), ", ".join(stages)] for name, stages in methods.METHODS.items()]
    return ["## Methods and stages\n", _table(["method", "stages"], rows), stages]


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
        parts += [f"### {name}\n", f"`{usage}`. {about}\n", _table(["argument or option", "default", "meaning"], rows)]
    return parts


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper() + ("…" if parameter.nargs == -1 else "")).replace("...", "…")
    return str(name if parameter.required or name.startswith("[") else f"[{name}]")


def _errors() -> list[str]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    return [_table(["error", "meaning"], [[_code(k.__name__), " ".join((k.__doc__ or "").split())] for k in kinds])]


def _tasks() -> list[str]:
    parts = ["## Tasks\n", "What goes under `task: {name: …, params: …}`. Also: `skillfactory tasks`.\n"]
    for each in tasks_facts():
        rows = [[_code(p["parameter"]), _code(p["default"]), p["what"]] for p in each["parameters"]]
        parts += [f"### {each['name']}\n", f"{each['about'].rstrip('.')}. Graded by {each['graded_by']}.\n"]
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


def _answers() -> list[str]:
    read = [(about, text, extract_answer(text)) for about, text in CASES]
    rows = [
        [about, _code(text if len(text) < 80 else f"{text[:20]}…"), "none" if answer is None else _code(answer)]
        for about, text, answer in read
    ]
    parts = [_table(["case", "completion", "answer"], rows)]
    parts.append(
        "Without an answer the outcome is `no_answer`: no reward, and counted apart from `wrong`. The answer that was\n"
        "read is then graded by the task:\n"
    )
    graded = []
    for name, params, data, answers in GRADED:
        task = tasks.get(name, **params)
        question = task.make(**data)
        told = "; ".join(f"{key} {value}" for key, value in (data | params).items() if key != "path")
        for answer in answers:
            grade = task.grade(question, f"<answer>{answer}</answer>")
            graded.append([f"{name}: {told}", _code(answer), grade.outcome, grade.reason.replace("_", " ")])
    parts.append(_table(["question", "answer", "outcome", "reason"], graded))
    return parts


def _records() -> list[str]:
    parts = ["## Records\n", "One row of a Parquet file each (`skillfactory/records.py`).\n"]
    for kind in (records.Question, records.Attempt, records.Reflection, records.Trace, records.Step, records.Response):
        columns = ", ".join(_code(field.name) for field in fields(kind))
        parts += [f"**{kind.__name__}**: {inspect.getdoc(kind)}", f"{columns}\n"]
    return parts


if __name__ == "__main__":
    PAGE.write_text(make(), encoding="utf-8")
    print(f"Wrote {PAGE}")
