"""Tables as plain text cells, the same for the terminal, the page and Markdown; and how figures are written in them.

Metrics are read through `at`, `number` and `items`, which take what is missing for unknown: a report is also made of
what is half there.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skillfactory.characters import clean

KIND_NAMES = {"in_domain": "in domain", "harder": "harder", "other": "other task"}
MODEL_NAMES = {"base": "base", "sft": "SFT", "rl": "RL"}
MISSING = "–"
ALL = "(all)"  # in place of a run's name, where a row holds for every run


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text. `groups`: kinds of the columns or "". The first `labels` columns are words, the rest figures.

    `folded`: long and for reference; the page shows it closed.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    groups: tuple[str, ...] = ()
    labels: int = 1
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """One model of one run: its name in metrics, the words that stand for it in tables and in figures, its colour."""

    run: dict[str, Any]
    name: str
    cells: list[str]
    label: str
    colour: int


def models_of(runs: Sequence[dict[str, Any]]) -> list[Model]:
    """The models of all runs, in order, without the kept RL steps. A base that fared alike everywhere stands once."""
    found: list[Model] = []
    several = len(runs) > 1
    bases = [at(run, "accuracy", "base") for run in runs]
    shared = several and bases[0] is not None and all(base == bases[0] for base in bases)
    for run in runs:
        for name, _ in items(run, "accuracy"):
            if kept_step(name) is not None or (name == "base" and shared and run is not runs[0]):
                continue
            everyone = name == "base" and shared
            words = model_name(name)
            cells = [*([ALL if everyone else run_label(run)] if several else []), words]
            label = f"{run_label(run)}, {words}" if several and not everyone else words
            # In the page of one run SFT and RL look alike whichever of them there is.
            fixed = list(MODEL_NAMES).index(name) if name in MODEL_NAMES and not several else None
            others = sum(model.name not in MODEL_NAMES for model in found)
            colour = fixed if fixed is not None else len(found) if several else len(MODEL_NAMES) + others
            found.append(Model(run, name, cells, label, colour))
    return found


def model_name(name: str) -> str:
    """How a model of a run is called: "RL", "RL step 50", "RL of round 1", or the name that the recipe gives it."""
    step = kept_step(name)
    stage, _, number = name.partition("-")
    if stage in MODEL_NAMES and number.isdecimal():
        return f"{MODEL_NAMES[stage]} of round {number}"
    return MODEL_NAMES.get(name, name) if step is None else f"RL step {step}"


def kept_step(name: str) -> int | None:
    """50 for "rl@50"; None for a model that is no kept RL step."""
    step = name.removeprefix("rl@")
    return int(step) if step != name and step.isdecimal() else None


def run_columns(runs: Sequence[Any]) -> list[str]:
    """The first columns of a table of models."""
    return ["run", "model"] if len(runs) > 1 else ["model"]


def at(data: Any, *path: str) -> Any:
    """What stands under a path of keys; None where any part of it is missing."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def number(data: Any, *path: str) -> float | None:
    """The finite number under a path; None where there is none."""
    value = at(data, *path)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None


def items(data: Any, *path: str) -> list[tuple[str, Any]]:
    """Names and contents under a path; nothing where it is missing."""
    value = at(data, *path)
    return list(value.items()) if isinstance(value, dict) else []


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage without its sign: .125 is "12.5"."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def interval(cell: Any) -> str:
    """A share and its 95 % interval in per cent: "12.5 [10.1, 14.9]"."""
    low, high = number(cell, "low"), number(cell, "high")
    text = percent(number(cell, "mean"))
    return text if text == MISSING or low is None or high is None else f"{text} [{percent(low)}, {percent(high)}]"


def signed(value: float) -> str:
    """A difference of shares in percentage points: "+12.5", "−3.0"; never "−0.0"."""
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def points(cell: Any, unit: str = "", gap: str = "\n") -> str:
    """A difference in percentage points, its 95 % interval and its p-value (in brackets corrected), `gap` between."""
    mean, low, high = number(cell, "mean"), number(cell, "low"), number(cell, "high")
    if mean is None:
        return MISSING
    parts = [signed(mean) + unit]
    if low is not None and high is not None:
        parts.append(f"[{signed(low)}, {signed(high)}]")
    p, corrected = number(cell, "p"), number(cell, "p_adjusted")
    if p is not None:
        more = f" ({p_value(corrected).removeprefix('p ').removeprefix('= ')})" if corrected is not None else ""
        parts.append(p_value(p) + more)
    return gap.join(parts)


def p_value(p: float) -> str:
    """ "p = .012", "p < .001"."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def figure(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; a dash where it is unknown."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def kind_of(metrics: dict[str, Any], name: str) -> str:
    """The kind of a set."""
    kind = at(metrics, "sets", name, "kind")
    return kind if isinstance(kind, str) and kind in KIND_NAMES else "in_domain"


def ordered_sets(metrics: dict[str, Any]) -> list[str]:
    """Sets by kind: in domain, harder, other; within a kind as the recipe lists them."""
    names = [name for name, _ in items(metrics, "sets")]
    return sorted(names, key=lambda name: list(KIND_NAMES).index(kind_of(metrics, name)))


def set_headers(metrics: dict[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """The sets as column names, and the kind of each."""
    names = ordered_sets(metrics)
    return names, tuple(KIND_NAMES[kind_of(metrics, name)] for name in names)


def kinds_of(metrics: dict[str, Any]) -> list[str]:
    """The kinds that there are sets of, in order."""
    present = {kind_of(metrics, name) for name in ordered_sets(metrics)}
    return [kind for kind in KIND_NAMES if kind in present]


def run_label(metrics: dict[str, Any]) -> str:
    """A run's name, with its method where the name does not say it."""
    if label := at(metrics, "run", "label"):  # set where runs stand side by side
        return str(label)
    name, method = str(at(metrics, "run", "name") or "run"), str(at(metrics, "run", "method") or "")
    return name if method in name else f"{name} ({method})"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, under a heading. Names stay text: no HTML, links or code come of them."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(plain, cells)) + " |"

    columns = [
        f"{column} ({group})" if group else column
        for column, group in zip(table.columns, table.groups or ("",) * len(table.columns), strict=True)
    ]
    marks = ["---" if i < table.labels else "---:" for i in range(len(table.columns))]
    lines = [f"### {plain(table.title)}", "", line(columns), line(marks), *map(line, table.rows), "", plain(table.note)]
    return "\n".join(lines).rstrip() + "\n"


def plain(text: str) -> str:
    """Text as one line of Markdown that shows just that."""
    return re.sub(r"[\\|<&`*~]|(?<=\])\(", r"\\\g<0>", " ".join(clean(text).split()))
