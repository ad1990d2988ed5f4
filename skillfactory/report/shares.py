"""What the rows of an experiment cost, and where its wall time went: from the manifests of stages and the runner's log.

A stage that another cell has made was not paid again: `paid` leaves out what its manifest says was lent, `alone` is
what the cell would have cost by itself.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skillfactory import files
from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.summary import read_jsonl
from skillfactory.report.experiment_rows import Measured
from skillfactory.report.tables import at, number
from skillfactory.rounds import stage_of

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

STAGES = ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation", "report")
_SAMPLED = ("attempts", "reflections", "rl", "evaluation")  # stages that sample text
PARTS = (
    "attempts", "reflections", "rollouts", "evaluation", "sft", "rl_updates", "other", "failed", "idle",
)  # fmt: skip


def cost_of(row: Measured) -> dict[str, Any]:
    """{stage: figures}, means over the row's cells. Seconds; tokens sampled and trained on; `paid` beside `alone`."""
    cells = [dict(_stages(cell.run)) for cell in row.cells.values()]
    found: dict[str, Any] = {}
    for stage in dict.fromkeys(stage for cell in cells for stage in cell):
        each = [cell[stage] for cell in cells if stage in cell]
        # A stage that one cell lacks cost that cell nothing.
        sums = {key: _sum(figures[key] for figures in each) for key in each[0]}
        found[stage] = {key: None if value is None else value / len(cells) for key, value in sums.items()}
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def wall_time(rows: Sequence[Measured], log: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row: seconds by part of PARTS, and `seconds` in all}; "" is all rows, and alone has failed and idle ones."""
    ran, idle = busy(log)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        parts: defaultdict[str, Any] = defaultdict(float)
        for seed, cell in row.cells.items():
            for part, seconds in _parts(cell.run):
                parts[part] += seconds
            known = sum(seconds for _, seconds in _parts(cell.run))
            parts["other"] += max(0.0, ran.pop(f"{row.label}-{seed}", known) - known)
        found[row.label] = dict(parts)
    whole: dict[str, Any] = {part: sum(parts.get(part, 0.0) for parts in found.values()) for part in PARTS}
    whole |= {"failed": sum(ran.values()), "idle": idle}
    found[""] = whole
    for each in found.values():
        each["seconds"] = sum(each.values())
    return found


def busy(log: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], float]:
    """Seconds that each cell ran, and those that job slots waited while others ran, by the runner's log.

    A cell that starts while it runs, or in a slot that is not there, says that the runner was killed before: nobody
    knows when, so that nothing between is counted.
    """
    ran: defaultdict[str, float] = defaultdict(float)
    running: dict[str, float] = {}
    idle, jobs, before = 0.0, 1, 0.0
    for line in log:
        time, cell = number(line, "time"), str(line.get("cell"))
        if time is None or line.get("event") not in ("start", "end"):
            continue
        begins = line["event"] == "start"
        if begins and (cell in running or len(running) >= max(jobs, int(number(line, "jobs") or jobs))):
            running.clear()
        if running:
            idle += max(0, jobs - len(running)) * max(0.0, time - before)
        if begins:
            jobs = max(1, int(number(line, "jobs") or jobs))
            running[cell] = time
        elif cell in running:
            ran[cell] += max(0.0, time - running.pop(cell))
        before = time
    return dict(ran), idle


def _stages(run: "LoadedRun") -> Iterator[tuple[str, dict[str, float | None]]]:
    """Each finished or begun stage with its figures."""
    for stage, manifest in manifests(run).items():
        name, counts = stage_of(stage), at(manifest, "counts")
        seconds, lent = number(manifest, "seconds") or 0.0, manifest.get("lent_from")
        tokens = number(counts, "tokens") if name in _SAMPLED else None
        if tokens is None and name == "rl":
            tokens = _rollouts(run, stage)
        trained = number(counts, "tokens") if name == "sft" else tokens if name == "rl" else None
        if trained is not None and name == "sft":
            trained *= run.recipe.sft.epochs
        free = (number(manifest, "lent", "seconds"), number(manifest, "lent", "tokens")) if lent else (0.0, 0.0)
        yield (
            stage,
            {
                "seconds": seconds,
                "seconds_paid": _rest(seconds, free[0]),
                "tokens": tokens,
                "tokens_paid": None if tokens is None else _rest(tokens, free[1]),
                "trained_tokens": trained,
                "peak_memory_mb": number(manifest, "peak_memory_mb"),
            },
        )


def manifests(run: "LoadedRun") -> dict[str, dict[str, Any]]:
    """The manifests of a run's stages, those of earlier rounds included, in the order of the stages."""
    found = {}
    for file in run.path.glob("[!.]*/manifest.json"):
        if stage_of(file.parent.name) in STAGES:
            try:
                found[file.parent.name] = dict(files.read_json(file))
            except SkillFactoryError:  # damaged: its cost is not known
                continue
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _parts(run: "LoadedRun") -> Iterator[tuple[str, float]]:
    """(part of the wall time, seconds paid in this cell)."""
    for stage, figures in _stages(run):
        name, seconds = stage_of(stage), figures["seconds_paid"] or 0.0
        if name == "rl":
            lines = read_jsonl(run.path / stage / "metrics.jsonl")
            rollouts = min(seconds, sum(line.get("rollout_seconds", 0.0) for line in lines))
            yield "rollouts", rollouts
            yield "rl_updates", seconds - rollouts
        else:
            yield name if name in PARTS else "other", seconds


def _rollouts(run: "LoadedRun", stage: str) -> float:
    """Tokens of rollouts by their mean lengths."""
    lines = read_jsonl(run.path / stage / "metrics.jsonl")
    return sum(s.get("length", 0.0) for s in lines) * run.recipe.rl.prompts_per_step * run.recipe.rl.group_size


def _rest(whole: float, free: float | None) -> float:
    """What is left to pay; nothing where all of it was lent."""
    return 0.0 if free is None else max(0.0, whole - free)


def _sum(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _place(stage: str) -> tuple[float, int]:
    """Earlier rounds first; the last, whose stages have no number, at the end."""
    name, _, number = stage.partition("-")
    order = STAGES.index(name)
    return (0 if name == "questions" else int(number) if number.isdecimal() else float("inf")), order
