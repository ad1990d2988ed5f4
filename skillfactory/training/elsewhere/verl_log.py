"""What verl leaves behind while it trains, as far as a run wants to know: figures of steps, rollouts, checkpoints."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.recipe import Rl
from skillfactory.training.elsewhere import verl_reward
from skillfactory.training.elsewhere.verl_settings import CHECKPOINTS, FIGURES
from skillfactory.training.reward import well_formed
from skillfactory.training.skills import skill_use

_LATEST = "latest_checkpointed_iteration.txt"  # verl writes it once all processes have saved theirs
_PADDING = "pad"  # start of the names of rollouts that verl makes up to fill a batch
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What verl told of a step: a line of metrics.jsonl (None where it only measured), accuracy on dev questions."""

    step: int
    line: Line | None
    seconds: float
    accuracy: float | None
    dev_seconds: float


class Steps:
    """The steps that verl's file logger tells of, each once all about it is there.

    `rollouts` is the folder that verl writes the rollouts of each step into, None where it writes none; they are
    deleted once read if they are `ours`.
    """

    def __init__(self, folder: Path, rl: Rl, rollouts: Path | None, ours: bool) -> None:
        self.folder, self.rl, self.rollouts, self.ours = folder, rl, rollouts, ours
        self.read = 0  # bytes of verl's file
        self.waiting: list[dict[str, Any]] = []
        self.broken = verl_reward.broken(folder)

    def new(self, ended: bool) -> Iterator[Seen]:
        """What has come since the last look, in order. Once verl has `ended`, nothing is waited for."""
        self.waiting += self._read()
        while self.waiting and (ended or len(self.waiting) > 1 or self._is_whole(self.waiting[0])):
            record = self.waiting.pop(0)
            data: Mapping[str, Any] = record["data"]
            is_step = _is_step(data)
            measured = [value for name, value in data.items() if name.startswith("val-core/") and "/acc/mean@" in name]
            yield Seen(
                step=int(record["step"]),
                line=self._line(data, self._rows(record["step"])) if is_step else None,
                seconds=float(data.get("timing_s/step") or 0.0),
                accuracy=measured[0] if measured else None,
                dev_seconds=float(data.get("timing_s/testing") or 0.0),
            )

    def _read(self) -> list[dict[str, Any]]:
        path = self.folder / FIGURES
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self.read)
            new, ended, _ = file.read().rpartition(b"\n")
        self.read += len(new) + len(ended)
        return [json.loads(text) for text in new.splitlines()]

    def _path(self, step: int) -> Path | None:
        return self.rollouts / f"{step}.jsonl" if self.rollouts else None

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        """Whether the rollouts of a step are all there: verl writes them beside its work."""
        path = self._path(record["step"])
        if path is None or not _is_step(record["data"]):
            return True
        wanted = self.rl.prompts_per_step * self.rl.group_size
        return path.exists() and path.read_bytes().count(b"\n") >= wanted

    def _rows(self, step: int) -> list[dict[str, Any]]:
        path = self._path(step)
        if path is None or not path.exists():
            return []
        found = []
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(text)
            except ValueError:  # the empty end; or half a line, if verl was killed
                continue
            if not str(row["uid"]).startswith(_PADDING):
                found.append(row)
        if self.ours:
            path.unlink()
        return found

    def _line(self, data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Line:
        """A line of metrics.jsonl from verl's figures of a step and the rollouts of that step."""
        before, self.broken = self.broken, verl_reward.broken(self.folder)
        broken = (self.broken - before) / (self.rl.prompts_per_step * self.rl.group_size)
        return {
            **(_of_rows(rows, self.rl.shaping.form) if rows else {"reward": data.get("critic/score/mean")}),
            "length": data.get("response_length/mean"),
            "entropy": data.get("actor/entropy"),
            "truncated": _truncated(data, self.rl.max_tokens),
            "loss": data.get("actor/pg_loss"),
            "grad_norm": data.get("actor/grad_norm"),
            "learning_rate": data.get("actor/lr"),
            "rollout_seconds": data.get("timing_s/gen"),
            **({"broken": broken} if broken else {}),
        }


def _is_step(data: Mapping[str, Any]) -> bool:
    return "timing_s/step" in data


def _of_rows(rows: Sequence[Mapping[str, Any]], form: float) -> Line:
    """Reward, groups without signal and skills, over the rollouts of a step.

    The reward is the share of right ones, without what `rl.shaping` adds. (Verl keeps the sum alone. What is taken off
    for length is less than 1 but for rollouts that were cut off; of these a right one counts as wrong.)
    """
    groups = defaultdict(list)
    for row in rows:
        groups[str(row["uid"]).rsplit("_", 2)[0]].append(round(float(row["score"]), 6))
    texts = [str(row["output"]) for row in rows]
    added = [form * well_formed(text) if form else 0.0 for text in texts]
    right = [float(row["score"]) - extra > 1e-6 for row, extra in zip(rows, added, strict=True)]
    return {
        "reward": sum(right) / len(right),
        "no_signal": sum(len(set(scores)) == 1 for scores in groups.values()) / len(groups),
        **skill_use(texts),
    }


def _truncated(data: Mapping[str, Any], max_tokens: int) -> float | None:
    """The share of rollouts of the greatest length, which is a cut only where that is `max_tokens`."""
    longest, share = data.get("response_length/max"), data.get("response_length/clip_ratio")
    return None if longest is None else float(share or 0.0) if longest >= max_tokens else 0.0


def checkpoint(folder: Path, step: int) -> Path:
    """Where verl keeps the checkpoint of a step."""
    return folder / CHECKPOINTS / f"global_step_{step}"


def checkpoints(folder: Path) -> list[int]:
    """The steps whose checkpoints are whole, in order."""
    found = (path.name.removeprefix("global_step_") for path in (folder / CHECKPOINTS).glob("global_step_*"))
    return sorted(int(step) for step in found if step.isdigit() and int(step) <= latest(folder))


def latest(folder: Path) -> int:
    """The step of the last whole checkpoint; 0 where there is none."""
    path = folder / CHECKPOINTS / _LATEST
    try:
        step = int(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except ValueError:  # killed while it was written, after all else: the newest is whole
        found = [int(each.parent.name.rpartition("_")[2]) for each in path.parent.glob("global_step_*/data.pt")]
        step = max(found, default=0)
        files.write_atomic(path, str(step).encode())
    return step if checkpoint(folder, step).is_dir() else 0


def prune(folder: Path, keep: set[int], known: int) -> None:
    """Delete whole checkpoints but the last, those to `keep`, and those of steps beyond the last one `known`."""
    for step in checkpoints(folder)[:-1]:
        if step not in keep and step <= known:
            shutil.rmtree(checkpoint(folder, step))
