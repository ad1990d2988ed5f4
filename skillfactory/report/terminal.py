"""A run, or several runs side by side, as tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skillfactory.characters import clean
from skillfactory.report import tables, verdict
from skillfactory.report.comparison import Comparison, compare, metrics_of, settings_table
from skillfactory.report.sections import material, sections
from skillfactory.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from skillfactory.store import LoadedRun

_BESIDE = ("Versions",)  # not for a terminal
_COMPARED = ("accuracy", "forcing", "skills")  # sections; all others are on the page


def print_run(run: "LoadedRun", console: "Console") -> None:
    """Print all tables of one run."""
    metrics = metrics_of(run)
    _line(console, f"{tables.run_label(metrics)} on {metrics['run']['model']}, seed {metrics['run']['seed']}", "bold")
    _line(console, verdict.of_run(metrics))
    for sentence in verdict.uncertain([metrics]):
        _line(console, sentence, "dim")
    for section in sections(material([run], [metrics])):
        for table in section.tables:
            if table.title not in _BESIDE:
                print_table(table, console)


def print_comparison(runs: Sequence["LoadedRun"], console: "Console", comparison: Comparison | None = None) -> None:
    """Print runs side by side. Raises SkillFactoryError where they were not asked the same questions."""
    comparison = comparison or compare(runs)
    _line(console, verdict.of_comparison(comparison))
    for sentence in verdict.uncertain(comparison.metrics, comparison):
        _line(console, sentence, "dim")
    for section in sections(material(runs, comparison.metrics, comparison)):
        measured = [table for table in section.tables if not table.folded and section.id in _COMPARED]
        for table in measured if section.id != "cost" else [settings_table(comparison)]:
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
