"""An experiment as one HTML file that stands alone, in the style of a run's page, and as Markdown."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from skillfactory import files
from skillfactory.report import tables
from skillfactory.report.experiment_charts import seeds_of
from skillfactory.report.experiment_tables import sections
from skillfactory.report.page import drawn, render
from skillfactory.report.report import PAGE
from skillfactory.report.tables import plain

if TYPE_CHECKING:
    from skillfactory.report.experiment import Row


def write(path: Path, metrics: dict[str, Any], rows: Sequence["Row"]) -> None:
    """Write the page. Raises StoreError where the disk is full."""
    shown = drawn(sections(metrics))
    text = render(
        "experiment.html", title=title_of(metrics), about=about(metrics), viewer=None, sections=shown,
        first=shown[0].id if shown else "cells", remarks=remarks(metrics), failures=metrics["failures"],
        rows=_links(rows, path.parent),
    )  # fmt: skip
    files.write_atomic(path, text.encode("utf-8", "replace"))


def write_markdown(path: Path, metrics: dict[str, Any]) -> None:
    """Write all tables as Markdown, to paste elsewhere."""
    lines = [f"# {plain(title_of(metrics))}", *map(plain, about(metrics))]
    for section in sections(metrics):
        if section.tables:
            lines += [f"## {plain(section.title)}", *map(tables.markdown, section.tables)]
        if section.id == "claims":
            lines.append("\n".join(f"- {plain(each)}" for each in remarks(metrics)))
    if metrics["failures"]:
        lines += ["## Failed cells", "\n".join(_failure(each) for each in metrics["failures"])]
    files.write_atomic(path, ("\n\n".join(line.strip() for line in lines if line) + "\n").encode("utf-8", "replace"))


def title_of(metrics: dict[str, Any]) -> str:
    """The experiment's name."""
    return f"Experiment {metrics['experiment']['name']}"


def about(metrics: dict[str, Any]) -> list[str]:
    """What was run, in sentences."""
    known = metrics["experiment"]
    cells = sum(len(row["seeds"]) for row in known["rows"])
    failed = len(metrics["failures"])
    first = (
        f"{len(known['rows'])} rows, up to {seeds_of(metrics)} seeds, {cells} finished cells"
        + (f", {failed} failed" if failed else "")
        + f"; reference {known['reference']}; skillfactory {known['version']}."
    )
    return [first, *metrics["notes"]]


def remarks(metrics: dict[str, Any]) -> list[str]:
    """What one has to know beside the claims."""
    return [f"{claim['id']}: {sentence}" for claim in metrics["claims"] for sentence in claim["remarks"]]


def _links(rows: Sequence["Row"], folder: Path) -> list[dict[str, Any]]:
    """Each row's cells with a relative link to their own page, where they have one."""
    return [
        {
            "label": row.label,
            "method": row.method,
            "cells": [{"seed": seed, "link": _link(run.path / PAGE, folder)} for seed, run in sorted(row.runs.items())],
        }
        for row in rows
    ]


def _link(page: Path, folder: Path) -> str:
    if not page.is_file():
        return ""
    relative = os.path.relpath(page.resolve(), folder.resolve())
    return "/".join(quote(part, safe="") for part in Path(relative).parts)


def _failure(failure: dict[str, Any]) -> str:
    cell, why, log, retry = (plain(str(failure[key])) for key in ("cell", "why", "log", "retry"))
    return f"- {cell}: {why} Log: {log}. To try again: {retry}"
