"""Which skills a response shows: answers, retries, reflections, and whether its verdicts are true (paper §6)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from skillfactory.evaluation.markers import count_markers, markers
from skillfactory.records import Question, Response
from skillfactory.tags import Block, bare, blocks, missing_tags, plain_answers, verdict_of
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade as grade_of

MANY = 8  # explicit answers from which on responses are counted together
_CUTS = (5, 25, 50, 75, 95)
_VERDICTS = (
    "correct_called_correct", "correct_called_incorrect", "incorrect_called_correct", "incorrect_called_incorrect",
    "no_verdict", "unmatched",
)  # fmt: skip


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
    early_stop: bool = False
    late_stop: bool = False
    lost: bool = False
    malformed: bool = False
    markers: tuple[int, ...] = ()  # counts of a text without tags, in the order of markers()

    @property
    def tagged(self) -> bool:
        """Whether tags say anything at all; else only its markers can (markers.py)."""
        return not self.markers


def read_skills(task: Task, question: Question, response: Response) -> SkillUse:
    """Read the skills in one response, each sample graded by itself.

    An explicit answer is a sample with an answer; in a response without samples, each complete `<answer>…</answer>` is
    one, so that a plain solution counts 1. A retry is a sample that follows an explicit answer. A flip is a change of
    outcome between one explicit answer and the next. Stopped early: the last verdict is "incorrect", and yet no other
    sample follows (unless the response was cut at its length). Stopped late: a right sample, truly called correct, is
    followed by another. `lost`: an explicit answer was right, the response's own was not.
    """
    text, cut = response.text, response.finish_reason == "length"
    found, _ = blocks(text)
    samples = [bare(b.text) for b in found if b.kind == "sample"]
    answers: list[str] = []
    rights: list[bool] = []  # per explicit answer
    retries = 0
    truths: list[bool] = []  # per piece
    for piece in samples or plain_answers(text):
        grade = grade_of(task, question, piece)
        retries += bool(samples and answers)
        truths.append(grade.outcome == "correct")
        if grade.outcome != "no_answer":
            answers.append(grade.answer)
            rights.append(grade.outcome == "correct")
    said = _judgements(found, truths)
    flips = [(before, after) for before, after in pairwise(rights) if before != after]
    last_sample = max((block.start for block in found if block.kind == "sample"), default=-1)
    return SkillUse(
        answers=len(answers),
        samples=len(samples),
        reflections=sum(b.kind == "reflect" for b in found),
        retries=retries,
        distinct_answers=len(set(answers)),
        flips_to_correct=sum(after for _, after in flips),
        flips_to_wrong=sum(before for before, _ in flips),
        early_stop=bool(said) and not cut and said[-1].verdict == "incorrect" and said[-1].start > last_sample,
        late_stop=any(j.verdict == "correct" and j.truth and j.start < last_sample for j in said),
        lost=any(rights) and response.outcome != "correct",
        malformed=missing_tags(text, cut) > 0,
        markers=() if found else count_markers(text),
        **Counter(judgement.name for judgement in said),
    )


@dataclass(frozen=True, slots=True)
class _Judgement:
    """A reflection's verdict ("" for none) on the sample before it. `truth`: whether that is right; None for none."""

    start: int
    verdict: str
    truth: bool | None

    @property
    def name(self) -> str:
        """The field of SkillUse that counts it."""
        if not self.verdict:
            return "no_verdict"
        if self.truth is None:
            return "unmatched"
        return f"{'correct' if self.truth else 'incorrect'}_called_{self.verdict}"


def _judgements(found: list[Block], truths: list[bool]) -> list[_Judgement]:
    """One a reflection. `truths`: for each sample block in order, whether it is correct."""
    said = []
    remaining = iter(truths)
    judged: bool | None = None  # truth of the sample that a reflection here would be about
    for block in found:
        if block.kind == "sample":
            judged = next(remaining)
        elif block.kind == "broken":
            judged = None  # what follows may be about the broken block, not about the sample before it
        else:
            said.append(_Judgement(block.start, verdict_of(block.text), judged))
    return said


def f1(hits: int, false_alarms: int, misses: int) -> float | None:
    """F1 of one class; None where the class was neither present nor claimed."""
    total = 2 * hits + false_alarms + misses
    return 2 * hits / total if total else None


def aggregate(uses: Sequence[SkillUse], responses: Sequence[Response]) -> dict[str, Any]:
    """What a model's responses show, of which `uses` are the skills in the same order; {} for none.

    Means over responses; the verdict confusion summed over them, with F1 on correct and on incorrect answers; how many
    are right by number of explicit answers; lengths of right and of wrong ones. Markers: mean counts over the responses
    without tags.
    """
    if not uses:
        return {}

    def total(name: str) -> int:
        return sum(int(getattr(use, name)) for use in uses)

    right, missed = total("correct_called_correct"), total("correct_called_incorrect")
    fooled, caught = total("incorrect_called_correct"), total("incorrect_called_incorrect")
    plain = [use.markers for use in uses if not use.tagged]
    n = len(uses)
    return {
        "responses": n,
        **{name: total(name) / n for name in ("answers", "reflections", "retries", "distinct_answers")},
        "with_retry": sum(use.retries > 0 for use in uses) / n,
        "with_reflection": sum(use.reflections > 0 for use in uses) / n,
        "verdicts": {name: total(name) for name in _VERDICTS},
        "f1_correct": f1(right, fooled, missed),
        "f1_incorrect": f1(caught, missed, fooled),
        "flips_to_correct": total("flips_to_correct") / n,
        "flips_to_wrong": total("flips_to_wrong") / n,
        "early_stops": total("early_stop") / n,
        "late_stops": total("late_stop") / n,
        "lost": total("lost") / n,
        "malformed": total("malformed") / n,
        "by_answers": _by_answers(uses, responses),
        "tokens_right": percentiles([r.tokens for r in responses if r.outcome == "correct"]),
        "tokens_wrong": percentiles([r.tokens for r in responses if r.outcome != "correct"]),
        "tagged": 1 - len(plain) / n,
        "markers": {kind: sum(use[i] for use in plain) / len(plain) for i, kind in enumerate(markers()) if plain},
    }


def _by_answers(uses: Sequence[SkillUse], responses: Sequence[Response]) -> dict[str, dict[str, int]]:
    """{number of explicit answers: how many responses have it, and how many of those are right}."""
    everyone, right = Counter[int](), Counter[int]()
    for use, response in zip(uses, responses, strict=True):
        number = min(use.answers, MANY)
        everyone[number] += 1
        right[number] += response.outcome == "correct"
    return {
        f"{number}+" if number == MANY else str(number): {"responses": everyone[number], "correct": right[number]}
        for number in sorted(everyone)
    }


def percentiles(values: Sequence[int]) -> dict[str, float]:
    """The 5th, 25th, 50th, 75th and 95th percentile; {} for no value."""
    import numpy as np

    return {str(q): float(v) for q, v in zip(_CUTS, np.percentile(values, _CUTS), strict=True)} if values else {}
