"""Synthetic runs that the store itself has written, their reports, and what a browser would see of a page."""

import json
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.report import report
from skillfactory.store import LoadedRun, Run, load_run
from skillfactory.tasks import questions

Write = Callable[[str, Question, int], str]
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>\x1b[2J\x1b]0;owned\x07[bold]not markup[/bold]'
FIRST, BUDGET = 4096, 5000  # evaluation.max_tokens and the larger budget of forcing


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
    return f"I think so. Let me check. <answer>{answer}</answer>"


def trace(answer: str) -> str:
    return (
        "<think>\n<sample>\n<answer>1</answer>\n</sample>\n<reflect>\nno\n<verdict>Incorrect</verdict>\n</reflect>\n"
        f"<sample>\n<answer>{answer}</answer>\n</sample>\n<reflect>\nyes\n<verdict>Correct</verdict>\n</reflect>\n"
        f"</think>\n\n<answer>{answer}</answer>"
    )


def typical(model: str, question: Question, sample: int) -> str:
    """The base gets one question in eight right, SFT every other sample, RL all but those whose id ends on 0 to 3.

    Kept RL steps are like SFT.
    """
    right = {"base": question.id[-1] in "01", "rl": question.id[-1] not in "0123"}.get(model, sample == 0)
    answer = question.answer if right else "7"
    return plain(answer) if model == "base" else trace(answer)


def always(right: bool) -> Write:
    return lambda model, question, sample: plain(question.answer if right else "7")


def make_run(
    path: Path, recipe: Recipe, write: Write | None = typical, reward: float = 0.5, kept: tuple[int, ...] = ()
) -> LoadedRun:
    """A run with questions, responses (none where `write` is None) and training metrics; no report yet.

    With `evaluation.forcing.budgets` in the recipe it has forced responses, which are as typical but of twice the
    length; `kept` are RL steps whose models were kept.
    """
    with Run.open(path, recipe) as run:
        run.begin("questions", {}, {})
        questions.run(recipe, run)
        rows = {q.id: q for q in run.stage("questions").rows(Question)}
        sets = run.stage("questions").read_json("sets.json")
        stage = run.begin("evaluation", {}, {})
        models = ["base", *(["sft"] if recipe.method == "skillfactory" else []), *(f"rl@{s}" for s in kept), "rl"]
        for name in recipe.evaluation.sets if write else ():
            for model in models:
                stage.append(list(responses(recipe, model, name, [rows[i] for i in sets[name]], write or typical)))
        stage.finish(tokens=123)
        for name in ("sft", "rl") if recipe.method == "skillfactory" else ("rl",):
            folder = run.begin(name, {}, {}).path
            figures = {
                "length": 50.0,
                "seconds": 2.0,
                "entropy": 0.3,
                "answers": 1.5,
                "reflections": 1.0,
                "retries": 0.5,
            }
            lines = [{"step": s, "reward": reward * s / 3, "loss": 1 / s, **figures} for s in (1, 2, 3)]
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 4, "rew')
            run.stage(name).finish()
    return load_run(path)


def responses(recipe: Recipe, model: str, name: str, asked: list[Question], write: Write) -> Iterator[Response]:
    task = questions.task_of(recipe.evaluation.sets[name].task)
    budgets = recipe.evaluation.forcing.budgets if "@" not in model else []
    modes = ["sampled", *(f"unforced-{b}" for b in (FIRST, *budgets) if budgets), *(f"forced-{b}" for b in budgets)]
    for mode in modes:
        for question in asked:
            for sample in range(recipe.evaluation.samples):
                text = write(model, question, sample)
                grade = task.grade(question, text)
                graded = (text, grade.answer, grade.outcome, grade.reason)
                length = len(text) * (2 if mode.startswith("forced") else 1)
                yield Response(question.id, model, name, mode, sample, *graded, "stop", length)


def make_report(loaded: LoadedRun) -> tuple[dict[str, Any], str]:
    """Run the report stage; its metrics and its page."""
    with Run.open(loaded.path, loaded.recipe) as run:
        run.begin("report", {}, {})
        report.run(loaded.recipe, run)
    text = (loaded.path / "metrics.json").read_text()
    metrics: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in metrics.json"))
    return metrics, (loaded.path / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see: elements, ids, where they point, headings, and tables as rows of cells."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.hints: list[str] = []  # of points in figures
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append("")
        elif tag == "title" and "svg" in self.open:
            self.hints.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data
        elif {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data
        elif self.open[-1:] == ["title"] and "svg" in self.open:
            self.hints[-1] += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without start"
        assert self.open.pop() == tag


def check_page(text: str, links: Sequence[str] = ()) -> Page:
    """Well-formed, alone, small, with one h1 and unique ids, and no script but the viewer's, which the policy names.

    `links`: other files that it may point to.
    """
    found = Page(text)
    assert found.open == []
    assert found.tags.count("h1") == 1
    assert not {"img", "link", "iframe", "object", "base", "form"} & set(found.tags)
    scripts = found.tags.count("script")
    assert scripts in (0, 2), "the viewer's data and its code, or nothing"
    assert ("script-src 'sha256-" in text) == bool(scripts)
    assert "default-src 'none'" in text
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "aria-labelledby"):
            assert value is not None
            assert value in links or value.removeprefix("#") in ids, value
    assert len(text.encode()) < 5_000_000
    return found


def printed(what: Callable[[Console], None], width: int = 200) -> str:
    console = Console(file=StringIO(), width=width)
    what(console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
