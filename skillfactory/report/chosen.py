"""Which questions the trace viewer holds, and the responses to them as plain data, each attempt in them graded."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from skillfactory.evaluation.accuracy import Responses, is_scored
from skillfactory.recipe import Forcing
from skillfactory.records import BROKEN, Grade, Question, Response
from skillfactory.report.columns import Column
from skillfactory.report.pieces import Trigger, parts_of, shown, triggers_of
from skillfactory.tags import bare, missing_tags, verdict_of
from skillfactory.tasks import deadline
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade, is_slow

GRADING = 120.0  # seconds for the grading of attempts; those that are left then are shown without a grade
GRADES = 60  # different grades of attempts: a verifier of the user's may give any text as a reason
_LONGEST_ANSWER = 500  # characters
_CODE = re.compile(r"[a-z_]{1,40}")
_KINDS = {"plain": "", "sample": "s", "reflect": "r", "broken": "b", "final": "f", "trigger": "t", "cut": "c"}
_ESCAPES = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}

Sampled = tuple[Response, tuple[Trigger, ...]]  # a response, and the triggers in it
Rows = Mapping[tuple[str, str], Mapping[int, Sampled]]  # by set and question, then by sample


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """An evaluation set; its question ids in the order in which they are chosen."""

    name: str
    about: str
    task: Task | None
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One response as JSON, and the attempts in it that are to be graded."""

    task: Task | None
    question: Question
    data: dict[str, Any]
    attempts: list[str]


@dataclass(slots=True)
class Chosen:
    """The questions of each set as JSON, and their responses: each once, however many models or samples gave it."""

    questions: dict[str, list[dict[str, Any]]]
    entries: list[Entry] = field(default_factory=list)
    numbers: dict[Sampled, int] = field(default_factory=dict)


