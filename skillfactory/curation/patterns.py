"""How the pairs of one question are arranged into traces (paper §1c): pure functions; the next pattern is one function.

A pair is an attempt and a reflection that judged it rightly. Each attempt comes in one pair, so none occurs twice in a
trace. Every pattern here ends each trace on a correct pair.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skillfactory.recipe import Traces
from skillfactory.records import Attempt, Reflection


@dataclass(frozen=True, slots=True)
class Pair:
    """An attempt and a reflection whose verdict on it is true."""

    attempt: Attempt
    reflection: Reflection

    @property
    def correct(self) -> bool:
        return self.attempt.outcome == "correct"


# (correct pairs, incorrect pairs, randomness, settings) -> traces, each a list of pairs in order.
Pattern = Callable[[Sequence[Pair], Sequence[Pair], random.Random, Traces], list[list[Pair]]]


def algorithm1(
    correct: Sequence[Pair], incorrect: Sequence[Pair], rng: random.Random, settings: Traces
) -> list[list[Pair]]:
    """The paper's Algorithm 1: each pair is used once; more correct than incorrect pairs in every trace.

    While correct pairs remain: n+ = min(Uniform{1..L_max}, |Y+|), n- = min(Uniform{0..n+ - 1}, |Y-|), drawn without
    replacement; the incorrect ones are shuffled together with all correct ones but one, which comes last.
    """
    rights, wrongs = list(correct), list(incorrect)
    rng.shuffle(rights)  # so that taking from the end is a draw without replacement
    rng.shuffle(wrongs)
    traces = []
    while rights:
        n_right = min(rng.randint(1, settings.max_pairs), len(rights))
        n_wrong = min(rng.randint(0, n_right - 1), len(wrongs))
        last = rights.pop()
        body = [rights.pop() for _ in range(n_right - 1)] + [wrongs.pop() for _ in range(n_wrong)]
        rng.shuffle(body)
        traces.append([*body, last])
    return traces


def ladder(
    correct: Sequence[Pair], incorrect: Sequence[Pair], rng: random.Random, settings: Traces
) -> list[list[Pair]]:
    """What the authors' released data use: for every N = 1..L_max, N-1 pairs of any outcome, then a correct one.

    Pairs are drawn without replacement within a trace, afresh for each; an N beyond the question's pairs is left out.
    """
    traces = []
    for n in range(1, min(settings.max_pairs, len(correct) + len(incorrect)) + 1 if correct else 0):
        last = rng.choice(correct)
        others = [pair for pair in [*correct, *incorrect] if pair is not last]
        traces.append([*rng.sample(others, n - 1), last])
    return traces


def fail_first(
    correct: Sequence[Pair], incorrect: Sequence[Pair], rng: random.Random, settings: Traces
) -> list[list[Pair]]:
    """Ours: a long-tailed number of incorrect pairs, then a correct one; one trace for each correct pair.

    The number of failures is geometric (another one follows with chance 1 - stop_chance), at most max_pairs - 1 and at
    most the number of different wrong answers.

    Deviations: the paper's traces hold few failures, and may repeat a wrong answer. Here the incorrect pairs of a trace
    have distinct answers, since a trace that gives the same wrong answer twice teaches repeating. They are drawn
    without replacement within a trace, and may come again in another trace of the question.
    """
    by_answer: dict[str, list[Pair]] = {}
    for pair in incorrect:
        by_answer.setdefault("".join(pair.attempt.answer.split()), []).append(pair)
    answers = list(by_answer)
    traces = []
    for last in rng.sample(list(correct), len(correct)):
        failures = 0
        while failures < settings.max_pairs - 1 and rng.random() >= settings.stop_chance:
            failures += 1
        drawn = rng.sample(answers, min(failures, len(answers)))
        traces.append([*(rng.choice(by_answer[answer]) for answer in drawn), last])
    return traces


PATTERNS: dict[str, Pattern] = {"algorithm1": algorithm1, "ladder": ladder, "fail_first": fail_first}
