"""Statistics: standard errors over questions, intervals, paired differences, corrections, pass@k."""

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillfactory.evaluation.statistics import (
    Difference,
    Estimate,
    average,
    average_difference,
    estimate,
    holm,
    paired_difference,
    pass_at_k,
    question_means,
)

SCORES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=12)


def test_question_is_the_unit_of_the_standard_error() -> None:
    # Ten samples each of two questions: twenty responses, but two independent observations.
    means = question_means([("a", 1.0)] * 10 + [("b", 0.0)] * 10)
    found = estimate(list(means.values()))
    assert (found.mean, found.n_questions) == (0.5, 2)
    assert found.se == pytest.approx(0.5)  # sd of {0, 1} is sqrt(.5); over sqrt(2)


def test_standard_error_agrees_with_scipy() -> None:
    from scipy import stats

    values = [0.0, 0.25, 0.5, 1.0, 1.0, 0.75, 0.0]
    assert estimate(values).se == pytest.approx(float(stats.sem(values)))


def test_one_question_has_no_standard_error() -> None:
    assert estimate([1.0]).se is None
    with pytest.raises(ValueError, match="no question"):
        estimate([])


def test_unequal_samples_weigh_questions_equally() -> None:
    means = question_means([("a", 1.0), ("a", 0.0), ("b", 1.0)])
    assert means == {"a": 0.5, "b": 1.0}


