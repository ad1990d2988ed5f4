"""The command `doctor`: whether this machine, a recipe or a run is well, and what to do where it is not."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillfactory.cli import complete
from skillfactory.cli.app import BEGIN, app
from skillfactory.cli.shared import RUNS, AsJson, Overrides, RunToWrite, print_json, screen
from skillfactory.errors import RecipeError

if TYPE_CHECKING:
    from skillfactory.checkup.check import Check

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@app.command(rich_help_panel=BEGIN)
def doctor(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|RUN]",
            help="A recipe, or a run directory; without, this machine alone.",
            autocompletion=complete.recipe,
        ),
    ] = None,
    overrides: Overrides = None,
    run_dir: RunToWrite = None,
    repair: Annotated[bool, typer.Option("--repair", help="With a run: mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine, a recipe on it, or a run's files; the exit code is 2 where there is a problem.

    It asks the hub, and a recipe's server, whether they are there; what a recipe names may be fetched, but no weights.
    """
    from skillfactory.checkup.check import as_facts

    found = []
    for check in _checks(what, overrides or [], run_dir, repair):
        found.append(check)
        if not as_json:
            _show(check)
    facts = as_facts(found)
    if as_json:
        print_json(facts)
    else:
        print(f"{facts['ok']} ok, {facts['warning']} to know of, {facts['problem']} to mend.")
    if facts["problem"]:
        raise typer.Exit(2)


def _checks(what: str | None, overrides: list[str], run_dir: Path | None, repair: bool) -> "Iterator[Check]":
    """What there is to check, each as soon as it is known."""
    from skillfactory.checkup import libraries, machine, run

    if what is not None and Path(what).is_dir():
        if overrides:
            raise RecipeError(f"`{overrides[0]}` goes with a recipe, and {what} is a folder.")
        return run.checks(Path(what), repair)
    if repair:
        raise RecipeError("--repair goes with a run directory: `skillfactory doctor RUN --repair`.")
    own = chain(machine.checks(run_dir or RUNS), libraries.checks())
    if what is None:
        return own
    from skillfactory.checkup import recipe

    return chain(own, recipe.checks(what, overrides, run_dir))


def _show(check: "Check") -> None:
    """One line, with the way out below it."""
    from rich.table import Table
    from rich.text import Text

    from skillfactory.console import plain

    row = Table.grid(padding=(0, 2))
    for width in (7, 14):
        row.add_column(min_width=width, max_width=width)
    row.add_column(overflow="fold")
    text = plain(check.text)
    if check.mend:
        text.append_text(plain(f"\n→ {check.mend}"))
    row.add_row(Text(check.state, _STYLES[check.state]), plain(check.name), text)
    screen().print(row)
