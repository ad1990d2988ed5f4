"""Training on several devices: two processes against one, sharded and adapted weights, the composed commands."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import make_recipe
from safetensors.torch import load_file

from skillfactory import pipeline
from skillfactory.engines.models import load_model
from skillfactory.errors import RecipeError, SkillFactoryError, StoreError
from skillfactory.recipe import Recipe, changed
from skillfactory.records import Trace
from skillfactory.stage import Stage
from skillfactory.training import launch, rl, sft

COUNTDOWN = {"name": "countdown", "params": {"count": 3, "high": 9, "target_high": 20}}


def small_rl(devices: int, **settings: Any) -> Recipe:
    """Two GRPO steps of one update on the embedded model; some rollouts are right."""
    section = {
        "steps": 2, "prompts_per_step": 4, "mini_batch": 0, "group_size": 8, "micro_batch": 4, "max_tokens": 40,
        "learning_rate": 3e-4, "save_every": 1,
    } | settings.pop("rl", {})  # fmt: skip
    return make_recipe(
        method="rl_only", rl=section, questions={"task": COUNTDOWN, "sft": 0, "rl": 6, "dev": 1},
        evaluation={"sets": {"same": {"task": COUNTDOWN, "n": 2}}}, training={"devices": devices}, **settings,
    )  # fmt: skip


def lines(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    for devices in (1, 2):
        pipeline.run(small_rl(devices), tmp_path / str(devices), "rl")
    one, two = (tmp_path / name / "rl" for name in "12")
    assert lines(one)[0]["reward"] > 0
    for mine, theirs in zip(lines(one), lines(two), strict=True):
        for name in ("reward", "length", "no_signal", "truncated", "answers"):  # the same rollouts
            assert mine[name] == theirs[name], name
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.02)
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    start = {name: p.detach() for name, p in load_model(make_recipe()).named_parameters()}
    for name, weight in weights.items():
        moved = float((weight.float() - start[name].float()).norm())
        assert float((weight.float() - others[name].float()).norm()) < 0.2 * moved, name
    assert json.loads((two / "manifest.json").read_text())["counts"]["rollouts"] == 64
    left = {path.name for path in two.iterdir()}
    assert left == {"manifest.json", "metrics.jsonl", "model"}


def test_two_processes_have_the_sft_loss_of_one(tmp_path: Path) -> None:
    traces = [
        Trace(f"t{i}", f"q{i}", "single", [], [{"role": "user", "content": f"What is {i} + 4?"}],
              "I count. " * (1 + i % 5) + f"<answer>{i + 4}</answer>", 0) for i in range(20)
    ]  # fmt: skip
    losses = []
    for devices in (1, 2):
        section = {"epochs": 1, "batch_size": 8, "micro_batch": 4 // devices, "learning_rate": 1e-3}
        recipe = make_recipe(sft=section, training={"devices": devices})
        path = tmp_path / str(devices)
        with pipeline.Run.open(path, recipe) as run:
            run.begin("traces", {}, {}).append(traces)
            run.begin("sft", {}, {})
            sft.run(recipe, run)
        losses.append([line["loss"] for line in lines(path / "sft")])
    assert len(losses[0]) == 3
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[0][-1] < losses[0][0]


# --- what goes wrong


def test_what_a_process_finds_wrong_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(training={"devices": 2})
    with pipeline.Run.open(tmp_path / "run", recipe) as run:
        run.begin("sft", {}, {})
        with pytest.raises(SkillFactoryError, match=r"^There are no traces to fine-tune on"):
            sft.run(recipe, run)
    assert "Traceback" not in capfd.readouterr().err


def test_two_processes_end_well_with_sigterm_and_a_killed_one_is_named(tmp_path: Path) -> None:
    recipe, run = small_rl(2, rl={"steps": 16, "save_every": 4}), tmp_path / "run"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))

    def interrupted(step: int, interrupt: Callable[[int], None]) -> tuple[int, str]:
        """The exit code, and what was said."""
        words = [sys.executable, "-m", "skillfactory", "run", str(tmp_path / "r.yaml"), "--run", str(run)]
        with subprocess.Popen([*words, "--until", "rl"], stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: (run / "rl/metrics.jsonl").exists() and len(lines(run / "rl")) >= step, process)
            interrupt(process.pid)
            said = process.communicate(timeout=120)[1]
            return process.returncode, said

    code, said = interrupted(1, lambda pid: os.kill(pid, signal.SIGTERM))
    stopped = len(lines(run / "rl"))
    assert code == 143
    assert f"rl: stopped at step {stopped} of 16 by SIGTERM" in said
    assert (run / f"rl/checkpoints/checkpoint-{stopped}").is_dir()
    code, said = interrupted(stopped + 1, lambda pid: os.kill(max(workers_of(pid)), signal.SIGKILL))
    assert code == 2
    assert "rl: training on 2 devices" in said
    assert "goes on from the last checkpoint" in said
    pipeline.run(recipe, run, "rl")
    assert [line["step"] for line in lines(run / "rl")] == list(range(1, 17))


def workers_of(pid: int) -> list[int]:
    return [each for each in children_of(pid) if launch.WORKER in command_of(each)]


def test_processes_whose_starter_was_killed_are_noticed(tmp_path: Path) -> None:
    import filelock

    recipe = small_rl(2)
    stage = Stage(tmp_path / "rl")
    stage.path.mkdir()
    with (
        filelock.FileLock(stage.path / launch.LOCK),
        pytest.raises(StoreError, match=r"that an earlier, killed command started are still training"),
        pipeline.Run.open(tmp_path / "run", recipe) as run,
    ):
        launch.on_devices(recipe, run, stage, rl.train)


def wait_for(ready: Any, process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def children_of(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [each for child in found for each in children_of(child)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training": {"shard": "fsdp2"}}, r"training.shard is fsdp2, .* training.devices is 1"),
        ({"training": {"devices": 2, "accelerate": "none.yaml"}}, r"training.accelerate: there is no file none.yaml"),
        ({"training": {"accelerate": "none.yaml"}}, r"training.accelerate is for several devices"),
        ({"machine": {"device": "cpu"}, "training": {"devices": 2, "shard": "fsdp2"}}, r"training.shard is for GPUs"),
        ({"rl": {"loss_type": "cispo"}}, r"rl.epsilon_high is 0, but with rl.loss_type: cispo"),
        ({"rl": {"engine": "vllm_colocate"}}, r"rl.engine: vllm_colocate wants the package vllm"),
        *(
            ({"rl": {"engine": "vllm_colocate", "vllm": {name: value}}}, f"rl.vllm: {name} is {value!r}; give")
            for name, value in (
                ("vllm_tensor_parallel_size", 0),
                ("vllm_tensor_parallel_size", "two"),
                ("vllm_gpu_memory_utilization", "half"),
                ("vllm_gpu_memory_utilization", 50),
            )
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        pipeline.run(make_recipe(method="rl_only", **settings), tmp_path / "run", "rl")
    assert not (tmp_path / "run").exists()


def test_what_is_not_installed_is_asked_for_by_the_stages_that_want_it() -> None:
    recipe = make_recipe(rl={"engine": "vllm_colocate"})
    pipeline.check(recipe, "sft")
    with pytest.raises(RecipeError, match="wants the package vllm"):
        pipeline.check(recipe, "rl")
    with pytest.raises(RecipeError, match=r"rl.keep is best"):  # while what contradicts itself is told at once
        pipeline.check(make_recipe(rl={"keep": "best"}), "traces")


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "8"), ("RANK", "3"), ("RANK", "x")])
def test_leftovers_of_torchrun_are_told(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    pipeline.check(make_recipe())
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=f"The environment has .*{name}={value}.*unset RANK WORLD_SIZE LOCAL_RANK"):
        pipeline.check(make_recipe())
    pipeline.check(make_recipe(), "traces")


def test_options_of_vllm_are_trls() -> None:
    launch.check_vllm(["vllm_gpu_memory_utilization", "vllm_enable_sleep_mode"])
    with pytest.raises(RecipeError, match=r"rl.vllm.vllm_gpu_memory: .* is it vllm_gpu_memory_utilization\?"):
        launch.check_vllm(["vllm_gpu_memory"])
    with pytest.raises(RecipeError, match=r"rl.vllm.vllm_mode: TRL has no such"):  # rl.engine says it
        launch.check_vllm(["vllm_mode"])


def test_what_processes_left_that_outlived_their_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run(words: list[str], environment: dict[str, str], result: Path) -> int:
        ran.append(1)
        result.write_text('{"steps": 2}')
        return 0

    monkeypatch.setattr(launch, "_run", run)
    recipe = small_rl(2)
    with pipeline.Run.open(tmp_path / "run", recipe) as opened:
        stage = opened.begin("rl", {}, {})
        for left, runs in (('{"error": "stopped", "stopped": true}', 1), ('{"steps": 2}', 0)):
            (stage.path / launch.RESULT).write_text(left)
            ran.clear()
            assert launch.on_devices(recipe, opened, stage, rl.train) == {"steps": 2}
            assert len(ran) == runs
            assert not (stage.path / launch.RESULT).exists()


WAITING = """
import subprocess, sys, time
open(sys.argv[1], "w").close()
subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[2]])
"""


def test_who_waits_for_a_process_that_has_failed_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LATE", 0.5)
    began = time.monotonic()
    words = [sys.executable, "-c", WAITING, str(tmp_path / "result"), launch.WORKER]
    assert launch._run(words, dict(os.environ), tmp_path / "result") == 0
    assert time.monotonic() - began < 30


def test_one_process_alone_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skillfactory.training import loggers

    recipe = make_recipe(report_to=["tensorboard", "trackio"])
    (tmp_path / "rl").mkdir()
    stage = Stage(tmp_path / "rl")
    monkeypatch.setenv("RANK", "1")
    assert loggers.settings(recipe, stage)["report_to"] == []
    with loggers.started(recipe, stage, 0) as callbacks:
        assert callbacks == []
    assert list(stage.path.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    assert loggers.settings(recipe, stage)["report_to"] == ["trackio"]


def test_more_devices_than_there_are(tmp_path: Path) -> None:
    recipe = small_rl(99, machine={"device": "cuda"})
    with pipeline.Run.open(tmp_path, recipe) as run, pytest.raises(RecipeError, match=r"is 99, but torch sees \d+ GPU"):
        launch.on_devices(recipe, run, run.stage("rl"), rl.train)


# --- commands, as accelerate reads them


@pytest.mark.parametrize("shard", ["none", "fsdp2", "zero2", "zero3"])
@pytest.mark.parametrize("devices", [4, 8])
def test_accelerate_reads_what_is_composed(shard: str, devices: int, tmp_path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    recipe = make_recipe(
        machine={"device": "cuda"}, training={"devices": devices, "shard": shard}, rl={"max_grad_norm": 0.5}
    )
    (tmp_path / "run" / "rl").mkdir(parents=True)
    words = launch.command(recipe, Stage(tmp_path / "run" / "rl"))
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    args, config, _ = _validate_launch_command(launch_command_parser().parse_args(words[3:]))
    assert (args.num_processes, args.mixed_precision, args.use_cpu) == (devices, "bf16", False)
    assert (args.module, args.training_script) == (True, launch.WORKER)
    assert args.training_script_args == [str(tmp_path / "run"), "rl"]
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (shard == "none", shard == "fsdp2", "zero" in shard)
    if shard == "fsdp2":
        env = prepare_multi_gpu_env(args)
        assert env["FSDP_VERSION"] == "2"
        assert env["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    elif shard != "none":
        args.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
        _, env = prepare_deepspeed_cmd_env(args)
        assert env["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == shard[-1]
        assert float(env["ACCELERATE_GRADIENT_CLIPPING"]) == 0.5


def test_a_configuration_of_the_users_own(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("")
    recipe = make_recipe(machine={"device": "cuda"}, training={"devices": 2, "accelerate": str(own)})
    assert str(own) in launch.command(recipe, Stage(tmp_path / "run" / "sft"))
    assert not (tmp_path / "run").exists()


def test_vllm_is_trls(tmp_path: Path) -> None:
    recipe = make_recipe(
        rl={"engine": "vllm_server", "vllm": {"vllm_server_port": 8123}, "prompts_per_step": 4, "mini_batch": 0}
    )
    args = rl.configure(recipe, Stage(tmp_path), questions=8, steps=recipe.rl.steps)
    assert (args.use_vllm, args.vllm_mode, args.vllm_server_port) == (True, "server", 8123)


# accelerate splits over GPUs alone; told that two processes on CPU are some, it does the same with them.
SPLIT = """
import sys
from pathlib import Path
from accelerate import state
from accelerate.utils import DistributedType

