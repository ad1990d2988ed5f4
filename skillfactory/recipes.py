"""Reading recipes: YAML with comments, `section.key=value` on top, and errors that say how to mend them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from os.path import expanduser
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from skillfactory.characters import one_line
from skillfactory.errors import RecipeError
from skillfactory.plain_yaml import DEEPEST, Lines, NotPlainError, Place, parse, read_text, texts
from skillfactory.recipe import Recipe

M = TypeVar("M", bound=BaseModel)

_PACKAGE = Path(__file__).parent


def shipped(kind: str = "recipe") -> dict[str, Path]:
    """The recipes, or experiments, that come with the package, by name."""
    folders = (_PACKAGE / f"shipped_{kind}s", _PACKAGE.parent / f"{kind}s")  # installed; in a checkout
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def load_recipe(source: str | Path, overrides: Sequence[str] = (), said: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in a file, or a shipped one by name, with overrides such as "rl.steps=20".

    `said` tells where overrides stand, by their keys, if not on the command line. Raises RecipeError, naming line and
    key, for what cannot be read or set; the method and the tasks are known to exist.
    """
    from skillfactory import methods, tasks

    recipe = methods.applied(read_recipe(find(source), overrides, said))
    for where, spec in [("questions.task", recipe.questions.task)] + [
        (f"evaluation.sets.{name}.task", each.task) for name, each in recipe.evaluation.sets.items()
    ]:
        try:
            tasks.get(spec.name, **spec.params)
        except TypeError as error:  # a parameter that the task cannot do without
            raise RecipeError(f"{source}: {where}: {error}.") from error
        except ValueError as error:
            raise RecipeError(f"{source}: {where}: {error}") from error
    return recipe


def find(source: str | Path, kind: str = "recipe") -> Path:
    """The file of a recipe, or an experiment, given by path or by the name of a shipped one."""
    path, said = Path(source), one_line(str(source))
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise RecipeError(f"{path} is a folder; give a YAML file.")
        there = path.exists()
    except OSError as error:
        raise RecipeError(f"{said} cannot be read: {error.strerror}; name a YAML file or a shipped {kind}.") from error
    if there:
        raise RecipeError(f"{said} is a pipe or a device; give a YAML file.")
    known = shipped(kind)
    if str(source) in known:
        return known[str(source)]
    hint = near(path.stem, list(known)) or f"shipped {kind}s: {', '.join(known) or 'none'}."
    raise RecipeError(f"There is no {kind} {said}: neither such a file nor a shipped {kind}; {hint}")


def read_recipe(path: Path, overrides: Sequence[str] = (), said: Mapping[str, str] | None = None) -> Recipe:
    """Parse and check one file. Raises RecipeError naming the line and key, what is allowed and the nearest match."""
    data, lines = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}.")
    places = [_override(data, override) for override in overrides]
    given = {place: (said or {}).get(".".join(map(str, place)), "command line") for place in places}
    return checked(Recipe, data, path, lines, given)


