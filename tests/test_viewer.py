"""The trace viewer in a browser: filters, paging, links, hostile texts, phones, dark scheme, assistive technology."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, require_browser, visit
from viewed import make_run, questions_in, recipe_of, reflect, sample

from skillfactory import seeds
from skillfactory.records import Response
from skillfactory.report import page
from skillfactory.report.pieces import shown
from skillfactory.store import LoadedRun
from skillfactory.tags import blocks, missing_tags

SIGN = {"correct": "✓", "wrong": "✗", "no_answer": "–"}
EVIL = (
    "</script><script>window.pwned = 1; alert(1)</script><img src=x onerror='window.pwned = 2'><!--<script>"
    "<svg onload=window.pwned=3>{{ 7 * 7 }}\x1b[2J\u202eevil\u2028&amp;<b>bold</b></textarea></style><iframe src='//x'>"
)


Test = Callable[[dict[str, Response]], bool]


@dataclass(frozen=True)
class Made:
    """A report, and the rows that it was made from."""

    run: LoadedRun
    file: Path
    rows: dict[tuple[str, str, str, int], Response]  # by model (of other modes: model/mode), set, question and sample

    def order(self, name: str) -> list[str]:
        ids = {key[2] for key in self.rows if key[1] == name}
        return sorted(ids, key=lambda i: seeds.content_id("viewer", i))

    def passing(self, name: str, test: Test) -> list[tuple[str, int]]:
        """(question, sample) of a set whose responses by model pass a test, in the page's order."""
        places = [(question, number) for question in self.order(name) for number in range(2)]
        return [place for place in places if test(self.responses(name, *place))]

    def responses(self, name: str, question: str, number: int) -> dict[str, Response]:
        """By model; the one greedy response stands beside every sample."""
        return {
            model: row
            for (model, other, i, n), row in self.rows.items()
            if (other, i) == (name, question) and n in (number, 0) and (n == number or model.endswith("greedy"))
        }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("viewer")
    run = make_run(folder / "run", recipe=recipe_of(n=10))
    page.write_run(run, folder / "report.html")
    rows = {
        (r.model if r.mode == "sampled" else f"{r.model}/{r.mode}", r.set, r.question_id, r.sample): r
        for r in run.rows("evaluation", Response)
    }
    return Made(run, folder / "report.html", rows)


def right(row: Response) -> bool:
    return row.outcome == "correct"


def reflects(row: Response) -> bool:
    return any(block.kind == "reflect" for block in blocks(row.text)[0])


def shown_question(tab: Any) -> str:
    return str(tab.locator(".viewer-question .viewer-text").first.inner_text())


def test_opens_without_complaint(browser: Any, made: Made) -> None:
    with visit(browser, made.file) as seen:
        tab = seen.page
        assert tab.locator("#viewer-count").inner_text() == "11 questions, 22 samples."
        assert "All 11 questions are here." in tab.locator("#viewer-about").inner_text()
        assert tab.locator(".viewer-column h4").all_inner_texts() == ["base", "SFT", "RL"]
        first = questions_in(made.run)[made.order("easy")[0]]
        assert shown_question(tab) == first.text
        assert tab.get_by_text(f"Reference answer: {first.answer}").is_visible()
        assert tab.evaluate("location.hash") == ""  # nobody has done anything yet
        tab.get_by_text("The prompt as it was given").click()
        assert tab.get_by_text("Think step by step.").first.is_visible()


def test_a_response_is_shown_piece_by_piece(browser: Any, made: Made) -> None:
    with visit(browser, made.file) as seen:
        for question in made.order("easy")[:4]:
            row = made.rows["rl", "easy", question, 0]
            column = seen.page.locator(".viewer-column").nth(2)
            badge = column.locator(".viewer-badge").first.inner_text()
            assert badge == f"{SIGN[row.outcome]} {row.outcome.replace('_', ' ').replace('correct', 'right')}"
            assert column.get_by_text(f"Answer: {row.answer or 'none'}", exact=True).is_visible()
            facts = column.locator(".viewer-facts").first.inner_text()
            assert facts.startswith(f"{row.tokens} tokens · {'cut' if row.finish_reason == 'length' else 'ended'}")
            assert ("malformed" in facts) == (missing_tags(row.text, row.finish_reason == "length") > 0)
            kinds = [block.kind for block in blocks(row.text)[0]]
            assert column.locator(".viewer-piece.sample").count() == kinds.count("sample")
            assert column.locator(".viewer-piece.reflect").count() == kinds.count("reflect")
            seen.page.get_by_role("button", name="Next").click()


