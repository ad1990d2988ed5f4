"""Accuracy with honest error bars. The question is the unit: samples of one question are not independent.

Scores are 0 or 1 for one response. They are first averaged within their question; every standard error, interval and
p-value is then taken over questions. Nothing here loads torch; numpy and scipy are loaded when they are needed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # a smaller standard error is none


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions with its standard error and 95 % interval.

    All three are None where fewer than two questions leave them unknown.
    """

    mean: float
    se: float | None
    low: float | None
    high: float | None
    n_questions: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference paired by question, with its 95 % interval and two-sided p-value.

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
    """Mean, standard error and interval over questions, i.e. clustered by question. Raises ValueError for none."""
    import numpy as np

    if not means:
        raise ValueError("no question to average over")
    values = np.asarray(means, dtype=float)  # [questions]
    se = float(values.std(ddof=1) / sqrt(len(values))) if len(values) > 1 else None
    return with_interval(float(values.mean()), se, len(values), len(values) - 1)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several sets' means, each of equal weight, as in the paper's tables. Raises ValueError for none."""
    if not estimates:
        raise ValueError("no set to average over")
    if len(estimates) == 1:
        return estimates[0]
    mean = sum(each.mean for each in estimates) / len(estimates)
    n = sum(each.n_questions for each in estimates)
    se, freedom = _pooled([(_surely(each), each.n_questions) for each in estimates])
    return with_interval(mean, se, n, freedom)


def _surely(each: Estimate) -> float | None:
    """A set's standard error, but not 0 where all its questions came out alike: then as if half a one had not."""
    if each.se is None or each.se > _ROUNDING:
        return each.se
    share = (each.n_questions * each.mean + 0.5) / (each.n_questions + 1)
    return sqrt(share * (1 - share) / each.n_questions)


def with_interval(mean: float, se: float | None, n: int, freedom: float) -> Estimate:
    """The interval of a share that was estimated from clusters (Korn and Graubard 1998).

    Clopper and Pearson's, for as many independent observations as would have this standard error. Unlike mean ± 2 se it
    stays within 0 and 1, and does not shrink to nothing where all questions came out alike: then every question counts
    as one observation.
    """
    from scipy import stats

    if se is None:
        return Estimate(mean, None, None, None, n)
    tail = (1 - CONFIDENCE) / 2
    seen = float(n)
    if se > _ROUNDING and 0 < mean < 1:
        # Few questions leave the standard error itself uncertain: Student's t in place of the normal.
        seen = mean * (1 - mean) / se**2 * float(stats.norm.ppf(tail) / stats.t.ppf(tail, freedom)) ** 2
    hits = seen * mean
    low = float(stats.beta.ppf(tail, hits, seen - hits + 1)) if hits > 1e-9 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, seen - hits)) if seen - hits > 1e-9 else 1.0
    return Estimate(mean, se, min(low, mean), max(high, mean), n)


def _pooled(parts: Sequence[tuple[float | None, int]]) -> tuple[float | None, float]:
    """Standard error of the mean of independent parts (se, n), and its degrees of freedom (Welch, Satterthwaite)."""
    variances = [None if se is None else (se / len(parts)) ** 2 for se, _ in parts]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(parts):
        return None, 1.0
    total = sum(known)
    spread = sum(variance**2 / (n - 1) for variance, (_, n) in zip(known, parts, strict=True))
    return sqrt(total), total**2 / spread if spread else float(max(1, sum(n - 1 for _, n in parts)))


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference | None:
    """`first` minus `second` over the questions that both have; None where they share none.

    A paired t-test on the differences of the questions' means (Student's t, n - 1 degrees of freedom). Where all
    differences are equal t does not exist; p is then that of the exact sign-flip test, 2^(1-n), or 1 for no difference.
    """
    import numpy as np

    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = np.asarray([first[question_id] - second[question_id] for question_id in shared])  # [questions]
    n, mean = len(shared), float(differences.mean())
    if float(np.ptp(differences)) < 1e-12:
        return _tested(mean, 0.0 if n > 1 else None, n, n - 1)
    return _tested(mean, float(differences.std(ddof=1) / sqrt(n)), n, n - 1)


def average_difference(differences: Sequence[Difference]) -> Difference:
    """The mean of several sets' differences, each of equal weight. Raises ValueError for none."""
    if not differences:
        raise ValueError("no set to average over")
    if len(differences) == 1:
        return differences[0]
    mean = sum(each.mean for each in differences) / len(differences)
    se, freedom = _pooled([(each.se, each.n_questions) for each in differences])
    return _tested(mean, se, sum(each.n_questions for each in differences), freedom)


def _tested(mean: float, se: float | None, n: int, freedom: float) -> Difference:
    from scipy import stats

    if se is None:  # one question, of a set at least: nothing tells how far its difference could vary
        return Difference(mean, None, None, None, 1.0, n)
    if se == 0:
        p = 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
        return Difference(mean, se, None, None, p, n)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * se
    p = float(2 * stats.t.sf(abs(mean) / se, freedom))
    return Difference(mean, se, mean - reach, mean + reach, p, n)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979): below .05, the chance of any false alarm among all is too."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that one of k samples or more is right, given `correct` right of `samples` (Chen et al. 2021)."""
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples} samples")
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return 1 - comb(samples - correct, k) / comb(samples, k)
