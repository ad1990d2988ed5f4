"""A cell on disk: whether it is finished, what it is given by a match, and what is said where it has failed.

runs/NAME/cells/ROW-SEED/, ROW-SEED.yaml (its whole recipe), ROW-SEED.log (what it printed)
"""

import contextlib
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from skillfactory import files, pipeline, store
from skillfactory.children import last_lines
from skillfactory.experiments.grid import Cell, Match
from skillfactory.experiments.sharing import LAST, manifests
from skillfactory.recipe import Recipe, changed
from skillfactory.rounds import stage_of

CELLS = "cells"


def folder(out: Path, cell: Cell) -> Path:
    """The cell's run directory."""
    return out / CELLS / cell.name


def log_of(run: Path) -> Path:
    """What the cell's process prints."""
    return run.with_name(f"{run.name}.log")


def recipe_of(run: Path) -> Path:
    """The recipe that the cell is run from."""
    return run.with_name(f"{run.name}.yaml")


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Keep the cell's whole recipe beside its run directory, so that one line runs it again."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files.write_atomic(recipe_of(run), text.encode())


def is_finished(run: Path, wanted: dict[str, pipeline.Identity]) -> bool:
    """Whether the run's report is there, and made from the wanted settings."""
    manifest = manifests(run).get(LAST, {})
    return bool(manifest.get("finished")) and manifest.get("digest") == wanted[LAST].digest


def matched(recipe: Recipe, match: Match, source: Path, other: Recipe) -> Recipe | None:
    """The recipe with the cost of stages of the run `source`, of the recipe `other`, added to RL.

    None before they are all finished. Tokens are those sampled or trained on: SFT's count once an epoch, and those of
    traces, which are only put together, not at all.
    """
    there, wanted = manifests(source), identities(other)
    found = {stage: there.get(stage, {}) for stage in match.stages}
    if not all(each.get("finished") and each["digest"] == wanted[stage].digest for stage, each in found.items()):
        return None
    weights = {"sft": other.sft.epochs, "traces": 0}
    tokens = sum(
        each.get("counts", {}).get("tokens", 0) * weights.get(stage_of(stage), 1) for stage, each in found.items()
    )
    seconds = sum(float(each["seconds"]) for each in found.values())
    return changed(recipe, {"rl.more_tokens": round(tokens), "rl.more_seconds": round(seconds, 3)})


def retry(run: Path, fresh: str = "") -> str:
    """The command that runs a cell by itself."""
    words = ["skillfactory", "run", str(recipe_of(run)), "--run", str(run)]
    return shlex.join([*words, "--fresh", fresh] if fresh else words)


def complaint(log: Path) -> str:
    """What a process that failed said last: its error, or its last line."""
    lines = [line.strip() for line in last_lines(log) if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (errors or lines or [""])[-1]


def to_redo(text: str) -> str:
    """The stage that an error of the store says to redo; "" where it is another error."""
    found = re.search(r"redo it with `--fresh ([\w-]+)`", text)
    return found[1] if found else ""


@dataclass(frozen=True, eq=False)
class Adopted:
    """A cell's process that an earlier runner started, or the user: looked at, and stopped only if it is `ours`."""

    run: Path
    pid: int
    ours: bool
    done: Callable[[], bool]

    def poll(self) -> int | None:
        """Its exit code cannot be known: 0 where the cell is finished, else 1."""
        if store.writer(self.run):
            return None
        return 0 if self.done() else 1

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def adopt(run: Path, pids: set[int], done: Callable[[], bool]) -> Adopted | None:
    """Who writes the run now, if anybody; it is ours if it is one of `pids` on this machine."""
    writer = store.writer(run)
    if not writer:
        return None
    ours = writer["pid"] in pids and writer["host"] == socket.gethostname()
    return Adopted(run, int(writer["pid"]), ours, done)


@cache
def _identities(text: str) -> dict[str, pipeline.Identity]:
    return pipeline.identities(Recipe.model_validate_json(text))


def identities(recipe: Recipe) -> dict[str, pipeline.Identity]:
    """`pipeline.identities`, which reads the model's files, once for each recipe."""
    return _identities(recipe.model_dump_json())