def test_paired_difference_agrees_with_scipy() -> None:
    from scipy import stats

    rng = random.Random(1)
    first = {str(i): rng.random() for i in range(30)}
    second = {str(i): rng.random() for i in range(29, -1, -1)}  # another order: pairing is by id
    found = paired_difference(first, second)
    expected = stats.ttest_rel([first[str(i)] for i in range(30)], [second[str(i)] for i in range(30)])
    interval = expected.confidence_interval(0.95)
    assert found is not None
    assert found.p == pytest.approx(float(expected.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_pairing_sees_what_unpaired_tests_do_not() -> None:
    first = {str(i): i / 10 + 0.05 + 0.001 * (i % 2) for i in range(10)}
    second = {str(i): i / 10 for i in range(10)}
    found = paired_difference(first, second)
    assert found is not None
    assert found.p < 1e-6


def test_paired_difference_without_variation() -> None:
    same = paired_difference({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0})
    assert same is not None
    assert (same.mean, same.p, same.low) == (0.0, 1.0, None)
    ahead = paired_difference(dict.fromkeys("abcd", 1.0), dict.fromkeys("abcd", 0.0))
    assert ahead is not None
    assert ahead.p == 1 / 8  # two of sixteen sign patterns are as extreme
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None
    one = paired_difference({"a": 1.0, "c": 0.0}, {"a": 0.0, "b": 1.0})
    assert one is not None
    assert (one.n_questions, one.p, one.se) == (1, 1.0, None)


@given(SCORES, SCORES)
def test_difference_is_antisymmetric(first: dict[str, float], second: dict[str, float]) -> None:
    there, back = paired_difference(first, second), paired_difference(second, first)
    if there is None or back is None:
        assert not first.keys() & second.keys()
        return
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    assert there.p == pytest.approx(back.p, rel=1e-6)
    assert 0 <= there.p <= 1
    assert there.low is None or (there.high is not None and there.low <= there.mean <= there.high)


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_hit(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(combinations(range(n), k))
    expected = sum(any(i < correct for i in chosen) for chosen in subsets) / len(subsets)
    assert pass_at_k(n, correct, k) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_is_not_defined(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"correct of|pass@"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(("mean", "questions", "samples"), [(0.02, 60, 4), (0.3, 20, 4), (0.9, 50, 2)])
def test_interval_holds_the_true_mean_as_often_as_it_says(mean: float, questions: int, samples: int) -> None:
    rng = np.random.default_rng(0)
    inside = plain = 0
    for _ in range(400):
        ability = rng.beta(mean, 1 - mean, size=questions)  # questions differ much, samples of one little
        found = estimate(list(rng.binomial(samples, ability) / samples))
        assert found.low is not None
        assert found.high is not None
        assert found.se is not None
        inside += found.low <= mean <= found.high
        plain += abs(found.mean - mean) <= 1.96 * found.se
    assert inside / 400 >= 0.93
    assert plain <= inside + 8, "mean ± 1.96 se is no better"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_interval_surrounds_its_mean_and_stays_a_share(values: list[float]) -> None:
    found = estimate(values)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1
    assert found.high - found.low > 0, "however alike the questions are, it is not certain"


def test_all_wrong_is_not_certain_and_more_questions_say_more() -> None:
    few, many = estimate([0.0] * 10), estimate([0.0] * 100)
    assert (few.mean, few.low, many.low) == (0.0, 0.0, 0.0)
    assert few.high is not None
    assert many.high is not None
    assert few.high == pytest.approx(1 - 0.025 ** (1 / 10))  # Clopper and Pearson's for none of ten
    assert few.high > many.high > 0


def test_average_gives_sets_equal_weight() -> None:
    large, small = estimate([0.0] * 90 + [1.0] * 10), estimate([1.0, 0.5, 1.0, 0.5])
    found = average([large, small])
    assert found.mean == pytest.approx((0.1 + 0.75) / 2)
    assert found.n_questions == 104
    assert large.se is not None
    assert small.se is not None
    assert found.se == pytest.approx(((large.se**2 + small.se**2) / 4) ** 0.5)
    assert average([large]).mean == large.mean
    assert average([large, estimate([1.0])]).se is None  # nothing is known of the second
    with pytest.raises(ValueError, match="no set"):
        average([])


def test_average_difference_agrees_with_scipys_unequal_variances() -> None:
    # Welch's test compares two independent means: the mean of a difference and of another's negative is half of it.
    from scipy import stats

    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, 12), rng.normal(0.1, 3, 30)
    first = paired_difference({str(i): v for i, v in enumerate(a)}, dict.fromkeys(map(str, range(12)), 0.0))
    second = paired_difference({str(i): -v for i, v in enumerate(b)}, dict.fromkeys(map(str, range(30)), 0.0))
    assert first is not None
    assert second is not None
    found = average_difference([first, second])
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(float(expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low / 2, interval.high / 2))
    assert average_difference([first]) == first


def test_average_of_differences_that_do_not_vary() -> None:
    same = Difference(0.0, 0.0, None, None, 1.0, 5)
    assert average_difference([same, same]).p == 1.0
    ahead = Difference(1.0, 0.0, None, None, 1 / 16, 5)
    assert average_difference([ahead, ahead]).p == 2.0**-9
    alone = Difference(1.0, None, None, None, 1.0, 1)
    assert average_difference([ahead, alone]).low is None
    assert average_difference([ahead, alone]).p == 1.0, (
        "of one question nothing is known, however many others there are"
    )


def test_holm_by_hand() -> None:
    # 3 x .01 = .03; 2 x .02 = .04; .04 is not raised above 1 x .04; in the order given.
    assert holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=10))
def test_holm_corrects_upwards_and_keeps_the_order(ps: list[float]) -> None:
    found = holm(ps)
    assert all(before <= after <= 1 for before, after in zip(ps, found, strict=True))
    assert sorted(range(len(ps)), key=lambda i: (ps[i], i)) == sorted(
        range(len(ps)), key=lambda i: (found[i], ps[i], i)
    )
    if ps:
        assert min(found) == pytest.approx(min(1, len(ps) * min(ps)))


def test_estimate_is_what_average_of_one_set_is() -> None:
    one: Estimate = estimate([0.0, 1.0, 0.5])
    assert average([one]) == one


@pytest.mark.parametrize("design", [((0.97, 30), (0.9, 1000)), ((0.05, 10), (0.5, 200)), ((0.02, 60), (0.01, 60))])
def test_average_holds_the_true_mean_also_where_a_set_comes_out_all_alike(
    design: tuple[tuple[float, int], ...],
) -> None:
    rng = np.random.default_rng(0)
    true = sum(p for p, _ in design) / len(design)
    inside = 0
    for _ in range(300):
        found = average([estimate(list(rng.binomial(1, p, size=n).astype(float))) for p, n in design])
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= true <= found.high
    assert inside / 300 >= 0.93
