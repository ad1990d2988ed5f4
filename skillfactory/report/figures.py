"""Figures as inline SVG: no script, no network, colours that follow the page's light or dark scheme."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

from skillfactory.report.tables import MODEL_NAMES, clean, ordered_sets, percent

# Written by matplotlib, replaced below by colours that the page's style sheet sets.
_INK = "#010203"
_SERIES = ["#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08"]
_MARKERS, _DASHES = "osD^vP*X", ["-", "--", "-.", ":"]  # lines differ in more than colour
BASE, SFT, RL = 0, 1, 2  # the colours of the models of one run
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "skillfactory", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": _INK, "axes.edgecolor": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "legend.frameon": False, "axes.grid": True,
    "grid.color": _INK, "grid.alpha": 0.15, "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a figure: y over x, with error bars where there are `errors`. `colour` is an index of _SERIES."""

    label: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A title, the SVG itself (safe to insert as it is) and the words that say what it shows."""

    title: str
    svg: str
    alt: str


def accuracy_figure(series: Sequence[tuple[str, dict[str, Any], int]], metrics: dict[str, Any]) -> Figure | None:
    """Accuracy from easy to hard. `series`: (label, {set: {mode: figures}}, colour); None without any figures."""
    names = ordered_sets(metrics)
    lines, said = [], []
    for label, sets, colour in series:
        cells = [(i, sets.get(name, {}).get("sampled", {})) for i, name in enumerate(names)]
        found = [(i, cell) for i, cell in cells if cell.get("mean") is not None]
        if found:
            x: list[float] = []
            y: list[float] = []
            errors: list[float] = []
            for i, cell in found:
                if metrics["sets"][names[i]]["kind"] == "other":  # not harder than the set before: no line leads there
                    x, y, errors = [*x, i], [*y, math.nan], [*errors, math.nan]
                x, y, errors = [*x, i], [*y, 100 * cell["mean"]], [*errors, 100 * (cell["se"] or 0.0)]
            lines.append(Line(label, colour, x, y, errors))
            said.append(f"{label}: " + ", ".join(f"{names[i]} {percent(c['mean'])}" for i, c in found))
    if not lines:
        return None
    alt = "Accuracy in per cent by evaluation set. " + ". ".join(said) + "."
    return _figure("Accuracy from easy to hard", lines, alt, "% right (± standard error)", ticks=names)


def curve(title: str, key: str, series: Sequence[tuple[str, list[dict[str, float]], int]], label: str) -> Figure | None:
    """A training figure over steps. `series`: (label, lines of metrics.jsonl, colour); None where no line has it."""
    lines, said = [], []
    for name, rows, colour in series:
        found = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
        if found:
            lines.append(Line(name, colour, [x for x, _ in found], [y for _, y in found]))
            said.append(f"{name}: " + ", ".join(f"{y:.3g} at step {x:.0f}" for x, y in (found[0], found[-1])))
    if not lines:
        return None
    return _figure(title, lines, f"{title}. " + ". ".join(said) + ".", label, x_label="step")


def pairs_figure(curation: dict[str, Any]) -> Figure | None:
    """How many traces hold 1, 2, … pairs; None where there are no traces."""
    counts = curation.get("traces", {}).get("by_pairs")
    if not counts:
        return None
    said = ", ".join(f"{n} with {pairs}" for pairs, n in counts.items())
    line = Line("traces", SFT, [float(pairs) for pairs in counts], list(counts.values()))
    return _figure(
        "Pairs in a trace", [line], f"Traces by number of pairs: {said}.", "traces", x_label="pairs", bars=True
    )


def model_series(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any], int]]:
    """The models of a run as series of the accuracy figure."""
    models = metrics.get("accuracy", {})
    known = list(MODEL_NAMES)
    colours = [known.index(m) if m in known else len(known) + i for i, m in enumerate(models)]
    return [(MODEL_NAMES.get(m, m), sets, c) for (m, sets), c in zip(models.items(), colours, strict=True)]


def _figure(
    title: str, lines: Sequence[Line], alt: str, y_label: str, x_label: str = "", ticks: Sequence[str] = (),
    bars: bool = False,
) -> Figure:  # fmt: skip
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas  # not pyplot: no global state, no display

    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(7, 3.6), layout="constrained")
        axes = canvas.add_subplot()
        for i, line in enumerate(lines):
            marker = _MARKERS[line.colour % len(_MARKERS)]
            colour = _SERIES[line.colour % len(_SERIES)]
            style: dict[str, Any] = {"color": colour, "label": clean(line.label), "linewidth": 1.8}
            if bars:
                axes.bar(line.x, line.y, color=colour, label=clean(line.label))
            elif line.errors is not None:
                # Shifted a little, so that error bars of different lines do not hide each other.
                x = [value + 0.04 * (i - (len(lines) - 1) / 2) for value in line.x]
                axes.errorbar(x, line.y, yerr=line.errors, capsize=3, marker=marker, **style)
            else:
                dashes = _DASHES[i % len(_DASHES)]
                axes.plot(line.x, line.y, marker=marker if len(line.x) < 3 else "", linestyle=dashes, **style)
        if ticks:
            axes.set_xticks(range(len(ticks)), [_wrapped(tick) for tick in ticks])
            axes.set_xlim(-0.4, len(ticks) - 0.6)
        axes.set_ylabel(y_label)
        axes.set_xlabel(x_label)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        handles, labels = axes.get_legend_handles_labels()
        # Under the axes: never over a line. A leading underscore would hide a label from matplotlib.
        canvas.legend(handles, labels, loc="outside lower center", ncols=min(3, len(lines)))
        buffer = StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(title, _inline(buffer.getvalue(), re.sub(r"\W+", "-", title.lower()), alt), alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: no prolog, ids of its own, theme colours, and an alternative text."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = svg.replace(_INK, "currentColor")
    for i, colour in enumerate(_SERIES):
        svg = svg.replace(colour, f"var(--series-{i + 1})")
    alt = clean(alt)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*pt"', "", head)  # the page decides; viewBox keeps the shape
    return f'{head} role="img" aria-label="{escape(alt)}">{rest}'


def _wrapped(text: str, width: int = 11) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(clean(text).replace("_", " "), width, break_long_words=False)) or text
