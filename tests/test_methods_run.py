"""Methods run on the tiny model: rounds, teachers, worked examples, a second curation, a matched budget."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import SIGNS, almost_nothing, make_recipe

from skillfactory import methods, pipeline
from skillfactory.curation.splitting import MOST
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection, Response, Trace
from skillfactory.store import LoadedRun, load_run

MANY = {"task": SIGNS, "sft": 120, "rl": 8, "dev": 2}  # enough to learn the form of traces


def recipe(method: str, **sections: Any) -> Recipe:
    """Few questions, one step of RL, almost nothing to evaluate."""
    return methods.applied(make_recipe(method=method, **almost_nothing() | sections))


def ran(settled: Recipe, path: Path, until: str | None = None) -> LoadedRun:
    pipeline.run(settled, path, until)
    return load_run(path)


def test_star_trains_on_its_own_right_attempts_round_by_round(tmp_path: Path) -> None:
    run = ran(recipe("star", star={"rounds": 2}), tmp_path / "run")
    assert {name for name in methods.stages(run.recipe) if run.state(name) == "finished"} == set(
        methods.stages(run.recipe)
    )
    for suffix in ("-1", ""):
        attempts = {each.id: each for each in run.rows(f"attempts{suffix}", Attempt)}
        traces = run.rows(f"traces{suffix}", Trace)
        assert traces
        for trace in traces:
            (step,) = trace.steps
            assert attempts[step.attempt_id].outcome == "correct"
            assert trace.completion == attempts[step.attempt_id].text.strip()
        assert {each.variant for each in attempts.values()} == {"original"}
    first, last = ({a.text for a in run.rows(name, Attempt)} for name in ("attempts-1", "attempts"))
    assert first != last
    assert {r.model for r in run.rows("evaluation", Response)} == {"base", "sft-1", "sft", "rl"}
    assert set(run.metrics["cost"]) == set(methods.stages(run.recipe)) - {"report"}
    assert "SFT of round 1" in (tmp_path / "run" / "report.md").read_text()


def test_rationalization_only_helps_where_nothing_else_did(tmp_path: Path) -> None:
    run = ran(recipe("star", star={"rounds": 1, "rationalize": True}), tmp_path / "run", "traces")
    attempts = {each.id: each for each in run.rows("attempts", Attempt)}
    solved = {a.question_id for a in attempts.values() if a.outcome == "correct" and not a.variant.endswith("+hint")}
    for trace in run.rows("traces", Trace):
        hinted = attempts[trace.steps[0].attempt_id].variant.endswith("+hint")
        assert hinted == (trace.question_id not in solved)


def test_a_teacher_makes_the_attempts_and_the_base_learns_them(tmp_path: Path) -> None:
    fuller = recipe("skillfactory", questions=MANY, sft={"learning_rate": 2e-3, "epochs": 6})
    teacher = ran(fuller, tmp_path / "teacher", "sft").path / "sft" / "model"
    run = ran(recipe("distill", distill={"teacher": str(teacher)}), tmp_path / "run", "sft")
    attempts = run.rows("attempts", Attempt)
    assert any("<sample>" in each.text for each in attempts)
    assert not [each for each in attempts if each.reason == "malformed"]
    assert any("<sample>" in trace.completion for trace in run.rows("traces", Trace))
    assert not run.table("reflections").num_rows
    everything = recipe("distill", distill={"teacher": str(teacher), "keep": "all"})
    found = ran(everything, tmp_path / "all", "traces")
    learnt = Counter(a.outcome for a in found.rows("attempts", Attempt) for t in found.rows("traces", Trace)
                     if t.steps[0].attempt_id == a.id)  # fmt: skip
    assert learnt["wrong"] > 0


def test_bolt_keeps_what_is_right_after_worked_examples(tmp_path: Path) -> None:
    examples = tmp_path / "examples.yaml"
    response = "<think>\n3 + 4 = 7. 7 + 5 = 12.\n</think>\n\n<answer>3 + 4 + 5</answer>"
    question = "Use the numbers 3, 4, 5 to make 12."
    examples.write_text(json.dumps([{"question": question, "response": response}]))
    run = ran(recipe("bolt", bolt={"examples": str(examples)}), tmp_path / "run", "sft")
    assert {each.variant for each in run.rows("attempts", Attempt)} == {"bolt"}
    questions = {q.id: q for q in run.rows("questions", Question)}
    for trace in run.rows("traces", Trace):
        assert questions[trace.question_id].text in trace.prompt[-1]["content"]
        assert question not in "".join(turn["content"] for turn in trace.prompt)


@pytest.mark.slow
def test_a_second_round_curates_from_the_improved_models_responses(tmp_path: Path) -> None:
    fuller = {"learning_rate": 2e-3, "epochs": 6}
    run = ran(recipe("skillfactory_twice", questions=MANY, sft=fuller), tmp_path / "run")
    attempts = {each.id: each for each in run.rows("attempts", Attempt)}
    assert {each.variant for each in attempts.values()} == {"response"}
    assert max(each.index % MOST for each in attempts.values()) > 0
    reflections = {each.id: each for each in run.rows("reflections", Reflection)}
    assert all(each.attempt_id in attempts for each in reflections.values())
    for trace in run.rows("traces", Trace):
        for step in trace.steps:
            assert reflections[step.reflection_id].agrees
    assert {r.model for r in run.rows("evaluation", Response)} == {"base", "sft-1", "rl-1", "sft", "rl"}


def test_rl_goes_on_until_its_budget_is_spent(tmp_path: Path) -> None:
    more = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "mini_batch": 0, "max_tokens": 60, "more_tokens": 900,
            "schedule": "constant"}  # fmt: skip
    run = ran(recipe("rl_only", rl=more), tmp_path / "run", "rl")
    lines = [json.loads(line) for line in (run.path / "rl" / "metrics.jsonl").read_text().splitlines()]
    beyond = [16 * line["length"] for line in lines[2:]]
    assert sum(beyond) >= 900
    assert sum(beyond[:-2]) < 900  # the step in which it is spent is known once the next has been made
    assert run.manifest("rl")["counts"]["steps"] == len(lines)
