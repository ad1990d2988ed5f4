"""metrics.jsonl, a line of figures a step, which survives kills."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from skillfactory import files
from skillfactory.training import processes

METRICS = "metrics.jsonl"
_TOLD = ("loss", "reward", "length", "truncated", "answers")  # in the stage's progress


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
        if processes.is_main():
            keep_steps(self.path, start)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        figures = self.line(logs or {})
        if figures is None:
            return
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        self.add(figures, seconds)

    def add(self, figures: dict[str, Any], seconds: float) -> None:
        """Append the figures of the next step, which took so many seconds."""
        # JSON has no NaN: a figure that is none (a step of which no check came back) is unknown.
        figures = {k: v if v is None or math.isfinite(v) else None for k, v in figures.items()}
        self.step += 1
        if not processes.is_main():
            return
        with files.told(str(self.path)), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **figures, "seconds": round(seconds, 3)}) + "\n")
        self.advance(1, **{k: v for k, v in figures.items() if k in _TOLD and v is not None})

    def lines(self) -> list[dict[str, Any]]:
        """The figures of every step so far."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def last_step(path: Path) -> int:
    """The step of the last whole line; 0 where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return int(max((step for line in text.splitlines() if math.isfinite(step := _step(line))), default=0))


def keep_steps(path: Path, steps: int) -> None:
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