def test_filters_by_outcome(browser: Any, made: Made) -> None:
    tests = {
        "right": lambda at: right(at["rl"]),
        "wrong": lambda at: at["rl"].outcome == "wrong",
        "no answer": lambda at: at["rl"].outcome == "no_answer",
        "cut at the limit": lambda at: at["rl"].finish_reason == "length",
        "malformed": lambda at: missing_tags(at["rl"].text, at["rl"].finish_reason == "length") > 0,
    }
    with visit(browser, made.file) as seen:
        seen.page.get_by_label("Questions of").select_option("hard")
        for words, test in tests.items():
            seen.page.get_by_label("Outcome", exact=True).select_option(words)
            expect(seen.page, made, made.passing("hard", test))
        seen.page.get_by_label("Outcome of").select_option("RL, forced to 300 tokens")
        seen.page.get_by_label("Outcome", exact=True).select_option("forced to go on")
        assert seen.page.locator("#viewer-count").inner_text() == "10 of 10 questions pass, with 20 of 20 samples."
        assert "forced to go on 2 times" in seen.page.locator(".viewer-column").last.inner_text()
        seen.page.get_by_label("Outcome", exact=True).select_option("not scored")
        assert seen.page.locator("#viewer-count").inner_text() == "0 of 10 questions pass, with 0 of 20 samples."
        assert seen.page.locator(".viewer-column, .viewer-question").count() == 0
        seen.page.get_by_role("button", name="Clear filters").click()
        assert seen.page.locator("#viewer-count").inner_text() == "10 questions, 20 samples."


def expect(tab: Any, made: Made, passing: list[tuple[str, int]]) -> None:
    """The count says how many pass; paging from the first to the last shows those, and which of their samples pass."""
    ids = list(dict.fromkeys(question for question, _ in passing))
    assert 0 < len(passing) < 20, "the rows do not put this filter to the test"
    counted = f"{len(ids)} of 10 questions pass, with {len(passing)} of 20 samples."
    assert tab.locator("#viewer-count").inner_text() == counted
    set_number(tab, "1")
    for place, question in enumerate(ids, 1):
        assert shown_question(tab) == questions_in(made.run)[question].text
        listed = tab.locator("#viewer-sample option").all_inner_texts()
        samples = [number for number in range(2) if "filtered out" not in listed[number]]
        assert samples == [number for i, number in passing if i == question]
        assert int(tab.get_by_label("Sample").input_value()) in samples
        assert (tab.locator("#viewer-last").inner_text()) == f"of {len(ids)}"
        assert tab.get_by_label("Question", exact=True).input_value() == str(place)
        tab.get_by_role("button", name="Next").click(force=True)  # the last one says that it is disabled


def set_number(tab: Any, number: str) -> None:
    tab.get_by_label("Question", exact=True).fill(number)
    tab.get_by_label("Question", exact=True).press("Enter")


def test_filters_by_change_reflection_and_words(browser: Any, made: Made) -> None:
    with visit(browser, made.file) as seen:
        tab = seen.page
        tab.get_by_label("Questions of").select_option("hard")
        tab.get_by_label("Gained or lost").select_option("gained: only the second is right")
        gained = made.passing("hard", lambda at: not right(at["base"]) and right(at["rl"]))
        assert gained != made.passing("hard", lambda at: right(at["rl"]))
        expect(tab, made, gained)
        assert tab.locator("#viewer-active").inner_text() == ", filtered: gained from base to RL"
        tab.get_by_label("Between").select_option("SFT")
        tab.get_by_label("Gained or lost").select_option("lost: only the first is right")
        expect(tab, made, made.passing("hard", lambda at: right(at["sft"]) and not right(at["rl"])))
        tab.get_by_role("button", name="Clear filters").click()
        tab.get_by_label("SFT", exact=True).uncheck()
        tab.get_by_label("With reflections").check()
        expect(tab, made, made.passing("hard", lambda at: reflects(at["rl"]) or reflects(at["base"])))
        tab.get_by_label("With reflections").uncheck()
        tab.get_by_label("Words in responses").fill("DO NOT know.")
        tab.locator("#viewer-active", has_text="“DO NOT know.”").wait_for()
        expect(tab, made, made.passing("hard", lambda at: "I do not know." in at["base"].text))
        assert set(tab.locator("mark").all_inner_texts()) == {"do not know."}
        tab.get_by_label("Outcome", exact=True).select_option("right")
        both = made.passing("hard", lambda at: "I do not know." in at["base"].text and right(at["rl"]))
        assert f"with {len(both)} of" in tab.locator("#viewer-count").inner_text()


