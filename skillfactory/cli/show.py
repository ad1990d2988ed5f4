"""Commands that look at what runs gave, or pass it on: show, compare, export."""

from pathlib import Path
from typing import Annotated

import typer

from skillfactory.cli.app import LOOK, app
from skillfactory.cli.shared import AsJson, RunToRead, compare_runs, print_json, screen
from skillfactory.errors import RecipeError


@app.command(rich_help_panel=LOOK)
def show(
    run_dir: RunToRead,
    traces: Annotated[int, typer.Option(help="How many traces to print.", min=0)] = 10,
    as_json: AsJson = False,
) -> None:
    """What a run gave so far: curation step by step, some traces to look at before training on them, its evaluation."""
    from skillfactory import console
    from skillfactory.overview import overview, some_traces
    from skillfactory.report import curation, terminal, trust
    from skillfactory.store import load_run

    loaded = load_run(run_dir)
    facts = overview(loaded) | trust.facts_of(loaded)
    if as_json:
        print_json(facts)
        return
    out = screen()
    tables = curation.curation_tables(facts)
    if evaluated := loaded.stage("evaluation").table(["model"]).num_rows > 0:
        terminal.print_run(loaded, out)
    else:
        for table in tables:
            terminal.print_table(table, out)
        for table in (trust.warnings_table([loaded], [""]), trust.deviations_table([loaded], [""])):
            terminal.print_table(table, out)
    for trace in some_traces(loaded, traces):
        out.rule(f"trace {trace.id}, {trace.pattern}, {trace.tokens:,} tokens", style="dim")
        out.print(console.trace_text(trace.prompt[-1]["content"]), style="dim", highlight=False)
        out.print(console.trace_text(trace.completion), highlight=False)
    if not tables and not evaluated:
        print(f"{run_dir} has no rows yet.")


@app.command(rich_help_panel=LOOK)
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[Path, typer.Option(help="The page to write; its tables go beside it, as Markdown and CSV.")] = Path(
        "comparison.html"
    ),
    reference: Annotated[
        str | None,
        typer.Option(
            help="The run to hold the others against: name or path.  [default: the only rl_only run, or the first]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set runs side by side: tables on the terminal, and a page."""
    from skillfactory.store import load_run

    compare_runs([load_run(path) for path in run_dirs], out, reference or "", as_json)


@app.command(rich_help_panel=LOOK)
def export(
    run_dir: RunToRead,
    format: Annotated[
        str, typer.Argument(help="trl, trl-messages, llamafactory, llamafactory-conversations, verl or datasets.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write, not there yet or empty.")],
    push: Annotated[
        str | None, typer.Option(help="With datasets: send it to this hub repository, OWNER/NAME.", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for all to see.")] = False,
    license: Annotated[str, typer.Option(help="Licence for the data card, in the hub's words.")] = "other",
    as_json: AsJson = False,
) -> None:
    """Write a run's traces as the files that another trainer reads, or as a data set with its card."""
    from skillfactory.formats.export import export as write
    from skillfactory.formats.hub import push as send
    from skillfactory.store import load_run

    if push is not None and format != "datasets":
        raise RecipeError("--push sends a data set with its card: give the format `datasets`.")
    written = write(load_run(run_dir), format, out, license)
    url = send(out, push, private=not public) if push else None
    if as_json:
        print_json({"traces": written.traces, "files": written.files, "url": url})
        return
    print(f"{written.traces:,} traces: {', '.join(str(path) for path in written.files)}")
    if url:
        print(f"Sent to {url}")
