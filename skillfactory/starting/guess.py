"""Guesses about a file of questions: which columns hold what, and how its answers are best compared."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from skillfactory.starting.look import Look
from skillfactory.tasks import texts
from skillfactory.tasks.published import boxed

QUESTION = ("question", "problem", "query", "prompt", "instruction", "input", "text", "task", "exercise")
ANSWER = (
    "answer", "final_answer", "expected_answer", "ground_truth", "reference_answer", "target", "label", "gold",
    "correct_answer", "answerkey", "answer_key", "expected", "reference", "solution", "response", "output",
)  # fmt: skip
CHOICES = ("choices", "options")
RULES = {
    "exact": "the same text, but for case and spaces",
    "number": "the same number: 12, -1,200, 0.5, 1/2",
    "math": "equal as mathematics, by math-verify",
    "choice": "the letter or the text of one of the options",
    "package.module.fn": "a function of yours, (question, answer) -> bool",
}
_SAMPLE = 500  # answers that a guess looks at
_LONG = 40  # letters of an answer beyond which comparing it letter by letter is of little use
_MATH = re.compile(r"[\\^_{}=√π]|\d\s*[a-z]\b|\bsqrt\b|\bpi\b")


@dataclass(frozen=True)
class Columns:
    """The columns to read; "" for one that is not known, or of choices not there."""

    question: str
    answer: str
    choices: str = ""


def columns_of(look: Look) -> Columns:
    """The columns whose names, and what they hold, are most like questions and their answers."""
    question = _named(look, QUESTION, _is_text)
    answer = _named(look, [name for name in ANSWER if name != question.lower()], _is_text)
    return Columns(question, answer, _named(look, CHOICES, lambda value: bool(options_of(value))))


def _named(look: Look, names: Sequence[str], fits: Any) -> str:
    """The first column that has one of the names, in their order, and holds what fits."""
    there = {column.strip().lower().replace(" ", "_"): column for column in reversed(look.columns)}
    found = (there[name] for name in names if name in there)
    return next((column for column in found if any(map(fits, look.values(column)[:_SAMPLE]))), "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def options_of(value: Any) -> list[str]:
    """The options of a cell: a list of texts, or such a list under `text` beside its labels; [] for anything else."""
    value = _read(value)
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, list) and len(value) > 1 and all(map(_is_text, value)) else []


def labels_of(value: Any) -> list[str]:
    """The labels of the options of a cell, where it has its own."""
    value = _read(value)
    labels = value.get("label") if isinstance(value, dict) else None
    return labels if isinstance(labels, list) and all(map(_is_text, labels)) else []


def _read(value: Any) -> Any:
    """A cell, read as JSON where it is text that may be a list or an object (a cell of a CSV file)."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return value


def bare(answer: str) -> str:
    """The answer that ends a worked solution: after the last `####`, or in its last box; else the text itself."""
    marked = answer.rpartition("####")[2].strip() if "####" in answer else ""
    return marked or next(iter(reversed([each for each in boxed(answer) if each])), answer)


def _answers(look: Look, columns: Columns) -> list[str]:
    """Some answers of rows that have a question."""
    whole = [row for _, row in look.rows if _is_text(row.get(columns.question)) and _is_text(row.get(columns.answer))]
    return [bare(row[columns.answer]) for row in whole[:_SAMPLE]]


def rule_of(look: Look, columns: Columns) -> str:
    """How to compare answers: one of grading's rules, by what they look like."""
    if columns.choices:
        return "choice"
    answers = _answers(look, columns)
    numbers = sum(texts.number(answer) is not None for answer in answers)
    if answers and numbers == len(answers):
        return "number"
    math = sum(texts.number(answer) is not None or bool(_MATH.search(answer)) for answer in answers)
    return "math" if answers and math >= 0.8 * len(answers) else "exact"


def doubts(look: Look, columns: Columns, rule: str) -> str:
    """One sentence where answers will seldom be met by the rule; "" else."""
    lengths = [len(answer) for answer in _answers(look, columns)]
    if rule == "exact" and lengths and median(lengths) > _LONG:
        return (
            f"The answers have {median(lengths):.0f} letters in the middle: few responses will be just that. "
            "Shorten them to the bare answer, or give --grade a function of your own, package.module.function."
        )
    return ""
