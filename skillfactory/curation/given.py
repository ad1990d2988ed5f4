"""Attempts and reflections that were sampled elsewhere (`attempts.given`), as if they had been drawn here.

Deviations: tokens are counted by the recipe's tokenizer; texts are taken as complete, since the source does not say
which were cut. A reflection's verdict is read from it, as everywhere.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.reflections import verdict_of
from skillfactory.curation.samples import Slots
from skillfactory.engines.base import TokenCounter
from skillfactory.formats.raw import RawRow, read_raw, split_revision
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Outcome, Question, Reflection
from skillfactory.tasks.answers import extract_answer, has_trace_tags

if TYPE_CHECKING:
    from skillfactory.store import Run, Stage

BLOCK = 256  # questions whose rows share shards, so that they can be read together
WAITING = 50_000  # rows in memory
MOST_REFLECTIONS = 60  # on an attempt
_FILE = "given.json"


def fill(recipe: Recipe, run: "Run", questions: list[Question], counter: TokenCounter) -> None:
    """Write the source's samples at these questions into the stages `attempts` and `reflections`, once."""
    attempts, reflections = run.stage("attempts"), run.stage("reflections")
    if attempts.is_finished() and reflections.is_finished():
        return
    for stage in (attempts, reflections):
        stage.reopen()
        stage.clear_rows()
    places = {question.text: (number, question) for number, question in enumerate(questions)}
    numbers: Counter[tuple[str, str]] = Counter()
    variants: dict[str, None] = {}
    most = 0
    blocks: dict[int, list[tuple[Attempt, list[str]]]] = {}
    waiting = 0
    with run.stage("traces").track(len(questions), "questions read") as advance:
        seen = set[str]()
        for row in read_raw(*split_revision(recipe.attempts.given)):
            if row.question not in places:
                continue
            number, question = places[row.question]
            index = numbers[question.id, row.variant]
            numbers[question.id, row.variant] += 1
            variants[row.variant] = None
            judged = row.reflections[:MOST_REFLECTIONS]
            most = max(most, len(judged))
            blocks.setdefault(number // BLOCK, []).append((_attempt(row, question, index), judged))
            waiting += 1 + len(judged)
            if waiting > WAITING:
                largest = max(blocks, key=lambda block: len(blocks[block]))
                waiting -= _write(blocks.pop(largest), attempts, reflections, counter)
            if question.id not in seen:
                seen.add(question.id)
                advance(1)
        for block in sorted(blocks):
            _write(blocks[block], attempts, reflections, counter)
    per_variant = max(numbers.values(), default=1)
    attempts.write_json(_FILE, {"variants": list(variants), "per_variant": per_variant, "per_attempt": max(most, 1)})


def places_of(attempts: "Stage") -> Slots:
    """The places that `fill` has filled; there is no more to come."""
    found: dict[str, Any] = attempts.read_json(_FILE)
    return Slots(tuple(found["variants"]), found["per_variant"], found["per_attempt"], final=True)


def _attempt(row: RawRow, question: Question, index: int) -> Attempt:
    answer = row.extracted.strip() or extract_answer(row.text) or ""
    outcome: Outcome = "no_answer" if not answer else "correct" if row.correct else "wrong"
    malformed = has_trace_tags(row.text) or "<verdict>" in row.text.lower()
    return Attempt(
        id=seeds.content_id("attempt", question.id, row.variant, index), question_id=question.id, variant=row.variant,
        index=index, text=row.text, answer=answer, outcome=outcome, reason="malformed" if malformed else "",
        finish_reason="stop", tokens=0,
    )  # fmt: skip


def _write(
    block: list[tuple[Attempt, list[str]]], attempts: "Stage", reflections: "Stage", counter: TokenCounter
) -> int:
    """Write the rows of some questions; returns how many."""
    lengths = counter.count_each([attempt.text for attempt, _ in block])
    attempts.append([replace(attempt, tokens=n) for (attempt, _), n in zip(block, lengths, strict=True)])
    judged = list(_reflections(block))
    lengths = counter.count_each([each.text for each in judged])
    reflections.append([replace(each, tokens=n) for each, n in zip(judged, lengths, strict=True)])
    return len(block) + len(judged)


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
