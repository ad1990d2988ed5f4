"""Commands that make or follow a run: run, import, status, experiment."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skillfactory.cli import complete
from skillfactory.cli.app import RUN, app
from skillfactory.cli.shared import RUNS, AsJson, Overrides, RecipeName, RunToWrite, print_json, screen, tell
from skillfactory.errors import RecipeError, StoreError

if TYPE_CHECKING:
    from skillfactory.experiments.grid import Experiment
    from skillfactory.recipe import Recipe
    from skillfactory.store import LoadedRun


@app.command(rich_help_panel=RUN)
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunToWrite = None,
    until: Annotated[
        str | None, typer.Option(help="Stop after this stage.", show_default=False, autocompletion=complete.stage)
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(
            help="Redo this stage and all that depends on it.", show_default=False, autocompletion=complete.stage
        ),
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
    pipeline.run(loaded, path, until, fresh, tell=tell)
    last = pipeline.stages_of(loaded, until)[-1]
    tell_training(path)
    print(
        f"Report: {path / 'report.html'}" if last == "report" else f"Done up to {last}; see: skillfactory show {path}"
    )


def tell_training(path: Path) -> None:
    """What the trainings of a run warned of, and where they are not as in the paper."""
    from skillfactory.characters import clean
    from skillfactory.report import trust
    from skillfactory.store import load_run

    loaded = load_run(path)
    for stage, texts in trust.warnings_of(loaded).items():
        for text in texts:
            print(clean(f"{stage}: warning: {text}"))
    if found := trust.deviations_of(loaded):
        print(clean(f"Training that is not as in the paper: {'; '.join(map(str, found))}"))


def _dry_run(recipe: "Recipe", path: Path, stages: Sequence[str], questions: int | None, as_json: bool) -> None:
    from skillfactory import contents, pipeline
    from skillfactory.planning import dry_run, plan, probe
    from skillfactory.planning.basis import basis_of

    if questions is None:
        local = contents.model_folder(recipe) is not None and recipe.attempts.engine != "openai"
        questions = probe.QUESTIONS if local and not recipe.attempts.given else 0
    states = pipeline.states(recipe, path)
    if not as_json:
        title = f"{recipe.name}: method {recipe.method}, model {recipe.model}, in {path}"
        planned = [each for each in plan.plan(recipe, path, None, states) if each.name in stages]
        screen().print(dry_run.plan_table(title, planned))
    probed = probe.probe(recipe, questions) if questions and "traces" in stages else None
    planned = [each for each in plan.plan(recipe, path, probed, states) if each.name in stages]
    basis = basis_of(recipe, probed)
    if as_json:
        facts = {"run": str(path), "method": recipe.method, "stages": plan.as_facts(planned)}
        measured = {"estimate": probe.as_facts(probed)} if probed else {}
        print_json(facts | {"total": plan.total_facts(planned), "basis": basis} | measured)
        return
    screen().print(dry_run.cost_table(planned))
    if basis["memory"] and basis["trains"]:
        screen().print(dry_run.memory_table(basis["memory"]))
    screen().print(dry_run.basis_lines(basis))
    if probed:
        screen().print(dry_run.estimate_table(probe.as_facts(probed)))


@app.command(rich_help_panel=RUN)
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
        print_json(facts[0] if run_dir is not None and len(facts) == 1 else facts)
        return
    for each in facts:
        screen().print(console.stage_table(str(each["run"]), each["stages"]))  # type: ignore[arg-type]


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


@app.command("import", rich_help_panel=RUN)
def import_(
    source: Annotated[
        str, typer.Argument(help="Raw data of the authors' form: Parquet, JSON lines, a folder, a hub id.")
    ],
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunToWrite = None,
) -> None:
    """Build a recipe's traces from attempts and reflections that were sampled elsewhere."""
    from skillfactory import pipeline, recipes

    loaded = recipes.load_recipe(recipe, [*(overrides or []), f"attempts.given={json.dumps(source)}"])
    path = run_dir or RUNS / loaded.name
    pipeline.run(loaded, path, "traces", tell=tell)
    print(f"Traces: skillfactory show {path}; train on them: skillfactory run {path / 'recipe.yaml'} --run {path}")


@app.command(rich_help_panel=RUN)
def experiment(
    file: Annotated[
        str,
        typer.Argument(help="A YAML file, or the name of a shipped experiment.", autocompletion=complete.experiment),
    ],
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
    from skillfactory.experiments import command, runner
    from skillfactory.experiments.grid import load_experiment
    from skillfactory.report import experiment as report
    from skillfactory.report import terminal
    from skillfactory.watch import Watch

    loaded = load_experiment(file, overrides or [], None if seeds is None else command.parse_seeds(seeds))
    folder = out or RUNS / loaded.name
    if dry_run:
        _forecast(loaded, folder, as_json)
        return
    watch = Watch(sys.stderr if as_json else sys.stdout)
    metrics, failures = command.run(loaded, folder, jobs, ray, gpus_per_cell, watch)
    if as_json:
        print_json(metrics)
    elif metrics:
        for table in report.tables(metrics):
            terminal.print_table(table, screen())
        print(f"Experiment: {folder / 'experiment.html'}")
    if failures:
        raise runner.ExperimentError(command.told(loaded, failures))


def _forecast(experiment: "Experiment", folder: Path, as_json: bool) -> None:
    from skillfactory.experiments import forecast
    from skillfactory.report import terminal

    facts = forecast.forecast(experiment, folder)
    if as_json:
        print_json({"experiment": str(folder), "cells": facts})
    else:
        terminal.print_table(forecast.table(f"{experiment.name}: {len(facts)} cells in {folder}", facts), screen())
