"""All figures of an experiment in one plain dict: what its `metrics.json` holds, and its tables and page come from.

experiment     name, reference, version
rows           of each row, figures over seeds in the shape of a run's metrics; the first holds the shared base
differences    final model of each row minus that of the reference, by set; differences_by_kind: by kind
ablations      SkillFactory minus each ablation, by set; ablations_by_kind
robustness     each trained model minus its base, on other tasks, by set; robustness_by_kind
claims         the paper's claims (claims.py)
curves         of RL, by row: mean, least and most over seeds at each step
cost, time     by row (shares.py)
settings       in which rows differ
cells          each finished cell's own accuracy;  failures: those that did not finish
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import skillfactory
from skillfactory.evaluation import across
from skillfactory.evaluation.summary import read_jsonl, to_plain
from skillfactory.report import shares
from skillfactory.report.claims import ABLATIONS, claims, row_of
from skillfactory.report.experiment_rows import BASE, Cell, Measured, difference_cells, figures, read, sets_of
from skillfactory.report.same import differing_settings
from skillfactory.report.tables import ALL, KIND_NAMES
from skillfactory.rounds import stage_of

if TYPE_CHECKING:
    from skillfactory.report.experiment import Given

CURVES = ("reward", "length")
Groups = Mapping[str, Sequence[str]]


def measure(given: "Given") -> dict[str, Any]:
    """The metrics of an experiment, of whatever cells have finished."""
    rows = [read(row) for row in given.rows if row.runs]
    reference = next((row for row in rows if row.label == given.reference), None)
    by_kind, by_set = groups_of(rows)
    base = shared_base(rows)
    shown = [figures(row, base=row.label not in base.shared_by) for row in rows]
    first = figures(base.row, base=True) | {"sets": sets_of(rows), "training": {}}
    for key in ("forcing", "forcing_by_kind"):
        _correct_forcing([first, *shown], key)
    metrics = {
        "experiment": {
            "name": given.name,
            "reference": given.reference,
            "version": skillfactory.__version__,
            "rows": [{"label": row.label, "method": row.method, "seeds": sorted(row.runs)} for row in given.rows],
        },
        "rows": [first, *shown],
        "differences": _to_reference(rows, reference, by_set),
        "differences_by_kind": _to_reference(rows, reference, by_kind),
        "ablations": _ablations(rows, by_set),
        "ablations_by_kind": _ablations(rows, by_kind),
        "robustness": _robustness(rows, by_set),
        "robustness_by_kind": _robustness(rows, by_kind),
        "claims": [claim.facts() for claim in claims(rows, given.reference)],
        "curves": {row.label: _curves(row) for row in rows},
        "cost": {row.label: shares.cost_of(row) for row in rows},
        "time": shares.wall_time(rows, given.log),
        "settings": _settings(rows),
        "notes": _notes(rows, reference),
        "cells": [_cell(row.label, row.method, seed, cell) for row in rows for seed, cell in row.cells.items()],
        "failures": [
            {"cell": each.cell, "why": each.why, "log": each.log, "retry": each.retry} for each in given.failures
        ],
    }
    plain: dict[str, Any] = to_plain(metrics)
    return plain


@dataclass(frozen=True, slots=True)
class Base:
    """The base model of most rows, as one row of its own, and the labels of those whose base it is."""

    row: Measured
    shared_by: frozenset[str]


def shared_base(rows: Sequence[Measured]) -> Base:
    """The base model that most rows start from, asked alike, over the seeds of all these rows."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for row in rows:
        groups.setdefault(_base_of(row), []).append(row)
    same = max(groups.values(), key=len, default=[])
    cells: dict[int, Cell] = {}
    for row in same:
        for seed, cell in row.cells.items():
            own = {key: means for key, means in cell.scores.items() if key[0] == BASE}
            if own and (seed not in cells or len(own) > len(cells[seed].scores)):  # some rows are also forced
                cells[seed] = Cell(cell.run, cell.metrics, own)
    kinds = same[0].kinds if same else {}
    return Base(Measured(ALL, "", cells, kinds), frozenset(row.label for row in same))


def _base_of(row: Measured) -> tuple[str, ...]:
    """What tells one base model from another, and how it was asked."""
    run = next(iter(row.cells.values())).run
    settings = run.manifest("evaluation").get("settings") or {}
    contents = [str(settings.get(f"{key} (content)", "")) for key in ("model", "attempts.prompts")]
    asked = run.recipe.evaluation.model_dump_json(exclude={"models", "forcing", "greedy"})
    return run.recipe.model, run.recipe.revision, str(run.recipe.attempts.instruct), asked, *contents


