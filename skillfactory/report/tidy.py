"""The figures as CSV, for other programs: tidy (one observation a row, one figure a column), numbers in full.

Files are UTF-8 with a header; a figure that is unknown is an empty cell, a share is from 0 to 1. Names come from users,
and a spreadsheet takes a cell that starts with =, +, -, @, a tab or a carriage return for a formula: such a name gets a
single quote in front, as OWASP advises against "CSV injection". Numbers are never touched.
"""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.characters import clean
from skillfactory.report.comparison import Comparison
from skillfactory.report.tables import at, items, kind_of
from skillfactory.report.training import Rows

Row = dict[str, Any]
Runs = Sequence[dict[str, Any]]
_RUN = ("run", "method", "seed")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_COLUMNS: dict[str, tuple[str, ...]] = {  # those that a file has also without rows
    "accuracy": (*_RUN, "model", "set", "kind", "mode"),
    "accuracy_by_kind": (*_RUN, "model", "kind", "mode"),
    "pass_at_k": (*_RUN, "model", "set", "kind", "mode", "k"),
    "differences": (*_RUN, "model", "before", "set", "kind"),
    "differences_by_kind": (*_RUN, "model", "before", "kind"),
    "forcing": (*_RUN, "model", "set", "kind", "mode", "budget"),
    "skill_use": (*_RUN, "model", "set", "kind"),
    "by_answers": (*_RUN, "model", "set", "kind", "answers"),
    "training": (*_RUN, "stage", "step"),
    "curation": (*_RUN, "stage", "quantity", "value"),
    "cost": (*_RUN, "stage"),
    "to_reference": ("run", "reference", "model", "set", "kind"),
}


