"""What a figure shows, as plain data: made from metrics by the files of the sections, drawn by figures.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from skillfactory.report.tables import percent


@dataclass(frozen=True, slots=True)
class Point:
    """`x` is a number or the index of a tick. `low` to `high` is its interval, `middle` the half of all values.

    `tip` is what the page says where the pointer rests on it.
    """

    x: float
    y: float
    tip: str = ""
    low: float | None = None
    high: float | None = None
    middle: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one model or run. `colour` numbers it on the whole page; `dashed` is its second kind of line."""

    label: str
    colour: int
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """`lines` over a number or over ticks; `bars` and `boxes` lie beside ticks. `alt` says the same in words."""

    title: str
    kind: Literal["lines", "bars", "boxes"]
    lines: Sequence[Line]
    alt: str
    value: str  # what is measured, with its unit
    over: str = ""  # what it is measured over
    ticks: Sequence[str] = ()
    note: str = ""
    smooth: bool = False  # many points: a mean of neighbours over the faint points themselves
    named: bool = False  # says whose its line is, even where there is but one


def share(x: float, mean: float, what: str, low: float | None = None, high: float | None = None) -> Point:
    """A share, from 0 to 1, as a point in per cent."""
    known = low is not None and high is not None
    tip = f"{what}: {percent(mean)} %" + (f" [{percent(low)}, {percent(high)}]" if known else "")
    return Point(x, 100 * mean, tip, 100 * low if low is not None else None, 100 * high if high is not None else None)


def course(
    title: str, value: str, over: str, lines: Sequence[Line], note: str = "", named: bool = False
) -> Chart | None:
    """A figure over steps, told in words by its first and last points; None where no line has points."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    said = [
        f"{line.label}: "
        + ", ".join(f"{p.y:.3g} at {over} {p.x:g}" for p in dict.fromkeys((line.points[0], line.points[-1])))
        for line in lines
    ]
    return Chart(
        title, "lines", lines, f"{title}. " + ". ".join(said) + ".", value, over, note=note, smooth=True, named=named
    )


def spoken(title: str, lines: Sequence[Line]) -> str:
    """A figure in words: every point of every line, as their tips say it."""
    return (
        f"{title}. " + ". ".join("; ".join(point.tip for point in line.points) for line in lines if line.points) + "."
    )
