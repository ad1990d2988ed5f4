"""A run, or several runs side by side, as tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skillfactory.report import tables, verdict
from skillfactory.report.comparison import compare, difference_tables, metrics_of, settings_table
from skillfactory.report.curation import curation_tables
from skillfactory.report.tables import Table, clean

if TYPE_CHECKING:
    from rich.console import Console

    from skillfactory.store import LoadedRun


def print_run(run: "LoadedRun", console: "Console") -> None:
    """Print accuracy, differences, skill use, training, curation and cost of one run."""
    metrics = metrics_of(run)
    _line(console, f"{tables.run_label(metrics)} on {metrics['run']['model']}, seed {metrics['run']['seed']}", "bold")
    _line(console, verdict.of_run(metrics))
    for table in (
        tables.accuracy_table([metrics]),
        tables.differences_table(metrics),
        tables.length_table([metrics]),
        tables.skill_table([metrics]),
        tables.training_table([metrics]),
        *curation_tables(metrics["curation"]),
        tables.cost_table(metrics),
    ):
        print_table(table, console)


def print_comparison(runs: Sequence["LoadedRun"], console: "Console") -> None:
    """Print runs side by side. Raises SkillFactoryError where they were not asked the same questions."""
    comparison = compare(runs)
    _line(console, verdict.of_comparison(comparison))
    for table in (
        tables.accuracy_table(comparison.metrics),
        *difference_tables(comparison),
        tables.length_table(comparison.metrics),
        tables.skill_table(comparison.metrics),
        settings_table(comparison),
    ):
        print_table(table, console)


def print_table(table: Table, console: "Console") -> None:
    """Print one table; nothing where it has no rows."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if not table.rows:
        return
    shown = RichTable(
        title=Text(clean(table.title), style="bold"),
        title_justify="left",
        caption=Text(clean(table.note), style="dim") if table.note else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    groups = table.groups or ("",) * len(table.columns)
    for i, (column, group) in enumerate(zip(table.columns, groups, strict=True)):
        header = Text(clean(column))
        if group:
            header.append(f"\n{clean(group)}", style="dim")
        elif any(groups):
            header.append("\n")
        shown.add_column(header, justify="left" if i < table.labels else "right", overflow="fold")
    before: list[str] = []
    for row in table.rows:
        cells = list(row)
        for i in range(table.labels - 1):  # a label is said once, until it or one to its left changes
            if row[: i + 1] == before[: i + 1]:
                cells[i] = ""
        shown.add_row(*(Text(clean(cell)) for cell in cells))
        before = row
    console.print(shown)


def _line(console: "Console", text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(clean(text), style=style))
