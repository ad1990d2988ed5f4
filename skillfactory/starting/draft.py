"""Writes a first recipe, and holds it against everything that a run would check before it starts."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from skillfactory import files, methods, pipeline, recipes
from skillfactory.errors import ModelError, RecipeError
from skillfactory.recipe import SCHEMA, Recipe
from skillfactory.starting.machines import Machine
from skillfactory.starting.numbers import SIZES, Size, numbers_of, usual
from skillfactory.starting.stock import Stock
from skillfactory.tasks.questions import make_questions

NEED_MORE = {"bolt": "worked examples (bolt.examples)", "distill": "a teacher (distill.teacher or distill.traces)"}
METHODS = {name: method.about for name, method in methods.METHODS.items() if name not in NEED_MORE}


@dataclass(frozen=True)
class Choices:
    """All that a first recipe is made of."""

    name: str
    model: str
    stock: Stock
    machine: Machine
    method: str = "skillfactory"
    size: Size = "quick"


def name_of(file: Path) -> str:
    """The name of the run of a recipe in this file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem)[:100].strip("-._") or "recipe"


def copy_of(file: Path) -> Path:
    """Where questions go that have to be copied for a recipe in this file."""
    return file.with_name(f"{name_of(file)}-questions.jsonl")


def known_model(name: str) -> str:
    """The model. Raises ModelError for what can be neither a folder nor a hub id; the hub is not asked."""
    path = Path(name).expanduser()
    if name == "tiny" or (path.is_dir() and (path / "config.json").is_file()):
        return name
    if path.is_dir():
        raise ModelError(f"{name} is no Hugging Face model: it has no config.json.")
    if not re.fullmatch(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", name):
        raise ModelError(f"There is no model folder {name}; give a Hugging Face folder, a hub id, or `tiny`.")
    return name


def known_size(name: str) -> Size:
    """The size. Raises RecipeError for one that is none."""
    if name not in get_args(Size):
        raise RecipeError(f"--size {name} is none: there are {' and '.join(SIZES)}.")
    return cast(Size, name)


def known_method(name: str) -> str:
    """The method. Raises RecipeError for one that is none, or that wants more than is asked here."""
    methods.get(name)
    if name in NEED_MORE:
        raise RecipeError(
            f"Method `{name}` needs {NEED_MORE[name]}: write the recipe for `skillfactory`, then set both in it."
        )
    return name


def write(choices: Choices, file: Path, force: bool = False) -> Recipe:
    """Write the recipe, and beside it the questions that are to be copied; returns it as a run would load it.

    Raises SkillFactoryError, having written nothing, for a file that is there, and where a run would not start.
    """
    stock = choices.stock
    copy = Path(stock.params["path"]) if stock.copied else None
    refuse([file, *([copy] if copy else [])], force)
    if not file.absolute().parent.is_dir():
        raise RecipeError(f"There is no folder {file.parent} to write {file.name} in; make it, or name another file.")
    text = render(choices, file)
    before = copy.read_bytes() if copy and copy.exists() else None
    try:
        if copy:
            lines = (json.dumps(row, ensure_ascii=False) for row in stock.copied)
            files.write_atomic(copy, "".join(f"{line}\n" for line in lines).encode())
        recipe = _checked(text, file, stock)
        files.write_atomic(file, text.encode())
    except BaseException:
        if copy and before is None:
            copy.unlink(missing_ok=True)
        elif copy and before is not None:
            files.write_atomic(copy, before)
        raise
    return recipe


def notes(choices: Choices, recipe: Recipe) -> list[str]:
    """What whoever wrote a recipe should know of it, a sentence each."""
    stock, machine = choices.stock, choices.machine
    found = list(stock.notes)
    q, held = recipe.questions, recipe.evaluation.sets
    sets = ", ".join(f"{name} {each.n:,}" for name, each in held.items())
    of = f", of {stock.rows:,}{' at least' if stock.is_remote else ''}" if stock.rows else ""
    found.append(f"Questions{of}: SFT {q.sft:,}, RL {q.rl:,}, dev {q.dev:,}; evaluated: {sets}.")
    asked = usual(choices.size, choices.model == "tiny", machine.devices)
    if q.sft + q.rl < 0.9 * (asked.sft + asked.rl):
        found.append(
            f"There are too few of them for what a run usually has ({asked.sft:,}, {asked.rl:,}, {asked.dev:,})."
        )
    if choices.model == "tiny" and stock.task != "countdown":
        found.append(
            "The embedded model knows the sums of the demo and nothing else: of other questions it may solve none, and "
            "then a run ends at its traces. Take a model of the hub for them."
        )
    if choices.size == "paper" and choices.model != "tiny" and not machine.devices:
        found.append("The paper's numbers without a GPU would take years; look at `--dry-run`, or take --size quick.")
    if machine.kind == "server" and find_spec("openai") is None:
        found.append("The server is spoken to by the package openai: pip install 'skillfactory[openai]'.")
    return found


def refuse(paths: Sequence[Path], force: bool) -> None:
    """Raises RecipeError for a file that is there and must not be overwritten, or that is a folder."""
    for path in paths:
        if path.is_dir():
            raise RecipeError(f"{path} is a folder; name the recipe's file.")
        if path.exists() and not force:
            raise RecipeError(f"{path} is there already; name another file, or overwrite it with --force.")


def _checked(text: str, file: Path, stock: Stock) -> Recipe:
    """The recipe of this text. Raises SkillFactoryError where a run of it would not get through its questions."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        draft.write_text(text, encoding="utf-8")
        recipe = recipes.load_recipe(draft)
    pipeline.check(recipe)
    if stock.rows and not stock.is_remote:  # of what a task makes, numbers.py has seen that there is enough
        make_questions(recipe)
    return recipe


def render(choices: Choices, file: Path) -> str:
    """The text of the recipe."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"yaml": _yaml, "line": lambda text: " ".join(str(text).split())}
    template = environment.from_string((package_files(__package__) / "recipe.yaml.j2").read_text(encoding="utf-8"))
    return template.render(_context(choices, file))


def _context(choices: Choices, file: Path) -> dict[str, Any]:
    machine, stock = choices.machine, choices.stock
    tiny = choices.model == "tiny"
    served = machine.kind == "server"
    here = machine.engine
    return {
        "c": choices,
        "s": stock,
        "n": numbers_of(choices.size, tiny, machine.devices, stock),
        "file": file,
        "tiny": tiny,
        "local": tiny or Path(choices.model).expanduser().is_dir(),
        "gpus": machine.devices,
        "generated": not stock.rows and not stock.is_remote,
        "of_rows": f", of the {stock.rows:,} that there are{' at least' if stock.is_remote else ''}",
        "comment_of_params": "`grade` is how answers are compared" if "grade" in stock.params else "",
        "engine": "openai" if served else here,
        "engines_hint": "the server below" if served else "or vllm, openai (any server with that API), ray",
        "evaluation_engine": "openai" if served and choices.method == "evaluate" else here,
        "served": machine.served or choices.model,
        "schema": SCHEMA.as_uri(),
    }


def _yaml(value: Any) -> str:
    """A value in one line of YAML, whatever is in it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()
