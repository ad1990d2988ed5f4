"""Pools and patterns: what a trace may hold, that draws follow the law of the full budget, and the user's own."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curated import Known, random_samples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from skillfactory.curation.patterns import PATTERNS, Arranged, arrange, load_pattern, patterns_of
from skillfactory.curation.pool import ATTEMPT, LackingError, Pair, Pool, Table
from skillfactory.errors import RecipeError
from skillfactory.recipe import Traces

samples_ = st.builds(
    random_samples,
    st.integers(0, 10**6).map(random.Random),
    st.sampled_from([1, 2, 5, 11, 16, 40]),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
settings_ = st.builds(
    Traces, max_pairs=st.integers(1, 7), pairs=st.sampled_from([0, 1, 2, 4]), per_question=st.sampled_from([0, 1, 3]),
    stop_chance=st.sampled_from([0.1, 0.5, 1.0]), distinct_variants=st.booleans(),
)  # fmt: skip
seeds_ = st.integers(0, 10**6)


def built(samples: Known, name: str, given: Traces, seed: int) -> Arranged:
    return arrange(samples, {name: (PATTERNS[name], 1.0)}, given, seed)


def shown(found: Arranged) -> list[Any]:
    return [([pair.slot for pair in pairs], rng.random()) for _, pairs, rng in found.traces]


@pytest.mark.parametrize("name", list(PATTERNS))
@settings(max_examples=60)
@given(samples=samples_, given=settings_, seed=seeds_)
def test_every_pattern(name: str, samples: Known, given: Traces, seed: int) -> None:
    found = built(samples, name, given, seed)
    pattern = PATTERNS[name]
    assert not found.wants
    assert shown(found) == shown(built(samples, name, given, seed))
    most = given.max_pairs if pattern.traces == "max_pairs" else pattern.traces or samples.slots
    assert len(found.traces) + found.short <= (given.per_question or most)
    for _, pairs, _ in found.traces:
        assert len({pair.slot for pair in pairs}) == len(pairs)
        assert any(pair.correct for pair in pairs) or name == "any_solution"
        assert pairs[-1].correct or not pattern.ends_correct
        for pair in pairs:
            assert samples.outcomes[pair.slot] == pair.correct
            assert samples.agrees[pair.slot] is not None or not pattern.reflect
            assert pair.answer == samples.answer(pair.slot)
        if given.distinct_variants:
            assert len({pair.variant for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("name", list(PATTERNS))
@settings(max_examples=40)
@given(samples=samples_, given=settings_, seed=seeds_)
def test_what_is_drawn_on_demand_gives_the_traces_of_everything(
    name: str, samples: Known, given: Traces, seed: int
) -> None:
    """Rounds of drawing what is lacking end, never ask twice, and end in the very traces of the full budget."""
    whole = built(samples, name, given, seed)
    partial = replace(samples, seen=set(), reflected={})
    assert partial.seen is not None
    for _ in range(3 * samples.slots * samples.per_attempt + 1):
        found = built(partial, name, given, seed)
        if not found.wants:
            break
        for want in found.wants:
            if want.reflection == ATTEMPT:
                assert want.slot not in partial.seen
                partial.seen.add(want.slot)
            else:
                assert PATTERNS[name].reflect
                assert partial.outcomes[want.slot] is not None
                assert partial.reflected.get(want.slot, 0) == want.reflection < samples.per_attempt
                partial.reflected[want.slot] = want.reflection + 1
    assert not found.wants
    assert shown(found) == shown(whole)
    assert found.short == whole.short


@pytest.mark.parametrize("name", list(PATTERNS))
@settings(max_examples=60)
@given(samples=samples_, given=settings_, seed=seeds_, pick=st.randoms(use_true_random=False))
def test_what_is_drawn_does_not_depend_on_interruptions(
    name: str, samples: Known, given: Traces, seed: int, pick: random.Random
) -> None:
    """Asked anew after any part of what was lacking has come, the same samples are drawn in the end."""

    def drawn(part: bool) -> tuple[set[int], dict[int, int]]:
        partial = replace(samples, seen=set(), reflected={})
        assert partial.seen is not None
        while wants := built(partial, name, given, seed).wants:
            for want in pick.sample(wants, pick.randint(1, len(wants))) if part else wants:
                if want.reflection == ATTEMPT:
                    partial.seen.add(want.slot)
                else:
                    partial.reflected[want.slot] = want.reflection + 1
        return partial.seen, partial.reflected

    assert drawn(part=True) == drawn(part=False)


def test_on_demand_samples_little_where_it_can() -> None:
    rng = random.Random(0)
    drawn = reflected = 0
    for seed in range(200):
        partial = replace(random_samples(rng, 64, 0.5, agree=1.0, useless=0.0), seen=set(), reflected={})
        assert partial.seen is not None
        while wants := built(partial, "single", Traces(), seed).wants:
            for want in wants:
                if want.reflection == ATTEMPT:
                    partial.seen.add(want.slot)
                else:
                    partial.reflected[want.slot] = want.reflection + 1
        drawn += len(partial.seen)
        reflected += sum(partial.reflected.values())
    assert drawn / 200 < 2.4  # two are expected of a geometric number with chance one half
    assert reflected == 200


# --- the law of the traces, against plain draws from all pairs


def eager(name: str, samples: Known, rng: random.Random, given: Traces) -> list[list[int]]:
    """The pattern as the paper and the authors' code write it, from the whole list of pairs."""
    pairs = [slot for slot in range(samples.slots) if samples.is_pair(slot)]
    right, wrong = ([s for s in pairs if samples.outcomes[s] is kind] for kind in (True, False))
    found = []
    if name == "algorithm1":
        rng.shuffle(right)
        rng.shuffle(wrong)
        while right:
            n_right = min(rng.randint(1, given.max_pairs), len(right))
            n_wrong = min(rng.randint(0, n_right - 1), len(wrong))
            last = right.pop()
            body = [right.pop() for _ in range(n_right - 1)] + [wrong.pop() for _ in range(n_wrong)]
            rng.shuffle(body)
            found.append([*body, last])
    elif name == "ladder":
        for n in range(1, min(given.max_pairs, len(pairs)) + 1 if right else 0):
            last = rng.choice(right)
            found.append([*rng.sample([s for s in pairs if s != last], n - 1), last])
    else:
        length = rng.randint(2, given.max_pairs)
        if right and wrong and len(pairs) >= length:
            back, last = rng.choice(right), rng.choice(wrong)
            body = [back, *rng.sample([s for s in pairs if s not in (back, last)], length - 2)]
            found.append([*rng.sample(body, len(body)), last])
    return found


