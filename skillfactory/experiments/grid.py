"""What an experiment's file says: rows, each a method with settings, and seeds; every pair of them is a cell.

All that can be known to be wrong with any cell is said here, before one of them starts.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from skillfactory import methods, pipeline, recipes
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.plain_yaml import Lines
from skillfactory.recipe import Recipe, Section

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OURS = {"name": "the cell's own", "seed": "set by `seeds`", "method": "set by the row"}  # not settings of a row


@dataclass(frozen=True, slots=True)
class Match:
    """A row that is given, in RL, what these stages of another row have cost."""

    row: str
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid; its recipe is whole but for what a match adds to it."""

    row: str
    seed: int
    recipe: Recipe
    match: Match | None = None

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """Cells are seed by seed, and in the order of the rows."""

    name: str
    reference: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    file: dict[str, Any]  # what can be run again: the file, with the command line's settings and seeds

    def cell(self, row: str, seed: int) -> Cell:
        return next(cell for cell in self.cells if (cell.row, cell.seed) == (row, seed))


class _Match(Section):
    row: str = Field(description="The row to match.")
    stages: list[str] = Field(min_length=1, description="Its stages whose cost is added to RL.")


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)  # all else is a setting of the recipe

    method: str = Field("", description="The row's own name where empty.")
    match: _Match | None = Field(None, description="Another row whose cost is to be spent in RL.")


class _File(Section):
    name: str = Field(description="Names the folder `runs/NAME`.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    recipe: str = Field(description="A shipped recipe, or a file.")
    seeds: list[int] = Field([0], min_length=1, description="Every row is run with each of them.")
    settings: dict[str, Any] = Field({}, description="For every cell, as `section.key: value`.")
    reference: str = Field("", description="The row that others are held against: `rl_only` or the first.")
    methods: dict[str, _Row] = Field(min_length=1, description="Rows of the tables.")

    @field_validator("methods", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, list):
            if double := sorted({str(name) for name in given if given.count(name) > 1}):
                raise ValueError(f"`{double[0]}` is there twice")
            return {str(name): {} for name in given}
        return {k: v or {} for k, v in given.items()} if isinstance(given, dict) else given


def load_experiment(
    source: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Experiment:
    """The experiment in a file, or a shipped one by name. Raises SkillFactoryError naming line, row and key."""
    path = recipes.find(source, "experiment")
    data, lines = recipes.read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: an experiment is a mapping with the keys {', '.join(_File.model_fields)}.")
    file = recipes.checked(_File, data, path, lines)
    chosen = tuple(file.seeds if seeds is None else seeds)
    if len(set(chosen)) < len(chosen) or min(chosen, default=-1) < 0:
        raise RecipeError(f"{path}: seeds are different numbers from 0 up, not {list(chosen)}.")
    reader = _Reader(path, file, lines, tuple(overrides))
    rows = {row: reader.row(row, chosen[0]) for row in file.methods}
    reference = file.reference or ("rl_only" if "rl_only" in rows else next(iter(rows)))
    if reference not in rows:
        raise RecipeError(f"{reader.at('reference')}: there is no row `{reference}`; {_rows_hint(reference, rows)}")
    for row in rows.values():
        reader.check_match(row, rows)
    _no_twins(path, list(rows.values()))
    cells = tuple(_with_seed(row, seed) for seed in chosen for row in rows.values())
    return Experiment(file.name, reference, tuple(rows), chosen, cells, reader.again(chosen))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Rows of one file; `overrides` are the command line's."""

    path: Path
    file: _File
    lines: Lines
    overrides: tuple[str, ...]

    def at(self, *place: str) -> str:
        """`experiment.yaml, line 7`, of the nearest place that has a line."""
        held = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self.lines), None)
        return f"{self.path}, line {self.lines[held]}" if held else str(self.path)

    def row(self, label: str, seed: int) -> Cell:
        """A row's cell of one seed. Raises SkillFactoryError where anything is wrong with its recipe."""
        where, given = self.at("methods", label), self.file.methods[label]
        if not LABEL.fullmatch(label):
            raise RecipeError(f"{where}: a row's name is a folder's, of letters, digits and . _ -; not `{label}`.")
        settings = [
            *_settings(self.file.settings, ("settings",)),
            *_settings(given.model_extra or {}, ("methods", label)),
        ]
        for key, _, place in settings:
            _not_ours(key, self.at(*place))
        over = [recipes.read_override(text)[0] for text in self.overrides]
        for key in over:
            _not_ours(key, "command line")
        said = {key: self.at(*place) for key, _, place in settings if key not in over}
        texts = [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value, _ in settings]
        last = [f"method={given.method or label}", f"seed={seed}", f"name={label}-{seed}"]
        try:
            methods.get(given.method or label)
            recipe = recipes.load_recipe(self._recipe(), [*texts, *self.overrides, *last], said)
            pipeline.check(recipe)
        except SkillFactoryError as error:
            text = str(error)
            told = text.startswith(str(self.path)) or text.startswith("command line")
            raise type(error)(text if told else f"{where}: row `{label}`: {text}") from error
        match = Match(given.match.row, tuple(given.match.stages)) if given.match else None
        return Cell(label, seed, recipe, match)

    def _recipe(self) -> str:
        """The recipe's file beside the experiment's, or as it is named."""
        beside = self.path.parent / self.file.recipe
        return str(beside) if beside.is_file() else self.file.recipe

    def check_match(self, cell: Cell, rows: dict[str, Cell]) -> None:
        """Raises RecipeError where a row matches none, or itself over others, or stages that are not there."""
        if cell.match is None:
            return
        where = self.at("methods", cell.row, "match")
        if "rl" not in methods.stages(cell.recipe):
            raise RecipeError(f"{where}: `{cell.row}` has no RL to spend in what `{cell.match.row}` has cost.")
        seen, at = [cell.row], cell
        while at.match:
            if at.match.row not in rows:
                where = self.at("methods", at.row, "match", "row")
                raise RecipeError(f"{where}: there is no row `{at.match.row}`; {_rows_hint(at.match.row, rows)}")
            if at.match.row in seen:
                raise RecipeError(f"{where}: `{cell.row}` comes of a match to itself; match another row.")
            at = rows[at.match.row]
            seen.append(at.row)
        there = methods.stages(rows[cell.match.row].recipe)
        if unknown := [stage for stage in cell.match.stages if stage not in there]:
            where = self.at("methods", cell.row, "match", "stages")
            hint = recipes.near(unknown[0], there) or f"it has {', '.join(there)}."
            raise RecipeError(f"{where}: row `{cell.match.row}` has no stage `{unknown[0]}`; {hint}")

    def again(self, seeds: tuple[int, ...]) -> dict[str, Any]:
        """The file as it would have to be to say what the command line says, too."""
        over = dict(recipes.read_override(text) for text in self.overrides)
        rows = {}
        for label, row in self.file.methods.items():
            kept = {key: value for key, value, _ in _settings(row.model_extra or {}, ()) if key not in over}
            rows[label] = row.model_dump(mode="json", include={"method", "match"}, exclude_defaults=True) | kept
        settings = {key: value for key, value, _ in _settings(self.file.settings, ())} | over
        file = self.file.model_dump(mode="json", include={"name", "reference"}, exclude_defaults=True)
        return file | {"recipe": self._recipe(), "seeds": list(seeds), "settings": settings, "methods": rows}


