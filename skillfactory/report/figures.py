"""Charts as inline SVG: no script, no network, colours that follow the page's light or dark scheme.

A point says its value where the pointer rests on it, by the `<title>` of an invisible mark around it.
"""

import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

from skillfactory.characters import clean
from skillfactory.report.charts import Chart, Line, Point

# Written by matplotlib, replaced below by colours that the page's style sheet sets.
_INK = "#010203"
_SERIES = ["#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08"]
_MARKERS, _DASHES = "osD^vP*X", ["-", "--", "-.", ":"]  # lines differ in more than colour
_WIDTH, _HEIGHT = 4.8, 3.1  # inches; small, so that letters can still be read where a phone shows it
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "skillfactory", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": _INK, "axes.edgecolor": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "legend.frameon": False, "axes.grid": True,
    "grid.color": _INK, "grid.alpha": 0.15, "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip
_TIPS = "tips-"  # start of the ids of invisible marks
_MOST = 240  # points of a line that are drawn; more are averaged to so many
LINES = 12  # of a figure: more could not be told apart
FEW, MANY = 20, 40  # points of a line: with marks below the one, smoothed from the other on
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, slots=True)
class Figure:
    """A title, the SVG itself (safe to insert as it is), the words that say what it shows, and a note below it."""

    title: str
    svg: str
    alt: str
    note: str = ""


