"""Statistics, skill use and the evaluation stage."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import engines, seeds
from skillfactory.engines.base import Completion
from skillfactory.errors import QuestionError, StoreError
from skillfactory.evaluation import responses
from skillfactory.evaluation.skill_use import SkillUse, aggregate, f1, read_skills
from skillfactory.evaluation.statistics import estimate, paired_difference, pass_at_k, question_means
from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.store import Run
from skillfactory.tags import blocks, verdict_of
from skillfactory.tasks import get, questions

TASK = get("multiplication", digits=2)
QUESTION = TASK.make(a=12, b=12)  # 144
SCORES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=12)


def sample(answer: object) -> str:
    return f"<sample>\nmaybe\n<answer>{answer}</answer>\n</sample>\n"


def reflect(verdict: str) -> str:
    return f"<reflect>\nI checked.\n<verdict>{verdict}</verdict>\n</reflect>\n"


# --- statistics


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


# --- skill use


def test_skills_of_a_trace() -> None:
    text = (
        "<think>\n" + sample(100) + reflect("Incorrect") + "Try again.\n" + sample(144) + reflect("Incorrect")
        + sample(100) + reflect("Correct") + sample("144") + reflect("Correct") + "</think>\n\n<answer>144</answer>"
    )  # fmt: skip
    use = read_skills(TASK, QUESTION, text, "correct")
    assert use == SkillUse(
        answers=4, samples=4, reflections=4, retries=3, distinct_answers=2,
        correct_called_correct=1, correct_called_incorrect=1, incorrect_called_correct=1, incorrect_called_incorrect=1,
        flips_to_correct=2, flips_to_wrong=1,
    )  # fmt: skip


def test_plain_solution_is_one_answer_and_no_skill() -> None:
    assert read_skills(TASK, QUESTION, "12 * 12 = 144. <answer>144</answer>", "correct") == SkillUse(
        answers=1, distinct_answers=1
    )
    assert read_skills(TASK, QUESTION, "I do not know.", "no_answer") == SkillUse()


def test_right_answer_that_is_lost() -> None:
    text = f"<think>{sample(144)}{reflect('Correct')}{sample(7)}</think><answer>7</answer>"
    use = read_skills(TASK, QUESTION, text, "wrong")
    assert use.lost
    assert use.flips_to_wrong == 1


def test_sample_without_answer_is_no_explicit_answer_and_no_retry_follows_it() -> None:
    use = read_skills(TASK, QUESTION, "<sample>hm</sample>" + reflect("Incorrect") + sample(144), "wrong")
    assert (use.samples, use.answers, use.retries) == (2, 1, 0)
    assert use.incorrect_called_incorrect == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (reflect("Correct") + sample(144), {"unmatched": 1, "answers": 1}),
        (sample(144) + "<reflect>no verdict</reflect>", {"no_verdict": 1}),
        (sample(144) + "<sample>open " + reflect("Incorrect"), {"unmatched": 1, "malformed": True, "samples": 1}),
        ("</reflect></sample>" + sample(144), {"malformed": True, "answers": 1}),
        (sample(144) + "<reflect><verdict>Correct</verdict>", {"reflections": 0, "correct_called_correct": 0}),
        (sample(144) + reflect("Incorrect</verdict> <verdict>correct"), {"correct_called_correct": 1}),
        ("<sample><sample><answer>144</answer></sample></sample>", {"samples": 1, "answers": 1, "malformed": True}),
    ],
)
def test_tags_in_a_wrong_order(text: str, expected: dict[str, object]) -> None:
    use = read_skills(TASK, QUESTION, text, "correct")
    assert {name: getattr(use, name) for name in expected} == expected


TAGS = ["sample", "reflect", "verdict", "answer", "think"]
WORDS = ["144", "Correct", "incorrect", " ", "\n", "x<"]
PARTS = st.sampled_from([f"<{s}{t}>" for t in TAGS for s in ("", "/")] + WORDS)


@given(st.lists(PARTS, max_size=40).map("".join))
def test_any_order_of_tags_is_read(text: str) -> None:
    found, stray = blocks(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(block.text in text[block.start : block.end] for block in found)
    use = read_skills(TASK, QUESTION, text, "no_answer")
    verdicts = (
        use.correct_called_correct + use.correct_called_incorrect + use.incorrect_called_correct
        + use.incorrect_called_incorrect + use.no_verdict + use.unmatched
    )  # fmt: skip
    assert verdicts == use.reflections
    assert use.distinct_answers <= use.answers
    assert use.retries <= max(0, use.samples or text.count("<answer>"))
    assert use.malformed == (stray > 0)


@pytest.mark.parametrize(
    "piece",
    ["<sample>", "</sample>", "<sample></sample>", "<verdict>", "<verdict>  ", "<verdict>Correct", "<answer>", "<"],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = "<reflect>" + piece * (400_000 // len(piece))
    start = perf_counter()
    read_skills(TASK, QUESTION, text, "no_answer")
    verdict_of(text)
    assert perf_counter() - start < 5  # seconds; quadratic time would take minutes


def test_aggregate_and_f1() -> None:
    uses = [
        SkillUse(answers=2, reflections=2, correct_called_correct=1, incorrect_called_incorrect=1, lost=True),
        SkillUse(answers=1, reflections=1, incorrect_called_correct=1),
    ]
    found = aggregate(uses)
    assert found["answers"] == 1.5
    assert found["f1_correct"] == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert found["f1_incorrect"] == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert found["lost"] == 0.5
    assert aggregate([]) == {}
    assert f1(0, 0, 0) is None
    assert f1(0, 3, 0) == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean(hits: int, false_alarms: int, misses: int) -> None:
    found = f1(hits, false_alarms, misses)
    if hits:
        precision, recall = hits / (hits + false_alarms), hits / (hits + misses)
        assert found == pytest.approx(2 * precision * recall / (precision + recall))
    assert found is None or (0 <= found <= 1 and not math.isnan(found))


def test_broken_verifier_does_not_stop_the_reading() -> None:
    class Broken:
        name = level = "broken"

        def grade(self, question: Question, text: str) -> None:
            raise RuntimeError("no dictionary")

    use = read_skills(Broken(), QUESTION, sample(144) + reflect("Correct"), "no_answer")  # type: ignore[arg-type]
    assert (use.samples, use.answers, use.reflections) == (1, 0, 1)


# --- the stage


class Scripted:
    """An engine that answers at once, in reverse order, and notes what it was asked."""

    def __init__(self, model: str, log: list[tuple[str, float, Any]], fail_after: int = 10**9) -> None:
        self.model, self.log, self.left = model, log, fail_after

    def generate(self, requests: Iterable[Any]) -> Iterator[Any]:
        for request in reversed(list(requests)):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            self.log.append((self.model, request.params.temperature, request))
            # Right where the seed is even, so that what is graded follows from what was asked.
            a, b = re.findall(r"\d+", request.messages[-1]["content"])[:2]
            text = f"<answer>{int(a) * int(b) + request.seed % 2}</answer>"
            yield Completion(id=request.id, text=text, tokens=5, finish_reason="stop")


def stage_run(path: Path, recipe: Recipe) -> Run:
    run = Run.open(path, recipe)
    run.begin("questions", {}, {})
    questions.run(recipe, run)
    for name in ("sft", "rl"):
        (run.stage(name).path / "model").mkdir(parents=True, exist_ok=True)
    run.begin("evaluation", {}, {})
    return run


def stage_recipe(method: str = "skillfactory") -> Recipe:
    two, three = ({"name": "multiplication", "params": {"digits": d}} for d in (2, 3))
    sets = {"two": {"task": two, "n": 3}, "three": {"task": three, "n": 2}}
    return Recipe.model_validate(
        {
            "name": "test",
            "method": method,
            "questions": {"task": two, "sft": 1, "rl": 1, "dev": 1},
            "evaluation": {"samples": 2, "greedy": True, "sets": sets},
        }
    )


def test_stage_asks_every_model_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, float, Any]] = []
    names = lambda model: model.parent.name if model else "base"  # noqa: E731
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: Scripted(names(model), log))
    recipe = stage_recipe()
    with stage_run(tmp_path / "run", recipe) as run:
        responses.run(recipe, run)
        rows = run.stage("evaluation").rows(Response)
    assert Counter((r.model, r.set, r.mode) for r in rows) == {
        (m, s, mode): n * k for m in ("base", "sft", "rl") for s, n in (("two", 3), ("three", 2))
        for mode, k in (("sampled", 2), ("greedy", 1))
    }  # fmt: skip
    asked = {m: {(t, r.seed, str(r.messages)) for model, t, r in log if model == m} for m in ("base", "sft", "rl")}
    assert asked["base"] == asked["sft"] == asked["rl"]
    assert len(asked["base"]) == 15  # no two seeds alike
    assert {t for t, _, _ in asked["base"]} == {recipe.evaluation.temperature, 0.0}
    right = {(r.question_id, r.mode, r.sample): r.outcome == "correct" for r in rows if r.model == "rl"}
    for (question_id, mode, number), correct in right.items():
        assert correct == (seeds.derive(0, "evaluation", question_id, mode, number) % 2 == 0)


def test_stage_resumes_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, float, Any]] = []
    recipe = stage_recipe("rl_only")
    monkeypatch.setattr(responses, "SHARD", 4)
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: Scripted("x", log, fail_after=6))
    with stage_run(tmp_path / "run", recipe) as run:
        with pytest.raises(KeyboardInterrupt):
            responses.run(recipe, run)
        kept = run.stage("evaluation").rows(Response)
        assert len(kept) == 6  # a full shard, and what had come since
        assert not run.stage("evaluation").is_finished()
    loads: list[Any] = []
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: (loads.append(model), Scripted("x", log))[1])
    with stage_run(tmp_path / "run", recipe) as run:
        responses.run(recipe, run)
        rows = run.stage("evaluation").rows(Response)
        assert rows[:6] == kept
        assert len({(r.model, r.set, r.mode, r.question_id, r.sample) for r in rows}) == len(rows) == 30
        assert len(log) == 30
        assert {r.model for r in rows} == {"base", "rl"}
        responses.run(recipe, run)  # nothing is missing: no model is even loaded
    assert len(loads) == 2


def test_stage_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: pytest.fail("must not load"))
    recipe = stage_recipe()
    with stage_run(tmp_path / "run", recipe) as run:
        (run.stage("rl").path / "model").rmdir()
        with pytest.raises(StoreError, match=r"rl/model is missing .* --fresh rl"):
            responses.run(recipe, run)
        run.stage("questions").write_json("sets.json", {"two": []})
        with pytest.raises(QuestionError, match=r"`three` is not listed in questions/sets.json"):
            responses.run(recipe, run)
        run.stage("questions").write_json("sets.json", {"two": ["beef"], "three": []})
        with pytest.raises(QuestionError, match=r"`two` lists question beef, which is gone"):
            responses.run(recipe, run)


def test_failed_completion_and_broken_check_are_not_wrong() -> None:
    ask = responses.Ask("rl", "two", "sampled", QUESTION, 0)
    failed = responses.response_of(ask, Completion(id="0", text="", tokens=0, finish_reason="failed"), TASK)
    assert (failed.outcome, failed.reason) == ("no_answer", "engine_failed")
