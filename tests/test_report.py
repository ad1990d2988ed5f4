"""Metrics, terminal tables and pages of synthetic runs that the store itself has written."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.summary import last_figures, read_jsonl, summarize, to_plain
from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.report import page, report, tables, verdict
from skillfactory.report.comparison import compare
from skillfactory.report.tables import clean
from skillfactory.report.terminal import print_comparison, print_run
from skillfactory.store import LoadedRun, Run, load_run
from skillfactory.tasks import questions

Write = Callable[[str, Question, int], str]
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>\x1b[2J\x1b]0;owned\x07[bold]not markup[/bold]'


def recipe_of(method: str = "skillfactory", seed: int = 0, n: int = 8, **changes: Any) -> Recipe:
    one = {"name": "multiplication", "params": {"digits": 1, "digits_b": 2}}
    two = {"name": "multiplication", "params": {"digits": 2}}
    data = {
        "name": f"test-{method}", "method": method, "seed": seed,
        "questions": {"task": two, "sft": 2, "rl": 2, "dev": 2},
        "evaluation": {
            "samples": 2,
            "sets": {
                "odd|name": {"task": one, "n": n, "kind": "other"},
                "2_digits": {"task": two, "n": n},
                "3 $digits$": {"task": {"name": "multiplication", "params": {"digits": 3}}, "n": n, "kind": "harder"},
            },
        },
    }  # fmt: skip
    return Recipe.model_validate(data | changes)


def plain(answer: str) -> str:
    return f"I think so. <answer>{answer}</answer>"


def trace(answer: str) -> str:
    return (
        "<think>\n<sample>\n<answer>1</answer>\n</sample>\n<reflect>\nno\n<verdict>Incorrect</verdict>\n</reflect>\n"
        f"<sample>\n<answer>{answer}</answer>\n</sample>\n<reflect>\nyes\n<verdict>Correct</verdict>\n</reflect>\n"
        f"</think>\n\n<answer>{answer}</answer>"
    )


def typical(model: str, question: Question, sample: int) -> str:
    """The base gets one question in eight right, SFT every other sample, RL all but those whose id ends on 0 to 3."""
    right = {"base": question.id[-1] in "01", "sft": sample == 0, "rl": question.id[-1] not in "0123"}[model]
    answer = question.answer if right else "7"
    return plain(answer) if model == "base" else trace(answer)


def make_run(path: Path, recipe: Recipe, write: Write | None = typical, reward: float = 0.5) -> LoadedRun:
    """A run with questions, responses (none where `write` is None) and training metrics; no report yet."""
    with Run.open(path, recipe) as run:
        run.begin("questions", {}, {})
        questions.run(recipe, run)
        rows = {q.id: q for q in run.stage("questions").rows(Question)}
        sets = run.stage("questions").read_json("sets.json")
        stage = run.begin("evaluation", {}, {})
        models = ["base", "sft", "rl"] if recipe.method == "skillfactory" else ["base", "rl"]
        for name, section in recipe.evaluation.sets.items() if write else ():
            task = questions.task_of(section.task)
            for model in models:
                found = []
                for question in (rows[i] for i in sets[name]):
                    for sample in range(recipe.evaluation.samples):
                        text = write(model, question, sample)
                        grade = task.grade(question, text)
                        graded = (text, grade.answer, grade.outcome, grade.reason)
                        found.append(Response(question.id, model, name, "sampled", sample, *graded, "stop", len(text)))
                stage.append(found)
        stage.finish(tokens=123)
        for name in ("sft", "rl") if recipe.method == "skillfactory" else ("rl",):
            folder = run.begin(name, {}, {}).path
            figures = {"length": 50.0, "seconds": 2.0}
            lines = [{"step": s, "reward": reward * s / 3, "loss": 1 / s, **figures} for s in (1, 2, 3)]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 4, "rew')
            run.stage(name).finish()
    return load_run(path)


def make_report(loaded: LoadedRun) -> tuple[dict[str, Any], str]:
    """Run the report stage; its metrics and its page."""
    with Run.open(loaded.path, loaded.recipe) as run:
        run.begin("report", {}, {})
        report.run(loaded.recipe, run)
    text = (loaded.path / "metrics.json").read_text()
    metrics: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in metrics.json"))
    return metrics, (loaded.path / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see: elements, ids, and where they point."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without start"
        assert self.open.pop() == tag


def check_page(text: str) -> Page:
    """Well-formed, alone, script-free, small, with one h1 and unique ids."""
    found = Page(text)
    assert found.open == []
    assert found.tags.count("h1") == 1
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value is not None
            assert value.startswith("#")
            assert value[1:] in ids
    assert len(text) < 5_000_000
    return found


def printed(what: Callable[[Console], None], width: int = 200) -> str:
    console = Console(file=StringIO(), width=width)
    what(console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedRun, dict[str, Any], str]:
    """A typical run with its report: not to be changed."""
    loaded = make_run(tmp_path_factory.mktemp("typical") / "run", recipe_of())
    return loaded, *make_report(loaded)


def test_metrics_of_a_typical_run(finished: tuple[LoadedRun, dict[str, Any], str]) -> None:
    loaded, metrics, _ = finished
    rows = [r for r in loaded.rows("evaluation", Response) if (r.model, r.set) == ("rl", "2_digits")]
    cell = metrics["accuracy"]["rl"]["2_digits"]["sampled"]
    assert cell["mean"] == pytest.approx(sum(r.outcome == "correct" for r in rows) / len(rows))
    assert (cell["n_questions"], cell["samples"], cell["responses"]) == (8, 2, 16)
    assert cell["mean_tokens"] == pytest.approx(sum(r.tokens for r in rows) / len(rows))
    sft = metrics["accuracy"]["sft"]["2_digits"]["sampled"]
    assert (sft["mean"], sft["se"]) == (0.5, 0.0)  # every question one of two: no spread between questions
    assert sft["pass_at_k"] == {"1": 0.5, "2": 1.0}
    skills = metrics["skill_use"]["sft"]["2_digits"]
    assert (skills["answers"], skills["reflections"], skills["retries"]) == (2, 2, 1)
    assert skills["verdicts"]["incorrect_called_correct"] == 8
    assert metrics["skill_use"]["base"]["2_digits"]["reflections"] == 0
    base = metrics["accuracy"]["base"]["2_digits"]["sampled"]["mean"]
    assert metrics["differences"]["rl-base"]["2_digits"]["mean"] == pytest.approx(cell["mean"] - base)
    assert metrics["differences_by_kind"]["rl-sft"]["in_domain"] == metrics["differences"]["rl-sft"]["2_digits"]
    assert metrics["training"]["rl"]["last"]["reward"] == pytest.approx(0.5 * 2 / 3)
    assert metrics["training"]["rl"]["seconds"] == 6
    assert metrics["cost"]["evaluation"]["tokens"] == 123
    assert metrics["curation"]["questions"]["eval"] == 24
    assert metrics == load_run(loaded.path).metrics


def test_page_of_a_typical_run(finished: tuple[LoadedRun, dict[str, Any], str]) -> None:
    _, metrics, text = finished
    check_page(text)
    assert len(text) < 500_000
    for heading in ("Accuracy", "Accuracy from easy to hard", "Reward in RL", "Use of skills", "Responses", "Recipe"):
        assert f"<h2>{heading}</h2>" in text
    assert "<summary>Versions</summary>" in text
    assert verdict.of_run(metrics).split(":")[0] in text
    assert "prefers-color-scheme: dark" in text
    assert re.search(r'<svg[^>]*role="img"[^>]*aria-label="Accuracy in per cent', text)
    assert "#010203" not in text
    assert "var(--series-3)" in text
    assert '<span class="verdict-incorrect">&lt;verdict&gt;Incorrect&lt;/verdict&gt;</span>' in text


def test_sets_stand_from_easy_to_other(finished: tuple[LoadedRun, dict[str, Any], str]) -> None:
    loaded, metrics, _ = finished
    assert tables.accuracy_table([metrics]).columns == ["model", "2_digits", "3 $digits$", "odd|name"]
    markdown = (loaded.path / "accuracy.md").read_text()
    assert "| model | 2_digits | 3 $digits$ | odd\\|name |" in markdown


def test_hostile_responses_are_shown_as_text(tmp_path: Path) -> None:
    write = lambda model, question, sample: f"{EVIL}<sample>{EVIL}</sample>{plain(EVIL)}"  # noqa: E731
    loaded = make_run(tmp_path / "run", recipe_of(), write)
    _, text = make_report(loaded)
    check_page(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def test_hostile_names_are_not_markup_on_the_terminal(tmp_path: Path) -> None:
    sets = {EVIL: {"task": {"name": "multiplication"}, "n": 2}}
    loaded = make_run(tmp_path / "run", recipe_of(evaluation={"samples": 1, "sets": sets}))
    shown = printed(lambda console: print_run(loaded, console), width=400)
    assert "\x1b" not in shown
    assert "[bold]not markup[/bold]" in shown
    _, text = make_report(loaded)
    check_page(text)
    assert "\x1b" not in text
    assert "<script" not in text


def test_clean_keeps_lines_and_letters() -> None:
    assert clean("a\tb\nç ≠ 漢") == "a\tb\nç ≠ 漢"
    assert clean("\x1b[31m\r\x9b\u202e") == "\ufffd[31m\ufffd\ufffd\ufffd"


def test_empty_evaluation(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(), write=None)
    metrics, text = make_report(loaded)
    assert metrics["accuracy"] == {}
    check_page(text)
    assert "No responses yet." in text
    assert "No model has been evaluated" in printed(lambda console: print_run(loaded, console))


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe_of()):
        pass
    loaded = load_run(tmp_path / "run")
    assert summarize(loaded)["cost"] == {}
    page.write_run(loaded, tmp_path / "page.html")
    check_page((tmp_path / "page.html").read_text())
    assert "No model has been evaluated" in printed(lambda console: print_run(loaded, console))


def test_one_question(tmp_path: Path) -> None:
    metrics, text = make_report(make_run(tmp_path / "run", recipe_of(n=1)))
    cell = metrics["accuracy"]["rl"]["2_digits"]["sampled"]
    assert (cell["n_questions"], cell["se"]) == (1, None)
    assert metrics["differences"]["rl-base"]["2_digits"]["p"] == 1.0
    check_page(text)


def test_all_wrong(tmp_path: Path) -> None:
    metrics, text = make_report(make_run(tmp_path / "run", recipe_of(), lambda *_: "no idea"))
    cell = metrics["accuracy"]["rl"]["3 $digits$"]["sampled"]
    assert (cell["mean"], cell["no_answer"]) == (0.0, 1.0)
    assert metrics["skill_use"]["rl"]["2_digits"]["f1_correct"] is None
    assert "no clear difference on harder questions (+0.0 points, p = 1.000)" in verdict.of_run(metrics)
    check_page(text)


def test_what_broke_is_left_out_and_told(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of())
    stage = loaded.stage("evaluation")
    failed = Response("ff", "rl", "2_digits", "sampled", 0, "", "", "no_answer", "engine_failed", "failed", 0)
    before = summarize(loaded)["accuracy"]["rl"]["2_digits"]["sampled"]
    stage._write_manifest(finished=False)
    stage.append([failed])
    metrics = summarize(load_run(loaded.path))
    after = metrics["accuracy"]["rl"]["2_digits"]["sampled"]
    assert (after["mean"], after["n_questions"]) == (before["mean"], before["n_questions"])
    assert (after["not_scored"], after["reasons"]) == (1, {"engine_failed": 1})
    assert "Left out: 1 responses" in tables.accuracy_table([metrics]).note


def test_figures_that_are_missing_or_not_finite(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_jsonl(file) == []
    assert last_figures([]) == {}
    file.write_text('{"step": 1, "reward": NaN, "entropy": 2}\n[]\nnot json\n{"step": 2, "reward": 0.5}\n')
    assert read_jsonl(file) == [{"step": 1, "entropy": 2}, {"step": 2, "reward": 0.5}]
    assert last_figures(read_jsonl(file))["last"] == {"reward": 0.5}
    assert to_plain({"a": float("nan"), "b": (1, float("inf")), 3: "x"}) == {"a": None, "b": [1, None], "3": "x"}


def test_comparison(tmp_path: Path) -> None:
    ours = make_run(tmp_path / "ours", recipe_of(), lambda m, q, s: trace(q.answer) if m == "rl" else plain("7"))
    plain_rl = make_run(tmp_path / "rl_only", recipe_of("rl_only"), lambda m, q, s: plain(q.answer if s else "7"))
    found = compare([ours, plain_rl])
    assert found.reference == "test-rl_only"
    difference = found.differences["rl"]["test-skillfactory"]["2_digits"]
    assert (difference["mean"], difference["n_questions"]) == (0.5, 8)
    assert "sft" not in found.differences  # rl_only has none
    assert ["method", "skillfactory", "rl_only"] in found.settings
    shown = printed(lambda console: print_comparison([ours, plain_rl], console))
    assert "RL model: difference to test-rl_only" in shown
    assert "+50.0" in shown
    page.write_comparison([ours, plain_rl], tmp_path / "comparison.html")
    text = (tmp_path / "comparison.html").read_text()
    check_page(text)
    assert "better on in-domain questions (+50.0 points, p = .008)" in text


def test_runs_of_other_seeds_or_questions_are_refused(tmp_path: Path) -> None:
    ours = make_run(tmp_path / "a", recipe_of(n=3))
    other_seed = make_run(tmp_path / "b", recipe_of(seed=1, n=3))
    with pytest.raises(SkillFactoryError, match=r"seeds differ \(0 and 1\)"):
        compare([ours, other_seed])
    fewer = make_run(tmp_path / "c", recipe_of(n=2))
    with pytest.raises(SkillFactoryError, match=r"questions of set `\S.*` differ \(\d shared, 3 and 2 in all\)"):
        compare([ours, fewer])
    one_set = {"samples": 1, "sets": {"2_digits": {"task": {"name": "multiplication"}, "n": 3}}}
    less = make_run(tmp_path / "d", recipe_of(evaluation=one_set))
    with pytest.raises(SkillFactoryError, match="only one of them has the set `3"):
        compare([ours, less])
    empty = make_run(tmp_path / "e", recipe_of(n=3), write=None)
    with pytest.raises(SkillFactoryError, match="e has no responses to compare"):
        compare([ours, empty])
    with pytest.raises(SkillFactoryError, match="at least two"):
        compare([ours])


def test_same_run_twice_differs_by_nothing(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(n=3))
    found = compare([loaded, loaded])
    assert [each["run"]["label"] for each in found.metrics] == ["test-skillfactory #1", "test-skillfactory #2"]
    assert all(cell["mean"] == 0 for cell in found.differences["rl"]["test-skillfactory #2"].values())
    assert found.settings == []


def test_pieces_hold_the_whole_response() -> None:
    text = "a<sample>b</reflect>c</sample><reflect><verdict>Correct</verdict></reflect><answer>1</answer><sample>cut"
    pieces = page.pieces_of(text)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.kind for piece in pieces] == [
        "plain", "sample", "reflect", "verdict-correct", "reflect", "answer", "plain",
    ]  # fmt: skip
