"""One stage of a run: its shards, its small JSON files and its manifest.

    runs/NAME/STAGE/manifest.json, part-00000.parquet, …

A shard appears whole or not at all, and a stage is finished once its manifest says so. So after a kill at any moment
all rows that were appended are there, and nothing else is. A manifest holds the settings that the stage depends on and
the digests of the stages that it reads; work made from other settings is refused, naming the keys that differ.
"""

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skillfactory import files, progress, rows, versions
from skillfactory.errors import StoreError
from skillfactory.shards import Shards, mend_of, number_of, paths_in

if TYPE_CHECKING:
    import pyarrow

R = TypeVar("R")
MANIFEST = "manifest.json"
SPENT = (progress.FILE, "checkpoints", "best")  # what only an unfinished stage has a use for
MODELS = "models"  # in the manifest of a training: {folder: fingerprint} of the models that it left


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
        found = files.read_json(file) if file.exists() else {}
        if not isinstance(found, dict):
            raise StoreError(f"{file} is damaged (it holds no mapping); {mend_of(self.path)}")
        return found

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
            if self.shard_paths():
                raise StoreError(f"{self.path} has rows but no {MANIFEST}; {mend_of(self.path)}")
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
            with suppress(StoreError, AttributeError, TypeError, ValueError):  # a time is no reason to stop for
                known = files.read_json(self.path / progress.FILE).get("stage_seconds", 0.0)
                self._before = max(self._before, float(known))
            (self.path / progress.FILE).unlink()
        self.clear_temporary()
        self._write_manifest(
            finished=False, digest=files.digest_of(dict(settings), dict(inputs)), settings=dict(settings),
            inputs=dict(inputs), seconds=self._before,
        )  # fmt: skip

    def clear_temporary(self) -> None:
        """Remove what a kill left half written; and of a finished stage what it has no use for any more."""
        spent = [self.path / name for name in SPENT] if self.is_finished() else []
        for leftover in (*self.path.glob(f"{files.TEMPORARY}*"), *spent):
            remove(leftover)

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
            self._next = 1 + max((number_of(path) for path in self.shard_paths()), default=-1)
        files.write_atomic(self.path / f"part-{self._next:05}.parquet", rows.to_parquet(records))
        self._next += 1

    def shards(self) -> Shards:
        """The stage's shards, to read one by one. Raises StoreError where one is missing, or is none of the stage's."""
        manifest = self.manifest
        known = {shard["name"]: shard["sha256"] for shard in manifest.get("shards", [])}
        paths = self.shard_paths()
        there = {path.name for path in paths}
        if lost := sorted(set(known) - there):
            raise StoreError(f"{self.path / lost[0]} is missing; {mend_of(self.path)}")
        if manifest.get("finished") and (strange := sorted(there - set(known))):
            raise StoreError(f"{self.path / strange[0]} was not written by its stage; {mend_of(self.path)}")
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

    def reopen(self, without: Collection[str] = ()) -> None:
        """A finished stage that takes more rows is no longer finished; `without` are shards that it has lost."""
        manifest = self.manifest
        if manifest.get("finished") or without:
            kept = [shard for shard in manifest.get("shards", []) if shard["name"] not in without]
            self._write_manifest(finished=False, shards=kept)

    def clear_rows(self) -> None:
        """Delete all rows of a stage that is not finished, to write them anew."""
        if "shards" in self.manifest:  # of a stage that was finished before
            self._write_manifest(shards=[])
        for path in self.shard_paths():
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
        for path in self.shard_paths():
            data = path.read_bytes()
            shards.append({"name": path.name, "rows": rows.count(data), "sha256": files.sha256(data)})
        self._write_manifest(
            finished=True, seconds=round(self.seconds(), 3), finished_at=now(), rows=sum(s["rows"] for s in shards),
            counts=counts, shards=shards, **self._models(), peak_memory_mb=versions.peak_memory_mb(),
            code=versions.code(), libraries=versions.libraries(),
        )  # fmt: skip
        self._start = None

    def pause(self) -> None:
        """Keep the seconds of a stage that has not finished."""
        if self._begun and self.manifest and not self.is_finished():
            self._write_manifest(seconds=round(self.seconds(), 3))
        self._start = None

    def check_models(self) -> None:
        """Raises StoreError where a model that the finished stage left is not what it was any more."""
        manifest = self.manifest
        if manifest.get("finished") and (before := manifest.get(MODELS, {})):
            now = self._models().get(MODELS, {})
            if changed := [name for name in before if now.get(name) != before[name]]:
                what = "has changed since its stage wrote it" if changed[0] in now else "is missing"
                raise StoreError(f"{self.path / changed[0]} {what}; put it back, or {mend_of(self.path)}")

    def _models(self) -> dict[str, dict[str, str]]:
        """The manifest's entry of the models that a training leaves."""
        folders = [self.path / "model", *sorted(self.path.glob("steps/*"))]
        found = {str(f.relative_to(self.path)): files.model_fingerprint(f) for f in folders if f.is_dir()}
        return {MODELS: found} if found else {}

    def shard_paths(self) -> list[Path]:
        """Its shard files, in order."""
        return paths_in(self.path)

    def _write_manifest(self, **changes: object) -> None:
        files.write_json(self.path / MANIFEST, {**self.manifest, **changes})


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "not there"


def _redo(stage: str) -> str:
    return f"redo it with `--fresh {stage}`."


def now() -> str:
    """The local time with its zone, for logs and manifests."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
