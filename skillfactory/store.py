"""The run directory: which stages a run has, one writer at a time, and reading it (`load_run`).

runs/NAME/recipe.yaml, log.jsonl, metrics.json, report.html, report.md, tables/, STAGE/ (see stage.py)
"""

import copy
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import yaml

from skillfactory import files, progress
from skillfactory.errors import RecipeError, StoreError
from skillfactory.recipe import REPEATED, Recipe
from skillfactory.stage import MANIFEST, Stage, now, remove

if TYPE_CHECKING:
    import filelock
    import pyarrow

R = TypeVar("R")
State = Literal["missing", "running", "partial", "finished"]
RECIPE, LOG = "recipe.yaml", "log.jsonl"
_LOCK, _OWNER, _TRASH = ".lock", ".owner.json", ".trash-"


class Run:
    """One run directory, held by this process until closed. Use as a context manager."""

    def __init__(self, path: Path, lock: "filelock.BaseFileLock") -> None:
        self.path = path
        self._lock = lock
        self._suffix = ""
        self._stages: dict[str, Stage] = {}

    @classmethod
    def open(cls, path: Path, recipe: Recipe) -> Self:
        """Create the directory, or take up the run in it.

        Raises StoreError where another process holds it, where it holds something else, or a run of another method.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file, not a run directory; choose another with --run.")
        if path.is_dir() and not is_run(path) and any(_visible(path)):
            raise StoreError(f"{path} is neither empty nor a run (it has no {RECIPE}); choose another with --run.")
        with files.told(str(path)):
            path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        try:
            run = cls(path, lock)
            if not (path / RECIPE).exists():
                run.write_recipe(recipe)  # first of all: it says that this is a run
            elif (before := _read_recipe(path)).method != recipe.method:
                raise StoreError(
                    f"{path} holds a run of method `{before.method}`, not `{recipe.method}`; give another --run."
                )
            for leftover in (*path.glob(f"{_TRASH}*"), *path.glob(f"{files.TEMPORARY}*")):
                remove(leftover)
            for leftover in path.glob(f"tables/{files.TEMPORARY}*"):
                remove(leftover)
            files.write_json(path / _OWNER, {"pid": os.getpid(), "host": socket.gethostname(), "stage": ""})
            with files.told(str(path)):
                end_torn_line(path / LOG)
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def joined(cls, path: Path) -> Self:
        """A run that is held by the process which started this one. Stages are begun and finished there."""
        import filelock

        return cls(path, filelock.SoftFileLock(path / _LOCK))  # never acquired

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the time that unfinished stages took, and let go of the directory."""
        try:
            for stage in self._stages.values():
                stage.pause()
            (self.path / _OWNER).unlink(missing_ok=True)
        finally:
            self._lock.release()

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the whole recipe, defaults included, as recipe.yaml."""
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        files.write_atomic(self.path / RECIPE, text.encode())

    def of_round(self, suffix: str) -> Self:
        """The run as a stage of an earlier round sees it: `stage("sft")` is `sft-1` for the suffix "-1"."""
        view = copy.copy(self)
        view._suffix = suffix
        return view

    def stage(self, name: str) -> "Stage":
        """The stage's folder, created with its first write."""
        name = f"{name}{self._suffix}" if name in REPEATED else name
        return self._stages.setdefault(name, Stage(self.path / name))

    def begin(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, str], filled_by: str = "") -> "Stage":
        """Start or go on with a stage, and tell `skillfactory status` so.

        `filled_by` is the stage that makes the rows of this one beside its own.
        """
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "stage": filled_by or name}
        files.write_json(self.path / _OWNER, owner)
        stage = self.stage(name)
        stage.begin(settings, inputs, clock=not filled_by)
        if filled_by:
            stage.note(filled_by=filled_by)
        return stage

    def drop(self, name: str) -> None:
        """Delete a stage's work: at once (by a rename), so that a kill cannot leave half of it."""
        self._stages.pop(name, None)
        folder = self.path / name
        if folder.exists():
            trash = self.path / f"{_TRASH}{os.getpid()}-{time.time_ns()}-{name}"
            folder.rename(trash)
            remove(trash)

    def log(self, stage: str, event: str, **figures: object) -> None:
        """Append a line to log.jsonl."""
        # Texts of models and servers may be in it: in ASCII nothing of them is obeyed by a terminal, or ends a line.
        line = json.dumps({"time": now(), "stage": stage, "event": event, **figures}, default=str)
        with files.told(str(self.path / LOG)), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class LoadedRun:
    """A run to read from, while or after it is written. Takes no lock. `path` and `recipe` are what it was opened with.

    Stages are questions, attempts, reflections, traces, sft, rl, evaluation, report; those of earlier rounds have a
    number, as `sft-1`. A stage that does not exist has no rows.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe

    def stage(self, name: str) -> Stage:
        """The stage, to read from."""
        return Stage(self.path / name)

    def table(self, stage: str, columns: Sequence[str] | None = None) -> "pyarrow.Table":
        """All rows of a stage so far, of these columns or all. Raises StoreError for a damaged shard."""
        return self.stage(stage).table(columns)

    def rows(self, stage: str, kind: type[R]) -> list[R]:
        """All rows of a stage so far as records, `rows("attempts", Attempt)`. Raises StoreError as `table` does."""
        return self.stage(stage).rows(kind)

    @property
    def metrics(self) -> dict[str, Any]:
        """What the report measured (metrics.json): shares from 0 to 1, None for what is unknown.

        Raises StoreError before the report is made.
        """
        file = self.path / "metrics.json"
        if not file.exists():
            raise StoreError(f"{self.path} has no metrics.json yet; run it to the end first.")
        return dict(files.read_json(file))

    def manifest(self, stage: str) -> dict[str, Any]:
        """The stage's manifest: `counts`, `seconds`, `rows`, settings, versions and so on; empty before it begins."""
        return self.stage(stage).manifest

    def state(self, stage: str) -> State:
        """missing, running, partial or finished; `partial` is begun but with nobody working on it."""
        manifest = self.manifest(stage)
        if not manifest:
            return "missing"
        if manifest.get("finished"):
            return "finished"
        owner = _owner(self.path)
        working = owner.get("stage") in {stage, manifest.get("filled_by", stage)}
        return "running" if working and _is_alive(owner) else "partial"

    def progress(self, stage: str) -> dict[str, Any]:
        """The latest figures of a running stage, as `skillfactory status` shows them; empty where there are none."""
        try:
            return dict(json.loads((self.path / stage / progress.FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def is_run(path: Path) -> bool:
    """Whether a directory is a run's, be it one that has lost its recipe."""
    return (path / RECIPE).is_file() or ((path / LOG).is_file() and any(path.glob(f"*/{MANIFEST}")))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a run directory, without taking up the run. Raises StoreError where another process holds it."""
    lock = _locked(path)
    try:
        yield
    finally:
        lock.release()


def load_run(path: str | Path) -> LoadedRun:
    """The run in a directory, to read from; also one that is being written. Raises StoreError where there is none.

    `load_run("runs/demo/skillfactory").table("attempts").to_pandas()` has every attempt, a row each.
    """
    path = Path(path)
    if not (path / RECIPE).is_file():
        raise StoreError(f"{path} is not a run directory (it has no {RECIPE}).")
    return LoadedRun(path, _read_recipe(path))


def writer(path: Path) -> dict[str, Any]:
    """The process that writes a run now, as far as it has said: `pid`, `host`, `stage`. Empty where there is none."""
    import filelock

    if not (path / _LOCK).exists():
        return {}
    try:
        with filelock.FileLock(path / _LOCK, timeout=0):
            return {}
    except filelock.Timeout:
        return {"pid": 0, "host": "", "stage": ""} | _owner(path)
    except OSError:  # a disk that is read only, or another user's run: nothing can be known
        return {}


def _locked(path: Path) -> "filelock.BaseFileLock":
    import filelock

    lock = filelock.FileLock(path / _LOCK)
    try:
        with files.told(str(path)):
            lock.acquire(timeout=0)
    except filelock.Timeout as error:
        owner = _owner(path).get("pid")
        who = f"process {owner}" if owner else "another process"
        raise StoreError(
            f"{path} is in use: {who} is writing this run; wait for it, stop it, or give another --run."
        ) from error
    return lock


def _read_recipe(path: Path) -> Recipe:
    from skillfactory import recipes

    try:
        return recipes.read_recipe(path / RECIPE)
    except RecipeError as error:
        raise StoreError(f"The run's own recipe is damaged: {error} `skillfactory doctor {path}` says more.") from error


def _visible(path: Path) -> list[Path]:
    return [p for p in path.iterdir() if p.name != _LOCK and not p.name.startswith(files.TEMPORARY)]


def _owner(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / _OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _is_alive(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return True  # another machine writes it; we cannot see whether it still lives
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_torn_line(path: Path) -> None:
    """A kill in the middle of a write leaves half a line: end it, so that the next line stands on its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