def checked(model: type[M], data: object, path: Path, lines: Lines, given: Mapping[Place, str] | None = None) -> M:
    """The data as a `model`; `given` are places that stand elsewhere than in the file, and where.

    Raises RecipeError naming the line and key, what is allowed and the nearest match.
    """
    for place, text in texts(data):
        if problem := _problem(text):
            where = (given or {}).get(place) or (f"{path}, line {lines[place]}" if place in lines else path)
            raise RecipeError(f"{where}: `{one_line('.'.join(map(str, place)))}` {problem}.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_explain(model, error.errors()[0], str(path), lines, given or {})) from error


def _problem(text: str) -> str:
    """Why a text can be no path; what is no path has no such text."""
    if "\0" in text:
        return "holds a zero byte; leave it out"
    home = re.match(r"~[\w.-]+(?=/|$)", text)
    return f"names the home of a user who is not here, {one_line(home[0])}" if home and expanduser(text) == text else ""


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """The plain data of a YAML file, and the line of every place in it.

    Raises RecipeError, naming the line, for a file that cannot be read and for a key that is there twice.
    """
    try:
        return parse(read_text(path))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except NotPlainError as error:
        raise RecipeError(error.at(path)) from error


def read_override(text: str) -> tuple[str, Any]:
    """Key and value of `section.key=value`, the value read as YAML. Raises RecipeError for anything else."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")) or key.count(".") > DEEPEST:
        raise RecipeError(f"`{one_line(text)}` is not of the form section.key=value.")
    try:
        return key, parse(raw)[0] if raw.strip() else ""
    except NotPlainError as error:
        why = "is not valid YAML; quote it" if error.why.startswith("not valid YAML") else f"is refused: {error.why}"
        raise RecipeError(f"{one_line(key)}: the value `{one_line(raw)}` {why}.") from error


def _override(data: dict[str, Any], text: str) -> Place:
    """Put `section.key=value` into the plain recipe; returns its place."""
    key, value = read_override(text)
    names = key.split(".")
    at = data
    for depth, name in enumerate(names[:-1]):
        inner = at.setdefault(name, {})
        if inner is None:
            inner = at[name] = {}
        if not isinstance(inner, dict):
            raise RecipeError(
                f"`{key}`: `{'.'.join(names[: depth + 1])}` is a single value and has no keys of its own."
            )
        at = inner
    at[names[-1]] = value
    return tuple(names)


def _explain(model: type[BaseModel], error: Any, source: str, lines: Lines, given: Mapping[Place, str]) -> str:
    """One sentence for the first of pydantic's errors."""
    place: Place = tuple(part for part in error["loc"])
    key, given_value = one_line(".".join(str(part) for part in place)), one_line(repr(error["input"]), 100)
    elsewhere = [said for g, said in given.items() if place[: len(g)] == g or g[: len(place)] == place]
    held = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    where = elsewhere[-1] if elsewhere else f"{source}, line {lines[held]}" if held else source
    match error["type"]:
        case "extra_forbidden":
            section = _model_at(model, place[:-1])
            allowed = list(section.model_fields) if section else []
            name = str(place[-1])
            others = [other for other in _all_keys(model) if other.rpartition(".")[2] == name]
            hint = (
                near(name, allowed)
                or (f"there is `{others[0]}`." if others else "")
                or f"allowed here: {', '.join(allowed)}."
            )
            return f"{where}: unknown key `{key}`; {hint}"
        case "missing":
            section = _model_at(model, place[:-1])
            field = section.model_fields.get(str(place[-1])) if section else None
            purpose = f" ({field.description.rstrip('.')})" if field and field.description else ""
            return f"{where}: the key `{key}` is missing{purpose}."
        case "model_type" | "model_attributes_type" | "dict_type":
            section = _model_at(model, place)
            keys = f" with the keys {', '.join(section.model_fields)}" if section else ""
            return f"{where}: `{key}` must be a mapping{keys}, not {given_value}."
        case "literal_error":
            options = str(error["ctx"]["expected"])
            hint = near(str(error["input"]), re.findall(r"'([^']*)'", options))
            return f"{where}: `{key}` is {given_value}, but must be {options}{f'; {hint}' if hint else '.'}"
        case _:
            return f"{where}: `{key}` is {given_value}: {error['msg'][0].lower()}{error['msg'][1:]}."


def near(name: str, allowed: Sequence[str]) -> str:
    """`did you mean …?`, or nothing where none of the names is like it."""
    found = get_close_matches(name, allowed, n=1)
    return f"did you mean `{found[0]}`?" if found else ""


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """The section that a place of the recipe belongs to."""
    at: Any = model
    for part in place:
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(str(part))
            at = field.annotation if field else None
        elif get_origin(at) is dict:
            at = get_args(at)[1]
        else:
            return None
    return at if isinstance(at, type) and issubclass(at, BaseModel) else None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a recipe, dotted; named sets are written with a `*`."""
    for name, field in model.model_fields.items():
        at: Any = field.annotation
        yield prefix + name
        if get_origin(at) is dict:
            name, at = f"{name}.*", get_args(at)[1]
        if isinstance(at, type) and issubclass(at, BaseModel):
            yield from _all_keys(at, f"{prefix}{name}.")
