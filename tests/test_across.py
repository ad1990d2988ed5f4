"""Intervals over seeds and questions: against formulas by hand, and what may not change them."""

import random
from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skillfactory.evaluation import across, statistics

Scores = dict[int, dict[str, dict[str, float]]]


def made(seeds: int, sets: int, questions: int, shared: bool, effect: float = 0.2, seed: int = 0) -> Scores:
    """Scores of two samples a question; the same questions for all seeds, or each its own."""
    rng = random.Random(seed)
    hard = {f"{j}/{i}": rng.random() for j in range(sets) for i in range(questions)}
    found: Scores = {}
    for s in range(seeds):
        shift = effect * (rng.random() - 0.5)
        for j in range(sets):
            for i in range(questions):
                chance = (hard[f"{j}/{i}"] if shared else rng.random()) + shift
                score = sum(rng.random() < chance for _ in range(2)) / 2
                name = f"{j}/{i}" if shared else f"{j}/{i} of {s}"
                found.setdefault(s, {}).setdefault(f"set {j}", {})[name] = score
    return found


designs = st.builds(
    made, st.integers(2, 5), st.integers(1, 3), st.integers(2, 12), st.booleans(), st.floats(0, 0.8), st.integers(0, 99)
)


def by_hand(scores: Scores) -> tuple[float, float, float]:
    """Mean, variance over seeds and questions, and that over questions alone: sums over all pairs of scores."""
    n_seeds = len(scores)
    names = sorted(next(iter(scores.values())))
    mean_of = {
        name: sum(sum(sets[name].values()) / len(sets[name]) for sets in scores.values()) / n_seeds for name in names
    }
    rest = [
        (seed, question, name, (score - mean_of[name]) / n_seeds / len(names) / len(sets[name]))
        for seed, sets in scores.items()
        for name in names
        for question, score in sets[name].items()
    ]
    asked = {name: len({question for sets in scores.values() for question in sets[name]}) for name in names}
    factor = {name: sqrt(n / (n - 1)) for name, n in asked.items()}
    seeds = questions = both = 0.0
    for seed, question, name, u in rest:
        for seed2, question2, name2, v in rest:
            seeds += u * v * (seed == seed2) * n_seeds / (n_seeds - 1)
            scaled = u * factor[name] * v * factor[name2]
            questions += scaled * (question == question2)
            both += scaled * (question == question2 and seed == seed2)
    shared = max(0.0, (questions - both) * n_seeds / (n_seeds - 1))
    return sum(mean_of.values()) / len(names), max(seeds + shared, questions), questions


@given(designs)
@settings(max_examples=40)
def test_the_variance_is_the_sum_over_pairs_that_share_a_seed_or_a_question(scores: Scores) -> None:
    mean, variance, questions = by_hand(scores)
    found = across.difference(scores)
    assert found is not None
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.se == pytest.approx(sqrt(variance), abs=1e-6)
    assert found.se >= sqrt(questions) - 1e-6, "never below the questions alone"