def test_pages_by_button_key_and_number(browser: Any, made: Made) -> None:
    asked = questions_in(made.run)
    texts = [asked[i].text for i in made.order("easy")]
    with visit(browser, made.file) as seen:
        tab = seen.page
        tab.get_by_role("button", name="Previous").click(force=True)  # there is none before the first
        assert shown_question(tab) == texts[0]
        tab.get_by_role("button", name="Next").click()
        assert shown_question(tab) == texts[1]
        tab.keyboard.press("ArrowRight")  # the button has the focus, which is in the viewer
        assert shown_question(tab) == texts[2]
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("Control+ArrowRight")
        assert shown_question(tab) == texts[1]
        tab.locator(".viewer-question .viewer-text").first.click()  # so has a click on any text of it
        tab.keyboard.press("ArrowRight")
        assert shown_question(tab) == texts[2]
        number = tab.get_by_label("Question", exact=True)
        number.fill("5")
        number.press("ArrowLeft")  # in a field the key is the field's
        number.press("Enter")
        assert shown_question(tab) == texts[4]
        for wild, place in (("99", 10), ("0", 0), ("", 0)):
            set_number(tab, wild)
            assert (shown_question(tab), number.input_value()) == (texts[place], str(place + 1))
        tab.get_by_role("link", name="Accuracy").focus()
        tab.keyboard.press("ArrowRight")  # outside of the viewer
        assert shown_question(tab) == texts[0]


def test_a_view_can_be_linked_to(browser: Any, made: Made) -> None:
    with visit(browser, made.file) as seen:
        tab = seen.page
        tab.get_by_label("Questions of").select_option("hard")
        tab.get_by_label("RL step 2", exact=True).check()
        tab.get_by_label("base", exact=True).uncheck()
        tab.get_by_label("Outcome", exact=True).select_option("wrong")
        tab.get_by_label("Words in responses").fill("multiply. &#%")
        tab.get_by_label("Words in responses").fill("I multiply.")
        tab.locator("#viewer-active", has_text="filtered: RL wrong, “I multiply.”").wait_for()
        tab.get_by_role("button", name="Next").click()
        for _ in range(2):  # both samples, also one that does not pass
            sample = tab.get_by_label("Sample")
            sample.select_option(str(1 - int(sample.input_value())))
            before = looks(tab)
            tab.reload()
            assert looks(tab) == before
        assert tab.locator(".viewer-column h4").all_inner_texts() == ["SFT", "RL step 2", "RL"]
        assert tab.locator("#viewer-title").is_visible()
        assert tab.evaluate("scrollY") > 100  # it stands where the link points
        follow(tab, f"#viewer?set=easy&question={made.order('easy')[3]}")
        assert tab.get_by_label("Question", exact=True).input_value() == "4"
        assert tab.locator("#viewer-count").inner_text() == "11 questions, 22 samples."
        follow(tab, "#viewer?set=no&question=x&sample=-7&show=y&of=z&outcome=toString&change=__proto__&text=((['")
        assert tab.locator("#viewer-count").inner_text() == "0 of 11 questions pass, with 0 of 22 samples."


def looks(tab: Any) -> tuple[Any, ...]:
    """All that is to be seen of the viewer, and the page's address."""
    state = "all => all.map(each => each.type == 'checkbox' ? each.checked : each.value)"
    controls = tab.locator("#viewer-all :is(select, input)").evaluate_all(state)
    return controls, tab.locator("#viewer-all").inner_text(), tab.evaluate("location.hash")


def follow(tab: Any, link: str) -> None:
    tab.evaluate(
        "link => new Promise(done => { addEventListener('hashchange', done, { once: true }); location.hash = link; })",
        link,
    )


