"""What SFT and GRPO share: trainer settings, metrics to a file, checkpoints that survive a kill, models to keep."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from skillfactory import files, seeds
from skillfactory.errors import ModelError
from skillfactory.recipe import Recipe, Training
from skillfactory.store import Stage
from skillfactory.training import loggers

METRICS = "metrics.jsonl"
STEPS = "steps"  # the folder of kept steps in that of the stage
_TOLD = ("loss", "reward", "length", "truncated", "answers")  # in the stage's progress


def trainer_settings(recipe: Recipe, section: Training, stage: Stage, on_cpu: bool) -> dict[str, Any]:
    """Keyword arguments that TRL's configurations of both stages take."""
    import torch

    bf16 = (
        torch.cpu._is_avx512_bf16_supported()
        if on_cpu
        else torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    return {
        "output_dir": str(stage.path / "checkpoints"),
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.schedule,
        "warmup_steps": section.warmup,
        "adam_beta2": section.adam_beta2,
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "per_device_train_batch_size": section.micro_batch,
        "gradient_checkpointing": section.gradient_checkpointing,
        "bf16": bf16,
        "use_cpu": on_cpu,
        "seed": seeds.derive(recipe.seed, stage.path.name.partition("-")[0]) % 2**31,  # the same in every round
        "save_steps": section.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "disable_tqdm": True,
        **loggers.settings(recipe, stage),
    }


class MetricsFile(TrainerCallback):
    """Appends one line a step to metrics.jsonl and advances the stage's progress.

    `line` turns the trainer's log into the figures of a line, or None for a log that is no step's.
    """

    def __init__(
        self,
        folder: Path,
        line: Callable[[dict[str, Any]], dict[str, Any] | None],
        advance: Callable[..., None],
        start: int,
    ) -> None:
        self.path, self.line, self.advance = folder / METRICS, line, advance
        self.step = start
        self.last = time.monotonic()
        _keep_steps(self.path, start)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        figures = self.line(logs or {})
        if figures is None:
            return
        # JSON has no NaN: a figure that is none (a step of which no check came back) is unknown.
        figures = {k: v if v is None or math.isfinite(v) else None for k, v in figures.items()}
        now = time.monotonic()
        self.step += 1
        seconds, self.last = now - self.last, now
        with files.told(str(self.path)), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **figures, "seconds": round(seconds, 3)}) + "\n")
        self.advance(1, **{k: v for k, v in figures.items() if k in _TOLD and v is not None})

    def lines(self) -> list[dict[str, Any]]:
        """The figures of every step so far."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def _keep_steps(path: Path, steps: int) -> None:
    """Drop lines of steps that a kill threw away with them (those after the checkpoint that training resumes from)."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= steps]
    files.write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # half a line: the kill came in the middle of it
        return float("inf")


def last_checkpoint(folder: Path) -> tuple[str | None, int]:
    """The newest whole checkpoint under `folder`/checkpoints and its optimizer step; removes those a kill cut short."""
    checkpoints = folder / "checkpoints"
    while checkpoints.is_dir() and (path := get_last_checkpoint(str(checkpoints))):
        state = Path(path) / "trainer_state.json"  # written last
        if state.exists() and (Path(path) / "optimizer.pt").exists():
            try:
                return path, int(json.loads(state.read_text())["global_step"])
            except (ValueError, KeyError):
                pass  # half written: removed below
        shutil.rmtree(path)
    return None, 0


def save_model(model: Any, tokenizer: Any, dtype: Any, folder: Path) -> None:
    """Write `folder`/model as a Hugging Face folder in `dtype`, whole or not at all, and drop the checkpoints.

    Raises ModelError for weights that are no numbers any more.
    """
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise ModelError(
            f"{folder.name}: training has diverged, its weights are no numbers any more; see `loss` and `grad_norm` in "
            f"{folder / METRICS}, lower {folder.name.partition('-')[0]}.learning_rate, and run again with --fresh "
            f"{folder.name}."
        )
    model.config.use_cache = True  # TRL turned it off for the training; who samples from the model wants it
    _write_model(model.to(dtype), tokenizer, folder, "model")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def keep_model(model: Any, tokenizer: Any, folder: Path, step: int) -> None:
    """Write `folder`/steps/STEP as a Hugging Face folder in the model's own type, whole or not at all."""
    _write_model(model, tokenizer, folder, f"{STEPS}/{step}")


def drop_kept(folder: Path, after: int) -> None:
    """Remove the kept models of steps that a kill threw away (those after the checkpoint that training resumes from).

    They are made again; unless `rl.keep_every` has changed since.
    """
    for kept in (folder / STEPS).glob("[0-9]*"):
        if int(kept.name) > after:
            shutil.rmtree(kept)


def _write_model(model: Any, tokenizer: Any, folder: Path, name: str) -> None:
    """Written beside its place, where `Stage.begin` clears what a kill leaves, flushed to disk, and moved there."""
    temporary, place = folder / f"{files.TEMPORARY}model", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    with files.told(str(place)):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for path in (*temporary.iterdir(), temporary):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        temporary.rename(place)
