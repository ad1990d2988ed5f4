"""Whole trainings of a tiny model: steps that are kept, loggers, a kill in the middle."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import make_recipe

from skillfactory import load_run, pipeline
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import RecipeError
from skillfactory.planning import plan, sizes
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.training import loggers
from skillfactory.training.metrics import METRICS

COUNTDOWN = {"name": "countdown", "params": {"count": 3, "high": 9, "target_high": 20}}


def small_rl(**settings: Any) -> Recipe:
    """Three GRPO steps of two updates on the embedded model: some rollouts are right, so that every step learns."""
    section = {
        "steps": 3, "prompts_per_step": 4, "mini_batch": 2, "group_size": 8, "micro_batch": 8, "max_tokens": 40,
        "learning_rate": 3e-4, "save_every": 1, "keep_every": 1,
    } | settings.pop("rl", {})  # fmt: skip
    return make_recipe(
        method="rl_only", rl=section, questions={"task": COUNTDOWN, "sft": 0, "rl": 6, "dev": 1},
        evaluation={"sets": {"same": {"task": COUNTDOWN, "n": 2}}}, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run up to RL that kept its steps and was logged by TensorBoard and, offline, by Weights & Biases."""
    import wandb

    path = tmp_path_factory.mktemp("runs") / "trained"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_PROJECT", raising=False)
        pipeline.run(small_rl(report_to=["tensorboard", "wandb"]), path, "rl")
        yield path
        wandb.teardown()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a folder that the engines can load."""
    assert ChatTokenizer.load(make_recipe(), folder).tokenizer.chat_template
    return {name: p.detach() for name, p in load_model(make_recipe(), folder).named_parameters()}


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(one).values(), weights(other).values(), strict=True))


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rl" / METRICS).read_text().splitlines()]


def test_a_kept_step_is_what_training_would_have_ended_with_there(trained: Path, tmp_path: Path) -> None:
    steps = trained / "rl" / "steps"
    assert sorted(path.name for path in steps.iterdir()) == ["1", "2"], "the last one is rl/model"
    shorter = tmp_path / "shorter"
    pipeline.run(small_rl(rl={"steps": 2, "keep_every": 0}), shorter, "rl")
    assert not (shorter / "rl" / "steps").exists()
    assert same(steps / "2", shorter / "rl" / "model")
    assert not same(steps / "1", steps / "2")
    assert not same(steps / "2", trained / "rl" / "model")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (steps / "2" / name).read_text() == (shorter / "rl" / "model" / name).read_text()
    assert [line["step"] for line in metrics_of(trained)] == [1, 2, 3]
    for line in metrics_of(trained):
        assert line["answers"] > 0.5
        assert line["distinct_answers"] <= line["answers"]
        assert "retries" in line


def test_kept_steps_and_logs_survive_a_kill(trained: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "killed", small_rl(report_to=["tensorboard"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    words = [sys.executable, "-m", "skillfactory", "run", str(tmp_path / "recipe.yaml"), "--run", str(run)]
    with subprocess.Popen([*words, "--until", "rl"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (run / "rl" / "steps" / "2").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    name = load_run(run).manifest("rl")["logged_as"]
    # As if the kill had come in the middle of writing, and before the checkpoint of the step that was kept last.
    shutil.rmtree(run / "rl/checkpoints/checkpoint-4", ignore_errors=True)
    (run / "rl/steps/2/model.safetensors").write_bytes(b"stale")
    (run / "rl/steps/3").mkdir()
    (run / "rl/.tmp-model").mkdir(exist_ok=True)
    pipeline.run(recipe, run, "rl")
    assert sorted(path.name for path in (run / "rl" / "steps").iterdir()) == ["1", "2"]
    for each in ("steps/1", "steps/2", "model"):
        assert same(run / "rl" / each, trained / "rl" / each), each
    assert not [path for path in (run / "rl").iterdir() if path.name.startswith(".tmp-")]
    assert load_run(run).manifest("rl")["logged_as"] == name
    assert scalars(run)["train/skills/answers"] == scalars(trained)["train/skills/answers"], "each step once"


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """{tag: [(update, value)]} as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "rl" / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_metrics_say(trained: Path) -> None:
    shown, lines = scalars(trained), metrics_of(trained)
    for tag, key in [("reward", "reward"), ("completions/mean_length", "length"), ("skills/answers", "answers")]:
        assert shown[f"train/{tag}"] == [(1 + 2 * i, pytest.approx(line[key])) for i, line in enumerate(lines)], tag
    assert [update for update, _ in shown["train/loss"]] == [1, 2, 3, 4, 5, 6]


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: a log of LevelDB's format after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def test_wandb_offline_shows_what_metrics_say(trained: Path) -> None:
    import wandb

    assert wandb.run is None, "ended, so that the next stage begins its own"
    (file,) = (trained / "rl" / "wandb").glob("offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    name = load_run(trained).manifest("rl")["logged_as"]
    assert name.startswith("test-rl_only-rl-")
    (run,) = {
        (r.run.project, r.run.run_id, r.run.display_name) for r in records if r.WhichOneof("record_type") == "run"
    }
    assert run == ("skillfactory", name, name)
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    answers = {h["train/global_step"]: h["train/skills/answers"] for h in history if "train/skills/answers" in h}
    assert answers == pytest.approx({1 + 2 * i: line["answers"] for i, line in enumerate(metrics_of(trained))})


def test_a_stage_keeps_its_name_in_loggers_until_it_is_made_afresh(tmp_path: Path) -> None:
    recipe = make_recipe(report_to=["trackio"])
    (tmp_path / "rl").mkdir()
    first = loggers.settings(recipe, Stage(tmp_path / "rl"))
    assert first == loggers.settings(recipe, Stage(tmp_path / "rl"))
    assert (first["report_to"], first["project"]) == (["trackio"], "skillfactory")
    shutil.rmtree(tmp_path / "rl")
    (tmp_path / "rl").mkdir()
    assert loggers.settings(recipe, Stage(tmp_path / "rl"))["run_name"] != first["run_name"]


@pytest.mark.parametrize("left", [False, True])
def test_a_logger_that_is_missing_is_said_before_anything_is_done(
    left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ModuleSpec("trackio", None) if left else None  # a folder of that name, without a package in it
    monkeypatch.setattr(loggers, "find_spec", lambda name: missing if name == "trackio" else find_spec(name))
    with pytest.raises(RecipeError, match=r"report_to names trackio, which is not installed; `pip install trackio`"):
        pipeline.run(small_rl(report_to=["tensorboard", "trackio"]), tmp_path / "run", "rl")
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_key_is_said_before_anything_is_done(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    words = [sys.executable, "-m", "skillfactory", "run", "demo", "report_to=[wandb]", "--run", str(tmp_path / "run")]
    done = subprocess.run(
        words, env=environment | {"HOME": str(tmp_path)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "report_to names wandb" in done.stderr
    assert "WANDB_MODE=offline" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_the_disk_of_kept_steps(tmp_path: Path) -> None:
    (none,), (two,) = ([each for each in plan.plan(small_rl(rl={"keep_every": n}), tmp_path) if each.name == "rl"]
                       for n in (0, 1))  # fmt: skip
    size = 4 * (sizes.weights_of(small_rl()).parameters or 0)  # they are kept in the sampling type, float32
    assert "models kept" not in none.counts
    assert two.counts["models kept"] == 2
    for cost, other in ((two.most, none.most), (two.expected, none.expected)):
        assert (cost.disk or 0) - (other.disk or 0) == 2 * size > 0
