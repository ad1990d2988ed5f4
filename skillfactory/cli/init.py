"""The command `init`: a first recipe, from answers or flags."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillfactory.cli import complete
from skillfactory.cli.app import BEGIN, app
from skillfactory.errors import RecipeError

if TYPE_CHECKING:
    from skillfactory.cli.asking import Asker
    from skillfactory.starting.look import Look
    from skillfactory.starting.machines import Machine
    from skillfactory.starting.stock import Stock

_File = Annotated[Path, typer.Argument(help="The recipe to write.")]
_Model = Annotated[str | None, typer.Option(help="`tiny`, a Hugging Face folder, or a hub id.", show_default=False)]
_Questions = Annotated[
    str | None,
    typer.Option(
        help="A task (see `skillfactory tasks`), a JSONL, CSV or Parquet file, or a data set of the hub, OWNER/NAME.",
        show_default=False,
        autocompletion=complete.task,
    ),
]
_Param = Annotated[list[str] | None, typer.Option(help="A parameter of the task, KEY=VALUE.", show_default=False)]
_Column = Annotated[str | None, typer.Option(help="Its column of questions.", show_default=False)]
_Answer = Annotated[str | None, typer.Option(help="Its column of answers.", show_default=False)]
_Choices = Annotated[str | None, typer.Option(help="Its column of options, of multiple choice.", show_default=False)]
_Grade = Annotated[
    str | None,
    typer.Option(
        help="How its answers are compared: exact, number, math, choice, or a function of yours.", show_default=False
    ),
]
_Machine = Annotated[str | None, typer.Option(help="cpu, gpu, gpus or server.", show_default=False)]
_Gpus = Annotated[int | None, typer.Option(help="GPUs that train.", show_default=False, min=1)]
_Server = Annotated[str | None, typer.Option(help="The server's address, with its /v1.", show_default=False)]
_Served = Annotated[str | None, typer.Option(help="What the server calls the model.", show_default=False)]
_Method = Annotated[str | None, typer.Option(help="skillfactory, rl_only, star, …", show_default=False)]
_Size = Annotated[str | None, typer.Option(help="quick: a first look; paper: the paper's numbers.", show_default=False)]


@app.command(rich_help_panel=BEGIN)
def init(
    file: _File = Path("recipe.yaml"),
    model: _Model = None,
    questions: _Questions = None,
    param: _Param = None,
    question: _Column = None,
    answer: _Answer = None,
    choices: _Choices = None,
    grade: _Grade = None,
    split: Annotated[str, typer.Option(help="Of a hub data set: which split.")] = "train",
    config: Annotated[str, typer.Option(help="Of a hub data set: which configuration.", show_default=False)] = "",
    machine: _Machine = None,
    gpus: _Gpus = None,
    server: _Server = None,
    served: _Served = None,
    method: _Method = None,
    size: _Size = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: take defaults for what no flag says.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write a first recipe, commented, that runs: asks what no option says; without a terminal it takes defaults."""
    from skillfactory.cli.asking import Asker, on_terminal
    from skillfactory.starting import draft
    from skillfactory.starting.look import is_questions, look
    from skillfactory.starting.numbers import SIZES

    draft.refuse([file], force)
    for given, check in ((method, draft.known_method), (size, draft.known_size)):
        if given is not None:
            check(given)  # before anything is asked or read
    ask = Asker(on_terminal() and not yes)
    what = "Model: tiny (embedded), a Hugging Face folder, or a hub id such as Qwen/Qwen2.5-1.5B-Instruct"
    named = ask.get("--model", model, what, "tiny", draft.known_model)
    columns = {"question": question, "answer": answer, "choices": choices, "grade": grade}

    def stock_of(given: str) -> "Stock":
        if not is_questions(given):
            return _task(ask, given, named, param or [], [key for key, value in columns.items() if value is not None])
        if param:
            raise RecipeError(f"--param goes with a task, and {given} holds questions of your own.")
        return _own(ask, look(given, split, config), columns, draft.copy_of(file))

    what = "Questions: a task (`skillfactory tasks` lists them), a file of yours, or a hub data set"
    stock = ask.get("--questions", questions, what, "countdown", stock_of)
    found = _machine(ask, machine, gpus, server, served, named)
    ways = draft.METHODS if ask.asks and method is None else None  # else its own error is better
    chosen = ask.get("--method", method, "Method", "skillfactory", draft.known_method, ways)
    length = ask.get("--size", size, "Size", "quick", draft.known_size, SIZES)
    made = draft.Choices(draft.name_of(file), named, stock, found, chosen, length)
    recipe = draft.write(made, file, force)
    _tell(ask.assumed, file, draft.notes(made, recipe))


