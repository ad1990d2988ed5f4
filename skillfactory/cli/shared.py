"""What the commands share: arguments that several take, and how they print."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillfactory.cli import complete

if TYPE_CHECKING:
    from rich.console import Console

    from skillfactory.stage import Stage
    from skillfactory.store import LoadedRun

RUNS = Path("runs")
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.", autocompletion=complete.recipe
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings, as section.key=value.", show_default=False)]
RunToWrite = Annotated[
    Path | None, typer.Option("--run", help="Run directory.  [default: runs/NAME]", show_default=False)
]
RunToRead = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]


def tell(name: str, stage: "Stage", finished: bool) -> None:
    """Say that a stage begins, or what it gave (see pipeline.run)."""
    from skillfactory.progress import duration

    if not finished:
        print(f"{name} …", flush=True)
        return
    manifest = stage.manifest
    rows = f"{manifest['rows']:,} rows, " if manifest["rows"] else ""
    print(f"{name} finished: {rows}{duration(manifest['seconds'])}", flush=True)
    for same in manifest["counts"].get("overlaps", []):
        first = [str(pair["training_row"]) for pair in same["first"] if pair["training_row"] != ""]
        rows = f" (rows {', '.join(first)}{', …' if same['questions'] > len(first) else ''})" if first else ""
        print(
            f"{name}: training does without {same['questions']:,} question{'s' if same['questions'] > 1 else ''} of "
            f"{same['training']} that evaluation set `{same['set']}` holds{rows}",
            flush=True,
        )


def compare_runs(runs: "list[LoadedRun]", out: Path, reference: str = "", as_json: bool = False) -> None:
    """Print the tables of several runs, and write their page to `out`."""
    from skillfactory.report import report, terminal
    from skillfactory.report.comparison import compare as compare_them

    markdown, tables = report.beside(out)
    comparison = compare_them(runs, reference)
    if as_json:
        each = [
            {"run": str(run.path), "method": run.recipe.method, "metrics": metrics}
            for run, metrics in zip(runs, comparison.metrics, strict=True)
        ]
        print_json({"runs": each, "comparison": comparison.facts()})
        return
    terminal.print_comparison(runs, screen(), comparison)
    report.write_comparison(runs, comparison, out)
    print(f"Tables: {markdown}, {tables}/")
    print(f"Comparison: {out}")


def screen() -> "Console":
    """Where tables go; of a fixed width where there is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def print_json(facts: object) -> None:
    """For `--json`: ASCII alone, so that no terminal acts on what it holds."""
    print(json.dumps(facts, indent=2, ensure_ascii=True, default=str))
