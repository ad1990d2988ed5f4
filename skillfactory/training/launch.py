"""Training on several devices: the command that starts one process on each, and its end.

On GPUs `accelerate launch` starts them, with a configuration that is written beside the stage's other files; on CPU
torchrun does (accelerate starts one process there). Each runs worker.py, which calls the stage's `train`.
"""

import difflib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock
import psutil  # type: ignore[import-untyped]
import yaml

from skillfactory import children, files
from skillfactory.errors import RecipeError, SkillFactoryError, StoppedError, StoreError
from skillfactory.machine import pick_device
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training import accelerate_config

RESULT = "result.json"  # what the main process leaves: the counts of the stage, or the sentence of what went wrong
CONFIG = "accelerate.yaml"
LOCK = ".training.lock"  # held by the main process, so that one whose starter was killed is noticed
# Seconds that torchrun gives processes to end where it is told to stop, as by a scheduler that tells all: they end
# their step first.
SHUTDOWN = 3600
LATE, PAUSE = 60.0, 0.1  # seconds
WORKER = "skillfactory.training.worker"

Train = Callable[[Recipe, Run], dict[str, Any]]


def check(recipe: Recipe) -> None:
    """Raises RecipeError for settings of devices that contradict each other."""
    system = recipe.training
    if system.shard != "none" and system.devices == 1:
        raise RecipeError(
            f"training.shard is {system.shard}, which splits over several devices, but training.devices is 1; raise it."
        )
    if system.accelerate and system.devices == 1:
        raise RecipeError("training.accelerate is for several devices, but training.devices is 1; raise it.")
    if system.accelerate and not Path(system.accelerate).expanduser().is_file():
        raise RecipeError(f"training.accelerate: there is no file {system.accelerate}.")
    if recipe.machine.device == "cpu":
        _check_cpu(recipe)


def check_installed(recipe: Recipe, stages: Collection[str]) -> None:
    """Raises RecipeError for packages that these stages want and that are not installed."""
    system = recipe.training
    wanted = {
        "trl": (bool(stages), "training"),
        "deepspeed": (system.shard.startswith("zero"), f"training.shard: {system.shard}"),
        "vllm": ("rl" in stages and recipe.rl.engine != "sampler", f"rl.engine: {recipe.rl.engine}"),
        "peft": (any(getattr(recipe, stage).lora.rank for stage in stages), "lora.rank"),
    }
    for package, (is_wanted, by) in wanted.items():
        if is_wanted and find_spec(package) is None:
            raise RecipeError(f"{by} wants the package {package}, which is not installed; `pip install {package}`.")
    if wanted["vllm"][0] and recipe.rl.vllm:
        check_vllm(recipe.rl.vllm)


def check_vllm(options: Collection[str]) -> None:
    """Raises RecipeError for settings of vLLM that TRL does not have."""
    from dataclasses import fields

    from trl import GRPOConfig

    known = {field.name for field in fields(GRPOConfig)} - {"vllm_mode"}  # which rl.engine says
    for name in options:
        if not name.startswith("vllm_") or name not in known:
            near = difflib.get_close_matches(name, [each for each in known if each.startswith("vllm_")], 1)
            raise RecipeError(
                f"rl.vllm.{name}: TRL has no such setting that begins with `vllm_`"
                + (f"; is it {near[0]}?" if near else ".")
            )


def finish(recipe: Recipe, run: Run, name: str, train: Train) -> None:
    """Train the stage `name` and finish it with what `train` counts; see on_devices for what is raised."""
    from skillfactory.training import common

    stage = run.stage(name)
    stage.finish(**on_devices(recipe, run, stage, train))
    common.drop_checkpoints(stage.path)