def draw(chart: Chart, name: str) -> Figure:
    """The chart as SVG. `name` starts all of its ids, so that it has to be another for each figure of a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas  # not pyplot: no global state, no display

    shown = chart.lines[:LINES]
    lines = [Line(each.label, each.colour, averaged(each.points), each.dashed) for each in shown]
    note = chart.note
    if len(shown) < len(chart.lines):
        note = f"The first {LINES} of {len(chart.lines)}; the tables have all. {note}".strip()
    tips: dict[str, list[str]] = {}
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the letters that our font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        upright = chart.kind == "lines"
        labels = [_cut(line.label, 44) for line in lines] if len(lines) > 1 or chart.named else []
        columns = _columns(labels)
        height = _HEIGHT if upright else max(1.6, 0.9 + len(chart.ticks) * (0.16 + 0.15 * len(lines)))
        below = 0.17 * max(0, -(-len(labels) // columns) - 1)  # further rows of the legend take nothing from the plot
        canvas = Canvas(figsize=(_WIDTH, height + below), layout="constrained")
        axes = canvas.add_subplot()
        for i, line in enumerate(lines):
            # Shifted a little, so that marks of different lines do not hide each other.
            place = i - (len(lines) - 1) / 2
            if upright:
                x, y = _upright(axes, line, i, place if chart.ticks else 0.0, chart.smooth)
            else:
                x, y = _beside(axes, line, place, 0.8 / len(lines), chart.kind)
            axes.plot(x, y, "o", markersize=12, color=_INK, alpha=0, zorder=10, gid=f"{_TIPS}{i}")
            tips[f"{_TIPS}{i}"] = [point.tip for point in line.points]
        _frame(axes, chart, upright)
        if labels:
            # Under the axes: never over a line. Passed by hand, since a leading underscore would hide a label.
            canvas.legend(
                axes.get_legend_handles_labels()[0], labels, loc="outside lower center", ncols=columns, fontsize=9,
                handlelength=2.8 if upright else 1.5,
            )  # fmt: skip
        buffer = StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(clean(chart.title), _inline(buffer.getvalue(), name, clean(chart.alt), tips), clean(chart.alt), note)


def _columns(labels: Sequence[str]) -> int:
    """How many labels of a legend fit beside each other."""
    longest = max(map(len, labels), default=0) + 5
    return next(n for n in (4, 3, 2, 1) if n == 1 or (n <= len(labels) and n * longest < 56))


def _upright(axes: Any, line: Line, i: int, place: float, smooth: bool) -> tuple[list[float], list[float]]:
    """Draw a line over x; where its points lie."""
    colour, marker = _SERIES[line.colour % len(_SERIES)], _MARKERS[line.colour % len(_MARKERS)]
    x, y = [point.x + 0.05 * place for point in line.points], [point.y for point in line.points]
    dashes = "--" if line.dashed else "-" if any(p.low is not None for p in line.points) else _DASHES[i % len(_DASHES)]
    fill = "none" if line.dashed else "full"
    style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.8, "label": f"line {i}"}
    ends = [(at, p.low, p.high) for at, p in zip(x, line.points, strict=True)]
    band = [each for each in ends if None not in each]
    if smooth and len(band) > 1:
        axes.fill_between(*zip(*band, strict=True), color=colour, alpha=0.15, linewidth=0)
    if smooth and len(x) >= MANY:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
        axes.plot(x, _smoothed(y), **style)
    elif smooth and len(x) > 2:
        axes.plot(x, y, marker=marker if len(x) < FEW else "", markersize=4, **style)
    else:
        axes.errorbar(x, y, yerr=_reach(line.points), capsize=3, marker=marker, markersize=5.5, fillstyle=fill, **style)
    return x, y


def _beside(axes: Any, line: Line, place: float, width: float, kind: str) -> tuple[list[float], list[float]]:
    """Draw bars or boxes beside the ticks; where their points lie."""
    colour, marker = _SERIES[line.colour % len(_SERIES)], _MARKERS[line.colour % len(_MARKERS)]
    x, y = [point.y for point in line.points], [point.x + width * place for point in line.points]
    label = f"line {line.colour}"
    mark: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 5, "capsize": 2.5}
    if kind == "bars":
        axes.barh(y, x, height=0.85 * width, color=colour, alpha=0.3)
    else:
        middles = [(at, *point.middle) for at, point in zip(y, line.points, strict=True) if point.middle]
        axes.hlines([at for at, _, _ in middles], [low for _, low, _ in middles], [high for _, _, high in middles],
                    color=colour, linewidth=6, alpha=0.4)  # fmt: skip
    axes.errorbar(x, y, xerr=_reach(line.points), elinewidth=1.2, label=label, **mark)
    return x, y


def _frame(axes: Any, chart: Chart, upright: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = [_wrapped(tick, max(8, 48 // len(chart.ticks)) if upright else 14) for tick in chart.ticks]
    if upright:
        axes.set_ylabel(clean(chart.value))
        axes.set_xlabel(clean(chart.over))
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.4, len(ticks) - 0.6)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return
    axes.set_xlabel(clean(chart.value))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set_ylim(len(ticks) - 0.5, -0.5)  # the first on top
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.use_sticky_edges = False  # room for the marks of bars that end at 0
    axes.autoscale(axis="x")
    axes.axvline(0, color=_INK, linewidth=0.8)
    if chart.kind == "boxes":
        axes.set_xlim(left=min(0.0, axes.dataLim.x0))


def _reach(points: Sequence[Point]) -> list[list[float]] | None:
    """How far intervals reach down and up; None where no point has one."""
    if all(point.low is None or point.high is None for point in points):
        return None
    down = [max(0.0, p.y - p.low) if p.low is not None else 0.0 for p in points]
    return [down, [max(0.0, p.high - p.y) if p.high is not None else 0.0 for p in points]]


def averaged(points: Sequence[Point], most: int = _MOST) -> list[Point]:
    """At most so many points: each the mean of its neighbours, so that a long training does not make a heavy page."""
    size = -(-len(points) // most) if points else 1
    if size == 1:
        return list(points)
    parts = [points[start : start + size] for start in range(0, len(points), size)]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(values) if len(known) == len(values) else None

    return [
        Point(
            sum(p.x for p in part) / len(part), sum(p.y for p in part) / len(part), part[len(part) // 2].tip,
            mean([p.low for p in part]), mean([p.high for p in part]),
        )
        for part in parts
    ]  # fmt: skip


def _smoothed(y: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a twentieth of all."""
    reach = max(2, len(y) // 40)
    parts = [y[max(0, i - reach) : i + reach + 1] for i in range(len(y))]
    return [sum(part) / len(part) for part in parts]


def _inline(svg: str, name: str, alt: str, tips: dict[str, list[str]]) -> str:
    """An SVG file as an element of a page: ids of its own, theme colours, an alternative text, and what points say."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{{{_SVG}}}g"):
        if group.get("id") in tips:
            marks, said = list(group.iter(f"{{{_SVG}}}use")), tips[group.get("id", "")]
            for mark, tip in zip(marks, said, strict=True) if len(marks) == len(said) else ():
                if tip:
                    ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = clean(tip)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == f"{{{_LINK}}}href":
                element.set(key, value.replace("#", f"#{name}-"))
            elif key in ("d", "x", "y", "points", "transform"):
                element.set(key, re.sub(r"(\.\d\d)\d+", r"\1", value))
            elif key in ("style", "clip-path", "fill"):
                element.set(key, _themed(value.replace("url(#", f"url(#{name}-")))
    for size in ("width", "height"):  # the page decides; viewBox keeps the shape
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    style = style.replace(_INK, "currentColor")
    for i, colour in enumerate(_SERIES):
        style = style.replace(colour, f"var(--series-{i + 1})")
    return style


def _wrapped(text: str, width: int) -> str:
    lines = textwrap.wrap(clean(text).replace("_", " "), width, max_lines=3, placeholder="…")
    return "\n".join(lines) or " "


def _cut(text: str, most: int) -> str:
    text = clean(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[: most - 1]}…"
