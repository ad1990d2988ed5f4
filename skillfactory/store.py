"""The run directory: atomic Parquet shards, manifests with digests, one writer at a time.

    runs/NAME/recipe.yaml, log.jsonl, metrics.json, report.html, report.md, tables/
    runs/NAME/STAGE/manifest.json, part-00000.parquet, …

A shard appears whole or not at all, and a stage is finished once its manifest says so. So after a kill at any moment
all rows that were appended are there, and nothing else is. A manifest holds the settings that the stage depends on and
the digests of the stages that it reads; work made from other settings is refused, naming the keys that differ.
"""

import copy
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import yaml

from skillfactory import files, progress, rows, versions
from skillfactory.errors import StoreError
from skillfactory.recipe import REPEATED, Recipe

if TYPE_CHECKING:
    import filelock
    import pyarrow

R = TypeVar("R")
State = Literal["missing", "running", "partial", "finished"]
MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
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
        import filelock

        path = Path(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file, not a run directory; choose another with --run.")
        if path.is_dir() and not (path / RECIPE).exists() and any(_visible(path)):
            raise StoreError(f"{path} is neither empty nor a run (it has no {RECIPE}); choose another with --run.")
        with files.told(str(path)):
            path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path / _LOCK)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                owner = _owner(path).get("pid")
                who = f"process {owner}" if owner else "another process"
                raise StoreError(
                    f"{path} is in use: {who} is writing this run; wait for it, stop it, or give another --run."
                ) from error
        try:
            if (path / RECIPE).exists():
                before = _read_recipe(path)
                if before.method != recipe.method:
                    raise StoreError(
                        f"{path} holds a run of method `{before.method}`, not `{recipe.method}`; give another --run."
                    )
            run = cls(path, lock)
            for leftover in (*path.glob(f"{_TRASH}*"), *path.glob(f"{files.TEMPORARY}*")):
                _remove(leftover)
            files.write_json(path / _OWNER, {"pid": os.getpid(), "host": socket.gethostname(), "stage": ""})
            if not (path / RECIPE).exists():
                run.write_recipe(recipe)
            end_torn_line(path / "log.jsonl")
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
            _remove(trash)

    def log(self, stage: str, event: str, **figures: object) -> None:
        """Append a line to log.jsonl."""
        line = json.dumps({"time": _now(), "stage": stage, "event": event, **figures}, ensure_ascii=False, default=str)
        with files.told(str(self.path / "log.jsonl")), (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Stage:
    """One stage of a run: its shards, its small JSON files and its manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start: float | None = None
        self._before = 0.0
        self._begun = False
        self._next: int | None = None  # number of the next shard, once known

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json says; empty before the stage begins."""
        file = self.path / MANIFEST
        return dict(files.read_json(file)) if file.exists() else {}

    def is_finished(self) -> bool:
        """Whether the stage has said that it is complete."""
        return bool(self.manifest.get("finished"))

    def differing(self, settings: Mapping[str, Any]) -> list[str]:
        """The settings whose values are not those that this stage was begun with; none before it begins."""
        before = self.manifest.get("settings")
        if before is None:
            return []
        plain = json.loads(json.dumps(dict(settings)))
        return [k for k in sorted({*before, *plain}) if k not in before or k not in plain or before[k] != plain[k]]

    def check(self, settings: Mapping[str, Any], inputs: Mapping[str, str], fresh: str = "") -> None:
        """Raises StoreError where this stage's work was made from other settings or inputs, naming what differs.

        `fresh` is the stage to redo, where that is not this one.
        """
        manifest = self.manifest
        if not manifest:
            if self._shards():
                raise StoreError(f"{self.path} has rows but no {MANIFEST}; {_redo(self.path.name)}")
            return
        if manifest.get("digest") == files.digest_of(dict(settings), dict(inputs)):
            return
        if not manifest.get("finished") and {each.name for each in self.path.iterdir()} <= {MANIFEST, progress.FILE}:
            return  # begun, but nothing was made: what stopped it may have been mended by the change
        before, sources = manifest.get("settings", {}), manifest.get("inputs", {})
        changed = [
            f"{key} was {_shown(before, key)}, now {_shown(settings, key)}" for key in self.differing(settings)
        ] or ["made from other " + " and ".join(n for n in {**sources, **inputs} if sources.get(n) != inputs.get(n))]
        raise StoreError(
            f"{self.path} holds work of other settings: {'; '.join(changed)}. Keep the old ones, give another --run, "
            f"or {_redo(fresh or self.path.name)}"
        )

    def begin(self, settings: Mapping[str, Any], inputs: Mapping[str, str], clock: bool = True) -> None:
        """Write the unfinished manifest, or check the one that is there (see `check`). Clears a kill's leftovers.

        Without `clock` the stage's time does not run by itself; what is spent on it is said by `spend`.
        """
        self.check(settings, inputs)
        manifest = self.manifest
        self._before = float(manifest.get("seconds", 0.0))
        self._start = time.monotonic() if clock else None
        self._begun = True
        if manifest.get("finished"):
            return
        with files.told(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / progress.FILE).exists():  # the stage was killed: its last known time counts
            known = files.read_json(self.path / progress.FILE).get("stage_seconds", 0.0)
            self._before = max(self._before, float(known))
            (self.path / progress.FILE).unlink()
        for leftover in self.path.glob(f"{files.TEMPORARY}*"):
            _remove(leftover)
        self._write_manifest(
            finished=False, digest=files.digest_of(dict(settings), dict(inputs)), settings=dict(settings),
            inputs=dict(inputs), seconds=self._before,
        )  # fmt: skip

    def join(self) -> None:
        """Go on with the clock of a stage that another process has begun."""
        self._before, self._start = float(self.manifest.get("seconds", 0.0)), time.monotonic()

    def append(self, records: Sequence[Any]) -> None:
        """Add records of one kind as one new shard; nothing where there are none."""
        if not records:
            return
        with files.told(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
        if self._next is None:
            self._next = 1 + max((int(path.stem.removeprefix("part-")) for path in self._shards()), default=-1)
        files.write_atomic(self.path / f"part-{self._next:05}.parquet", rows.to_parquet(records))
        self._next += 1

    def shards(self) -> "Shards":
        """The stage's shards, to read one by one. Raises StoreError where one is missing."""
        known = {shard["name"]: shard["sha256"] for shard in self.manifest.get("shards", [])}
        paths = self._shards()
        if lost := sorted(set(known) - {path.name for path in paths}):
            raise StoreError(f"{self.path / lost[0]} is missing; {_redo(self.path.name)}")
        return Shards(paths, known)

    def tables(self, columns: Sequence[str] | None = None) -> "Iterator[pyarrow.Table]":
        """The table of each shard in turn, of these columns or all; so that a large stage need not be in memory whole.

        Raises StoreError for a damaged or missing shard.
        """
        shards = self.shards()
        return (shards.read(number, columns) for number in range(len(shards.paths)))

    def table(self, columns: Sequence[str] | None = None) -> "pyarrow.Table":
        """All rows, in the order of the shards. Raises StoreError for a damaged or missing shard."""
        import pyarrow

        tables = list(self.tables(columns))
        return pyarrow.concat_tables(tables) if tables else pyarrow.table({})

    def rows(self, kind: type[R]) -> list[R]:
        """All rows as records of `kind`, nested ones restored."""
        table = self.table()
        return rows.to_records(table, kind, str(self.path)) if table.num_rows else []

    def write_json(self, name: str, data: object) -> None:
        """A small JSON file of the stage, written atomically."""
        with files.told(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
        files.write_json(self.path / name, data)

    def read_json(self, name: str) -> Any:
        """Its content. Raises StoreError where it is missing or damaged."""
        return files.read_json(self.path / name)

    def spend(self, seconds: float) -> None:
        """Add to the time of a stage that was begun without a clock."""
        self._before += seconds

    def note(self, **facts: object) -> None:
        """Keep facts in the manifest."""
        self._write_manifest(**facts)

    def reopen(self) -> None:
        """A finished stage that takes more rows is no longer finished."""
        if self.is_finished():
            self._write_manifest(finished=False)

    def clear_rows(self) -> None:
        """Delete all rows of a stage that is not finished, to write them anew."""
        if "shards" in self.manifest:  # of a stage that was finished before
            self._write_manifest(shards=[])
        for path in self._shards():
            path.unlink()
        self._next = None

    def track(self, total: int, what: str, done: int = 0) -> AbstractContextManager[Callable[..., None]]:
        """Progress: `with stage.track(n, "attempts") as advance: advance(5, tokens=123)`; see progress.track."""
        with files.told(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
        return progress.track(self.path, total, what, done, self.seconds)

    def seconds(self) -> float:
        """Time that the stage has taken, over all its resumptions."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    def finish(self, **counts: object) -> None:
        """Complete the manifest: from now on the stage counts as done. `counts` are shown by `skillfactory status`."""
        self.path.mkdir(parents=True, exist_ok=True)
        shards: list[dict[str, Any]] = []
        for path in self._shards():
            data = path.read_bytes()
            shards.append({"name": path.name, "rows": rows.count(data), "sha256": files.sha256(data)})
        self._write_manifest(
            finished=True, seconds=round(self.seconds(), 3), finished_at=_now(), rows=sum(s["rows"] for s in shards),
            counts=counts, shards=shards, peak_memory_mb=versions.peak_memory_mb(), code=versions.code(),
            libraries=versions.libraries(),
        )  # fmt: skip
        self._start = None

    def pause(self) -> None:
        """Keep the seconds of a stage that has not finished."""
        if self._begun and self.manifest and not self.is_finished():
            self._write_manifest(seconds=round(self.seconds(), 3))
        self._start = None

    def _shards(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"), key=lambda path: int(path.stem.removeprefix("part-")))

    def _write_manifest(self, **changes: object) -> None:
        files.write_json(self.path / MANIFEST, {**self.manifest, **changes})


@dataclass(frozen=True)
class Shards:
    """The shard files of a stage, in order; `known` has the hashes of those that a finished stage is made of."""

    paths: list[Path]
    known: dict[str, str]

    def read(self, number: int, columns: Sequence[str] | None = None, verify: bool = True) -> "pyarrow.Table":
        """One shard, or some of its columns. Raises StoreError where it is damaged."""
        path = self.paths[number]
        try:
            if not verify:
                return rows.from_parquet(path, columns)
            data = path.read_bytes()
            if path.name in self.known and files.sha256(data) != self.known[path.name]:
                raise ValueError("its content is not what its stage wrote")
            return rows.from_parquet(data, columns)
        except ValueError as error:
            raise StoreError(f"{path} is damaged ({error}); {_redo(path.parent.name)}") from error


class LoadedRun:
    """A run to read from, while or after it is written. Takes no lock."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe

    def stage(self, name: str) -> Stage:
        """The stage, to read from."""
        return Stage(self.path / name)

    def table(self, stage: str, columns: Sequence[str] | None = None) -> "pyarrow.Table":
        """All rows of a stage so far, of these columns or all."""
        return self.stage(stage).table(columns)

    def rows(self, stage: str, kind: type[R]) -> list[R]:
        """All rows of a stage so far, as records."""
        return self.stage(stage).rows(kind)

    @property
    def metrics(self) -> dict[str, Any]:
        """What the report measured (metrics.json). Raises StoreError before the report is made."""
        file = self.path / "metrics.json"
        if not file.exists():
            raise StoreError(f"{self.path} has no metrics.json yet; run it to the end first.")
        return dict(files.read_json(file))

    def manifest(self, stage: str) -> dict[str, Any]:
        """The stage's manifest; empty before it begins."""
        return self.stage(stage).manifest

    def state(self, stage: str) -> State:
        """`partial` is begun but with nobody working on it."""
        manifest = self.manifest(stage)
        if not manifest:
            return "missing"
        if manifest.get("finished"):
            return "finished"
        owner = _owner(self.path)
        working = owner.get("stage") in {stage, manifest.get("filled_by", stage)}
        return "running" if working and _is_alive(owner) else "partial"

    def progress(self, stage: str) -> dict[str, Any]:
        """The latest progress of a running stage (see progress.track); empty where there is none."""
        try:
            return dict(json.loads((self.path / stage / progress.FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def load_run(path: str | Path) -> LoadedRun:
    """A run to read from. Raises StoreError where there is none."""
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


def _read_recipe(path: Path) -> Recipe:
    from skillfactory import recipes

    return recipes.read_recipe(path / RECIPE)


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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "not there"


def _redo(stage: str) -> str:
    return f"redo it with `--fresh {stage}`."


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
