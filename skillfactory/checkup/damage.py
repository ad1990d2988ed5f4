"""What is damaged in one stage of a run, each with what mends it (repair.py does so)."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from skillfactory import files, intact, pipeline, rows
from skillfactory.errors import StoreError
from skillfactory.records import Reflection
from skillfactory.report.report import MARKDOWN, METRICS, PAGE
from skillfactory.rounds import stage_of
from skillfactory.shards import is_shard
from skillfactory.stage import MANIFEST, SPENT, Stage, remove

ASIDE = "damaged"  # the folder in the run directory that bad files are moved to
_REDONE = {
    "questions": "the same questions are drawn again; nothing that was made from them is redone",
    "attempts": "{rows} drawn again, and the traces built anew; nothing is trained again",
    "reflections": "{rows} drawn again, and the traces built anew; nothing is trained again",
    "traces": "the traces are built anew from the samples that are there; nothing is sampled or trained again",
    "evaluation": "{rows} sampled again, and the report made anew",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong in a run directory: in which stage ("" for the run itself) and file, and what becomes of it."""

    stage: str
    file: str  # from the run directory
    problem: str
    mend: str  # what `repair` does about it or, with `by_hand`, what the user can do
    redo: str = ""  # what the next `skillfactory run` makes again; "" for nothing
    by_hand: bool = False  # `repair` leaves it alone


@dataclass(frozen=True)
class Fault:
    """A finding and what mends it; None where that is left to the user."""

    finding: Finding
    mend: Callable[[], None] | None = None


def aside(run: Path, path: Path) -> None:
    """Move a file or folder of a run to its `damaged/`, beside what is there already."""
    place = wanted = run / ASIDE / path.relative_to(run)
    number = 1
    while place.exists():
        number += 1
        place = wanted.with_name(f"{wanted.name}-{number}")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, place)