def as_json(data: Any) -> str:
    """JSON that can stand in an element of a page: nothing in it can end the element or begin another."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def size(data: Any) -> int:
    """Bytes of some data in the page, with the comma after it."""
    return len(as_json(data).encode()) + 1


def rows_of(responses: Responses, column: Column, forcing: Forcing) -> Rows:
    """The responses of a column."""
    line = [column.mode]
    if column.mode.startswith("forced-"):
        forced = {mode for model, _, mode in responses if model == column.model and mode.startswith("forced-")}
        line = ["sampled", *sorted(forced, key=lambda mode: int(mode.removeprefix("forced-")))]
        line = line[: line.index(column.mode) + 1]
    found: dict[tuple[str, str], dict[int, list[Response]]] = {}
    for mode in line:
        for (model, name, other), rows in responses.items():
            for row in rows if (model, other) == (column.model, mode) else ():
                found.setdefault((name, row.question_id), {}).setdefault(row.sample, []).append(row)
    return {
        place: {n: (row[-1], triggers_of(row, forcing)) for n, row in samples.items() if row[-1].mode == column.mode}
        for place, samples in found.items()
    }


def choose(
    sets: Sequence[QuestionSet], asked: Mapping[str, Question], columns: Sequence[Rows], longest: int,
    budget: int,
) -> Chosen:  # fmt: skip
    """The first questions of every set in turn, with all their responses, until the next one has no room in `budget`.

    It ends there, also if a shorter one had room: to choose by length would favour models that say little.
    """
    chosen = Chosen({each.name: [] for each in sets})
    for turn in zip_longest(*(each.ids for each in sets)):
        for each, question_id in zip(sets, turn, strict=True):
            if question_id is not None:
                question, new = _question(asked[question_id], each, columns, chosen, longest)
                budget -= size(question) + sum(size(entry.data) for _, entry in new.values())
                if budget < 0:
                    return chosen
                chosen.questions[each.name].append(question)
                chosen.numbers |= {key: number for key, (number, _) in new.items()}
                chosen.entries += [entry for _, entry in new.values()]
    return chosen


def grade_attempts(entries: Sequence[Entry]) -> list[list[str]]:
    """Put the grades of attempts, and whether verdicts are true, into the data. Returns the grades: outcome, reason.

    The first is that of an attempt that could not be graded.
    """
    wanted = {
        (entry.question.id, text): (entry.task, entry.question, text)
        for entry in entries
        if entry.task
        for text in entry.attempts
    }
    grades = [["", ""]]
    known: dict[tuple[str, str], int] = {}
    for key, each in zip(wanted, _graded(list(wanted.values())), strict=False):
        words = ["", ""] if each.reason in BROKEN else [each.outcome, in_words(each)]
        if words not in grades and len(grades) == GRADES:
            words[1] = ""
        if words not in grades:
            grades.append(words)
        known[key] = grades.index(words)
    for entry in entries:
        _judge(entry, grades, [known.get((entry.question.id, text), 0) for text in entry.attempts])
    return grades


def in_words(graded: Grade | Response) -> str:
    """Why an answer is not right, in words; "" where the outcome says it all or the reason is no short code."""
    reason = graded.reason
    return reason.replace("_", " ") if reason != graded.outcome and _CODE.fullmatch(reason) else ""


def _graded(items: Sequence[tuple[Task, Question, str]]) -> Iterator[Grade]:
    """The grade of each, as far as one comes within GRADING seconds."""
    end = time.monotonic() + GRADING
    with closing(deadline.ahead(lambda item: grade(*item), items, lambda item: is_slow(item[0]))) as grades:
        for each in grades:
            yield each
            if time.monotonic() > end:
                return


def _question(
    question: Question, within: QuestionSet, columns: Sequence[Rows], chosen: Chosen, longest: int
) -> tuple[dict[str, Any], dict[Sampled, tuple[int, Entry]]]:
    """A question as JSON, and those of its responses that are not in `chosen` yet, with the numbers they will have."""
    new: dict[Sampled, tuple[int, Entry]] = {}
    lists = []
    for rows in columns:
        samples = rows.get((within.name, question.id), {})
        numbers = [-1] * (max(samples, default=-1) + 1)
        for sample, (response, triggers) in samples.items():
            key = replace(response, model="", mode="", sample=0), triggers
            if key not in chosen.numbers and key not in new:
                entry = _entry(within.task, question, response, triggers, longest)
                new[key] = len(chosen.entries) + len(new), entry
            numbers[sample] = chosen.numbers[key] if key in chosen.numbers else new[key][0]
        lists.append(numbers)
    text = shown(question.text)
    data = {"id": question.id, "text": text[:longest], "answer": shown(question.answer)[:_LONGEST_ANSWER], "r": lists}
    return data | ({"more": len(text) - longest} if len(text) > longest else {}), new


def _entry(
    task: Task | None, question: Question, response: Response, triggers: tuple[Trigger, ...], longest: int
) -> Entry:
    """A response as JSON. What is not known before attempts are graded has the size that it will have."""
    text = response.text[:longest]
    more = len(response.text) - len(text)
    pieces: list[list[Any]] = []
    attempts = []
    for part in parts_of(text, triggers, response.cut, whole=bool(response.answer) and not more):
        piece: list[Any] = [_KINDS[part.kind], shown(part.text)]
        if part.kind == "sample":
            attempts.append(bare(part.inner))
            piece.append(GRADES)
        elif part.kind == "reflect":
            piece += [verdict_of(part.inner), False]
        elif part.kind == "trigger":
            piece[1] = shown(part.inner)
        pieces.append(piece)
    data: dict[str, Any] = {
        "outcome": response.outcome if is_scored(response) else "not_scored",
        "why": in_words(response),
        "answer": shown(response.answer)[:_LONGEST_ANSWER],
        "tokens": response.tokens,
        "end": response.finish_reason,
        "pieces": pieces,
    }
    missing = missing_tags(response.text, response.finish_reason == "length")
    extra = {"malformed": missing, "forced": response.forced, "more": more}
    return Entry(task, question, data | {name: n for name, n in extra.items() if n}, attempts)


def _judge(entry: Entry, grades: list[list[str]], numbers: list[int]) -> None:
    """Write grades into an entry. A reflection is about the attempt before it, unless that one was never closed."""
    given = iter(numbers)
    right: bool | None = None
    for piece in entry.data["pieces"]:
        if piece[0] == "s":
            piece[2] = next(given)
            outcome = grades[piece[2]][0]
            right = outcome == "correct" if outcome else None
        elif piece[0] == "b":
            right = None
        elif piece[0] == "r":
            piece[3] = None if right is None or not piece[2] else (piece[2] == "correct") == right
