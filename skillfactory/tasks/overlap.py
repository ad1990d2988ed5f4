"""Whether questions of different splits are the same: found by what they say, whoever made them and however."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skillfactory.errors import QuestionError
from skillfactory.records import Question
from skillfactory.tasks.texts import folded

_OPTION = re.compile(r"[a-z]\. ")
FIRST = 5  # pairs of rows that a report names


@dataclass(frozen=True, slots=True)
class Overlap:
    """Questions of an evaluation set that the training questions held too: training does without them."""

    set: str
    training: str
    pairs: list[tuple[Question, Question]]  # of evaluation, of training

    def facts(self) -> dict[str, Any]:
        """For the manifest: how many, and where the first few stand ("" where a source has no rows)."""
        rows = [{"evaluation_row": row(ours), "training_row": row(theirs)} for ours, theirs in self.pairs[:FIRST]]
        return {"set": self.set, "training": self.training, "questions": len(self.pairs), "first": rows}


def text_key(text: str) -> str:
    """Equal for questions that differ only in case, spacing, encoding of letters, or in how the answer is asked for.

    That is: in a last line `The answer is …`, which tasks add, and in the order of options `A. …`.
    """
    lines = [line for line in map(folded, text.splitlines()) if line]
    if len(lines) > 1 and lines[-1].startswith("the answer is"):
        lines.pop()
    options = [line for line in lines if _OPTION.match(line)]
    stem = [line for line in lines if not _OPTION.match(line)]
    return " ".join(" ".join(stem + sorted(line[2:] for line in options)).split())


def row(question: Question) -> int | str:
    """The row of a question's file, where it has one."""
    data = json.loads(question.data)
    return data.get("row", "") if isinstance(data, dict) else ""


def overlaps(training: str, questions: Iterable[Question], sets: Mapping[str, list[Question]]) -> list[Overlap]:
    """What of `questions` (named `training`) also stands in each of the evaluation sets."""
    where: dict[str, list[tuple[str, Question]]] = {}
    for name, held in sets.items():
        for question in held:
            where.setdefault(text_key(question.text), []).append((name, question))
    pairs: dict[str, list[tuple[Question, Question]]] = {}
    for question in questions if where else ():
        for name, ours in where.get(text_key(question.text), ()):
            pairs.setdefault(name, []).append((ours, question))
    return [Overlap(name, training, found) for name, found in pairs.items()]


def check_disjoint(questions: Iterable[Question]) -> None:
    """No question may stand in two splits, by id or by content. Raises QuestionError naming the two.

    Looks at the finished questions alone, so that it does not rest on how they were drawn.
    """
    seen: dict[int, tuple[str, str]] = {}  # by hash of 64 bits, for memory: there may be a million
    for question in questions:
        here = question.split, question.id
        for content in _contents(question):
            split, other = seen.setdefault(hash(content), here)
            if split != question.split:
                raise QuestionError(
                    f"Task `{question.task}`: question {question.id} of the {question.split} split is the same as "
                    f"{other} of the {split} split ({content[:80]!r}); give each split its own questions."
                )


def _contents(question: Question) -> Iterator[str]:
    yield f"id {question.id}"
    yield f"text {text_key(question.text)}"
    if question.task == "countdown":  # the order of the numbers makes no new question, nor do the rules
        data = json.loads(question.data)
        yield f"numbers {sorted(data['numbers'])} to make {data['target']}"