def _tell(assumed: list[str], file: Path, notes: list[str]) -> None:
    from skillfactory.characters import clean

    if assumed:
        print(clean(f"Not asked, so taken: {' '.join(assumed)}"))
    for note in notes:
        print(clean(note))
    print(clean(f"Written: {file}. Next:"))
    for command, what in (
        ("doctor {}", "will it run here?"),
        ("run {} --dry-run", "what will it take?"),
        ("run {}", ""),
    ):
        line = f"  skillfactory {command.format(shlex.quote(str(file)))}"
        print(clean(f"{line:<50}  # {what}" if what else line))


def _task(ask: "Asker", given: str, model: str, params: list[str], unused: list[str]) -> "Stock":
    """The questions of a task with its parameters, which are asked for on a terminal if there are usual ones."""
    from skillfactory import tasks
    from skillfactory.recipes import read_override
    from skillfactory.starting.stock import from_task, known_task

    known_task(given)
    if unused:
        raise RecipeError(f"--{unused[0]} goes with questions of your own, and `{given}` is a task.")

    def made(text: str) -> "Stock":
        return from_task(given, dict(map(read_override, shlex.split(text))), model)

    levels = tasks.levels(given.partition(":")[0])
    if not ask.asks or params or not levels or (model, given) == ("tiny", "countdown"):
        return made(shlex.join(params))
    ask.list({label: " ".join(f"{key}={value}" for key, value in each.items()) for label, each in levels.items()})
    return ask.get(
        "--param", None, "Its parameters, KEY=VALUE with blanks between; none for the first of these", "", made
    )


def _own(ask: "Asker", seen: "Look", given: dict[str, str | None], copy: Path) -> "Stock":
    """Questions of the user's own: what their columns are, and how answers are compared."""
    from skillfactory.starting import guess
    from skillfactory.starting.stock import from_look, known_rule

    def known(text: str) -> str:
        if text not in seen.columns:
            raise RecipeError(f"{seen.source} has no column `{text}`; it has: {', '.join(seen.columns)}.")
        return text

    ask.show(seen)
    guessed = guess.columns_of(seen)
    there = ", ".join(seen.columns)
    question = ask.get(
        "--question",
        given["question"],
        f"Which column of {seen.source} holds the questions ({there})",
        guessed.question,
        known,
    )
    answer = ask.get(
        "--answer", given["answer"], f"Which column of {seen.source} holds the answers ({there})", guessed.answer, known
    )
    columns = guess.Columns(question, answer, known(given["choices"]) if given["choices"] else guessed.choices)
    ask.list(guess.RULES if given["grade"] is None else {})
    rule = ask.get("--grade", given["grade"], "How answers are compared", guess.rule_of(seen, columns), known_rule)
    return from_look(seen, columns, rule, copy)


def _machine(
    ask: "Asker", kind: str | None, gpus: int | None, server: str | None, served: str | None, model: str
) -> "Machine":
    """What it runs on, with a server's address where there is one."""
    from skillfactory.starting import machines

    def number(text: str) -> int:
        if not text.isdecimal() or not int(text):
            raise RecipeError(f"{text} is no number of GPUs.")
        return int(text)

    guessed: Any = "server" if server else machines.guessed()
    if gpus and not server and kind is None:
        guessed = "gpus" if gpus > 1 else "gpu"
    chosen: Any = ask.get("--machine", kind, "Machine", guessed, str, machines.KINDS)
    here = machines.gpus_here()
    if server and chosen != "server":
        raise RecipeError(f"--server goes with --machine server, not with {chosen}.")
    if chosen == "server":
        address = ask.get("--server", server, "Its address", machines.ADDRESS, machines.known_address)
        name = ask.get("--served", served, "What it calls the model", model, str)
        devices = gpus if gpus is not None else min(here, 1)
        return machines.Machine("server", devices, machines.local_engine(devices), address, name)
    if chosen == "gpus":
        default = str(here) if here > 1 else ""
        devices = ask.get("--gpus", None if gpus is None else str(gpus), "How many GPUs", default, number)
    else:
        devices = 1 if chosen == "gpu" else 0
        if gpus is not None and gpus != devices:
            raise RecipeError(f"--gpus {gpus} goes with --machine gpus, not with {chosen}.")
    return machines.Machine(chosen, devices, machines.local_engine(devices))