def groups_of(rows: Sequence[Measured]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The sets of each kind, and each set by itself."""
    kinds: dict[str, str] = {}
    for row in rows:
        kinds = row.kinds | kinds
    by_kind = {kind: [name for name, each in kinds.items() if each == kind] for kind in KIND_NAMES}
    return {kind: names for kind, names in by_kind.items() if names}, {name: [name] for name in kinds}


def _to_reference(rows: Sequence[Measured], reference: Measured | None, groups: Groups) -> dict[str, Any]:
    """{label: {group: final model minus the reference's}}, corrected for all of these."""
    if not reference:
        return {}
    theirs = {group: reference.scores(reference.final, names) for group, names in groups.items()}
    found = {
        row.label: difference_cells(
            {group: across.paired(row.scores(row.final, names), theirs[group]) for group, names in groups.items()}
        )
        for row in rows
        if row is not reference
    }
    return _corrected(found)


def _ablations(rows: Sequence[Measured], groups: Groups) -> dict[str, Any]:
    """{label: {group: SkillFactory minus that ablation}}, corrected for all of these."""
    ours = row_of(rows, "skillfactory")
    if not ours:
        return {}
    found = {}
    for row in rows:
        if row.method in ABLATIONS:
            both = {g: (ours.scores(ours.final, names), row.scores(row.final, names)) for g, names in groups.items()}
            found[row.label] = difference_cells({group: across.paired(*pair) for group, pair in both.items()})
    return _corrected(found)


def _robustness(rows: Sequence[Measured], groups: Groups) -> dict[str, Any]:
    """{label: {model: {group: change against the base}}} on other tasks, corrected for all of these."""
    found: dict[str, Any] = {}
    for row in rows:
        for model in row.models:
            if not row.is_fixed(model):
                names = {group: [n for n in names if row.kinds.get(n) == "other"] for group, names in groups.items()}
                changes = {group: row.change(model, each) for group, each in names.items() if each}
                if cells := difference_cells(changes):
                    found.setdefault(row.label, {})[model] = cells
    across.corrected([cell for models in found.values() for cells in models.values() for cell in cells.values()])
    return found


def _correct_forcing(rows: Sequence[dict[str, Any]], key: str) -> None:
    """Correct the differences of forcing for all of these."""
    places = [cell for row in rows for models in row[key].values() for cell in models.values()]
    lines = [cell[f"forced_minus_{other}"] for cell in places for other in ("standard", "unforced")]
    across.corrected([difference for line in lines for difference in line.values()])


def _corrected(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same with p-values corrected for all of these, without rows that have none."""
    across.corrected([cell for cells in found.values() for cell in cells.values()])
    return {label: cells for label, cells in found.items() if cells}


def _curves(row: Measured) -> dict[str, Any]:
    """{RL stage: [{step, and of each figure mean, low, high over seeds}]}, at the steps that all seeds have."""
    found: dict[str, Any] = {}
    names = {stage for cell in row.cells.values() for stage in shares.manifests(cell.run) if stage_of(stage) == "rl"}
    for stage in sorted(names, key=lambda name: (name == "rl", name)):
        each = [read_jsonl(cell.run.path / stage / "metrics.jsonl") for cell in row.cells.values()]
        by_step = [{line["step"]: line for line in lines if "step" in line} for lines in each if lines]
        steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
        found[stage] = [{"step": step} | _spread([lines[step] for lines in by_step]) for step in steps]
    return {stage: lines for stage, lines in found.items() if lines}


def _spread(lines: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in CURVES:
        values = [line[key] for line in lines if key in line]
        if values:
            found[key] = {
                "mean": sum(values) / len(values),
                "low": min(values),
                "high": max(values),
                "n_seeds": len(values),
            }
    return found


def _settings(rows: Sequence[Measured]) -> dict[str, Any]:
    """{setting: {label: value}} of all in which the rows' recipes differ, by the first seed of each."""
    runs = [next(iter(row.cells.values())).run for row in rows]
    found = differing_settings(runs) if len(runs) > 1 else []
    return {key: dict(zip([row.label for row in rows], values, strict=True)) for key, *values in found if key != "seed"}


def _notes(rows: Sequence[Measured], reference: Measured | None) -> list[str]:
    """What makes the rows less comparable than they look."""
    notes = []
    seeds = max((len(row.cells) for row in rows), default=0)
    if seeds == 1:
        notes.append("One seed: intervals cover questions alone, not how another training would come out.")
    if seeds == 2:
        notes.append(
            "Two seeds tell little of how trainings differ, so that intervals are long; more shorten them fast."
        )
    return notes + (_unlike(rows, reference) if reference else [])


def _unlike(rows: Sequence[Measured], reference: Measured) -> list[str]:
    """Which rows were run with other seeds than the reference, or were asked other questions."""
    notes = []
    lacking: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        if seeds := tuple(sorted(set(reference.cells) ^ set(row.cells))):
            lacking.setdefault(seeds, []).append(row.label)
        names = list(row.kinds)
        scores = [each.scores(each.final, names) for each in (row, reference)]
        ours, theirs = ({s: sets for s, sets in each.items() if s not in seeds} for each in scores)
        shared, asked = _size(across.paired(ours, theirs)), max(_size(ours), _size(theirs))
        if shared < asked:
            notes.append(
                f"{row.label} and {reference.label} were not asked the same: differences are over the {shared:,} of "
                f"{asked:,} questions that they share."
            )
    for seeds, labels in lacking.items():
        said = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        notes.append(f"Differences to {reference.label} leave out {said}, which it or they lack: {', '.join(labels)}.")
    return notes


def _size(scores: across.Scores) -> int:
    return sum(len(questions) for sets in scores.values() for questions in sets.values())


def _cell(label: str, method: str, seed: int, cell: Cell) -> dict[str, Any]:
    """One cell's own figures, as its report has them."""
    kept = {key: cell.metrics.get(key) for key in ("sets", "accuracy", "cost")}
    return {"run": {"name": label, "label": label, "method": method, "seed": seed}} | kept
