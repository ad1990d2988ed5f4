"""Budget forcing (paper §4): what more thinking gives, as a table and as accuracy against budget."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

from skillfactory.report.charts import Chart, Line, Point, share, spoken
from skillfactory.report.tables import (
    KIND_NAMES,
    Model,
    Table,
    at,
    figure,
    interval,
    items,
    kind_of,
    kinds_of,
    models_of,
    number,
    ordered_sets,
    points,
    run_columns,
)


def parts(runs: Sequence[dict[str, Any]]) -> list[Table | Chart | None]:
    """What the section holds; nothing where there was no forcing."""
    if not _any(runs):
        return []
    charts = [budget_chart(runs, kind) for kind in kinds_of(runs[0])]
    return [forcing_table(runs), *charts, forcing_table(runs, every=True)]


def _any(runs: Sequence[dict[str, Any]]) -> bool:
    return any(at(sets, name, "forced") for run in runs for _, sets in items(run, "forcing") for name, _ in items(sets))


def forcing_table(runs: Sequence[dict[str, Any]], every: bool = False) -> Table:
    """One row a model and set, at the largest budget; or `every` budget, with no rows where there is but one."""
    heads = run_columns(runs)
    rows = []
    for model in models_of(runs):
        for name in ordered_sets(runs[0]):
            cell = at(model.run, "forcing", model.name, name)
            budgets = sorted((b for b, _ in items(cell, "forced") if _budget(b) is not None), key=int)
            for budget in budgets[-1:] if not every else budgets if len(budgets) > 1 else ():
                forced = at(cell, "forced", budget)
                rows.append(
                    [
                        *model.cells, name, figure(_budget(budget), 0), interval(at(cell, "standard")),
                        interval(at(cell, "unforced", budget)), interval(forced),
                        points(at(cell, "forced_minus_standard", budget)),
                        points(at(cell, "forced_minus_unforced", budget)),
                        figure(number(forced, "mean_tokens"), 0),
                    ]
                )  # fmt: skip
    columns = [
        *heads, "set", "budget", "standard", "unforced", "forced", "forced − standard", "forced − unforced", "tokens",
    ]  # fmt: skip
    first = sorted({figure(value, 0) for run in runs for value in _firsts(run)})
    note = (
        f"Budgets in tokens; standard: the responses to {', '.join(first)} tokens. Unforced: as much room as the "
        "budget, but thinking ends where the model ends it. Forced: its end is taken away and it is made to go on. "
        "Differences in percentage points [95 % interval], paired by question, with p. Tokens: mean of the forced."
    )
    labels = len(heads) + 1
    title = "Standard, unforced and forced" + (", every budget" if every else "")
    return Table(title, columns, rows, note, labels=labels, folded=every)


def budget_chart(runs: Sequence[dict[str, Any]], kind: str) -> Chart | None:
    """Accuracy against budget, mean over the sets of a kind."""
    names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == kind]
    every = {b for model in models_of(runs) for name in names for b in _budgets(model, name)}
    budgets = sorted(every, key=int)
    lines = []
    for model in models_of(runs):
        for mode in ("forced", "unforced"):
            sets = [at(model.run, "forcing", model.name, name, mode) for name in names]
            found = [
                _mean(i, [at(cells, b) for cells in sets], f"{model.label}, {mode}, {int(b):,} tokens")
                for i, b in enumerate(budgets)
            ]
            known = [point for point in found if point]
            if known:
                lines.append(Line(f"{model.label}, {mode}", model.colour, known, dashed=mode == "unforced"))
    if not lines:
        return None
    title = f"Budget forcing: {KIND_NAMES[kind]}"
    note = "Mean over the sets, each of equal weight. The first budget is that of the standard responses."
    alt, ticks = spoken(f"{title}, in per cent", lines), [f"{int(budget):,}" for budget in budgets]
    return Chart(title, "lines", lines, alt, "% right [95 % interval]", "budget in tokens", ticks, note)


def _budgets(model: Model, name: str) -> set[str]:
    cell = at(model.run, "forcing", model.name, name)
    return {b for mode in ("unforced", "forced") for b, _ in items(cell, mode) if _budget(b) is not None}


def _mean(i: int, cells: Sequence[Any], what: str) -> Point | None:
    """The mean of sets, with the interval of a mean of independent ones; None where a set is unknown."""
    means = [number(cell, "mean") for cell in cells]
    known = [mean for mean in means if mean is not None]
    if not known or len(known) < len(means):
        return None
    mean = sum(known) / len(known)
    ends: list[float | None] = []
    for end, sign in (("low", -1), ("high", 1)):
        found = [value for cell in cells if (value := number(cell, end)) is not None]
        reach = sqrt(sum((value - each) ** 2 for value, each in zip(found, known, strict=False))) / len(known)
        ends.append(mean + sign * reach if len(found) == len(known) else None)
    return share(i, mean, what, *ends)


def _firsts(run: dict[str, Any]) -> set[float]:
    cells = [cell for _, sets in items(run, "forcing") for _, cell in items(sets)]
    return {first for cell in cells if (first := number(cell, "first")) is not None}


def _budget(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