@dataclass(frozen=True)
class Looked:
    """One stage of a run under examination. `wanted` is what each stage depends on; empty where that is not known."""

    run: Path
    name: str
    wanted: dict[str, pipeline.Identity]

    @property
    def folder(self) -> Path:
        return self.run / self.name

    def faults(self, busy: bool) -> Iterator[Fault]:
        """All that is wrong with it. Where the run is `busy`, only if it is finished, and leftovers are none."""
        manifest = _manifest(self.folder)
        finished = bool(manifest and manifest.get("finished"))
        if not self.folder.is_dir() or (busy and not finished):
            return
        if manifest is None:
            yield from self._without_manifest()
            return
        yield from self._shards(manifest)
        if stage_of(self.name) == "reflections" and not busy:
            yield from self._orphans()
        if finished:
            yield from self._side_files()
            yield from self._models()
        if not busy:
            yield from self._checkpoints() if not finished else ()
            yield from self._leftovers(finished)
        if self.name in self.wanted:
            yield from self._other_settings()

    def _fault(self, file: Path, problem: str, mend: str, redo: str, action: Callable[[], None]) -> Fault:
        return Fault(Finding(self.name, str(file.relative_to(self.run)), problem, mend, redo), action)

    def _without_manifest(self) -> Iterator[Fault]:
        """Where no manifest can be read: it is written anew where it is known what it said, else the stage goes."""
        file = self.folder / MANIFEST
        problem = "is damaged" if file.exists() else "is missing"
        others = [path.name for path in self.folder.iterdir() if path.name not in (MANIFEST, *SPENT)]
        if all(name.startswith(files.TEMPORARY) for name in others) and not (self.folder / "checkpoints").exists():
            if file.exists():
                yield self._fault(file, problem, "is deleted: the stage has made nothing yet", "", file.unlink)
        elif self._is_proven():
            identity = self.wanted[self.name]
            facts = {"finished": False, "digest": identity.digest, "settings": identity.settings}
            mend, redo = "is written anew, as the recipe and the other stages say", "what the stage lacks, and no more"
            yield self._fault(file, problem, mend, redo, partial(self._begin, facts | {"inputs": identity.inputs}))
        else:
            mend = f"the stage is moved to {ASIDE}/, since nothing says what it was made from"
            redo = f"the stage {self.name}, from its beginning"
            yield self._fault(file, problem, mend, redo, partial(self._begin, None))

    def _begin(self, manifest: dict[str, Any] | None) -> None:
        """Give the stage this manifest; with None move it away."""
        if manifest is None:
            aside(self.run, self.folder)
        else:
            files.write_json(self.folder / MANIFEST, manifest)
        self._reopen()

    def _is_proven(self) -> bool:
        """Whether a later stage was made from this one with the recipe as it is now."""
        later = [(_manifest(self.run / other) or {}).get("inputs", {}) for other in self.wanted]
        digests = {digest for inputs in later for digest in inputs.values()}
        return self.name in self.wanted and self.wanted[self.name].digest in digests

    def _shards(self, manifest: dict[str, Any]) -> Iterator[Fault]:
        known = {shard["name"]: shard for shard in manifest.get("shards", [])}
        there = {path.name for path in Stage(self.folder).shard_paths()}
        seen = dict[str, str]()
        for path in self.folder.glob("part-*"):
            if path.name not in known and (manifest.get("finished") or not is_shard(path)):
                move = partial(aside, self.run, path)
                yield self._fault(path, "was not written by the stage", f"is moved to {ASIDE}/", "", move)
                there.discard(path.name)
        for name in sorted({*known, *there}):
            path = self.folder / name
            digest, why = _content(path)
            if not why and name in known and digest != known[name]["sha256"]:
                why = "is not what the stage wrote"
            elif not why and digest in seen:
                why = f"has the same rows as {seen[digest]}"
            seen.setdefault(digest, name)
            if why:
                lost = f"its {known[name]['rows']:,} rows are" if name in known else "its rows are"
                redo = _REDONE.get(stage_of(self.name), "the stage").format(rows=lost)
                mend = f"is moved to {ASIDE}/" if path.exists() else "the stage is opened again"
                yield self._fault(path, why, mend, redo, partial(self._drop, name))

    def _orphans(self) -> Iterator[Fault]:
        """Reflections on attempts that were lost: those will be drawn again, and these with them."""
        import pyarrow.compute

        stages = [Stage(self.run / self.name.replace("reflections", kind)) for kind in ("attempts", "reflections")]
        whole = [[path for path in stage.shard_paths() if not _content(path)[1]] for stage in stages]
        known = {name for path in whole[0] for name in rows.from_parquet(path, ["id"])["id"].to_pylist()}
        for path in whole[1]:
            table = rows.from_parquet(path)
            there = pyarrow.compute.is_in(table["attempt_id"], pyarrow.array(known, pyarrow.string()))
            if lost := table.num_rows - pyarrow.compute.sum(there).as_py():
                kept = rows.to_records(table.filter(there), Reflection, str(path))
                mend = f"is moved to {ASIDE}/, and the other rows are written anew"
                redo = _REDONE["reflections"].format(rows=f"{lost:,} rows are")
                why = f"has {lost:,} reflections on attempts that are not there"
                yield self._fault(path, why, mend, redo, partial(self._keep_rows, path, kept))

    def _keep_rows(self, path: Path, kept: list[Reflection]) -> None:
        if not path.exists():  # moved for what else was wrong with it
            return
        aside(self.run, path)
        if kept:
            files.write_atomic(path, rows.to_parquet(kept))
        self._reopen([path.name])

    def _drop(self, name: str) -> None:
        """Do without a shard; and without all in a stage whose rows are to be in the order in which they are made."""
        gone = [path.name for path in Stage(self.folder).shard_paths()] if self.name == "questions" else [name]
        for each in gone:
            if (self.folder / each).exists():
                aside(self.run, self.folder / each)
        self._reopen([name, *gone])

    def _reopen(self, without: list[str] | None = None) -> None:
        """The stage, the one that fills it and the report of what it says are to be gone on with."""
        for name in (self.name, pipeline.filled_by(self.name), "report" if self.name == "evaluation" else ""):
            folder = self.run / name
            if name and _manifest(folder) is not None:
                Stage(folder).reopen(without or [] if name == self.name else [])
        if filler := pipeline.filled_by(self.name):  # its rows are those of no other stage
            for other in self.wanted:
                if pipeline.filled_by(other) == filler and _manifest(self.run / other) is not None:
                    Stage(self.run / other).reopen()

    def _side_files(self) -> Iterator[Fault]:
        """The small files that a finished stage has beside its rows, and those of the report."""
        if self.name == "questions" and (why := _damage(self.folder / "sets.json")):
            redo = "the evaluation sets are listed anew; nothing that was made from them is redone"
            yield self._fault(self.folder / "sets.json", why, "the stage is opened again", redo, self._reopen)
        if self.name == "report":
            for name in (METRICS, PAGE, MARKDOWN):
                if why := _damage(self.run / name):
                    yield self._fault(self.run / name, why, "the report is made anew", "the report", self._reopen)
        for path in self.folder.glob("*.jsonl"):
            if bad := bad_lines(path):
                drop = partial(drop_bad_lines, self.run, path)
                mend = f"is rid of them: their figures are lost, unless `--fresh {self.name}` trains it again"
                yield self._fault(path, f"{len(bad)} of its lines are no JSON", mend, "", drop)

    def _models(self) -> Iterator[Fault]:
        """The models that a finished training has left."""
        redo = "the stage is trained again from its beginning; what was made from its model is kept"
        wrong = [(path, why) for name in ("model", "steps") for path, why in intact.damaged(self.folder / name)]
        if not wrong:
            try:
                Stage(self.folder).check_models()
            except StoreError as error:
                wrong = [(self.folder / "model", str(error).partition(";")[0].partition(" ")[2])]
        if not wrong and stage_of(self.name) in ("sft", "rl") and not (self.folder / "model" / "config.json").is_file():
            wrong = [(self.folder / "model", "is missing")]
        for path, why in wrong:
            yield self._fault(path, why, f"the model is moved to {ASIDE}/", redo, self._drop_models)

    def _drop_models(self) -> None:
        for name in ("model", "steps"):
            if (self.folder / name).exists():
                aside(self.run, self.folder / name)
        self._reopen()

    def _checkpoints(self) -> Iterator[Fault]:
        """What an unfinished training goes on from."""
        for folder in sorted(self.folder.glob("checkpoints/checkpoint-*")):
            if why := intact.damage_of_checkpoint(folder):
                redo = "training goes on from the checkpoint before it, or from its beginning where there is none"
                yield self._fault(folder, why, "is deleted", redo, partial(remove, folder))

    def _leftovers(self, finished: bool) -> Iterator[Fault]:
        for path in sorted(self.folder.glob("*")):
            if path.name.startswith(files.TEMPORARY) or (finished and path.name in SPENT):
                yield self._fault(
                    path, "is left over from a process that was killed", "is deleted", "", partial(remove, path)
                )

    def _other_settings(self) -> Iterator[Fault]:
        identity = self.wanted[self.name]
        try:
            Stage(self.folder).check(identity.settings, identity.inputs)
        except StoreError as error:
            what, _, mend = str(error).partition(". ")
            yield Fault(Finding(self.name, f"{self.name}/{MANIFEST}", what, mend, by_hand=True))


