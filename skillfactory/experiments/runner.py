"""Runs an experiment's cells, several at once, each a process of its own; what they share is made once.

    runs/NAME/experiment.yaml, log.jsonl, cells/, experiment.html, experiment.md, metrics.json, tables/

A cell is finished when its report is, so a killed experiment goes on where it was. A cell that fails stops no other.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from skillfactory import children, files, methods, store
from skillfactory.children import Child
from skillfactory.errors import SkillFactoryError, StoreError
from skillfactory.experiments import cells, sharing
from skillfactory.experiments.grid import Cell, Experiment
from skillfactory.recipe import Recipe, changed
from skillfactory.rounds import stage_of
from skillfactory.watch import Watch

if TYPE_CHECKING:
    from skillfactory.report.experiment import Failure

FILE, LOG = "experiment.yaml", "log.jsonl"
TICK = 1.0  # seconds between looks at the processes
Begin = Callable[[str, Path, Path, Sequence[str]], Child]


class ExperimentError(SkillFactoryError, RuntimeError):
    """Some of an experiment's cells have failed."""


def run(experiment: Experiment, out: Path, jobs: int, watch: Watch, begin: Begin = children.start) -> "list[Failure]":
    """Run what is not finished, at most `jobs` cells at once; returns the failures, in the order of the cells.

    `begin` starts a cell's process. Raises StoreError where `out` is something else, or another process runs it.
    Signals to stop end all processes, which keep their work.
    """
    with held(out, experiment) as log:
        grid = _Grid(experiment, out, jobs, watch, begin, log)
        try:
            while grid.waiting or grid.running:
                grid.collect()
                grid.fill()
                watch.show([child for _, child in grid.running.values()], grid.head())
                if grid.running or grid.waiting:
                    time.sleep(TICK)
        finally:
            grid.stop()
        order = [cell.name for cell in experiment.cells]
        return [grid.failures[name] for name in order if name in grid.failures]


def write_report(experiment: Experiment, out: Path, failures: "Sequence[Failure]") -> dict[str, Any]:
    """Write the tables of what is finished; returns the metrics, empty where nothing is."""
    from skillfactory.report.experiment import Given, Row, write

    failed = {failure.cell for failure in failures}
    rows = []
    for label in experiment.rows:
        own = [cell for cell in experiment.cells if cell.row == label and cell.name not in failed]
        runs = {cell.seed: store.load_run(cells.folder(out, cell)) for cell in own}
        rows.append(Row(label, experiment.cell(label, experiment.seeds[0]).recipe.method, runs))
    if not any(row.runs for row in rows):
        return {}
    return write(Given(experiment.name, experiment.reference, rows, list(failures), read_log(out)), out)


@contextlib.contextmanager
def held(out: Path, experiment: Experiment) -> Iterator[Callable[..., None]]:
    """Hold the directory; yields a function that adds a line to its log."""
    import filelock

    if out.exists() and not (out / FILE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is neither empty nor an experiment (it has no {FILE}); choose another with --out.")
    with files.told(str(out)):
        (out / cells.CELLS).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(out / ".lock", timeout=0):
            text = yaml.safe_dump(experiment.file, sort_keys=False, allow_unicode=True)
            files.write_atomic(out / FILE, text.encode())
            store.end_torn_line(out / LOG)
            yield lambda event, cell, **more: _add(out / LOG, {"event": event, "cell": cell, **more})
    except filelock.Timeout as error:
        raise StoreError(
            f"{out} is in use: another process runs this experiment; wait for it, stop it, or give another --out."
        ) from error


def _add(path: Path, line: dict[str, Any]) -> None:
    with files.told(str(path)), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **line}) + "\n")


