"""Accuracy with honest error bars. The question is the unit: samples of one question are not independent.

Scores are 0 or 1 for one response. They are first averaged within their question; every standard error, interval and
p-value is then taken over questions. Nothing here loads torch; numpy and scipy are loaded when they are needed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions with its standard error (None where fewer than two questions leave it unknown)."""

    mean: float
    se: float | None
    n_questions: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference paired by question, with its interval and two-sided p-value.

    `se`, `low` and `high` are None where there are fewer than two questions; `low` and `high` also where all
    differences are equal, because nothing then tells how far they could vary.
    """

    mean: float
    se: float | None
    low: float | None
    high: float | None
    p: float
    n_questions: int


def question_means(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Mean score of each question, from (question id, score) pairs in any order."""
    grouped: defaultdict[str, list[float]] = defaultdict(list)
    for question_id, score in scores:
        grouped[question_id].append(score)
    # Sorted, so that sums do not depend on the order in which responses finished.
    return {question_id: sum(grouped[question_id]) / len(grouped[question_id]) for question_id in sorted(grouped)}


def estimate(means: Sequence[float]) -> Estimate:
    """Mean and standard error over questions, i.e. clustered by question. Raises ValueError for no question."""
    import numpy as np

    if not means:
        raise ValueError("no question to average over")
    values = np.asarray(means, dtype=float)  # [questions]
    se = float(values.std(ddof=1) / sqrt(len(values))) if len(values) > 1 else None
    return Estimate(float(values.mean()), se, len(values))


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], confidence: float = 0.95
) -> Difference | None:
    """`first` minus `second` over the questions that both have; None where they share none.

    A paired t-test on the differences of the questions' means (Student's t, n - 1 degrees of freedom). Where all
    differences are equal t does not exist; p is then that of the exact sign-flip test, 2^(1-n), or 1 for no difference.
    """
    import numpy as np
    from scipy import stats

    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = np.asarray([first[question_id] - second[question_id] for question_id in shared])  # [questions]
    n, mean = len(shared), float(differences.mean())
    if float(np.ptp(differences)) < 1e-12:
        p = 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
        return Difference(mean, 0.0 if n > 1 else None, None, None, p, n)
    se = float(differences.std(ddof=1) / sqrt(n))
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * se
    p = float(2 * stats.t.sf(abs(mean) / se, n - 1))
    return Difference(mean, se, mean - reach, mean + reach, p, n)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that one of k samples or more is right, given `correct` right of `samples` (Chen et al. 2021)."""
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples} samples")
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return 1 - comb(samples - correct, k) / comb(samples, k)
