"""The user's own questions, from a JSONL, CSV or Parquet file: one question a row, graded in a way of their choice.

Columns: `question`, `answer`; `level` and `id` where wanted; `choices` for multiple choice. A question's identity is
its text (and its options), whatever the file's format, so that the same question in two files is known as the same.
"""

import json
import os
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline, grading, pool
from skillfactory.tasks.answers import extract_answer, has_trace_tags
from skillfactory.tasks.base import register
from skillfactory.tasks.overlap import text_key
from skillfactory.tasks.own_rows import READERS, columns, kind
from skillfactory.tasks.params import Params, params_of
from skillfactory.tasks.texts import plain, unwrapped

_MENDS = {
    "number": "give a number or set the task's `grade: exact`",
    "choice": "give the letter or the text of one of `choices`",
}


class OwnParams(Params):
    """Settings of the tasks jsonl, csv and parquet."""

    path: Annotated[str, AfterValidator(os.path.expanduser)] = Field(
        min_length=1, description="The file, from the working directory; one question a row."
    )
    grade: Annotated[str, AfterValidator(grading.known_rule)] = Field(
        "exact",
        description="`exact`: the same text but for case, spaces and a final full stop; `number`: the same number "
        "(12, -1,200, 0.5, 1/2); `math`: equal by math-verify; `choice`: the letter or text of the right option of "
        "`choices`; or a dotted path to your function (question, answer_text) -> bool.",
    )
    seconds: float = Field(
        grading.SECONDS, gt=0, le=600, description="Longest that one check by `math` or by a function may take."
    )


