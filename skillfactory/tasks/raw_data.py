"""The questions of samples that were made elsewhere: the authors' raw data, a teacher's responses (`attempts.given`).

Which answers are right is taken from there: an answer is right that was counted as right in some attempt. Where a
teacher's file has a reference answer instead, answers are compared with it as mathematics are (`grade: math`).
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.formats.dialogues import read_given
from skillfactory.formats.raw import RawRow, split_revision
from skillfactory.records import Grade, Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.base import register
from skillfactory.tasks.grading import grade_answer
from skillfactory.tasks.params import Params, params_of
from skillfactory.tasks.published import boxed

RULE = "math"


class RawParams(Params):
    """Settings of the task raw_data."""

    path: str = Field(min_length=1, description="A file, a folder, or a hub id with @REVISION where it is pinned.")


@dataclass(slots=True)
class _Known:
    """What the source says of a question so far."""

    answer: str
    right: set[str] = field(default_factory=set)
    chat: bool = False


@register("raw_data")
class RawData:
    """Questions of given samples, graded by what counted as right there."""

    name = "raw_data"
    level = "given"
    references_checked = True  # there is no telling how a reference would be written as an answer

    def __init__(self, **params: Any) -> None:
        self.params = params_of(self.name, RawParams, params)

    @cached_property
    def questions(self) -> list[Question]:
        """Each question once, in the order of the source. Raises QuestionError naming file and row."""
        found: dict[str, _Known] = {}
        for row in samples(self.params.path):
            known = found.setdefault(row.question, _Known(row.answer, chat=row.chat))
            known.answer = known.answer or row.answer
            if row.correct and row.extracted:
                known.right.add(_plain(row.extracted))
        return [self._made(text, known.answer, known.right, known.chat) for text, known in found.items()]

    def make(self, *, question: str, answer: str, right: Collection[str] = ()) -> Question:
        """A question from its text, its reference and the answers that are right beside it."""
        return self._made(question, answer, {_plain(each) for each in right})

    def _made(self, text: str, answer: str, right: set[str], chat: bool = False) -> Question:
        data: dict[str, Any] = {"right": sorted(right | ({_plain(answer)} if answer else set()))}
        if chat and answer:
            data["grade"] = RULE
        written = json.dumps(data, ensure_ascii=False)
        return Question(seeds.content_id(self.name, text), self.name, self.level, text, answer, written)

    def example(self) -> Question:
        """A question as such data may have it."""
        return self.make(question="Make 24 from 3, 5, 7, 9.", answer="24", right=["(9 - 5) * (7 - 3) + 8"])

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """The first `n` questions. Raises QuestionError where there are fewer."""
        if n > len(self.questions):
            raise QuestionError(f"{self.params.path} holds {len(self.questions)} questions, {n} wanted; ask for fewer.")
        return self.questions[:n]

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Questions for SFT alone, at most as many as asked for, in the order of the source."""
        if others := sorted(set(counts) - {"sft"}):
            raise QuestionError(f"The task raw_data has samples for SFT and no verifier for {others[0]}; name another.")
        return {"sft": [question for question in self.questions if question.id not in exclude][: counts["sft"]]}

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is one that was counted as right, or where it equals a teacher's reference."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        data = json.loads(question.data)
        if _plain(answer) in data["right"]:
            return Grade("correct", answer)
        return grade_answer(data["grade"], question, text) if "grade" in data else Grade("wrong", answer)


def samples(source: str) -> Iterator[RawRow]:
    """The rows of a source as a recipe names it. A teacher's reply that answers in a box gets our tags as well."""
    for row in read_given(*split_revision(source)):
        if row.chat:
            text = answered(row.text)
            row = replace(row, text=text, extracted=extract_answer(text) or "")
        yield row


def answered(reply: str) -> str:
    r"""A reply whose last \boxed{…} after the thinking is also given in `<answer>`, where it has no such answer.

    RL and evaluation look for those tags. A reply without either stays as it is.
    """
    _, thought, after = reply.rpartition("</think>")
    if extract_answer(reply) is not None or (not thought and "<think>" in reply):
        return reply
    boxes = [box for box in boxed(after) if box]
    return f"{reply.rstrip()}\n\n<answer>\n{boxes[-1]}\n</answer>" if boxes else reply


def _plain(answer: str) -> str:
    return " ".join(answer.split())