def write(
    folder: Path, runs: Runs, rl: Sequence[Rows], sft: Sequence[Rows], comparison: Comparison | None = None
) -> None:
    """Write one file a table into `folder`, each whole or not at all. Raises StoreError where the disk is full."""
    with files.told(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables(runs, rl, sft, comparison).items():
        files.write_atomic(folder / f"{name}.csv", as_csv(_COLUMNS[name], list(rows)).encode("utf-8", "replace"))


def tables(
    runs: Runs, rl: Sequence[Rows], sft: Sequence[Rows], comparison: Comparison | None = None
) -> dict[str, Iterator[Row]]:
    """The rows of each file."""
    found = {
        "accuracy": _accuracy(runs), "accuracy_by_kind": _by_kind(runs), "pass_at_k": _pass_at_k(runs),
        "differences": _differences(runs), "differences_by_kind": _differences_by_kind(runs),
        "forcing": _forcing(runs), "skill_use": _skill_use(runs), "by_answers": _by_answers(runs),
        "training": _training(runs, rl, sft), "curation": _curation(runs), "cost": _cost(runs),
    }  # fmt: skip
    return found | ({"to_reference": _to_reference(comparison)} if comparison else {})


def as_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows under a header: the given columns first, then all others in the order in which they come."""
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Text that no spreadsheet computes; numbers as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float | type(None)):
        text = str(value)
        return ("'" if text.lstrip(" ").startswith(_FORMULA) else "") + clean(text)
    return value


def _run(run: dict[str, Any]) -> Row:
    facts = at(run, "run")
    return {"run": at(facts, "label") or at(facts, "name"), "method": at(facts, "method"), "seed": at(facts, "seed")}


def flat(cell: Any, prefix: str = "") -> Row:
    """Numbers of nested figures, under their joined names."""
    row: Row = {}
    for key, value in items(cell):
        if isinstance(value, dict):
            row |= flat(value, f"{prefix}{key}_")
        elif isinstance(value, int | float | type(None)):
            row[prefix + key] = value
    return row


def _cells(runs: Runs, key: str) -> Iterator[tuple[dict[str, Any], Row, Any]]:
    """(metrics, first columns, what stands there) of each model and set."""
    for run in runs:
        for model, sets in items(run, key):
            for name, cell in items(sets):
                yield run, {**_run(run), "model": model, "set": name, "kind": kind_of(run, name)}, cell


def _accuracy(runs: Runs) -> Iterator[Row]:
    for _, first, modes in _cells(runs, "accuracy"):
        for mode, cell in items(modes):
            kept = {key: value for key, value in items(cell) if key not in ("reasons", "pass_at_k")}
            yield {**first, "mode": mode, **flat(kept)}


def _pass_at_k(runs: Runs) -> Iterator[Row]:
    for _, first, modes in _cells(runs, "accuracy"):
        for mode, cell in items(modes):
            for k, value in items(cell, "pass_at_k"):
                yield {**first, "mode": mode, "k": int(k) if k.isdecimal() else k, **flat(value)}


def _by_kind(runs: Runs) -> Iterator[Row]:
    for run in runs:
        for model, kinds in items(run, "accuracy_by_kind"):
            for kind, modes in items(kinds):
                for mode, cell in items(modes):
                    yield {**_run(run), "model": model, "kind": kind, "mode": mode, **flat(cell)}


def _differences(runs: Runs) -> Iterator[Row]:
    for run in runs:
        for model, befores in items(run, "differences"):
            for before, sets in items(befores):
                for name, cell in items(sets):
                    first = {"model": model, "before": before, "set": name, "kind": kind_of(run, name)}
                    yield {**_run(run), **first, **flat(cell)}


def _differences_by_kind(runs: Runs) -> Iterator[Row]:
    for run in runs:
        for model, befores in items(run, "differences_by_kind"):
            for before, kinds in items(befores):
                for kind, cell in items(kinds):
                    yield {**_run(run), "model": model, "before": before, "kind": kind, **flat(cell)}


def _forcing(runs: Runs) -> Iterator[Row]:
    for _, first, cell in _cells(runs, "forcing"):
        yield {**first, "mode": "standard", "budget": at(cell, "first"), **flat(at(cell, "standard"))}
        for mode in ("unforced", "forced"):
            for budget, figures in items(cell, mode):
                row = {**first, "mode": mode, "budget": int(budget) if budget.isdecimal() else budget, **flat(figures)}
                if mode == "forced":
                    for other in ("standard", "unforced"):
                        row |= flat(at(cell, f"forced_minus_{other}", budget), f"minus_{other}_")
                yield row


def _skill_use(runs: Runs) -> Iterator[Row]:
    for _, first, use in _cells(runs, "skill_use"):
        yield {**first, **flat({key: value for key, value in items(use) if key != "by_answers"})}


def _by_answers(runs: Runs) -> Iterator[Row]:
    for _, first, use in _cells(runs, "skill_use"):
        for answers, cell in items(use, "by_answers"):
            yield {**first, "answers": int(answers) if answers.isdecimal() else answers, **flat(cell)}


def _training(runs: Runs, rl: Sequence[Rows], sft: Sequence[Rows]) -> Iterator[Row]:
    for run, *stages in zip(runs, sft, rl, strict=True):
        for stage, rows in zip(("sft", "rl"), stages, strict=True):
            for row in rows:
                yield {**_run(run), "stage": stage, **row}


def _curation(runs: Runs) -> Iterator[Row]:
    for run in runs:
        for stage, facts in items(run, "curation"):
            for quantity, value in flat(facts if isinstance(facts, dict) else {stage: facts}).items():
                yield {**_run(run), "stage": stage, "quantity": quantity, "value": value}


def _cost(runs: Runs) -> Iterator[Row]:
    for run in runs:
        for stage, facts in items(run, "cost"):
            yield {**_run(run), "stage": stage, **flat(facts)}


def _to_reference(comparison: Comparison) -> Iterator[Row]:
    """Every run minus the reference; without a set: the mean over the sets of a kind."""
    first = comparison.metrics[0]
    for source, key in ((comparison.differences_by_kind, "kind"), (comparison.differences, "set")):
        for model, rows in source.items():
            for label, groups in rows.items():
                for group, cell in groups.items():
                    place = (
                        {"set": group, "kind": kind_of(first, group)} if key == "set" else {"set": "", "kind": group}
                    )
                    yield {"run": label, "reference": comparison.reference, "model": model, **place, **flat(cell)}