joined = state.PartialState.__init__
def joins(self, *args, **options):
    joined(self, *args, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU
state.PartialState.__init__ = joins

from torch.distributed.fsdp import FSDPModule
from skillfactory.training import policy, worker

whole = policy.whole_weights
def split(model):
    assert isinstance(model, FSDPModule)
    return whole(model)
policy.whole_weights = split
sys.exit(worker.main(Path(sys.argv[1]), "rl"))
"""


def test_weights_that_accelerate_splits_train_as_whole_ones(tmp_path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    plain = small_rl(1, rl={"gradient_checkpointing": True})
    pipeline.run(plain, tmp_path / "whole", "rl")
    recipe = changed(plain, {"training.devices": 2, "training.shard": "fsdp2"})
    pipeline.run(plain, tmp_path / "split", "questions")
    with pipeline.Run.open(tmp_path / "split", recipe) as run:
        stage = run.begin("rl", {}, {})
    (tmp_path / "split" / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    words = launch.command(changed(recipe, {"machine.device": "cuda"}), stage)
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words[3:]))
    chosen = {name: value for name, value in prepare_multi_gpu_env(args).items() if "FSDP" in name}
    script = tmp_path / "split.py"
    script.write_text(SPLIT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "split")], capture_output=True, text=True, timeout=300,
        env=os.environ | chosen | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    whole, split = (tmp_path / name / "rl" for name in ("whole", "split"))
    mine, theirs = lines(whole), lines(split)
    assert mine[0]["reward"] == theirs[0]["reward"] > 0
    assert mine[0]["grad_norm"] == pytest.approx(theirs[0]["grad_norm"], rel=0.02)
