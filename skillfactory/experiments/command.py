"""The command `experiment` behind the command line: how many cells at once, where, and what is said at the end."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import children
from skillfactory.errors import RecipeError
from skillfactory.experiments import runner
from skillfactory.experiments.grid import Experiment
from skillfactory.machine import cores
from skillfactory.watch import Watch

if TYPE_CHECKING:
    from skillfactory.report.experiment import Failure


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers. Raises RecipeError for anything else."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"--seeds is `{text}`, but must be whole numbers with commas between them: 0,1,2.") from error


def run(
    experiment: Experiment, out: Path, jobs: int | None, ray: str | None, gpus: float, watch: Watch
) -> tuple[dict[str, Any], "list[Failure]"]:
    """Run the cells and write the report; returns its metrics, and the failures."""
    with _where(experiment, jobs, ray, gpus) as (begin, room):
        jobs = min(room, len(experiment.cells))
        how = f"{jobs} at once" + (", of one thread each unless the recipe says more" if jobs > 1 else "")
        watch.say(f"{len(experiment.cells)} cells in {out}, {how}; stop with Ctrl-C, go on with the same command.")
        with watch:
            failures = runner.run(experiment, out, jobs, watch, begin)
    return runner.write_report(experiment, out, failures), failures


@contextmanager
def _where(
    experiment: Experiment, jobs: int | None, ray: str | None, gpus: float
) -> Iterator[tuple[runner.Begin, int]]:
    """What starts a cell, and how many to run at once: `jobs`, or as many as have room."""
    if ray is not None:
        from skillfactory.experiments import cluster

        with cluster.connected(ray, gpus) as (begin, room):
            yield begin, jobs or room
        return
    if gpus:
        raise RecipeError("--gpus-per-cell goes with --ray; without it every cell sees all GPUs.")
    yield children.start, jobs or (1 if _on_gpu(experiment) else cores())


def _on_gpu(experiment: Experiment) -> bool:
    """Whether cells would share one device, which is faster with one at a time."""
    devices = {cell.recipe.machine.device for cell in experiment.cells}
    if "auto" in devices:  # asked in another process: torch would stay in the memory of this one
        code = "from skillfactory.machine import pick_device; print(pick_device('auto'))"
        devices.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    return bool(devices - {"auto", "cpu", ""})


def told(experiment: Experiment, failures: "Sequence[Failure]") -> str:
    """The failures: what, why, the end of the log, and the command to try each again."""
    lines = [f"{len(failures)} of {len(experiment.cells)} cells failed; the same command goes on with them."]
    for failure in failures:
        lines += ["", f"{failure.cell} {failure.why}", f"  Try it again by itself: {failure.retry}"]
        if failure.log:
            lines += [f"  Last lines of {failure.log}:"]
            lines += [f"    {line}" for line in children.last_lines(Path(failure.log))]
    return "\n".join(lines)
