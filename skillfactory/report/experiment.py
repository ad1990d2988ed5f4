"""What an experiment says, from its finished cells: a page, Markdown, `metrics.json` and `tables/*.csv`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import files
from skillfactory.report.tables import Table

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

PAGE, MARKDOWN, METRICS, TABLES = "experiment.html", "experiment.md", "metrics.json", "tables"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the grid: what it is called, its method, and its finished cells by seed."""

    label: str
    method: str
    runs: dict[int, "LoadedRun"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that did not finish: why, where its log is, and the command to try it again."""

    cell: str
    why: str
    log: str
    retry: str


@dataclass(frozen=True, slots=True)
class Given:
    """What a report is made from. `log` has the runner's lines: time, event (start, end), cell, code, jobs."""

    name: str
    reference: str
    rows: list[Row]
    failures: list[Failure]
    log: list[dict[str, Any]]


def write(given: Given, out: Path) -> dict[str, Any]:
    """Write all of it into `out`; returns the metrics. Raises StoreError where the disk is full."""
    from skillfactory.report import experiment_page, experiment_tidy
    from skillfactory.report.experiment_metrics import measure

    metrics = measure(given)
    with files.told(str(out)):
        out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / METRICS, metrics)
    experiment_page.write(out / PAGE, metrics, given.rows)
    experiment_page.write_markdown(out / MARKDOWN, metrics)
    experiment_tidy.write(out / TABLES, metrics)
    return metrics


def tables(metrics: dict[str, Any]) -> list[Table]:
    """What the terminal prints: the claims first; without what is long and for reference."""
    from skillfactory.report.experiment_tables import sections

    return [table for section in sections(metrics) for table in section.tables if not table.folded]
