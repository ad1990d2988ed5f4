"""Budget forcing (paper §4): what more thinking gives, as a table and as accuracy against budget."""

from collections.abc import Sequence
from typing import Any

from skillfactory.report.charts import Chart, Line, share, spoken
from skillfactory.report.tables import (
    KIND_NAMES,
    Model,
    Table,
    at,
    figure,
    interval,
    items,
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
    lines = []
    budgets = sorted({budget for model in models_of(runs) for _, budget, _ in _cells(model, kind)})
    for model in models_of(runs):
        for line in ("forced", "unforced"):
            found = [
                share(budgets.index(budget), mean, f"{model.label}, {line}, {budget:,} tokens", low, high)
                for mode, budget, cell in _cells(model, kind)
                if mode == line and (mean := number(cell, "mean")) is not None
                for low, high in [(number(cell, "low"), number(cell, "high"))]
            ]
            if found:
                lines.append(Line(f"{model.label}, {line}", model.colour, found, dashed=line == "unforced"))
    if not lines:
        return None
    title = f"Budget forcing: {KIND_NAMES[kind]}"
    note = "Mean over the sets, each of equal weight. The first budget is that of the standard responses."
    alt, ticks = spoken(f"{title}, in per cent", lines), [f"{budget:,}" for budget in budgets]
    return Chart(title, "lines", lines, alt, "% right [95 % interval]", "budget in tokens", ticks, note)


def _cells(model: Model, kind: str) -> list[tuple[str, int, Any]]:
    """(forced or unforced, budget, accuracy) of a model on the sets of a kind, budgets rising."""
    found = []
    for mode, cell in items(model.run, "accuracy_by_kind", model.name, kind):
        line, _, budget = mode.partition("-")
        if line in ("forced", "unforced") and _budget(budget) is not None:
            found.append((line, int(budget), cell))
    return sorted(found, key=lambda each: each[1])


def _firsts(run: dict[str, Any]) -> set[float]:
    cells = [cell for _, sets in items(run, "forcing") for _, cell in items(sets)]
    return {first for cell in cells if (first := number(cell, "first")) is not None}


def _budget(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
