"""Which skills a response shows: answers, retries, reflections, and whether its verdicts are true (paper §6)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from skillfactory.records import Outcome, Question
from skillfactory.tags import Block, blocks, verdict_of
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade as grade_of

_ANSWER_TAG = re.compile(r"<(/?)answer>")


@dataclass(frozen=True, slots=True)
class SkillUse:
    """What one response shows. Verdicts are counted by what they say and by what is true of the sample before them."""

    answers: int = 0
    samples: int = 0
    reflections: int = 0
    retries: int = 0
    distinct_answers: int = 0
    correct_called_correct: int = 0
    correct_called_incorrect: int = 0
    incorrect_called_correct: int = 0
    incorrect_called_incorrect: int = 0
    no_verdict: int = 0
    unmatched: int = 0
    flips_to_correct: int = 0
    flips_to_wrong: int = 0
    lost: bool = False
    malformed: bool = False


def read_skills(task: Task, question: Question, text: str, outcome: Outcome) -> SkillUse:
    """Read the skills in one response, each sample graded by itself.

    An explicit answer is a sample with an answer; in a response without samples, each complete `<answer>…</answer>` is
    one, so that a plain solution counts 1. A retry is a sample that follows an explicit answer. A flip is a change of
    outcome between one explicit answer and the next. `lost`: an explicit answer was right, the response's own
    (`outcome`) was not.
    """
    found, stray = blocks(text)
    pieces = [b.text for b in found if b.kind == "sample"] or _plain_answers(text)
    answers: list[str] = []
    rights: list[bool] = []  # per explicit answer
    retries = 0
    truths: list[bool] = []  # per piece
    for piece in pieces:
        grade = grade_of(task, question, piece)
        retries += bool(answers)
        truths.append(grade.outcome == "correct")
        if grade.outcome != "no_answer":
            answers.append(grade.answer)
            rights.append(grade.outcome == "correct")
    verdicts = _verdicts(found, truths)
    flips = [(before, after) for before, after in pairwise(rights) if before != after]
    return SkillUse(
        answers=len(answers),
        samples=sum(b.kind == "sample" for b in found),
        reflections=sum(b.kind == "reflect" for b in found),
        retries=retries,
        distinct_answers=len(set(answers)),
        flips_to_correct=sum(after for _, after in flips),
        flips_to_wrong=sum(before for before, _ in flips),
        lost=any(rights) and outcome != "correct",
        malformed=stray > 0,
        **verdicts,
    )


def _verdicts(found: list[Block], truths: list[bool]) -> dict[str, int]:
    """Count verdicts. `truths`: for each sample block in order, whether it is correct."""
    counts: dict[str, int] = {}
    remaining = iter(truths)
    judged: bool | None = None  # truth of the sample that a reflection here would be about
    for block in found:
        if block.kind == "sample":
            judged = next(remaining)
            continue
        if block.kind == "broken":
            judged = None  # what follows may be about the broken block, not about the sample before it
            continue
        verdict = verdict_of(block.text)
        if not verdict:
            name = "no_verdict"
        elif judged is None:
            name = "unmatched"
        else:
            name = f"{'correct' if judged else 'incorrect'}_called_{verdict}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _plain_answers(text: str) -> list[str]:
    """Every complete `<answer>…</answer>` of a text, each on its own; an opening tag inside one starts it anew."""
    found: list[str] = []
    start: int | None = None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start = tag.start()
        elif start is not None:
            found.append(text[start : tag.end()])
            start = None
    return found


def f1(hits: int, false_alarms: int, misses: int) -> float | None:
    """F1 of one class; None where the class was neither present nor claimed."""
    total = 2 * hits + false_alarms + misses
    return 2 * hits / total if total else None


def aggregate(uses: Iterable[SkillUse]) -> dict[str, Any]:
    """Means over responses, the verdict confusion summed over them, and F1 on correct and on incorrect answers."""
    rows = list(uses)
    if not rows:
        return {}

    def total(name: str) -> int:
        return sum(int(getattr(row, name)) for row in rows)

    right, missed = total("correct_called_correct"), total("correct_called_incorrect")
    fooled, caught = total("incorrect_called_correct"), total("incorrect_called_incorrect")
    n = len(rows)
    return {
        "responses": n,
        "answers": total("answers") / n,
        "reflections": total("reflections") / n,
        "retries": total("retries") / n,
        "distinct_answers": total("distinct_answers") / n,
        "with_retry": sum(row.retries > 0 for row in rows) / n,
        "with_reflection": sum(row.reflections > 0 for row in rows) / n,
        "verdicts": {
            "correct_called_correct": right,
            "correct_called_incorrect": missed,
            "incorrect_called_correct": fooled,
            "incorrect_called_incorrect": caught,
            "no_verdict": total("no_verdict"),
            "unmatched": total("unmatched"),
        },
        "f1_correct": f1(right, fooled, missed),
        "f1_incorrect": f1(caught, missed, fooled),
        "flips_to_correct": total("flips_to_correct") / n,
        "flips_to_wrong": total("flips_to_wrong") / n,
        "lost": total("lost") / n,
        "malformed": total("malformed") / n,
    }
