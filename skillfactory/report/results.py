"""How well models answer: the paper's table, accuracy by set, differences, pass@k, lengths; and their figures."""

from collections.abc import Sequence
from typing import Any

from skillfactory.report.charts import Chart, Line, Point, share, spoken
from skillfactory.report.tables import (
    KIND_NAMES,
    MISSING,
    Model,
    Table,
    at,
    figure,
    interval,
    items,
    kind_of,
    kinds_of,
    model_name,
    models_of,
    number,
    ordered_sets,
    percent,
    points,
    run_columns,
    run_label,
    set_headers,
)

Runs = Sequence[dict[str, Any]]  # metrics of each run
_MODES = {"sampled": "", "greedy": ", greedy"}
CORRECTED = (
    "Percentage points [95 % interval], paired by question (t-test), sampled responses. In brackets: p corrected"
)


def parts(runs: Runs) -> list[Table | Chart | None]:
    """What the section on accuracy holds."""
    return [
        kind_table(runs),
        easy_to_hard(runs),
        robustness(runs),
        lengths_chart(runs),
        accuracy_table(runs),
        kind_differences_table(runs),
        differences_table(runs),
        pass_table(runs),
        length_table(runs),
    ]


def kind_table(runs: Runs) -> Table:
    """One row a model, one column a kind of question: the paper's table of results."""
    kinds = kinds_of(runs[0])
    sizes = [[name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == kind] for kind in kinds]
    groups = tuple(f"{len(names)} set{'s' if len(names) > 1 else ''}" for names in sizes)
    rows = [
        [*_cells(model, ending), *(interval(at(model.run, "accuracy_by_kind", model.name, k, mode)) for k in kinds)]
        for model in models_of(runs)
        for mode, ending in _MODES.items()
        if any(at(model.run, "accuracy_by_kind", model.name, k, mode) for k in kinds)
    ]
    heads = run_columns(runs)
    note = "Per cent of responses that are right [95 % interval over questions]; every set of a kind has equal weight."
    columns = [*heads, *(KIND_NAMES[kind] for kind in kinds)]
    return Table("Accuracy by kind of question", columns, rows, note, ("",) * len(heads) + groups, len(heads))


def accuracy_table(runs: Runs) -> Table:
    """One row a model and mode, one column a set."""
    names, kinds = set_headers(runs[0])
    rows = [
        [*_cells(model, ending), *(interval(at(model.run, "accuracy", model.name, n, mode)) for n in names)]
        for model in models_of(runs)
        for mode, ending in _MODES.items()
        if any(at(model.run, "accuracy", model.name, n, mode) for n in names)
    ]
    asked = ", ".join(f"{n} {figure(number(runs[0], 'sets', n, 'n_questions'), 0)}" for n in names)
    note = f"Per cent of responses that are right [95 % interval over questions]. Questions: {asked}."
    if lost := lost_responses(runs):
        note += f" Left out: {lost:,} responses that could not be made or checked."
    heads = run_columns(runs)
    return Table("Accuracy by set", [*heads, *names], rows, note, ("",) * len(heads) + kinds, len(heads))


def lost_responses(runs: Runs) -> int:
    """How many responses were not scored."""
    models = [sets for run in runs for _, sets in items(run, "accuracy")]
    cells = [cell for sets in models for _, modes in items(sets) for _, cell in items(modes)]
    return int(sum(number(cell, "not_scored") or 0 for cell in cells))


def kind_differences_table(runs: Runs) -> Table:
    """Paired differences between the models of a run, by kind of question."""
    kinds = kinds_of(runs[0])
    columns = [KIND_NAMES[kind] for kind in kinds]
    note = f"{CORRECTED} for the kinds of a row (Holm)."
    return _differences("Differences by kind of question", runs, "differences_by_kind", kinds, columns, note)


def differences_table(runs: Runs) -> Table:
    """Paired differences between the models of a run, by set."""
    names, kinds = set_headers(runs[0])
    note = f"{CORRECTED} for the sets of a row (Holm)."
    return _differences("Differences by set", runs, "differences", names, names, note, kinds)


def _differences(
    title: str, runs: Runs, key: str, groups: Sequence[str], columns: Sequence[str], note: str,
    heads: tuple[str, ...] = (),
) -> Table:  # fmt: skip
    several = len(runs) > 1
    rows = [
        [
            *([run_label(run)] if several else []),
            f"{model_name(after)} − {model_name(before)}",
            *(points(at(cells, group)) for group in groups),
        ]
        for run in runs
        for after, befores in items(run, key)
        for before, cells in items(befores)
        if any(at(cells, group) for group in groups)
    ]
    labels = 1 + several
    above = ("",) * labels + (heads or ("",) * len(columns))
    return Table(title, [*(["run"] if several else []), "models", *columns], rows, note, above, labels, folded=several)


def pass_table(runs: Runs) -> Table:
    """Chance that one of k responses or more is right; no rows where there is but one response a question."""
    names, kinds = set_headers(runs[0])
    heads = run_columns(runs)
    rows = []
    for model in models_of(runs):
        cells = {name: dict(items(model.run, "accuracy", model.name, name, "sampled", "pass_at_k")) for name in names}
        ks = sorted({int(k) for found in cells.values() for k in found if k.isdecimal()})
        if ks and ks[-1] > 1:
            rows += [[*model.cells, str(k), *(_with_error(cells[name].get(str(k))) for name in names)] for k in ks]
    note = "Per cent ± standard error over questions, unbiased (Chen et al. 2021)."
    labels = len(heads) + 1
    columns = [*heads, "k", *names]
    return Table("pass@k", columns, rows, note, ("",) * labels + kinds, labels, folded=len(rows) > 12)