def test_nested_seeds_that_differ_give_students_interval_of_their_means() -> None:
    scores = made(4, 2, 40, shared=False, effect=1.0)
    means = [sum(sum(each.values()) / len(each) for each in sets.values()) / 2 for sets in scores.values()]
    mean = sum(means) / 4
    se = sqrt(sum((m - mean) ** 2 for m in means) / 3 / 4)
    found = across.difference(scores)
    assert found is not None
    assert (found.mean, found.se) == (pytest.approx(mean), pytest.approx(se))
    half = stats.t.ppf(0.975, 3) * se
    assert (found.low, found.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert found.p == pytest.approx(2 * stats.t.sf(mean / se, 3))


def test_seeds_that_answer_alike_tell_no_more_than_one() -> None:
    (one,) = made(1, 1, 30, shared=True).values()
    found = across.accuracy(dict.fromkeys(range(3), one))
    alone = across.accuracy({0: one})
    assert found is not None
    assert alone is not None
    assert found.se == pytest.approx(alone.se)
    assert (found.low, found.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


@given(st.integers(1, 3), st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=30)
def test_one_seed_is_what_statistics_says_of_its_questions(sets: int, questions: int, seed: int) -> None:
    scores = made(1, sets, questions, shared=True, seed=seed)
    estimates = [statistics.estimate(list(each.values())) for each in scores[0].values()]
    expected = statistics.average(estimates)
    found = across.accuracy(scores)
    assert found is not None
    assert found.over == "questions"
    assert (found.mean, found.se, found.low, found.high) == (expected.mean, expected.se, expected.low, expected.high)
    zeros = {name: dict.fromkeys(each, 0.0) for name, each in scores[0].items()}
    each = [statistics.paired_difference(scores[0][name], zeros[name]) for name in zeros]
    tested = statistics.average_difference([one for one in each if one])
    difference = across.difference(across.paired(scores, {0: zeros}))
    assert difference is not None
    low = None if tested.low is None else max(-1.0, tested.low)
    assert (difference.mean, difference.low, difference.p) == (tested.mean, low, tested.p)


@given(designs, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_names_and_order_do_not_matter(scores: Scores, rng: random.Random) -> None:
    seeds, turned = list(scores), {}
    rng.shuffle(seeds)
    for new, seed in enumerate(seeds):
        each = {f"x{name}": {f"q{q}": v for q, v in reversed(asked.items())} for name, asked in scores[seed].items()}
        turned[new * 7 - 3] = dict(reversed(each.items()))
    for of in (across.accuracy, across.difference):
        first, second = of(scores), of(turned)
        assert first is not None
        assert second is not None
        assert first.mean == pytest.approx(second.mean)
        for end in ("se", "low", "high"):
            assert getattr(first, end) == pytest.approx(getattr(second, end), abs=1e-7)


@given(designs, st.booleans())
@settings(max_examples=60)
def test_intervals_are_about_their_mean_and_within_bounds(scores: Scores, fixed: bool) -> None:
    found = across.accuracy(scores, fixed)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert (found.over == "questions") == fixed
    whole, questions = across.accuracy(scores), across.accuracy(scores, fixed=True)
    assert whole is not None
    assert questions is not None
    if (questions.se or 0.0) > 1e-9:  # where all questions came out alike, their number alone makes the interval
        assert whole.high - whole.low >= questions.high - questions.low - 1e-9  # type: ignore[operator]


@given(designs, designs)
@settings(max_examples=60)
def test_differences_turn_with_their_order_and_p_agrees_with_the_interval(first: Scores, second: Scores) -> None:
    there, back = (across.difference(across.paired(a, b)) for a, b in ((first, second), (second, first)))
    if there is None or back is None:
        assert there is back
        return
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    if there.low is not None and back.high is not None and there.high is not None and there.p is not None:
        assert there.low == pytest.approx(-back.high, abs=1e-9)
        if abs(there.p - 0.05) > 1e-6 and abs(there.mean) < 1:
            assert (there.p < 0.05) == (there.low > 0 or there.high < 0)
        assert -1 <= there.low <= there.mean <= there.high <= 1


def test_what_is_the_same_for_all_seeds_varies_by_question_alone() -> None:
    scores = made(2, 2, 30, shared=False)
    fixed, whole = across.difference(scores, fixed=True), across.difference(scores)
    assert fixed is not None
    assert whole is not None
    assert fixed.over == "questions"
    assert whole.high - whole.low >= fixed.high - fixed.low  # type: ignore[operator]
    assert fixed.se == pytest.approx(sqrt(by_hand(scores)[2]))


def test_a_seeds_effect_is_common_to_its_sets() -> None:
    """Two sets that rise and fall together tell no more of the seeds than one."""
    one = made(3, 1, 400, shared=False, effect=1.0)
    two = {s: {"a": sets["set 0"], "b": {f"b{q}": v for q, v in sets["set 0"].items()}} for s, sets in one.items()}
    single, double = across.difference(one), across.difference(two)
    assert single is not None
    assert double is not None
    assert double.se == pytest.approx(single.se)


def test_what_is_missing_or_alike() -> None:
    assert across.accuracy({}) is None
    assert across.difference({}) is None
    only_one = {0: {"a": {"x": 1.0}}, 1: {"a": {"x": 0.0}}}
    found = across.accuracy(only_one)
    assert found is not None
    assert (found.mean, found.se, found.low) == (0.5, None, None)
    lacking: Scores = {0: {"a": {"x": 1.0, "y": 0.0}, "b": {"z": 1.0}}, 1: {"a": {"x": 1.0, "y": 1.0}}}
    found = across.accuracy(lacking)
    assert found is not None
    assert (found.mean, found.n_sets) == (0.75, 1), "only sets that every seed has"
    nothing = {s: {"a": {f"{i} of {s}": 0.0 for i in range(50)}} for s in range(3)}
    found = across.accuracy(nothing)
    assert found is not None
    assert found.low == 0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 150)), "as if every question were one answer"
    equal = across.difference({s: {"a": {"x": 0.5, "y": 0.5}} for s in range(3)})
    assert equal is not None
    assert (equal.se, equal.low, equal.p) == (0.0, None, 0.25)
    half_known = {s: {"a": dict(nothing[s]["a"]), "b": made(3, 1, 20, False)[s]["set 0"]} for s in range(3)}
    alone = across.accuracy({s: {"b": sets["b"]} for s, sets in half_known.items()}, fixed=True)
    both = across.accuracy(half_known, fixed=True)
    assert alone is not None
    assert both is not None
    assert both.se is not None
    assert alone.se is not None
    assert both.se > alone.se / 2, "a set without a right answer is not known for sure"


def test_pairing_is_by_seed_set_and_question() -> None:
    first: Scores = {0: {"a": {"x": 1.0, "y": 0.5}}, 1: {"a": {"x": 1.0}}, 2: {"a": {"z": 1.0}}}
    second: Scores = {0: {"a": {"x": 0.5}, "b": {"y": 0.0}}, 1: {"a": {"x": 0.0}}, 2: {"a": {"y": 1.0}}}
    assert across.paired(first, second) == {0: {"a": {"x": 0.5}}, 1: {"a": {"x": 1.0}}}


def test_over_seeds_is_students() -> None:
    found = across.over_seeds([1.0, None, 2.0, 4.0])
    assert found["n_seeds"] == 3
    expected = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (found["low"], found["high"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert across.over_seeds([0.5, 0.9], bound=1.0)["high"] == 1.0
    assert across.over_seeds([3.0])["low"] is None
    assert across.over_seeds([])["mean"] is None


def test_corrected_p_values_stand_beside_the_others() -> None:
    cells: list[dict[str, Any]] = [{"p": 0.01}, {"p": None}, {"p": 0.04}]
    across.corrected(cells)
    assert cells == [{"p": 0.01, "p_adjusted": 0.02}, {"p": None}, {"p": 0.04, "p_adjusted": 0.04}]
