"""Attempts and reflections that were sampled elsewhere (`attempts.given`), as if they had been drawn here.

Deviations: tokens are counted by the recipe's tokenizer; texts are taken as complete, since the source does not say
which were cut, but for replies whose thinking has no end. A reflection's verdict is read from it, as everywhere.

A teacher's replies (`attempts.whole`) are each one attempt, without reflections. What the file does not say is right is
compared with its reference answer; a reply that cannot be checked counts as wrong with the reason "not_checked" or
"no_answer", so that `distill.keep: all` can use it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.reflections import verdict_of
from skillfactory.curation.samples import Slots
from skillfactory.curation.sampling import NOT_CHECKED
from skillfactory.engines.base import TokenCounter
from skillfactory.errors import QuestionError
from skillfactory.formats.raw import RawRow
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Grade, Question, Reflection
from skillfactory.tasks import deadline
from skillfactory.tasks.answers import extract_answer, has_trace_tags
from skillfactory.tasks.questions import grade, sft_spec, task_of
from skillfactory.tasks.raw_data import samples

if TYPE_CHECKING:
    from skillfactory.stage import Stage
    from skillfactory.store import Run

BLOCK = 256  # questions whose rows share shards, so that they can be read together
WAITING = 1 << 26  # characters in memory
ROW = 500  # characters that a row weighs beside its text
MOST_REFLECTIONS = 60  # on an attempt
_FILE = "given.json"


@dataclass
class _Block:
    """Rows of some questions that wait to be written, and how many characters they have."""

    rows: list[tuple[Attempt, list[str]]] = field(default_factory=list)
    weight: int = 0


def fill(recipe: Recipe, run: "Run", questions: list[Question], counter: TokenCounter) -> None:
    """Write the source's samples at these questions into the stages `attempts` and `reflections`, once.

    Raises QuestionError where right replies are wanted and nothing says which are.
    """
    attempts, reflections = run.stage("attempts"), run.stage("reflections")
    if attempts.is_finished() and reflections.is_finished():
        _require_checked(recipe, attempts.read_json(_FILE).get(NOT_CHECKED, ""))
        return
    for stage in (attempts, reflections):
        stage.reopen()
        stage.clear_rows()
    filled = _Filled(attempts, reflections, counter)
    with run.stage("traces").track(len(questions), "questions read") as advance:
        for row, question, place, graded in _graded(recipe, questions):
            if graded.reason == NOT_CHECKED:
                filled.not_checked = filled.not_checked or row.where
                _require_checked(recipe, row.where)
            if filled.add(row, question, place, graded, recipe.attempts.whole):
                advance(1)
        filled.write()
    attempts.write_json(_FILE, filled.facts())
    if filled.further:
        run.log("attempts", "replies of a conversation after its first are left out", replies=filled.further)


def places_of(attempts: "Stage") -> Slots:
    """The places that `fill` has filled; there is no more to come."""
    found: dict[str, Any] = attempts.read_json(_FILE)
    return Slots(tuple(found["variants"]), found["per_variant"], found["per_attempt"], final=True)


def _require_checked(recipe: Recipe, where: str) -> None:
    if where and recipe.distill.keep == "correct":
        raise QuestionError(
            f"{where}: nothing says whether the reply is right; add a column `correct` (true or false) or `answer` "
            "(what is right), or learn from all replies with distill.keep=all."
        )


Item = tuple[RawRow, Question, int, Grade]  # a row, its question, the place of that among the questions, and its grade


def _graded(recipe: Recipe, questions: list[Question]) -> Iterator[Item]:
    """The rows at these questions in the order of the source; several are compared at once where that is slow."""
    places = {question.text: (question, number) for number, question in enumerate(questions)}
    task = task_of(sft_spec(recipe))

    def known() -> Iterator[tuple[RawRow, Question, int]]:
        for row in samples(recipe.attempts.given):
            if row.question in places:
                yield row, *places[row.question]

    def graded(item: tuple[RawRow, Question, int]) -> Item:
        row, question, _ = item
        if row.correct is not None:
            return *item, _as_given(row, recipe.attempts.whole)
        return *item, grade(task, question, row.text) if question.answer else Grade("wrong", row.extracted, NOT_CHECKED)

    compared = deadline.ahead(graded, known(), lambda item: item[0].correct is None and item[1].answer != "")
    with closing(compared) as stream:
        yield from stream


def _as_given(row: RawRow, whole: bool) -> Grade:
    """What the source says; a whole reply may be right without an answer that can be taken out of it."""
    answer = row.extracted.strip() or extract_answer(row.text) or ""
    return Grade("no_answer" if not (answer or whole) else "correct" if row.correct else "wrong", answer)


class _Filled:
    """The two stages as they fill, a block of questions at a time."""

    def __init__(self, attempts: "Stage", reflections: "Stage", counter: TokenCounter) -> None:
        self.attempts, self.reflections, self.counter = attempts, reflections, counter
        self.numbers: Counter[tuple[str, str]] = Counter()  # attempts by question and variant
        self.variants: dict[str, None] = {}
        self.seen = set[str]()
        self.blocks: dict[int, _Block] = {}
        self.most = self.further = self.waiting = 0
        self.not_checked = ""  # where the first reply stands that nothing says anything of

    def add(self, row: RawRow, question: Question, place: int, graded: Grade, whole: bool) -> bool:
        """Take in a row; whether it is the first one at its question."""
        index = self.numbers[question.id, row.variant]
        self.numbers[question.id, row.variant] += 1
        self.variants[row.variant] = None
        judged = [] if whole else row.reflections[:MOST_REFLECTIONS]
        self.most, self.further = max(self.most, len(judged)), self.further + row.further
        block = self.blocks.setdefault(place // BLOCK, _Block())
        block.rows.append((_attempt(row, question, index, graded, whole), judged))
        weight = sum(len(text) + ROW for text in (row.text, *judged))
        block.weight += weight
        self.waiting += weight
        if self.waiting > WAITING:
            self.write(max(self.blocks, key=lambda number: self.blocks[number].weight))
        first = question.id not in self.seen
        self.seen.add(question.id)
        return first

    def write(self, only: int | None = None) -> None:
        """Write a block, or all that wait."""
        for number in sorted(self.blocks) if only is None else [only]:
            block = self.blocks.pop(number)
            self.waiting -= block.weight
            _write(block.rows, self.attempts, self.reflections, self.counter)

    def facts(self) -> dict[str, Any]:
        """For places_of, and for a later call of fill."""
        per_variant = max(self.numbers.values(), default=1)
        sizes = {"per_variant": per_variant, "per_attempt": max(self.most, 1)}
        return {"variants": list(self.variants), **sizes, NOT_CHECKED: self.not_checked}


def _attempt(row: RawRow, question: Question, index: int, graded: Grade, whole: bool) -> Attempt:
    outcome, reason = graded.outcome, graded.reason
    if whole:  # what cannot be checked may still be learnt from
        outcome = "wrong" if outcome == "no_answer" else outcome
    elif has_trace_tags(row.text) or "<verdict>" in row.text.lower():
        reason = "malformed"
    cut = whole and "<think>" in row.text and "</think>" not in row.text
    return Attempt(
        id=seeds.content_id("attempt", question.id, row.variant, index), question_id=question.id, variant=row.variant,
        index=index, text=row.text, answer=graded.answer, outcome=outcome, reason=reason,
        finish_reason="length" if cut else "stop", tokens=0,
    )  # fmt: skip


def _write(
    block: list[tuple[Attempt, list[str]]], attempts: "Stage", reflections: "Stage", counter: TokenCounter
) -> None:
    """Write the rows of some questions, with their lengths."""
    lengths = counter.count_each([attempt.text for attempt, _ in block])
    attempts.append([replace(attempt, tokens=n) for (attempt, _), n in zip(block, lengths, strict=True)])
    judged = list(_reflections(block))
    lengths = counter.count_each([each.text for each in judged])
    reflections.append([replace(each, tokens=n) for each, n in zip(judged, lengths, strict=True)])


def _reflections(block: list[tuple[Attempt, list[str]]]) -> Iterator[Reflection]:
    for attempt, texts in block:
        truth = "correct" if attempt.outcome == "correct" else "incorrect"
        for index, text in enumerate(texts):
            verdict = verdict_of(text)
            yield Reflection(
                id=seeds.content_id("reflection", attempt.id, index), question_id=attempt.question_id,
                attempt_id=attempt.id, index=index, text=text, verdict=verdict, agrees=verdict == truth,
                finish_reason="stop", tokens=0,
            )  # fmt: skip