def same_law(first: Sequence[Any], second: Sequence[Any]) -> float:
    """p-value of a chi-square test that two samples of categories have one law; rare categories are pooled."""
    counts = [Counter(first), Counter(second)]
    common = [key for key in counts[0] | counts[1] if counts[0][key] + counts[1][key] >= 20]
    rows = [[c[key] for key in common] + [sum(c.values()) - sum(c[key] for key in common)] for c in counts]
    columns = [column for column in zip(*rows, strict=True) if sum(column)]
    return float(chi2_contingency(list(zip(*columns, strict=True))).pvalue) if len(columns) > 1 else 1.0


@pytest.mark.parametrize("name", ["algorithm1", "ladder", "backtrack"])
@pytest.mark.parametrize("correct", [0.15, 0.5])
def test_draws_follow_the_law_of_the_full_budget(name: str, correct: float) -> None:
    """In small pools, where a draw that stopped early by its outcome would show most."""
    rng, given = random.Random(1), Traces(max_pairs=4)
    ours, theirs = [], []
    for seed in range(6000):
        samples = random_samples(rng, 8, correct)
        ours += [[pair.slot for pair in pairs] for _, pairs, _ in built(samples, name, given, seed).traces]
        theirs += eager(name, samples, rng, given)
    assert same_law([len(t) for t in ours], [len(t) for t in theirs]) > 1e-4
    assert same_law([slot for t in ours for slot in t], [slot for t in theirs for slot in t]) > 1e-4