def _settings(given: dict[str, Any], place: tuple[str, ...]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Key, value and place of each setting; `rl: {steps: 8}` is taken as `rl.steps: 8`, beside the recipe's own."""
    for key, value in given.items():
        field = Recipe.model_fields.get(key)
        is_section = field and isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        if is_section and isinstance(value, dict):
            yield from ((f"{key}.{name}", inner, (*place, key, str(name))) for name, inner in value.items())
        else:
            yield key, value, (*place, key)


def _not_ours(key: str, where: str) -> None:
    if key in OURS:
        raise RecipeError(f"{where}: `{key}` is {OURS[key]} and cannot be a setting of an experiment; take it out.")


def _rows_hint(name: str, rows: dict[str, Cell]) -> str:
    return recipes.near(name, list(rows)) or f"rows are: {', '.join(rows)}."


def _no_twins(path: Path, rows: list[Cell]) -> None:
    """Raises RecipeError where two rows would be the same run under two names."""
    made = [_made(row) for row in rows]
    for (one, first), (other, second) in combinations(zip(rows, made, strict=True), 2):
        if first == second and one.match == other.match:
            raise RecipeError(
                f"{path}: the rows `{one.row}` and `{other.row}` would be the same run: they differ in no setting "
                f"that changes what method `{one.recipe.method}` makes; drop one or change it."
            )


def _made(row: Cell) -> dict[str, str]:
    """Digests of all stages that do not depend on the run's name."""
    return {stage: each.digest for stage, each in pipeline.identities(row.recipe).items() if stage != "report"}


def _with_seed(row: Cell, seed: int) -> Cell:
    recipe = row.recipe.model_copy(update={"seed": seed, "name": f"{row.row}-{seed}"})
    return Cell(row.row, seed, recipe, row.match)
