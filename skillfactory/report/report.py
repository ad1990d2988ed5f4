"""The last stage: `metrics.json`, and from it `report.html`, `report.md` and `tables/*.csv` in the run directory."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skillfactory import files
from skillfactory.errors import SkillFactoryError
from skillfactory.recipe import Recipe

if TYPE_CHECKING:
    from skillfactory.report.comparison import Comparison
    from skillfactory.store import LoadedRun, Run

METRICS, PAGE, MARKDOWN, TABLES = "metrics.json", "report.html", "report.md", "tables"


def run(recipe: Recipe, run: "Run") -> None:
    """The report stage."""
    from skillfactory.evaluation.summary import summarize
    from skillfactory.report import page, tidy
    from skillfactory.report.sections import material
    from skillfactory.store import load_run

    loaded = load_run(run.path)
    metrics = summarize(loaded)
    files.write_json(run.path / METRICS, metrics)
    given = material([loaded], [metrics])
    page.write(run.path / PAGE, given)
    page.write_markdown(run.path / MARKDOWN, given)
    tidy.write(run.path / TABLES, given.metrics, given.rl, given.sft)
    run.stage("report").finish(responses=sum(
        cell["responses"] for sets in metrics["accuracy"].values() for modes in sets.values() for cell in modes.values()
    ))  # fmt: skip


def remove(run: Path) -> None:
    """Delete what the stage leaves in the run directory."""
    for name in (METRICS, PAGE, MARKDOWN):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / TABLES, ignore_errors=True)


def beside(page: Path) -> tuple[Path, Path]:
    """Where a comparison's Markdown and folder of CSV files go. Raises SkillFactoryError for a page without a name."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise SkillFactoryError(f"The comparison is a page: {page} should end on .html.")
    return page.with_suffix(".md"), page.with_name(f"{page.stem}-tables")


def write_comparison(runs: Sequence["LoadedRun"], comparison: "Comparison", out: Path) -> None:
    """Write the page of several runs, and its tables beside it. Raises StoreError where the disk is full."""
    from skillfactory.report import page, tidy
    from skillfactory.report.sections import material

    markdown, tables = beside(out)
    given = material(runs, comparison.metrics, comparison)
    with files.told(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
    page.write(out, given)
    page.write_markdown(markdown, given)
    tidy.write(tables, given.metrics, given.rl, given.sft, comparison)