def on_devices(recipe: Recipe, run: Run, stage: Stage, train: Train) -> dict[str, Any]:
    """Train on `training.devices` devices: here where it is one, else in processes that are started and waited for.

    Gives what `train` gives. Raises SkillFactoryError where a process fails, RecipeError where there are fewer devices.
    """
    if recipe.training.devices == 1:
        return train(recipe, run)
    _check_devices(recipe)
    _check_nobody_trains(stage)
    left = stage.path / RESULT
    if left.exists() and "error" in files.read_json(left):
        left.unlink()  # of processes that outlived who started them: gone on from
    if not left.exists():  # else they have ended well
        code = _run(command(recipe, stage), _environment(recipe), left)
        if not left.exists():
            raise SkillFactoryError(
                f"{stage.path.name}: training on {recipe.training.devices} devices {children.how_it_ended(code)}; "
                "what it said is above. The same command goes on from the last checkpoint."
            )
    result: dict[str, Any] = files.read_json(left)
    for done in (RESULT, CONFIG, LOCK):
        (stage.path / done).unlink(missing_ok=True)
    if "error" in result:
        raise (StoppedError if result.get("stopped") else SkillFactoryError)(str(result["error"]))
    return result


def command(recipe: Recipe, stage: Stage) -> list[str]:
    """The words of the command that starts the processes; writes its configuration first."""
    system, devices = recipe.training, recipe.training.devices
    worker = ["-m", WORKER, str(stage.path.parent), stage.path.name]
    if pick_device(recipe.machine.device) == "cpu":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}", *worker]
    config = Path(system.accelerate).expanduser()
    if not system.accelerate:
        config = stage.path / CONFIG
        files.write_atomic(
            config, yaml.safe_dump(accelerate_config.of(recipe, stage.path.name), sort_keys=False).encode()
        )
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, f"--num_processes={devices}", *worker]


def _check_devices(recipe: Recipe) -> None:
    import torch

    device = pick_device(recipe.machine.device)
    if device == "cpu":
        _check_cpu(recipe)
    if device == "cuda" and torch.cuda.device_count() < recipe.training.devices:
        raise RecipeError(
            f"training.devices is {recipe.training.devices}, but torch sees {torch.cuda.device_count()} GPUs here; "
            "lower it, or look at CUDA_VISIBLE_DEVICES."
        )


def _check_cpu(recipe: Recipe) -> None:
    system = recipe.training
    if system.accelerate or system.shard != "none":
        key = "training.accelerate" if system.accelerate else "training.shard"
        raise RecipeError(f"{key} is for GPUs, but this runs on a CPU, where each process has a whole model; drop it.")


def _check_nobody_trains(stage: Stage) -> None:
    """Raises StoreError where processes still train whose starter was killed."""
    lock = filelock.FileLock(stage.path / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StoreError(
            f"{stage.path}: processes that an earlier, killed command started are still training; wait until they end, "
            f"or stop them (`pkill -f {WORKER}`)."
        ) from error
    lock.release()  # the main process takes it


def _environment(recipe: Recipe) -> dict[str, str]:
    on_cpu = pick_device(recipe.machine.device) == "cpu"
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(recipe.machine.threads or 1))} if on_cpu else {}
    patient = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN)}
    return os.environ | {"ACCELERATE_USE_CPU": "true" if on_cpu else "false", **patient, **threads}


def _run(words: list[str], environment: dict[str, str], result: Path) -> int:
    """Run it; gives its exit code. SIGTERM is handed on to the processes, which end their step and keep their work.

    Once the main process has left its `result`, the others get a while to end, for they may wait for one that failed.
    """
    told: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number)) if is_main else None
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)
    try:
        late = 0.0
        while (code := process.poll()) is None:
            while told:
                _tell(process, told.pop())
            late += PAUSE * result.exists()
            if late > LATE:
                _tell(process, signal.SIGKILL)
            time.sleep(PAUSE)
        return code
    except KeyboardInterrupt:  # the terminal has told them, too
        process.wait()
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            process.wait()


def _tell(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the processes that train; before there are any, to what starts them.

    (While they train, it would take their end for a failure.)
    """
    trains = 0
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if WORKER in child.cmdline():
                    child.send_signal(number)
                    trains += 1
    if not trains:
        process.send_signal(number)
