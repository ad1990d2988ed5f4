"""Worked examples for prompts (method `bolt`): a file of questions with long responses, put before each question.

The file is YAML, a list of `{question, response}`, or JSON lines of the same. A response thinks at length and ends in
`<answer>…</answer>`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skillfactory.curation.prompts import Example as Turn
from skillfactory.curation.prompts import Prompt, Prompts, read_yaml
from skillfactory.errors import RecipeError
from skillfactory.plain_yaml import read_text
from skillfactory.tasks.answers import extract_answer

VARIANT = "bolt"
KINDS = (".yaml", ".yml", ".jsonl", ".json")
SYSTEM = (
    "You solve questions by thinking aloud, at length, before you answer. Open with <think>. Make a plan, try what it "
    "says, check every result, and where a try fails say so and go back to another one. When a check holds, write "
    "</think>, and then the final answer alone between <answer> and </answer>. Your replies so far show how."
)
_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")  # which YAML would read as a plain end of line
_PACKAGE = Path(__file__).parents[1]
_KEYS = ("question", "response")


@dataclass(frozen=True, slots=True)
class Example:
    """A question and a response as a model is to write it."""

    question: str
    response: str


@cache
def load_examples(path: str) -> tuple[Example, ...]:
    """The examples of a file, or shipped ones by their name. Raises RecipeError naming file, row and key."""
    file = find_examples(path)
    rows = _lines(file) if file.suffix in (".jsonl", ".json") else read_yaml(str(file), "")
    if not isinstance(rows, list):
        raise RecipeError(f"Examples {path}: not a list; give a list of examples with `question` and `response`.")
    if not rows:
        raise RecipeError(
            f"Examples {path}: the file holds none; write some by hand, or with `skillfactory examples RECIPE {path}`."
        )
    found = tuple(_example(path, number, row) for number, row in enumerate(rows, start=1))
    first: dict[str, int] = {}
    for number, example in enumerate(found, start=1):
        if first.setdefault(example.question, number) != number:
            raise RecipeError(
                f"Examples {path}, row {number}: the same question as in row {first[example.question]}; remove one."
            )
    return found


def find_examples(path: str) -> Path:
    """The file that a recipe names. Raises RecipeError where it is of no known kind."""
    file = Path(path).expanduser()
    if file.suffix in KINDS:
        return file
    known = shipped()
    if path not in known:
        raise RecipeError(
            f"Examples {path}: no known kind of file; give one of {', '.join(KINDS)}, or the name of shipped ones "
            f"({', '.join(known)})."
        )
    return known[path]


def shipped() -> dict[str, Path]:
    """The examples that come with the package, by name."""
    folders = (_PACKAGE / "shipped_recipes" / "examples", _PACKAGE.parent / "recipes" / "examples")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))} if folder else {}


def problem_of(response: str) -> str:
    """Why a response can be no example; "" where it can."""
    if not response.rstrip().endswith("</answer>"):
        return "does not end in `</answer>`"
    if extract_answer(response) is None:
        return "has no answer between <answer> and </answer> after its thinking"
    return ""


def with_examples(prompts: Prompts, examples: Sequence[Example]) -> Prompts:
    """The prompts with one more variant, `bolt`: the examples as earlier turns of the chat, then the question.

    Raises RecipeError where the prompts have a variant of that name.
    """
    if VARIANT in prompts.variants:
        raise RecipeError(
            f"attempts.prompts: the file has a variant `{VARIANT}`, the name of the one with worked examples; give it "
            "another name."
        )
    turns = tuple(Turn(user=example.question, assistant=example.response) for example in examples)
    added = Prompt(system=SYSTEM, examples=turns, user="{question}")
    return prompts.model_copy(update={"variants": {**prompts.variants, VARIANT: added}})


def written(examples: Sequence[Example], path: Path) -> bytes:
    """The content of a file of that name, as load_examples reads it."""
    rows = [asdict(example) for example in examples]
    if path.suffix in (".jsonl", ".json"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return yaml.dump(rows, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120).encode()


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if _OTHER_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _lines(file: Path) -> list[Any]:
    try:
        lines = read_text(file).removeprefix("\ufeff").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(f"Examples {file} cannot be read: {why}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"Examples {file}, line {number}: not JSON; give one object a line.") from error
    return rows


def _example(path: str, number: int, row: Any) -> Example:
    where = f"Examples {path}, row {number}"
    if not isinstance(row, dict):
        raise RecipeError(f"{where}: not a mapping; give it `question` and `response`.")
    if other := next((key for key in row if key not in _KEYS), None):
        raise RecipeError(f"{where}: unknown key `{other}`; there are: {', '.join(_KEYS)}.")
    for key in _KEYS:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise RecipeError(f"{where}: `{key}` is {'missing' if key not in row else 'no text'}; give it a text.")
        if not _is_text(value):
            raise RecipeError(f"{where}: `{key}` holds half a surrogate pair, which is no text.")
    if problem := problem_of(row["response"]):
        raise RecipeError(f"{where}: `response` {problem}; end it in <answer>, the answer, </answer>.")
    return Example(row["question"].strip(), row["response"].strip())


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