def test_hostile_texts_are_texts(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "evil.jsonl"
    rows = [{"question": text, "answer": answer} for text, answer in ((EVIL, EVIL), ("?", "1"), ("!", "2"))]
    file.write_text("\n".join(map(json.dumps, rows)))
    task = {"name": "jsonl", "params": {"path": str(file)}, "level": EVIL}
    sets = {EVIL: {"task": task, "n": 2}, "__proto__": {"task": task, "n": 1}}
    recipe = recipe_of(evaluation={"samples": 3, "sets": sets, "models": {EVIL: "x"}})
    texts = [
        f"{EVIL}<think>{sample(EVIL, EVIL)}{reflect(EVIL)}</think><answer>{EVIL}</answer>",
        "</reflect></sample><sample><reflect></sample><answer><answer></answer><think></think></think><verdict>",
        "<" * 1_000_000,
    ]
    run = make_run(tmp_path / "run", lambda model, question, number: texts[number], recipe, models=("base", EVIL))
    page.write_run(run, tmp_path / "report.html")
    with visit(browser, tmp_path / "report.html") as seen:
        tab = seen.page
        body = tab.locator(".viewer-body").first
        tab.get_by_label("Words in responses").fill("<script>")
        tab.locator("mark").first.wait_for()
        assert "<script>window.pwned = 1; alert(1)</script><img src=x" in body.inner_text()
        assert "\ufffd[2J\ufffdevil" in body.inner_text()
        assert "{{ 7 * 7 }}" in body.inner_text()
        tab.get_by_role("button", name="Clear filters").click()
        tab.get_by_label("Texts as they were written").check()
        for number, text in enumerate(texts):
            tab.get_by_label("Sample").select_option(str(number))
            assert tab.locator(".viewer-raw").first.text_content() == shown(text[:20_000])
        assert "980,000 more characters not shown." in body.inner_text()
        tab.get_by_label("Questions of").select_option("__proto__")
        assert tab.evaluate("window.pwned") is None
        assert tab.locator("script").count() == 2
        assert tab.locator("#viewer :is(img, svg, iframe, b, style, textarea)").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_on_phones_and_screens_by_day_and_night(browser: Any, made: Made, width: int, scheme: str) -> None:
    size = {"width": width, "height": 740}
    with visit(browser, made.file, viewport=size, color_scheme=scheme, reduced_motion="reduce") as seen:
        tab = seen.page
        assert tab.locator("#viewer-filters").evaluate("box => box.open") == (width > 700)
        tab.locator("#viewer-filters").evaluate("box => { box.open = true; }")
        for label in ("RL step 2", "RL, forced to 300 tokens", "base, greedy"):
            tab.get_by_label(label, exact=True).check()
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        boxes = [column.bounding_box() for column in tab.locator(".viewer-column").all()]
        assert len({box["x" if width < 700 else "y"] for box in boxes}) == 1  # stacked, or side by side
        heads = tab.locator(":is(h1, h2, h3, h4, h5, h6)").evaluate_all(
            "all => all.map(each => Number(each.tagName[1]))"
        )
        assert all(after <= before + 1 for before, after in pairwise(heads))
        for control in tab.locator("#viewer :is(button, select, input)").all():
            assert re.search(r'^- \w+ "[^"]*\w', control.aria_snapshot()), "a control has no name"
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == (scheme == "dark")
        check_with_axe(tab)


def check_with_axe(tab: Any) -> None:
    """No finding of axe-core in the viewer, where that is installed."""
    if find_spec("axe_playwright_python") is None:
        return
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, context="#viewer")
    assert found.violations_count == 0, found.generate_report()


def test_focus_can_be_seen_and_everything_reached(browser: Any, made: Made) -> None:
    with visit(browser, made.file) as seen:
        tab = seen.page
        reached = []
        tab.get_by_label("Questions of").focus()
        while tab.evaluate("document.activeElement.closest('#viewer') !== null"):
            reached.append(tab.evaluate("document.activeElement.id || document.activeElement.className"))
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", reached[-1]
            tab.keyboard.press("Tab")
        controls = tab.locator("#viewer :is(select, input, button)[id]").evaluate_all("all => all.map(each => each.id)")
        assert len(controls) > 10
        assert set(controls) <= set(reached)
        assert reached.count("viewer-body") == 3


def test_attempts_are_a_click_or_a_key_away(browser: Any, made: Made) -> None:
    question, number = next(
        place
        for place in made.passing("easy", lambda at: [b.kind for b in blocks(at["rl"].text)[0]].count("sample") > 1)
    )
    link = f"#viewer?set=easy&question={question}&sample={number + 1}&show=rl"
    with visit(browser, made.file, link, viewport={"width": 800, "height": 300}) as seen:
        path = seen.page.get_by_role("group", name="Attempts")
        second = path.get_by_role("button", name="Go to attempt 2")
        path.get_by_role("button").first.focus()
        seen.page.keyboard.press("ArrowDown")
        assert second.evaluate("button => button === document.activeElement")
        seen.page.keyboard.press("Enter")
        body, attempt = (
            seen.page.locator(name).bounding_box() for name in (".viewer-body", ".viewer-piece.sample >> nth=1")
        )
        assert attempt["y"] - body["y"] < 10


def test_without_script_it_says_so(browser: Any, made: Made) -> None:
    with visit(browser, made.file, java_script_enabled=False) as seen:
        text = seen.page.locator("#viewer").inner_text()
        assert "can only be read here with JavaScript" in text
        assert "Next" not in text
        assert seen.page.locator("#verdict").is_visible()
