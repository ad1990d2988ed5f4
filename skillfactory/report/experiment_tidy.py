"""An experiment's figures as CSV, in the form of a run's (tidy.py): one observation a row, one figure a column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.report import tidy
from skillfactory.report.tables import at, items, kind_of
from skillfactory.report.tidy import Row, flat

Metrics = dict[str, Any]
_OF_RUNS = ("accuracy", "accuracy_by_kind", "pass_at_k", "differences", "differences_by_kind", "forcing", "skill_use")
_COLUMNS: dict[str, tuple[str, ...]] = {  # those that a file has also without rows
    **dict.fromkeys(_OF_RUNS, ("row", "method", "model")),
    "to_reference": ("row", "reference", "set", "kind"),
    "ablations": ("row", "set", "kind"),
    "robustness": ("row", "model", "set", "kind"),
    "claims": ("claim", "part", "verdict", "rests_on_it"),
    "curves": ("row", "stage", "step"),
    "cost": ("row", "stage"),
    "time": ("row", "seconds"),
    "cells": ("row", "method", "seed", "model", "set", "kind", "mode"),
    "failures": ("cell", "why", "log", "retry"),
}


def write(folder: Path, metrics: Metrics) -> None:
    """Write one file a table into `folder`, each whole or not at all. Raises StoreError where the disk is full."""
    with files.told(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables(metrics).items():
        text = tidy.as_csv(_COLUMNS[name], list(rows))
        files.write_atomic(folder / f"{name}.csv", text.encode("utf-8", "replace"))


def tables(metrics: Metrics) -> dict[str, Iterator[Row]]:
    """The rows of each file."""
    rows = metrics["rows"]
    nothing: list[Any] = [[] for _ in rows]
    of_runs = tidy.tables(rows, nothing, nothing)
    cells = metrics["cells"]
    per_cell = tidy.tables(cells, [[] for _ in cells], [[] for _ in cells])["accuracy"]
    reference = {"reference": metrics["experiment"]["reference"]}
    return {
        **{name: _named(of_runs[name], seed=False) for name in _OF_RUNS},
        "to_reference": _groups(metrics, "differences", reference),
        "ablations": _groups(metrics, "ablations", {}),
        "robustness": _robustness(metrics),
        "claims": _claims(metrics),
        "curves": _curves(metrics),
        "cost": ({"row": row, "stage": s, **flat(f)} for row, each in items(metrics, "cost") for s, f in items(each)),
        "time": ({"row": row or "(all)", **flat(parts)} for row, parts in items(metrics, "time")),
        "cells": _named(per_cell, seed=True),
        "failures": iter(metrics["failures"]),
    }


def _named(rows: Iterator[Row], seed: bool) -> Iterator[Row]:
    """Rows of the grid in place of runs."""
    for row in rows:
        run = row.pop("run")
        if not seed:
            row.pop("seed")
        yield {"row": run, **row}


def _groups(metrics: Metrics, key: str, beside: Row) -> Iterator[Row]:
    """Differences by kind (without a set), then by set."""
    for label, cells in items(metrics, f"{key}_by_kind"):
        for kind, cell in items(cells):
            yield {"row": label, **beside, "set": "", "kind": kind, **flat(cell)}
    for label, cells in items(metrics, key):
        for name, cell in items(cells):
            yield {"row": label, **beside, "set": name, "kind": kind_of(metrics["rows"][0], name), **flat(cell)}


def _robustness(metrics: Metrics) -> Iterator[Row]:
    for key in ("robustness_by_kind", "robustness"):
        for label, models in items(metrics, key):
            for model, cells in items(models):
                for group, cell in items(cells):
                    name = "" if key.endswith("kind") else group
                    yield {"row": label, "model": model, "set": name, "kind": "other", **flat(cell)}


def _claims(metrics: Metrics) -> Iterator[Row]:
    for claim in metrics["claims"]:
        for part in claim["parts"]:
            yield {
                "claim": claim["id"], "part": part["what"], "verdict": part["verdict"], "rests_on_it": part["counts"],
                "claim_verdict": claim["verdict"], **flat(at(part, "figure")),
            }  # fmt: skip


def _curves(metrics: Metrics) -> Iterator[Row]:
    for label, stages in items(metrics, "curves"):
        for stage, lines in items(stages):
            for line in lines:
                yield {"row": label, "stage": stage, "step": line["step"], **flat(line)}