def length_table(runs: Runs) -> Table:
    """Tokens of sampled responses, of right and of wrong ones, and what was cut or without an answer."""
    heads = run_columns(runs)
    rows = []
    for model in models_of(runs):
        for name in ordered_sets(runs[0]):
            cell = at(model.run, "accuracy", model.name, name, "sampled")
            use = at(model.run, "skill_use", model.name, name)
            if cell:
                tokens = [number(cell, "mean_tokens"), *(number(cell, "tokens", q) for q in ("5", "50", "95"))]
                tokens += [number(use, f"tokens_{which}", "50") for which in ("right", "wrong")]
                shares = [percent(number(cell, key)) for key in ("truncated", "no_answer")]
                rows.append([*model.cells, name, *(figure(value, 0) for value in tokens), *shares])
    columns = [*heads, "set", "mean", "5 %", "median", "95 %", "right", "wrong", "cut %", "no answer %"]
    groups = ("",) * (len(heads) + 1) + ("tokens",) * 4 + ("median tokens",) * 2 + ("", "")
    note = "Sampled responses. Cut: at the limit of evaluation.max_tokens."
    return Table("Length of responses", columns, rows, note, groups, len(heads) + 1, folded=True)


def easy_to_hard(runs: Runs) -> Chart | None:
    """Accuracy on the trained level and on the harder ones."""
    names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) != "other"]
    lines = []
    for model in models_of(runs):
        cells = [(i, name, at(model.run, "accuracy", model.name, name, "sampled")) for i, name in enumerate(names)]
        found = [
            share(i, mean, f"{model.label}, {name}", number(cell, "low"), number(cell, "high"))
            for i, name, cell in cells
            if (mean := number(cell, "mean")) is not None
        ]
        if found:
            lines.append(Line(model.label, model.colour, found))
    if not lines:
        return None
    title = "Accuracy from easy to hard"
    alt = spoken(f"{title}, in per cent by evaluation set", lines)
    return Chart(title, "lines", lines, alt, "% right [95 % interval]", ticks=names)


def robustness(runs: Runs) -> Chart | None:
    """What training did to other tasks: change against the base, by set."""
    names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == "other"]
    lines = []
    for model in models_of(runs):
        cells = [(i, name, at(model.run, "differences", model.name, "base", name)) for i, name in enumerate(names)]
        found = [
            _change(i, cell, f"{model.label}, {name}") for i, name, cell in cells if number(cell, "mean") is not None
        ]
        if found:
            lines.append(Line(model.label, model.colour, found))
    if not lines:
        return None
    title = "Other tasks: change against the base"
    alt = spoken(f"{title}, in percentage points", lines)
    return Chart(title, "bars", lines, alt, "percentage points [95 % interval]", ticks=names)


def differences_chart(title: str, rows: dict[str, Any], runs: Runs) -> Chart | None:
    """Differences by kind of question. `rows`: {label: {kind: difference}}."""
    kinds = kinds_of(runs[0])
    colours = {model.label: model.colour for model in models_of(runs)}
    lines: list[Line] = []
    for label, cells in rows.items():
        known = [(i, kind) for i, kind in enumerate(kinds) if number(cells, kind, "mean") is not None]
        found = [_change(i, at(cells, kind), f"{label}, {KIND_NAMES[kind]}") for i, kind in known]
        if found:
            lines.append(Line(label, colours.get(label, len(lines)), found))
    if not lines:
        return None
    ticks = [KIND_NAMES[kind] for kind in kinds]
    alt = spoken(f"{title}, in percentage points", lines)
    return Chart(title, "bars", lines, alt, "percentage points [95 % interval]", ticks=ticks)


def lengths_chart(runs: Runs) -> Chart | None:
    """Length distributions of sampled responses, by set."""
    names = ordered_sets(runs[0])
    lines = []
    for model in models_of(runs):
        cells = [(i, name, at(model.run, "accuracy", model.name, name, "sampled")) for i, name in enumerate(names)]
        found = [point for i, name, cell in cells if (point := _box(i, cell, f"{model.label}, {name}"))]
        if found:
            lines.append(Line(model.label, model.colour, found))
    if not lines:
        return None
    title = "Length of responses"
    note = "Mark: median. Thick: the middle half of responses. Thin: from the 5th to the 95th percentile."
    return Chart(title, "boxes", lines, spoken(f"{title}, by evaluation set", lines), "tokens", ticks=names, note=note)


def _box(i: int, cell: Any, what: str) -> Point | None:
    """The percentiles of lengths; None where one is unknown."""
    cuts = [cut for q in ("5", "25", "50", "75", "95") if (cut := number(cell, "tokens", q)) is not None]
    if len(cuts) < 5:
        return None
    low, first, median, third, high = cuts
    tip = f"{what}: median {median:.0f} tokens, half from {first:.0f} to {third:.0f}, 90 % from {low:.0f} to {high:.0f}"
    return Point(i, median, tip, low, high, (first, third))


def _change(i: int, cell: Any, what: str) -> Point:
    mean, low, high = (None if (end := number(cell, key)) is None else 100 * end for key in ("mean", "low", "high"))
    return Point(i, mean or 0.0, f"{what}: {points(cell, ' points', ' ')}", low, high)


def _cells(model: Model, ending: str) -> list[str]:
    return [*model.cells[:-1], model.cells[-1] + ending]


def _with_error(cell: Any) -> str:
    mean, se = number(cell, "mean"), number(cell, "se")
    text = percent(mean)
    return text if text == MISSING or se is None else f"{text} ± {percent(se)}"
