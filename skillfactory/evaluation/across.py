"""Means over training seeds and evaluation questions, with an interval that covers both.

Scores are {seed: {set: {question: mean score}}}. A mean is taken within each set, then over sets, then over seeds, each
of equal weight. Two things vary: how a training comes out (the seed, whose effect is common to all sets) and which
questions are asked. Questions usually differ by seed (nested) but may be shared by some seeds or by all (crossed).

The variance of the mean is clustered two ways (Cameron, Gelbach and Miller 2011): that of the seeds' means, `seeds`,
holds all that differs between seeds, new questions included; what seeds share, because they share questions, is the
mean covariance of two seeds, `shared`, which their product over shared questions estimates. Where no question is shared
it is 0, and the interval is Student's over seeds. The two parts have very different degrees of freedom, so each gets
its own t before they are added; and the interval is never shorter than one over the questions alone. Simulations
(benchmarks/bench_across.py) compare this with Satterthwaite's degrees of freedom and with seeds - 1 for the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

from skillfactory.evaluation import statistics
from skillfactory.evaluation.statistics import CONFIDENCE, holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sets = Mapping[str, Mapping[str, float]]  # {set: {question: mean score}}
Scores = Mapping[int, Sets]  # by seed
_NONE = 1e-18  # a smaller variance is none
_LEAST_P = 1e-12


@dataclass(frozen=True, slots=True)
class Across:
    """A mean with its standard error and 95 % interval; `p` (two-sided) of differences only.

    `over` says what the interval covers. What is unknown is None, as in statistics.Estimate and statistics.Difference.
    """

    mean: float
    se: float | None
    low: float | None
    high: float | None
    p: float | None
    n_seeds: int
    n_questions: int
    n_sets: int
    over: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A mean over seeds, sets and questions, and the variances that its interval is made of.

    `seeds`: clustered by seed, with `seed_freedom` degrees of freedom. `questions`: clustered by question. `both`: by
    question within seed. `alone`: added for sets in which all answers came out alike.
    """

    mean: float
    seeds: float
    questions: float
    both: float
    seed_freedom: int
    question_freedom: float
    alone: float = 0.0

    @property
    def shared(self) -> float:
        """The mean covariance of two seeds' means: what more seeds on the same questions cannot average out."""
        n = self.seed_freedom + 1
        return max(0.0, (self.questions - self.both) * n / (n - 1)) + self.alone

    @property
    def least(self) -> float:
        """The variance that questions alone give."""
        return self.questions + self.alone

    @property
    def variance(self) -> float:
        """Of the mean, over seeds and questions."""
        return max(self.seeds + self.shared, self.least)


def accuracy(scores: Scores, fixed: bool = False) -> Across | None:
    """Mean of scores from 0 to 1, None for none. `fixed`: the model is the same for all seeds, only questions vary."""
    sets = _shared_sets(scores)
    if not sets:
        return None
    n_questions = len(_questions(scores, sets))
    if len(scores) == 1:
        (by_set,) = scores.values()
        one = statistics.average([statistics.estimate(list(by_set[name].values())) for name in sets])
        return Across(one.mean, one.se, one.low, one.high, None, 1, n_questions, len(sets), "questions")
    over = "questions" if fixed else "seeds and questions"
    parts = clustered(*coded(scores, sets), shares=True)
    if parts is None:
        return Across(_mean(scores, sets), None, None, None, None, len(scores), n_questions, len(sets), over)
    variance = parts.least if fixed else parts.variance
    half = reach(parts, 1 - CONFIDENCE, fixed)
    mean = min(1.0, max(0.0, parts.mean))
    # As many independent answers as would have an interval of this length: it stays within 0 and 1 (statistics.py).
    bounded = statistics.with_interval(mean, half / _normal(), n_questions, inf)
    return Across(
        mean, sqrt(variance), bounded.low, bounded.high, None, len(scores), n_questions, len(sets), over
    )  # fmt: skip