def _manifest(folder: Path) -> dict[str, Any] | None:
    """A manifest that can be relied on; None where there is none."""
    try:
        found = files.read_json(folder / MANIFEST)
    except (StoreError, OSError, RecursionError):
        return None
    kinds = {"settings": dict, "inputs": dict, "digest": str, "finished": bool}
    return found if isinstance(found, dict) and all(isinstance(found.get(k), v) for k, v in kinds.items()) else None


def _content(path: Path) -> tuple[str, str]:
    """The digest of a shard, and what is wrong with it: all of it is read."""
    try:
        data = path.read_bytes()
        rows.from_parquet(data)
    except FileNotFoundError:
        return "", "is missing"
    except OSError as error:
        return "", f"cannot be read ({error})"
    except ValueError as error:
        return "", f"is damaged ({str(error).splitlines()[0]})" if data else "is empty"
    return files.sha256(data), ""


def _damage(path: Path) -> str:
    return intact.damage_of(path) if path.exists() else "is missing"


def bad_lines(path: Path) -> list[str]:
    """The lines of a .jsonl file that are no JSON."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [line for line in lines if not intact.is_json(line)]


def drop_bad_lines(run: Path, path: Path) -> None:
    """Keep the whole lines; the file as it was is kept aside."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    aside(run, path)
    files.write_atomic(path, "".join(f"{line}\n" for line in lines if intact.is_json(line)).encode())
