"""The questions of samples that were made elsewhere, such as the authors' raw data sets (recipe: `attempts.given`).

Which answers are right is taken from there: an answer is right that was counted as right in some attempt.
"""

import json
from collections.abc import Collection
from functools import cached_property
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.formats.raw import read_raw, split_revision
from skillfactory.records import Grade, Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.base import register
from skillfactory.tasks.params import Params, params_of


class RawParams(Params):
    """Settings of the task raw_data."""

    path: str = Field(min_length=1, description="A file, a folder, or a hub id with @REVISION where it is pinned.")


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
        found: dict[str, tuple[str, set[str]]] = {}
        for row in read_raw(*split_revision(self.params.path)):
            _, right = found.setdefault(row.question, (row.answer, set()))
            if row.correct and row.extracted:
                right.add(_plain(row.extracted))
        return [self._made(text, answer, right) for text, (answer, right) in found.items()]

    def make(self, *, question: str, answer: str, right: Collection[str] = ()) -> Question:
        """A question from its text, its reference and the answers that are right beside it."""
        return self._made(question, answer, {_plain(each) for each in right})

    def _made(self, text: str, answer: str, right: set[str]) -> Question:
        data = json.dumps({"right": sorted(right | {_plain(answer)})}, ensure_ascii=False)
        return Question(seeds.content_id(self.name, text), self.name, self.level, text, answer, data)

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
        """Right iff the last answer is one that was counted as right."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        return Grade("correct" if _plain(answer) in json.loads(question.data)["right"] else "wrong", answer)


def _plain(answer: str) -> str:
    return " ".join(answer.split())
