"""The evaluation stage: who is asked what, with which seeds, and what is kept."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skillfactory import engines, seeds
from skillfactory.engines.base import Completion
from skillfactory.errors import QuestionError, RecipeError, StoreError
from skillfactory.evaluation import responses
from skillfactory.evaluation.summary import models_in
from skillfactory.evaluation.talks import Ask, Draft, Drafted
from skillfactory.planning.plan import plan
from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.store import Run
from skillfactory.tasks import get, questions

TASK = get("multiplication", digits=2)
QUESTION = TASK.make(a=12, b=12)  # 144


class Scripted:
    """An engine that answers all that it can get at once, in reverse order, and notes what it was asked."""

    def __init__(self, model: str, log: list[tuple[str, float, Any]], fail_after: int = 10**9) -> None:
        self.model, self.log, self.left = model, log, fail_after

    def generate(self, requests: Iterable[Any]) -> Iterator[Any]:
        stream = iter(requests)
        while asked := list(iter(lambda: next(stream, None), None)):
            yield from map(self.answer, reversed(asked))

    def answer(self, request: Any) -> Completion:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.log.append((self.model, request.params.temperature, request))
        # Right where the seed is even, so that what is graded follows from what was asked.
        a, b = re.findall(r"\d+", request.messages[-1]["content"])[:2]
        text = f"<answer>{int(a) * int(b) + request.seed % 2}</answer>"
        return Completion(id=request.id, text=text, tokens=5, finish_reason="stop")


def stage_run(path: Path, recipe: Recipe) -> Run:
    run = Run.open(path, recipe)
    run.begin("questions", {}, {})
    questions.run(recipe, run)
    for name in ("sft", "rl"):
        (run.stage(name).path / "model").mkdir(parents=True, exist_ok=True)
    run.begin("evaluation", {}, {})
    return run


def stage_recipe(method: str = "skillfactory", samples: dict[str, int] | None = None, **evaluation: Any) -> Recipe:
    two, three = ({"name": "multiplication", "params": {"digits": d}} for d in (2, 3))
    sets = {
        name: {"task": task, "n": n, "samples": (samples or {}).get(name, 0)}
        for name, task, n in (("two", two, 3), ("three", three, 2))
    }
    return Recipe.model_validate(
        {
            "name": "test",
            "method": method,
            "questions": {"task": two, "sft": 1, "rl": 1, "dev": 1},
            "evaluation": {"samples": 2, "greedy": True, "sets": sets} | evaluation,
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
    class Broken:
        name = level = "broken"

        def grade(self, question: Question, text: str) -> None:
            raise RuntimeError("no dictionary")

    ask = Ask("rl", "two", "sampled", QUESTION, 0)
    failed = responses.response_of(Drafted(ask, "sampled", Draft("", 0, "failed", error="engine_failed")), TASK)
    assert (failed.outcome, failed.reason, failed.finish_reason) == ("no_answer", "engine_failed", "failed")
    drafted = Drafted(ask, "sampled", Draft("<answer>144</answer>", 5, "stop"))
    broken = responses.response_of(drafted, Broken())  # type: ignore[arg-type]
    assert (broken.outcome, broken.reason) == ("no_answer", "check_failed")


def test_each_set_has_its_samples_and_forcing_its_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, float, Any]] = []
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: Scripted("x", log))
    recipe = stage_recipe("rl_only", samples={"three": 5}, max_tokens=10, forcing={"budgets": [20, 40]})
    with stage_run(tmp_path / "run", recipe) as run:
        responses.run(recipe, run)
        rows = run.stage("evaluation").rows(Response)
        counts = run.stage("evaluation").manifest["counts"]
    modes = ("sampled", "unforced-10", "unforced-20", "forced-20", "unforced-40", "forced-40")
    assert Counter((r.set, r.mode) for r in rows if r.model == "rl") == {
        **{("two", mode): 3 * 2 for mode in modes},
        **{("three", mode): 2 * 5 for mode in modes},
        ("two", "greedy"): 3,
        ("three", "greedy"): 2,
    }
    assert counts["responses"] == len(rows)
    assert counts["tokens"] == 5 * len(log), "each completion's once"
    assert counts["correct"] == sum(r.outcome == "correct" for r in rows)
    forced = [r for r in rows if r.mode == "forced-40"]
    assert {(r.forced, r.tokens) for r in forced} == {(2, 15)}  # three times five tokens
    planned = next(stage for stage in plan(recipe, tmp_path / "none") if stage.name == "evaluation")
    assert planned.counts["responses"] == len(rows)
    assert planned.most.tokens >= counts["tokens"]


def test_forcing_is_taken_up_again_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, float, Any]] = []
    recipe = stage_recipe("rl_only", max_tokens=10, forcing={"budgets": [20]})
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: Scripted("x", log))
    with stage_run(tmp_path / "whole", recipe) as run:
        responses.run(recipe, run)
        expected = run.stage("evaluation").rows(Response)
    firsts = [request.seed for _, _, request in log if not request.prefix]
    log.clear()
    # Killed after every 17 completions: some talks have only got their first budget then.
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: Scripted("x", log, fail_after=17))
    with stage_run(tmp_path / "parts", recipe) as run:
        for _ in range(50):
            try:
                responses.run(recipe, run)
                break
            except KeyboardInterrupt:
                pass
        rows = run.stage("evaluation").rows(Response)
    order = lambda r: (r.model, r.set, r.mode, r.question_id, r.sample)  # noqa: E731
    assert sorted(rows, key=order) == sorted(expected, key=order)
    assert sorted(r.seed for _, _, r in log if not r.prefix) == sorted(firsts), "no first budget was asked for twice"


def test_kept_steps_and_more_models_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    log: list[tuple[str, float, Any]] = []
    monkeypatch.setattr(engines, "load", lambda recipe, model, engine: (loads.append(model), Scripted("x", log))[1])
    recipe = stage_recipe("rl_only", forcing={"budgets": [5000]}, models={"other": "org/other"})
    recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"steps": 9, "keep_every": 4})})
    with stage_run(tmp_path / "run", recipe) as run:
        for step in (8, 4):
            (run.stage("rl").path / "steps" / str(step)).mkdir(parents=True)
        responses.run(recipe, run)
        rows = run.stage("evaluation").rows(Response)
        steps = run.stage("rl").path / "steps"
        assert loads == [None, steps / "4", steps / "8", run.stage("rl").path / "model", "org/other"]
    assert list(dict.fromkeys(r.model for r in rows)) == ["base", "rl@4", "rl@8", "rl", "other"]
    assert Counter(r.mode for r in rows if r.model == "rl@4") == {"sampled": 5}, "one sample of each question"
    assert {r.mode for r in rows if r.model == "other"} >= {"unforced-4096", "unforced-5000", "forced-5000"}
    planned = next(stage for stage in plan(recipe, tmp_path / "none") if stage.name == "evaluation")
    assert (planned.counts["models"], planned.counts["responses"]) == (5, len(rows))
    assert models_in(recipe, {"other", "rl", "rl@8", "base", "rl@10"}) == ["base", "rl@8", "rl@10", "rl", "other"]


@pytest.mark.parametrize("name", ["base", "sft", "rl", "rl@4", " "])
def test_a_model_cannot_take_the_name_of_another(name: str) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.models: a model cannot be called"):
        responses.check(stage_recipe("evaluate", models={name: "org/other"}))


def test_a_server_cannot_have_what_a_run_trains() -> None:
    with pytest.raises(RecipeError, match="method=evaluate"):
        responses.check(stage_recipe("rl_only", engine="openai"))
    responses.check(stage_recipe("evaluate", engine="openai"))
