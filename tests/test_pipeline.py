"""Running, resuming, stopping after a stage and redoing one, with stages that only count."""

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import make_recipe

from skillfactory import pipeline
from skillfactory.errors import ModelError, RecipeError, StoreError
from skillfactory.pipeline import STAGES, dependents, identities, stages_of
from skillfactory.planning import plan
from skillfactory.recipe import Recipe
from skillfactory.records import Question
from skillfactory.store import Run, load_run

TASK = {"name": "countdown", "params": {"count": 3}}


def recipe(**changes: object) -> Recipe:
    data = {"name": "t", "questions": {"task": TASK}, "evaluation": {"sets": {"easy": {"task": TASK, "n": 5}}}}
    return Recipe.model_validate(data | changes)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every stage is replaced by one that writes a row; the list says which have run."""
    calls: list[str] = []

    def stage(name: str) -> Callable[[Recipe, Run], None]:
        def run(recipe: Recipe, run: Run) -> None:
            calls.append(name)
            for made in [*(other for other, spec in STAGES.items() if spec.filled_by == name), name]:
                run.stage(made).append([Question(made, "t", "l", "text", "1", "{}")])
                run.stage(made).finish(made=1)

        return run

    for name, spec in STAGES.items():
        if spec.filled_by:
            continue
        module = types.ModuleType(f"counting_{name}")
        module.run = stage(name)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(STAGES, name, dataclasses.replace(spec, module=module.__name__))
    return calls


def test_it_runs_what_the_method_says_and_then_nothing_again(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a")
    assert ran == ["questions", "traces", "sft", "rl", "evaluation", "report"]
    assert all(load_run(tmp_path / "a").state(name) == "finished" for name in STAGES)
    pipeline.run(recipe(), tmp_path / "a")
    assert len(ran) == 6
    ran.clear()
    pipeline.run(recipe(method="rl_only"), tmp_path / "b")
    assert ran == ["questions", "rl", "evaluation", "report"]
    events = [json.loads(line)["event"] for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert events == ["begin", "finished"] * 4


def test_until_stops_after_a_stage_and_a_later_run_goes_on(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a", until="questions")
    assert ran == ["questions"]
    pipeline.run(recipe(), tmp_path / "a", until="traces")
    assert ran == ["questions", "traces"]
    with pytest.raises(RecipeError, match=r"attempts is drawn as traces need it .*--until traces"):
        pipeline.run(recipe(), tmp_path / "a", until="attempts")
    with pytest.raises(RecipeError, match="did you mean `traces`"):
        pipeline.run(recipe(), tmp_path / "a", until="trace")
    with pytest.raises(RecipeError, match="Method `rl_only` has no stage `sft`"):
        stages_of(recipe(method="rl_only"), "sft")


def test_fresh_redoes_a_stage_and_what_depends_on_it(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a")
    (tmp_path / "a/metrics.json").write_text("{}")
    ran.clear()
    pipeline.run(recipe(), tmp_path / "a", until="sft", fresh="sft")
    assert ran == ["sft"]
    assert not (tmp_path / "a/metrics.json").exists(), "figures of a model that is gone"
    loaded = load_run(tmp_path / "a")
    assert [loaded.state(name) for name in ("traces", "rl", "evaluation")] == ["finished", "missing", "missing"]
    assert loaded.table("sft").num_rows == 1
    assert load_run(tmp_path / "a").table("attempts").num_rows == 1
    assert dependents("reflections", recipe()) == ["reflections", "traces", "sft", "rl", "evaluation", "report"]


def test_changed_settings_are_refused_before_anything_changes(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a", until="rl")
    kept = (tmp_path / "a/recipe.yaml").read_text()
    ran.clear()
    with pytest.raises(StoreError, match=r"traces\.max_pairs was 5, now 3.*--fresh traces"):
        pipeline.run(recipe(traces={"max_pairs": 3}), tmp_path / "a")
    assert (ran, (tmp_path / "a/recipe.yaml").read_text()) == ([], kept)
    pipeline.run(recipe(traces={"max_pairs": 3}), tmp_path / "a", until="sft", fresh="traces")
    assert ran == ["traces", "sft"]
    assert load_run(tmp_path / "a").recipe.traces.max_pairs == 3


def test_settings_of_speed_and_of_later_stages_keep_finished_work(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a", until="sft")
    ran.clear()
    faster = recipe(machine={"threads": 2, "batch_size": 512}, sft={"micro_batch": 2}, rl={"steps": 3}, name="other")
    pipeline.run(faster, tmp_path / "a", until="rl")
    assert ran == ["rl"]


def test_other_evaluation_sets_cost_no_training(ran: list[str], tmp_path: Path) -> None:
    pipeline.run(recipe(), tmp_path / "a")
    ran.clear()
    more = recipe(evaluation={"sets": {"easy": {"task": TASK, "n": 5}, "hard": {"task": TASK, "n": 9}}})
    with pytest.raises(StoreError, match=r"evaluation\.sets\.hard\.n was not there, now 9.*--fresh evaluation"):
        pipeline.run(more, tmp_path / "a")
    pipeline.run(more, tmp_path / "a", fresh="evaluation")
    assert ran == ["questions", "evaluation", "report"]


def test_a_question_files_content_counts_and_its_sets_do_too(ran: list[str], tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "1 + 1", "answer": "2"}\n')
    own = {"name": "jsonl", "params": {"path": str(file)}}
    mine = recipe(questions={"task": own}, evaluation={"sets": {"s": {"task": own, "n": 1}}})
    fewer = recipe(questions={"task": own}, evaluation={"sets": {"s": {"task": own, "n": 2}}})
    assert identities(mine)["attempts"].digest != identities(fewer)["attempts"].digest
    pipeline.run(mine, tmp_path / "a", until="questions")
    file.write_text('{"question": "1 + 2", "answer": "3"}\n')
    with pytest.raises(StoreError, match=r"questions\.task\.params\.path \(content\) was .*--fresh questions"):
        pipeline.run(mine, tmp_path / "a")


def test_a_models_content_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = identities(recipe(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"a": 1}')
    after = identities(recipe(model=str(tmp_path)))
    changed = [name for name in before if before[name].digest != after[name].digest]
    assert changed == [name for name in STAGES if name != "questions"]
    with pytest.raises(ModelError, match="no model folder"):
        pipeline.run(recipe(model="./no/such/model"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_stage_that_fails_leaves_a_line_in_the_log_and_can_go_on(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["counting_traces"]
    works = module.run
    monkeypatch.setattr(module, "run", lambda recipe, run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.run(recipe(), tmp_path / "a")
    last = json.loads((tmp_path / "a/log.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["event"]) == ("traces", "stopped")
    assert load_run(tmp_path / "a").state("attempts") == "partial"
    monkeypatch.setattr(module, "run", works)
    pipeline.run(recipe(), tmp_path / "a", until="traces")
    assert ran == ["questions", "traces"]


def test_samples_outlive_another_pattern(ran: list[str], tmp_path: Path) -> None:
    """Only what decides a sample's text is in the digests of attempts and reflections."""
    before = identities(recipe())
    for change in ({"traces": {"pattern": "ladder"}}, {"attempts": {"per_variant": 3, "variants": ["original"]}},
                   {"reflections": {"per_attempt": 2}}, {"attempts": {"budget": "paper"}}):  # fmt: skip
        after = identities(recipe(**change))
        assert [before[name].digest == after[name].digest for name in ("attempts", "reflections", "traces")] == [
            True, True, False,
        ]  # fmt: skip
    hotter = identities(recipe(attempts={"temperature": 1.0}))
    assert before["attempts"].digest != hotter["attempts"].digest
    assert before["reflections"].digest != hotter["reflections"].digest, "they are on other attempts"


