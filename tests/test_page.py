"""The page in a browser: by day and night, on a phone, by keyboard, on paper, and with hostile text in it."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, require_browser, visit
from reported import BUDGET, EVIL, make_run, plain, recipe_of, trace

from skillfactory.report import page
from skillfactory.report.comparison import compare
from skillfactory.report.report import write_comparison


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of one run, and of two, with a hostile name of a set and hostile responses."""
    folder = tmp_path_factory.mktemp("pages")
    evaluation = recipe_of().model_dump()["evaluation"]
    evaluation["forcing"]["budgets"] = [BUDGET]
    evaluation["sets"][f"{EVIL} with a name that goes on and on_and_on_and_on_without_an_end"] = evaluation["sets"][
        "odd|name"
    ]
    write = lambda model, question, sample: f"{EVIL}{(trace if sample else plain)(question.answer)}"  # noqa: E731
    one = make_run(folder / "one", recipe_of(evaluation=evaluation), write, kept=(1, 2))
    two = make_run(folder / "two", recipe_of("rl_only", evaluation=evaluation), write)
    page.write_run(one, folder / "run.html")
    write_comparison([one, two], compare([one, two]), folder / "comparison.html")
    return {name: folder / f"{name}.html" for name in ("run", "comparison")}


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("run", 360, "light"), ("run", 1440, "dark"), ("comparison", 360, "dark"), ("comparison", 800, "light")],
)
def test_it_opens_quietly_and_fits(browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    with visit(browser, pages[name], viewport={"width": width, "height": 800}, color_scheme=scheme) as seen:
        tab = seen.page
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        for details in tab.locator("details").all():
            details.evaluate("each => { each.open = true; }")
        assert tab.evaluate("document.documentElement.scrollWidth") == width, "with all tables open"
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == (scheme == "dark")
        line = tab.locator("figure path[style*='stroke: var(--series-3)']").first
        colour = {"light": "rgb(9, 105, 218)", "dark": "rgb(88, 166, 255)"}[scheme]
        assert line.evaluate("each => getComputedStyle(each).stroke") == colour
        sizes = tab.locator("figure svg text").evaluate_all(
            """all => all.map(each => parseFloat(getComputedStyle(each).fontSize)
                * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b))"""
        )
        assert min(sizes) >= 8, "letters in figures, in pixels"
        check_with_axe(tab)


def check_with_axe(tab: Any) -> None:
    """No finding of axe-core, where that is installed."""
    if find_spec("axe_playwright_python") is None:
        return
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


def test_it_is_read_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    with visit(browser, pages["run"], viewport={"width": 700, "height": 700}) as seen:
        tab = seen.page
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the verdict"
        tab.keyboard.press("Enter")
        assert tab.url.endswith("#verdict")
        tab.get_by_role("link", name="Skills", exact=True).press("Enter")
        assert 0 <= tab.locator("#skills-title").bounding_box()["y"] < 100
        regions = tab.locator(".wide")
        assert regions.count() > 10
        regions.first.focus()
        assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Accuracy by kind of question"
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_point_says_its_value_under_the_pointer(browser: Any, pages: dict[str, Path]) -> None:
    with visit(browser, pages["run"], viewport={"width": 1200, "height": 900}) as seen:
        tab = seen.page
        figure = tab.locator("figure", has=tab.get_by_role("heading", name="Reward in RL", exact=True))
        figure.scroll_into_view_if_needed()
        mark = figure.locator("use", has=tab.locator("title")).last
        box = mark.bounding_box()
        said = tab.evaluate(
            "([x, y]) => document.elementFromPoint(x, y).querySelector('title')?.textContent",
            [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
        )
        assert said == "RL, step 3: 0.5"


def test_it_is_light_on_paper(browser: Any, pages: dict[str, Path]) -> None:
    with visit(browser, pages["run"], color_scheme="dark") as seen:
        tab = seen.page
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not tab.get_by_role("navigation").is_visible()
        assert not tab.locator("#viewer").is_visible()
        assert tab.locator("#verdict").is_visible()


def test_it_is_read_without_javascript(browser: Any, pages: dict[str, Path]) -> None:
    with visit(browser, pages["comparison"], java_script_enabled=False) as seen:
        assert seen.page.get_by_role("heading", name="Accuracy by set").is_visible()
        assert seen.page.locator("figure svg").count() > 10