def difference(scores: Scores, bound: float = 1.0, fixed: bool = False) -> Across | None:
    """Mean of differences (see `paired`), tested against 0; None for none. Intervals end at ±`bound`.

    `fixed`: both of what is compared are the same for all seeds, only questions vary.
    """
    sets = _shared_sets(scores)
    if not sets:
        return None
    n_questions = len(_questions(scores, sets))
    if len(scores) == 1:
        (by_set,) = scores.values()
        each = [statistics.paired_difference(by_set[name], dict.fromkeys(by_set[name], 0.0)) for name in sets]
        one = statistics.average_difference([found for found in each if found])
        low, high = _bounded(one.low, bound), _bounded(one.high, bound)
        return Across(one.mean, one.se, low, high, one.p, 1, n_questions, len(sets), "questions")
    parts = clustered(*coded(scores, sets))
    places = (len(scores), n_questions, len(sets), "questions" if fixed else "seeds and questions")
    if parts is None:
        return Across(_mean(scores, sets), None, None, None, 1.0, *places)
    variance = parts.least if fixed else parts.variance
    if variance < _NONE:  # all differences are equal: nothing tells how far they could vary
        p = 1.0 if abs(parts.mean) < 1e-12 else 2.0 ** (1 - len(scores))
        return Across(parts.mean, 0.0, None, None, p, *places)
    half = reach(parts, 1 - CONFIDENCE, fixed)
    low, high = _bounded(parts.mean - half, bound), _bounded(parts.mean + half, bound)
    return Across(parts.mean, sqrt(variance), low, high, _p(parts, fixed), *places)


def paired(first: Scores, second: Scores) -> dict[int, dict[str, dict[str, float]]]:
    """`first` minus `second`, of every question that both have in the same seed and set."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for seed, sets in first.items():
        for name, questions in sets.items():
            theirs = second.get(seed, {}).get(name, {})
            shared = {q: score - theirs[q] for q, score in questions.items() if q in theirs}
            if shared:
                found.setdefault(seed, {})[name] = shared
    return found


def over_seeds(values: Sequence[float | None], bound: float = inf) -> dict[str, Any]:
    """A figure's mean, standard error and Student's interval over seeds, of those that have it; for what is no share.

    {"mean", "se", "low", "high", "n_seeds"}; all but the last None where unknown. Intervals end at ±`bound`.
    """
    from scipy import stats

    known = [value for value in values if value is not None]
    n = len(known)
    mean = sum(known) / n if n else None
    if mean is None or n < 2:
        return {"mean": mean, "se": None, "low": None, "high": None, "n_seeds": n}
    se = sqrt(sum((value - mean) ** 2 for value in known) / (n - 1) / n)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * se
    return {"mean": mean, "se": se, "low": max(-bound, mean - half), "high": min(bound, mean + half), "n_seeds": n}


def corrected(cells: Sequence[dict[str, Any]]) -> None:
    """Give each difference (a dict with `p`) the p-value corrected for being one of these: Holm's, as `p_adjusted`."""
    tested = [cell for cell in cells if cell.get("p") is not None]
    for cell, p in zip(tested, holm([cell["p"] for cell in tested]), strict=True):
        cell["p_adjusted"] = p


def plain(found: Across | None) -> dict[str, Any] | None:
    """As a dict, without `p` where nothing was tested."""
    return (
        None if found is None else {key: value for key, value in asdict(found).items() if (key, value) != ("p", None)}
    )


# --- the variance


def coded(scores: Scores, sets: Sequence[str]) -> "tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]":
    """(score, number of its seed, of its set, of its question) of every question of these sets, as arrays."""
    import numpy as np

    questions = {question: i for i, question in enumerate(_questions(scores, sets))}
    rows = [
        (score, i, j, questions[question])
        for i, seed in enumerate(sorted(scores))
        for j, name in enumerate(sets)
        for question, score in sorted(scores[seed][name].items())
    ]
    values, *codes = zip(*rows, strict=True)
    return np.asarray(values, dtype=float), *(np.asarray(code) for code in codes)  # type: ignore[return-value]