def read_log(out: Path) -> list[dict[str, Any]]:
    """The log's lines: {time, event, cell, …}; half a line, which a kill has left, is passed over."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for text in (out / LOG).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(dict(json.loads(text)))
    return lines


@dataclass
class _Grid:
    """The cells by what has become of them."""

    experiment: Experiment
    out: Path
    jobs: int
    watch: Watch
    begin: Begin
    log: Callable[..., None]
    waiting: list[Cell] = field(default_factory=list)
    running: dict[str, tuple[Cell, Child]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    failures: "dict[str, Failure]" = field(default_factory=dict)
    begun: dict[str, Recipe] = field(default_factory=dict)  # recipes of cells that have started, by name

    def __post_init__(self) -> None:
        self.waiting = list(self.experiment.cells)
        self.pids = {line["pid"] for line in read_log(self.out) if line.get("pid")}

    def head(self) -> str:
        """All in one line."""
        parts = {"finished": self.finished, "running": self.running, "failed": self.failures, "to come": self.waiting}
        said = [f"{len(cells)} {word}" for word, cells in parts.items() if cells]
        return f"{self.experiment.name}: {len(self.experiment.cells)} cells, {', '.join(said)}"

    def collect(self) -> None:
        """Take note of processes that have ended."""
        for name, (cell, child) in list(self.running.items()):
            code = child.process.poll()
            if code is None:
                continue
            del self.running[name]
            self.log("end", name, code=code)
            if code == 0 and cells.is_finished(child.run, cells.identities(self.begun[name])):
                self.finished.add(name)
                self.watch.say(f"[{name}] finished ({len(self.finished)} of {len(self.experiment.cells)})")
            else:
                self._fail(cell, children.how_it_ended(code), children.last_lines(child.log))

    def fill(self) -> None:
        """Start cells in their order, as long as there is room; those that must wait are passed over."""
        for cell in list(self.waiting):
            if len(self.running) >= self.jobs:
                return
            recipe = self._whole(cell)
            if recipe is None:
                continue
            run = cells.folder(self.out, cell)
            if cells.is_finished(run, cells.identities(recipe)):
                self.waiting.remove(cell)
                self.finished.add(cell.name)
                self.begun[cell.name] = recipe
            elif shared := self._being_made(cell, recipe):
                if shared == {"questions"}:
                    return  # made in no time: better than to begin with another seed
            else:
                self.waiting.remove(cell)
                self._start(cell, recipe, run)

    def _whole(self, cell: Cell) -> Recipe | None:
        """The cell's recipe, with what its match adds; None where it has to wait for that, or never comes to it."""
        recipe = cell.recipe
        if cell.match:
            source = self.experiment.cell(cell.match.row, cell.seed)
            other = self.begun.get(source.name, source.recipe)
            found = cells.matched(recipe, cell.match, cells.folder(self.out, source), other)
            if found is None and source.name in self.failures:
                self.waiting.remove(cell)
                self._fail(cell, f"was not run, since {source.name}, whose cost it is to match, has failed", [])
            if found is None:
                return None
            recipe = found
        if self.jobs > 1 and not recipe.machine.threads:
            recipe = changed(recipe, {"machine.threads": 1})  # its neighbours have the other cores
        return recipe

    def _being_made(self, cell: Cell, recipe: Recipe) -> set[str]:
        """The stages that a running cell is yet to finish and could lend to this one."""
        wanted, run = cells.identities(recipe), cells.folder(self.out, cell)
        lacking = {(stage_of(s), wanted[s].digest): s for s in sharing.lacks(methods.stages(recipe), run)}
        found = set()
        for name, (_, child) in self.running.items():
            theirs, known = self.begun[name], cells.identities(self.begun[name])
            for stage in sharing.unfinished(methods.stages(theirs), child.run):
                found |= {lacking.get((stage_of(stage), known[stage].digest), "")}
        return found - {""}

    def _start(self, cell: Cell, recipe: Recipe, run: Path) -> None:
        self.begun[cell.name] = recipe
        wanted = cells.identities(recipe)
        log = cells.log_of(run)
        if adopted := cells.adopt(run, self.pids, lambda: cells.is_finished(run, wanted)):
            self.watch.say(f"[{cell.name}] is being run already, by process {adopted.pid}")
            self.running[cell.name] = (cell, Child(cell.name, run, log, adopted))
            return
        donors = {other.name: cells.folder(self.out, other) for other in self.experiment.cells if other != cell}
        try:
            cells.write_recipe(run, recipe)
            lent = sharing.lend(recipe, run, {name: path for name, path in donors.items() if path.is_dir()}, wanted)
        except SkillFactoryError as error:
            self._fail(cell, str(error), [])
            return
        child = self.begin(cell.name, run, log, [str(cells.recipe_of(run))])
        self.running[cell.name] = (cell, child)
        self.log("start", cell.name, jobs=self.jobs, pid=getattr(child.process, "pid", None))
        self.watch.say(f"[{cell.name}] started{_from(lent)}")

    def _fail(self, cell: Cell, how: str, last: Sequence[str]) -> None:
        from skillfactory.report.experiment import Failure

        run = cells.folder(self.out, cell)
        log = cells.log_of(run)
        why = f"{how}: {said}" if last and (said := cells.complaint(log)) else how
        again = f"skillfactory experiment {self.out / FILE} --out {self.out}"
        if cells.recipe_of(run).exists():
            again = cells.retry(run, cells.to_redo(why))
        self.failures[cell.name] = Failure(cell.name, why, str(log) if last else "", again)
        self.watch.say(f"[{cell.name}] {why}")

    def stop(self) -> None:
        """End what still runs, where it is ours."""
        ours = {name: child for name, (_, child) in self.running.items() if getattr(child.process, "ours", True)}
        children.stop(ours.values(), self.watch.say)
        for name, child in ours.items():
            self.log("end", name, code=child.process.poll())


def _from(lent: dict[str, str]) -> str:
    by = {cell: [stage for stage, other in lent.items() if other == cell] for cell in lent.values()}
    return "".join(f"; {', '.join(stages)} from {cell}" for cell, stages in by.items())