class Own:
    """See OwnParams for the settings. The file is read when its questions are first needed."""

    references_checked = True  # of all that the file holds, as they are read

    def __init__(self, name: str, **params: Any) -> None:
        self.name = name
        self.params = params_of(name, OwnParams, params)
        self.level = Path(self.params.path).stem
        self.rule = self.params.grade
        self.slow_checks = grading.is_slow(self.rule)

    @cached_property
    def questions(self) -> list[Question]:
        """All questions of the file, in its order, their references checked. Raises QuestionError naming the row."""
        if self._is_function:
            grading.check_function(self.rule)
        found: dict[str, tuple[Question, int]] = {}
        ids: dict[str, int] = {}
        keys: dict[str, int] = {}
        with closing(self._made()) as made:
            for row, question in made:
                if question.id in found:
                    raise self._error(row, f"the same question as in row {found[question.id][1]}; remove one.")
                if (same := keys.setdefault(text_key(question.text), row)) != row:
                    raise self._error(
                        row, f"the same question as in row {same} but for case, spacing or how it asks for the answer; "
                        "remove one or say in words what makes them differ.",
                    )  # fmt: skip
                found[question.id] = question, row
                own = json.loads(question.data).get("id") if '"id"' in question.data else None
                if own is not None and ids.setdefault(own, row) != row:
                    raise self._error(row, f"the same `id` as in row {ids[own]}, {own[:80]!r}; give each row its own.")
        if not found:
            raise QuestionError(
                f"{self.params.path} holds no questions; give one row with `question` and `answer` a question."
            )
        return [question for question, _ in found.values()]

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` questions in a seeded order; with a split, of those at home in it by hash. Recipes use `allot`."""
        return pool.generate(self.questions, self.params.path, n, seed, split)

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Disjoint questions for each name in `counts`; see pool.allot."""
        return pool.allot(self.questions, self.params.path, counts, seed, exclude)

    def make(
        self, /, *, question: Any = None, answer: Any = None, level: Any = None, id: Any = None, choices: Any = None,
        **others: Any,
    ) -> Question:  # fmt: skip
        """One question from a row. Raises QuestionError where something is missing or the answer fails its own check.

        Columns besides these are left alone; a grading function finds them in the question's `data`, as `columns`.
        """
        given = {"question": question, "answer": answer, "level": level, "id": id, "choices": choices}
        made = self._make(columns({**others, **given}))
        self._check(made)
        return made

    def example(self) -> Question:
        """The question of a row as such a file may have it."""
        return self.make(question="What is 15 % of 2,400?", answer="360", choices=["160", "360"])

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is the reference answer, by the rule of the `grade` setting."""
        return grading.grade_answer(self.rule, question, text, self.params.seconds)

    @property
    def _is_function(self) -> bool:
        return "." in self.rule

    def _error(self, row: int, message: object) -> QuestionError:
        return QuestionError(f"{self.params.path}, row {row}: {message}")

    def _made(self) -> Generator[tuple[int, Question], None, None]:
        """Every row's number and question, the reference checked; several checks at once where they are slow."""

        def checked(made: tuple[int, Question]) -> tuple[int, Question, str]:
            return *made, self._problem(made[1])

        with closing(deadline.ahead(checked, self._unchecked(), lambda made: self.slow_checks)) as stream:
            for row, question, problem in stream:
                if problem:
                    raise self._error(row, problem)
                yield row, question

    def _unchecked(self) -> Iterator[tuple[int, Question]]:
        for row, data in READERS[self.name](self.params.path):
            try:
                question = self._make(data)
            except QuestionError as error:
                raise self._error(row, error) from error
            yield row, replace(question, data=_with(question.data, row=row))

    def _make(self, others: dict[str, Any]) -> Question:
        question, answer, level, own_id, choices = (
            others.pop(name, None) for name in ("question", "answer", "level", "id", "choices")
        )
        for key, value in (("question", question), ("answer", answer)):
            if value is None:
                near = f" (it has: {', '.join(others)})" if others else ""
                raise QuestionError(f"`{key}` is missing or null{near}; give every row one.")
            if not isinstance(value, str):
                raise QuestionError(
                    f"`{key}` must be text{' or a number' if key == 'answer' else ''}, not {kind(value)}."
                )
            if not value.strip():
                raise QuestionError(f"`{key}` is empty.")
            if not _is_text(value):
                raise QuestionError(f"`{key}` holds half a surrogate pair, which is no text; write the letter itself.")
        for key, value in (("level", level), ("id", own_id)):
            if value is not None and not (isinstance(value, str) and _is_text(value)):
                raise QuestionError(f"`{key}` must be text, not {kind(value)}.")
        text, reference, data = question.strip(), answer.strip(), {}
        options: list[str] = []
        if own_id:
            data["id"] = own_id
        if self.rule == "choice":
            options = _options(choices)
            text, reference = grading.ask_choice(question, options), _letter(reference, options)
            data["choices"] = options
        if self._is_function:
            data["columns"] = others | ({} if choices is None else {"choices": choices})
        if "<answer>" in reference or "</answer>" in reference or has_trace_tags(reference):
            raise QuestionError("`answer` holds a tag such as <answer>; give the bare answer.")
        return Question(
            id=seeds.content_id("jsonl", " ".join(question.split()), *sorted(options)),
            task=self.name,
            level=level or self.level,
            text=text,
            answer=reference,
            data=json.dumps(data),
        )

    def _check(self, question: Question) -> None:
        if problem := self._problem(question):
            raise QuestionError(problem)

    def _problem(self, question: Question) -> str:
        """Why the reference answer fails its own check; "" where it passes."""
        failed = f"the answer {question.answer[:80]!r} fails its own check"
        reference = extract_answer(f"<answer>{question.answer}</answer>")
        if reference is None:
            return (
                f"{failed}: nothing is left of it without fences and dollars; give an answer of at most 2,000 letters."
            )
        try:
            right = grading.compare(self.rule, question, reference, self.params.seconds).outcome == "correct"
        except deadline.DiedError:
            return f"{failed}: its process died (it ended itself, or took too much memory); mend the check or the row."
        except deadline.DeadlineError:
            return f"{failed}: it took more than {self.params.seconds:g} s; mend the check or the row, or allow more."
        except Exception as error:
            return f"{failed}: `{self.rule}` gave {grading.one_line(error)}; mend the function or the row."
        return "" if right else f"{failed}; {_MENDS.get(self.rule, 'correct the answer or the way it is graded')}."


@register("jsonl")
def jsonl(**params: Any) -> Own:
    """Questions from a file with one JSON object a line."""
    return Own("jsonl", **params)


@register("csv")
def csv(**params: Any) -> Own:
    """Questions from a CSV file whose first row names the columns."""
    return Own("csv", **params)


@register("parquet")
def parquet(**params: Any) -> Own:
    """Questions from a Parquet file."""
    return Own("parquet", **params)


def _with(data: str, **more: Any) -> str:
    return json.dumps({**more, **json.loads(data)}) if data != "{}" else json.dumps(more)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _options(choices: Any) -> list[str]:
    """The options of a row: a list, or a JSON list as text. Raises QuestionError where they are none."""
    if isinstance(choices, str):
        try:
            choices = json.loads(choices, parse_int=str, parse_float=str)  # as those of a JSONL file
        except (ValueError, RecursionError):
            choices = None
    if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() and _is_text(c) for c in choices):
        raise QuestionError('`choices` must be a JSON list of texts, such as ["red", "blue"].')
    if not 2 <= len(choices) <= len(grading.LETTERS):
        raise QuestionError(f"`choices` has {len(choices)} options; give 2 to {len(grading.LETTERS)}.")
    if len({plain(unwrapped(choice)) for choice in choices}) < len(choices):
        raise QuestionError("`choices` names the same option twice; remove one.")
    return [choice.strip() for choice in choices]


def _letter(answer: str, options: list[str]) -> str:
    """The letter of the right option, which the row names by its letter or its text."""
    texts = [plain(option) for option in options]
    by_text = grading.LETTERS[texts.index(plain(answer))] if plain(answer) in texts else ""
    by_letter = answer if len(answer) == 1 and answer in grading.LETTERS[: len(options)] else ""
    if by_text and by_letter and by_text != by_letter:
        raise QuestionError(
            f"`answer` {answer!r} is one option's letter and another's text; write the options otherwise."
        )
    if not by_text and not by_letter:
        raise QuestionError(
            f"`answer` {answer[:80]!r} is none of `choices`; give the letter or the text of one of them."
        )
    return by_letter or by_text
