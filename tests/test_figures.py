"""Any chart can be drawn, its points say their values, and its colours can be seen."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from reported import check_page

from skillfactory.report import figures
from skillfactory.report.charts import Chart, Line, Point

reals = st.floats(-1e9, 1e9)
some_points = st.builds(
    Point,
    st.sampled_from([0.0, 1.0, 2.0]),
    reals,
    st.text(max_size=20),
    st.none() | reals,
    st.none() | reals,
    st.none() | st.tuples(reals, reals),
)


@settings(max_examples=20, phases=[Phase.generate])  # to find a smaller failure, hundreds would be drawn
@given(
    st.sampled_from(["lines", "bars", "boxes"]), st.lists(st.lists(some_points, max_size=60), min_size=1, max_size=9),
    st.text(max_size=60), st.booleans(),
)  # fmt: skip
def test_any_chart_can_be_drawn(kind: Any, lines: list[list[Point]], text: str, smooth: bool) -> None:
    made = [Line(text, i, points) for i, points in enumerate(lines)]
    svg = figures.draw(Chart(text, kind, made, text, text, text, ["a", text, "b"], smooth=smooth), "x").svg
    found = check_page(f"<h1>x</h1><meta content=\"default-src 'none'\">{svg}")
    assert len(found.hints) == sum(bool(p.tip) for points in lines for p in figures.averaged(points))


def test_a_long_training_makes_a_light_figure() -> None:
    points = [Point(float(step), float(step % 7), f"step {step}") for step in range(10_000)]
    assert len(figures.averaged(points)) <= 240
    assert figures.averaged(points)[0].y == pytest.approx(sum(p.y for p in points[:42]) / 42)
    assert figures.averaged(points[:200]) == points[:200]
    chart = Chart("x", "lines", [Line("x", 0, points)], "x", "y", smooth=True)
    assert len(figures.draw(chart, "x").svg) < 120_000


def test_colours_can_be_told_from_the_page() -> None:
    """WCAG AA: 4.5 for text, 3 for lines of figures, by day and by night."""
    style = (Path(figures.__file__).parent / "templates" / "page.css").read_text()
    day, night = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", part))
        for part in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert day.keys() == night.keys()
    for scheme in (day, night):
        for name in ("ink", "dim", "accent", "right", "wrong"):
            for ground in ("paper", "shade"):
                assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)
        for ground in ("sample", "reflect"):
            for name in ("ink", "right", "wrong"):
                assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)
        for i in range(1, 9):
            assert contrast(scheme[f"series-{i}"], scheme["paper"]) >= 3


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
