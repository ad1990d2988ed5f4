"""The last stage: `metrics.json`, `report.html` and `accuracy.md` in the run directory, from what the stages kept."""

from typing import TYPE_CHECKING

from skillfactory import files
from skillfactory.recipe import Recipe

if TYPE_CHECKING:
    from skillfactory.store import Run


def run(recipe: Recipe, run: "Run") -> None:
    """The report stage."""
    from skillfactory.evaluation.summary import summarize
    from skillfactory.report import page
    from skillfactory.store import load_run

    loaded = load_run(run.path)
    metrics = summarize(loaded)
    files.write_json(run.path / "metrics.json", metrics)
    page.write_run(loaded, run.path / "report.html", metrics)
    page.write_markdown(metrics, run.path / "accuracy.md")
    run.stage("report").finish(responses=sum(
        cell["responses"] for sets in metrics["accuracy"].values() for modes in sets.values() for cell in modes.values()
    ))  # fmt: skip