def test_a_pattern_file_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def arrange(pool, rng):\n    return pool.correct()\n")
    before = identities(recipe(traces={"pattern": "mine.py"}))["traces"].digest
    (tmp_path / "mine.py").write_text("def arrange(pool, rng):\n    return pool.correct(1)\n")
    assert identities(recipe(traces={"pattern": "mine.py"}))["traces"].digest != before


def test_every_stage_reads_only_stages_before_it() -> None:
    names = list(STAGES)
    for name, spec in STAGES.items():
        assert all(names.index(source) < names.index(name) for source in spec.inputs)


def test_the_dry_run_counts_as_the_paper_does(ran: list[str], tmp_path: Path) -> None:
    planned = {each.name: each for each in plan.plan(recipe(), tmp_path / "a")}
    assert planned["attempts"].state == pipeline.states(recipe(), tmp_path / "a")["attempts"] == "missing"
    assert planned["attempts"].counts["attempts"] == 4000 * 64
    assert planned["attempts"].most.tokens == 4000 * 64 * 1024
    assert planned["reflections"].counts["reflections at most"] == 4000 * 64 * 4
    assert planned["rl"].counts == {"steps": 150, "rollouts a step": 4096, "rollouts": 150 * 4096}
    assert planned["evaluation"].counts["responses"] == 3 * 5 * 4
    pipeline.run(recipe(), tmp_path / "a", until="traces")
    after = pipeline.states(recipe(attempts={"top_k": 5}), tmp_path / "a")
    assert (after["questions"], after["attempts"], after["sft"]) == ("finished", "other settings", "missing")


def test_a_model_to_evaluate_that_is_not_there_is_said_before_anything_is_done(tmp_path: Path) -> None:
    evaluation = {"sets": {"same": {"task": TASK}}, "models": {"x": "./gone/x"}}
    recipe = make_recipe(method="evaluate", evaluation=evaluation)
    with pytest.raises(ModelError, match=r"no model folder \./gone/x \(evaluation\.models\.x\)"):
        pipeline.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