@pytest.mark.parametrize("name", ["algorithm1", "ladder", "backtrack"])
@pytest.mark.parametrize("correct", [0.15, 0.5])
def test_which_places_are_correct_follows_the_law_of_the_full_budget(name: str, correct: float) -> None:
    rng, given = random.Random(2), Traces(max_pairs=4)
    ours: list[Any] = []
    theirs: list[Any] = []
    numbers: tuple[list[int], list[int]] = [], []
    for seed in range(6000):
        samples = random_samples(rng, 8, correct)
        mine = [tuple(pair.correct for pair in pairs) for _, pairs, _ in built(samples, name, given, seed).traces]
        plain = [tuple(samples.outcomes[slot] for slot in trace) for trace in eager(name, samples, rng, given)]
        ours, theirs = ours + mine, theirs + plain
        numbers[0].append(len(mine))
        numbers[1].append(len(plain))
    assert len(ours) > 1000
    assert same_law(ours, theirs) > 1e-4
    assert same_law(*numbers) > 1e-4


def test_the_law_test_finds_a_draw_that_stops_by_its_outcome() -> None:
    """What a pool must not do: give the pairs that it went through on the way to the first correct one."""
    rng = random.Random(3)
    naive, right = [], []
    for seed in range(6000):
        samples = random_samples(rng, 8, 0.5)
        order = rng.sample([s for s in range(8) if samples.is_pair(s)], sum(map(samples.is_pair, range(8))))
        if len(order) >= 2 and (last := next((s for s in order if samples.outcomes[s]), None)) is not None:
            other = next(s for s in order if s != last)
            naive.append(samples.outcomes[other])
        found = built(samples, "ladder", Traces(max_pairs=2), seed).traces
        right += [pairs[0].correct for _, pairs, _ in found if len(pairs) == 2]
    assert same_law(naive, right) < 1e-6


# --- single patterns


def test_algorithm1_uses_each_pair_once_and_more_correct_than_incorrect() -> None:
    rng = random.Random(0)
    for seed in range(300):
        samples = random_samples(rng, 30, 0.5)
        found = built(samples, "algorithm1", Traces(max_pairs=3), seed)
        used = [pair.slot for _, pairs, _ in found.traces for pair in pairs]
        assert len(used) == len(set(used))
        assert {s for s in range(30) if samples.is_pair(s) and samples.outcomes[s]} <= set(used)
        for _, pairs, _ in found.traces:
            right = sum(pair.correct for pair in pairs)
            assert len(pairs) - right < right <= 3


def test_the_ladder_has_every_length_once_in_any_order() -> None:
    samples = Known([True, False] * 6, [0] * 12)
    found = built(samples, "ladder", Traces(max_pairs=5), 1)
    assert sorted(len(pairs) for _, pairs, _ in found.traces) == [1, 2, 3, 4, 5]
    two = {len(built(samples, "ladder", Traces(max_pairs=5, per_question=1), seed).traces[0][1]) for seed in range(40)}
    assert two == {1, 2, 3, 4, 5}
    few = built(Known([True, False], [0, 0]), "ladder", Traces(max_pairs=5), 0)
    assert (sorted(len(pairs) for _, pairs, _ in few.traces), few.short) == ([1, 2], 3)


def test_fail_first_is_long_tailed_with_distinct_answers() -> None:
    wrong = Known([False] * 60 + [True] * 40, [0] * 100, answers=[str(i % 50) for i in range(60)] + ["right"] * 40)
    lengths: Counter[int] = Counter()
    for seed in range(100):
        for _, pairs, _ in built(wrong, "fail_first", Traces(max_pairs=16, stop_chance=0.25), seed).traces:
            assert [pair.correct for pair in pairs] == [False] * (len(pairs) - 1) + [True]
            assert len({pair.answer for pair in pairs}) == len(pairs)
            lengths[len(pairs) - 1] += 1
    assert lengths.total() == 4000
    for n in range(6):
        assert abs(lengths[n] / 4000 - 0.25 * 0.75**n) < 0.03
    assert max(lengths) == 15


def test_shapes_of_the_other_patterns() -> None:
    samples = Known([True, False, False] * 8, [0] * 24)
    for seed in range(60):

        def shape(name: str, seed: int = seed, **changes: Any) -> list[bool]:
            [(_, pairs, _)] = built(samples, name, Traces(max_pairs=4, per_question=1, **changes), seed).traces
            return [pair.correct for pair in pairs]

        assert shape("single") == [True]
        back = shape("backtrack")
        assert not back[-1]
        assert any(back[:-1])
        assert shape("confirm")[-2:] == [True, True]
        assert len(shape("ends_correct", pairs=3)) == len(shape("random_order", pairs=3)) == 3
        assert 2 <= len(shape("ends_correct")) <= 4
    ends = Counter(
        built(samples, "random_order", Traces(pairs=4), seed).traces[0][1][-1].correct for seed in range(200)
    )
    assert min(ends.values()) > 30