def clustered(
    values: "NDArray[Any]", seeds: "NDArray[Any]", sets: "NDArray[Any]", questions: "NDArray[Any]", shares: bool = False
) -> Parts | None:
    """The parts of the variance, from arrays of equal length; None where a set has fewer than two questions.

    Codes count from 0; every seed has every set. `shares`: scores are from 0 to 1, and a set where all are 0, or all 1,
    counts as if half a question more were otherwise (as statistics.average does it).
    """
    import numpy as np

    n_seeds, n_sets, n_questions = int(seeds.max()) + 1, int(sets.max()) + 1, int(questions.max()) + 1
    cells = seeds * n_sets + sets
    sizes = np.bincount(cells, minlength=n_seeds * n_sets)
    means = (np.bincount(cells, values, n_seeds * n_sets) / sizes).reshape(n_seeds, n_sets)
    by_set = means.mean(axis=0)
    asked = np.bincount(np.unique(sets * n_questions + questions) // n_questions, minlength=n_sets)  # a set's questions
    if asked.min() < 2:
        return None
    rest = (values - by_set[sets]) / (n_seeds * n_sets * sizes[cells])  # what each adds to the mean's error
    seed_sums = np.bincount(seeds, rest, n_seeds)
    scaled = rest * np.sqrt(asked / (asked - 1))[sets]
    within = seeds * n_questions + questions
    v_questions = float(np.sum(np.bincount(questions, scaled, n_questions) ** 2))
    v_both = float(np.sum(np.bincount(within, scaled, n_seeds * n_questions) ** 2))
    # Satterthwaite: sets are independent as far as questions go.
    of_set = np.bincount(sets * n_questions + questions, scaled, n_sets * n_questions).reshape(n_sets, n_questions)
    v_sets = np.sum(of_set**2, axis=1)
    v_sets[v_sets < _NONE] = 0.0  # rounding, whose degrees of freedom mean nothing
    spread = float(np.sum(v_sets**2 / (asked - 1)))
    freedom = float(v_sets.sum()) ** 2 / spread if spread > 0 else float(asked.sum() - n_sets)
    alike = (np.bincount(sets, scaled**2, n_sets) < _NONE) & (shares and n_sets > 1)
    half = (asked * by_set + 0.5) / (asked + 1)
    alone = float(np.sum(np.where(alike, half * (1 - half) / asked, 0.0))) / n_sets**2
    v_seeds = float(np.sum(seed_sums**2)) * n_seeds / (n_seeds - 1) if n_seeds > 1 else 0.0
    return Parts(float(by_set.mean()), v_seeds, v_questions, v_both, n_seeds - 1, freedom, alone)


def reach(parts: Parts, alpha: float, fixed: bool = False) -> float:
    """Half the length of the interval that misses with probability `alpha`."""
    from scipy.special import stdtrit  # many times faster than scipy.stats.t

    by_question = -float(stdtrit(parts.question_freedom, alpha / 2))
    least = by_question**2 * parts.least
    if fixed:
        return sqrt(least)
    by_seed = -float(stdtrit(parts.seed_freedom, alpha / 2))
    return sqrt(max(by_seed**2 * parts.seeds + by_question**2 * parts.shared, least))


def _p(parts: Parts, fixed: bool) -> float:
    """The alpha whose interval just reaches 0."""
    from scipy.optimize import brentq

    size = abs(parts.mean)
    if size < 1e-12:
        return 1.0
    if reach(parts, _LEAST_P, fixed) < size:
        return _LEAST_P
    return float(brentq(lambda alpha: reach(parts, alpha, fixed) - size, _LEAST_P, 1.0, xtol=1e-14, rtol=1e-10))


def _normal() -> float:
    from scipy import stats

    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


def _bounded(end: float | None, bound: float) -> float | None:
    return None if end is None else min(bound, max(-bound, end))


def _shared_sets(scores: Scores) -> list[str]:
    """The sets that every seed has, in order: a mean over other ones would not be the same mean."""
    each = [{name for name, questions in sets.items() if questions} for sets in scores.values()]
    return sorted(set.intersection(*each)) if each else []


def _questions(scores: Scores, sets: Sequence[str]) -> list[str]:
    return sorted({question for by_set in scores.values() for name in sets for question in by_set[name]})


def _mean(scores: Scores, sets: Sequence[str]) -> float:
    each = [sum(by_set[name].values()) / len(by_set[name]) for by_set in scores.values() for name in sets]
    return sum(each) / len(each)
