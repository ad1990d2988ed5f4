"""The user's own questions: a JSONL file with `question` and `answer` in every row, and `level` where wanted.

Generated tasks decide by hash in which split a question may be used; a file of 300 rows cannot afford that. So a file
is put in a seeded order and dealt out in consecutive blocks of exactly the sizes that a recipe asks for (`allot`).
"""

import json
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from re import compile as pattern
from typing import Any, Literal

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks.answers import extract_answer, has_trace_tags
from skillfactory.tasks.base import SHARES, register
from skillfactory.tasks.params import Params, params_of

_NUMBER = pattern(r"([-+]?)\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:\s*/\s*([0-9]+))?")
_LONGEST_NUMBER = 100
_HOMES = [split for split, share in SHARES.items() if split != "pretrain" for _ in range(share)]


class JsonlParams(Params):
    """Settings of the jsonl task."""

    path: str = Field(min_length=1, description="The file, from the working directory; one JSON object a line.")
    grade: Literal["exact", "number"] = Field(
        "exact",
        description="`exact`: the same text but for case, spaces and a final full stop; `number`: the same number "
        "(12, -1,200, 0.5, 1/2).",
    )


@register("jsonl")
class Jsonl:
    """See JsonlParams for the settings. The file is read when its questions are first needed."""

    name = "jsonl"

    def __init__(self, **params: Any) -> None:
        self.params = params_of("jsonl", JsonlParams, params)
        self.level = Path(self.params.path).stem

    @cached_property
    def questions(self) -> list[Question]:
        """All questions of the file, in its order. Raises QuestionError naming file and row."""
        found: dict[str, Question] = {}
        rows: dict[str, int] = {}
        for row, data in self._rows():
            try:
                question = self.make(**data)
            except QuestionError as error:
                raise QuestionError(f"{self.params.path}, row {row}: {error}") from error
            if question.id in found:
                raise QuestionError(
                    f"{self.params.path}, row {row}: the same question as in row {rows[question.id]}; remove one."
                )
            rows[question.id] = row
            found[question.id] = replace(question, data=json.dumps({"row": row}))
        if not found:
            raise QuestionError(
                f"{self.params.path} holds no questions; give one JSON object with `question` and `answer` a line."
            )
        return list(found.values())

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` questions in a seeded order; with a split, of those at home in it by hash. Recipes use `allot`."""
        pool = [q for q in self.questions if not split or _HOMES[int(q.id, 16) % len(_HOMES)] == split]
        if n > len(pool):
            where = f" that belong to the {split} split" if split else ""
            raise QuestionError(
                f"{self.params.path} holds {len(pool)} questions{where}, {n} wanted; ask for fewer or add some."
            )
        return _ordered(pool, seed)[:n]

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Disjoint questions for each name in `counts`, in the order given, none with an id in `exclude`.

        "dev" is served last and gets what is left where that is less: it chooses settings, no result rests on it.
        Raises QuestionError saying how many there are where they do not suffice.
        """
        pool = _ordered([q for q in self.questions if q.id not in exclude], seed)
        needed = sum(n for name, n in counts.items() if name != "dev")
        if needed > len(pool):
            shared = len(self.questions) - len(pool)
            asked = ", ".join(f"{name} {n}" for name, n in counts.items() if name != "dev")
            raise QuestionError(
                f"{self.params.path} has {len(pool)} questions to give"
                + (f" ({shared} more are in other evaluation sets)" if shared else "")
                + f", but the recipe asks for {needed} ({asked}); ask for fewer or add questions."
            )
        allotted: dict[str, list[Question]] = {}
        start = 0
        for name in sorted(counts, key=lambda name: name == "dev"):
            allotted[name] = pool[start : start + counts[name]]
            start += counts[name]
        return allotted

    def make(self, /, *, question: Any = None, answer: Any = None, level: Any = None, **others: Any) -> Question:
        """One question from a row; columns beyond `question`, `answer` and `level` are left alone."""
        for key, value in (("question", question), ("answer", answer)):
            if value is None:
                near = f" (it has: {', '.join(others)})" if others else ""
                raise QuestionError(f"`{key}` is missing or null{near}.")
            if not isinstance(value, str):
                raise QuestionError(
                    f"`{key}` must be text{' or a number' if key == 'answer' else ''}, not {_kind(value)}."
                )
            if not value.strip():
                raise QuestionError(f"`{key}` is empty.")
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise QuestionError(f"`{key}` holds half a surrogate pair, which is no text; write the letter itself.")
        if level is not None and not isinstance(level, str):
            raise QuestionError(f"`level` must be text, not {_kind(level)}.")
        made = Question(
            id=seeds.content_id("jsonl", " ".join(question.split())),
            task=self.name,
            level=level or self.level,
            text=question.strip(),
            answer=answer.strip(),
            data="{}",
        )
        if "<answer>" in made.answer or "</answer>" in made.answer or has_trace_tags(made.answer):
            raise QuestionError("`answer` holds a tag such as <answer>; give the bare answer.")
        if self.grade(made, f"<answer>{made.answer}</answer>").outcome != "correct":
            mend = "; give a number or set the task's `grade: exact`" if self.params.grade == "number" else ""
            raise QuestionError(f"the answer {made.answer[:80]!r} fails its own check{mend}.")
        return made

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is the reference answer, by the rule of the `grade` setting."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        reference = extract_answer(f"<answer>{question.answer}</answer>")  # so that both lose the same fences and $
        if self.params.grade == "exact":
            return Grade("correct" if reference is not None and plain(answer) == plain(reference) else "wrong", answer)
        given, wanted = number(answer), number(reference or "")
        if given is None:
            return Grade("wrong", answer, "not_a_number")
        return Grade("correct" if given == wanted else "wrong", answer)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number (from 1, blank lines counted) and JSON object of every row that is not blank."""
        path = self.params.path
        try:
            lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except OSError as error:
            raise QuestionError(f"Question file {path} cannot be read: {error.strerror}.") from error
        for row, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                # Numbers stay text, so that an answer 1.50 or 1e400 arrives as it was written.
                data = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=str)
            except UnicodeDecodeError as error:
                raise QuestionError(f"{path}, row {row}: not UTF-8 text.") from error
            except (ValueError, RecursionError) as error:
                raise QuestionError(f"{path}, row {row}: not JSON ({error}); give one object a line.") from error
            if not isinstance(data, dict):
                raise QuestionError(
                    f"{path}, row {row}: not a JSON object but {_kind(data)}; give `question` and `answer`."
                )
            yield row, data


def plain(answer: str) -> str:
    """An answer without what `exact` overlooks: case, spacing, a final full stop, Unicode forms."""
    return " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).removesuffix(".").rstrip()


def number(text: str) -> Fraction | None:
    """The exact value of a number in plain writing (what stands after the last `=`), or None."""
    text = text.rpartition("=")[2].strip().removesuffix(".").replace("−", "-").strip("$ ")
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if not match or (match[3] and not int(match[3])):
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1)
    return -value if match[1] == "-" else value


def _ordered(questions: list[Question], seed: int) -> list[Question]:
    """A seeded order that depends on the questions' content, not on their order in the file."""
    order = sorted(questions, key=lambda question: question.id)
    seeds.rng(seed, "jsonl").shuffle(order)
    return order


def _kind(value: object) -> str:
    return {bool: "true or false", list: "a list", dict: "an object", str: "text", type(None): "null"}.get(
        type(value), "that"
    )