def test_without_reflections_none_is_asked_for() -> None:
    samples = Known([True, False, True, False], [None] * 4)
    assert not built(samples, "algorithm1", Traces(), 0).traces
    assert built(samples, "no_reflections", Traces(), 0).traces
    partial = replace(samples, seen={0, 1, 2, 3})
    assert not built(partial, "no_reflections", Traces(), 0).wants
    assert all(want.reflection == 0 for want in built(partial, "algorithm1", Traces(), 0).wants)


# --- mixes, and patterns of the user's


def test_a_mix_draws_its_patterns_by_weight() -> None:
    samples = Known([True, False] * 20, [0] * 40)
    given = Traces(pattern={"single": 3, "confirm": 1}, per_question=4)
    names = Counter(
        pattern.name
        for seed in range(500)
        for pattern, _, _ in arrange(samples, patterns_of(given), given, seed).traces
    )
    assert names.total() == 2000
    assert 0.7 < names["single"] / 2000 < 0.8
    with pytest.raises(RecipeError, match=r"is a mix, so traces\.per_question must say"):
        patterns_of(Traces(pattern={"single": 1, "confirm": 1}))
    with pytest.raises(RecipeError, match="needs a weight above 0"):
        patterns_of(Traces(pattern={"single": 0}))
    with pytest.raises(RecipeError, match="unknown pattern `laddr`; did you mean `ladder`"):
        patterns_of(Traces(pattern="laddr"))


def pattern_file(folder: Path, text: str) -> str:
    path = folder / f"p{abs(hash(text))}.py"
    path.write_text(text)
    return str(path)


OWN = '''"""Two failures, then a success."""


def arrange(pool, rng):
    return [*pool.incorrect(2), *pool.correct()]
'''


def test_a_pattern_of_the_users(tmp_path: Path) -> None:
    name = pattern_file(tmp_path, OWN)
    given = Traces(pattern=name, per_question=3)
    found = arrange(Known([True, False, False] * 5, [0] * 15), patterns_of(given), given, 0)
    assert [[pair.correct for pair in pairs] for _, pairs, _ in found.traces] == [[False, False, True]] * 3
    assert found.traces[0][0].name == Path(name).stem
    few = arrange(Known([True, False], [0] * 2), patterns_of(given), given, 0)
    assert [len(pairs) for _, pairs, _ in few.traces] == [2, 2, 2]  # draws give what there is


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def arrange(pool, rng):\n    return 1 / 0", "`arrange` raised ZeroDivisionError: division by zero"),
        ("def arrange(pool, rng):\n    return pool.correct() * 2", "returned a pair twice"),
        ("def arrange(pool, rng):\n    return [*pool.correct(), *pool.incorrect()]", "ends on an incorrect pair"),
        ("def arrange(pool, rng):\n    return ['a']", "must return a list of pairs that it drew"),
        ("def arrange(pool, rng):\n    pool.correct(); return pool.of", "raised AttributeError"),
        ("x = ", "gives SyntaxError"),
        ("def other(): pass", "has no function `arrange"),
        ("CLOSING = 'end'\ndef arrange(pool, rng): return []", "CLOSING must be one of closing, go_back, confirmed"),
        ("TRACES = -1\ndef arrange(pool, rng): return []", "TRACES must be a number"),
    ],
)
def test_a_broken_pattern_is_told_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    given = Traces(pattern=pattern_file(tmp_path, text))
    with pytest.raises(RecipeError, match=message):
        arrange(Known([True, False] * 4, [0] * 8), patterns_of(given), given, 0)
    with pytest.raises(RecipeError, match="there is no file"):
        load_pattern("nowhere.py")


def test_foreign_pairs_are_none_of_the_pool() -> None:
    pool = Pool(Table(Known([True], [0]), 0), random.Random(0), Traces(), 0, True)
    [pair] = pool.correct()
    assert pool.holds(pair)
    assert not pool.holds(Pair(0, "other", "", True))
    assert pool.correct() == []
    with pytest.raises(LackingError):
        Pool(Table(Known([True], [0], seen=set()), 0), random.Random(0), Traces(), 0, True).either()
