"""The documents say what is true: tables, links, the reference; their code blocks are test_docs_blocks.py's."""

import ast
import importlib
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from curated import Known
from documents import DOCS, GENERATED, PAGES, ROOT, blocks_of, without_blocks

from skillfactory.curation.patterns import PATTERNS, arrange, patterns_of
from skillfactory.recipe import Recipe, Traces
from skillfactory.recipes import load_recipe, read_recipe, shipped
from skillfactory.tasks import base, own
from skillfactory.tasks.questions import make_questions, task_of

HOWTO = DOCS / "howto"
OF_OTHERS = {"CUDA out of memory"}  # messages that are not ours
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE_PATH = re.compile(r"`((?:skillfactory|recipes|docs|tests|benchmarks)/[\w./-]+)`")


def make_reference(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.syspath_prepend(str(DOCS))
    made: dict[str, str] = importlib.import_module("make_reference").make()
    return made


def titled(page: Path, title: str) -> str:
    """The block of a page that is a file of this name."""
    return next(block.text for block in blocks_of(page) if block.title == title)


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    text = without_blocks(page)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_reference_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_reference(monkeypatch)
    assert {DOCS / "reference" / name for name in made} == GENERATED
    for name, text in made.items():
        assert (DOCS / "reference" / name).read_text() == text, f"{name} is stale: run `python docs/make_reference.py`"


def test_reference_has_every_setting() -> None:
    page = (DOCS / "reference" / "recipe.md").read_text()
    for section, field in Recipe.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        for key in [f"{section}.{name}" for name in keys if name != "task"] or [section]:
            assert f"`{key}`" in page or f"`{key}." in page


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_are_accepted(name: str) -> None:
    assert load_recipe(name).name == name


def test_own_questions_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = HOWTO / "questions.md"
    names = ("questions.jsonl", "estimates.py", "estimates.yaml")
    assert sum(line != "" for name in names for line in titled(page, name).splitlines()) == 10
    for name in names:
        (tmp_path / name).write_text(titled(page, name))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(tmp_path / "estimates.yaml")
    made = make_questions(recipe)
    assert sorted(question.split for question in made.rows) == ["eval"] * 100 + ["rl", "sft"]
    task = task_of(recipe.questions.task)
    month = next(question for question in made.rows if "month" in question.text)
    graded = [task.grade(month, f"<answer>{text}</answer>") for text in ("30.5", "31", "a month")]
    assert [(each.outcome, each.reason) for each in graded] == [("correct", ""), ("wrong", ""), ("wrong", "")]
    own_rules = re.findall(
        r"^\| `([\w.]+)` \|", page.read_text().partition("`grade` says")[2].partition("\n\n`math`")[0], re.M
    )
    assert own_rules[1:] == ["exact", "number", "math", "choice", "package.module.function"]


def test_own_questions_tables_are_true() -> None:
    section = (HOWTO / "questions.md").read_text().partition("`math` reads all")[2].partition("A whole recipe")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in section.splitlines() if line.startswith("| `")]
    task = own.jsonl(path="unread", grade="math", seconds=60)
    checked = 0
    for reference, answers, verdict in rows:
        question = task.make(question="?", answer=reference.strip("| `"))
        for answer in re.findall(r"`([^`]+)`", answers.partition(";")[0]):
            grade = task.grade(question, f"<answer>{answer}</answer>")
            assert grade.outcome == ("correct" if verdict.startswith("right") else "wrong"), (question.answer, answer)
            checked += 1
    assert checked >= 15


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }  # fmt: skip
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(without_blocks(page)):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if anchor and file.suffix == ".md":
            assert anchor in headings(file), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    for name in _CODE_PATH.findall(page.read_text()):
        assert (ROOT / name).exists(), name


def test_architecture_lists_every_part() -> None:
    listing = next(block.text for block in blocks_of(DOCS / "architecture.md") if "skillfactory/\n" in block.text)
    named = set(re.findall(r"^  ([\w./]+)", listing, re.MULTILINE))
    package = ROOT / "skillfactory"
    files = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == files | folders


def test_task_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    source = titled(HOWTO / "task.md", "remainder.py")
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    module = ModuleType("remainder_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "task.md", "exec"), module.__dict__)
    task = base.get("remainder", high=50)
    questions = task.generate(20, seed=0, split="rl")
    base.check_references(task, questions)
    assert {base.home(question.id) for question in questions} == {"rl"}
    assert task.grade(questions[0], "<answer>none</answer>").outcome == "wrong"
    assert task.grade(questions[0], "none").outcome == "no_answer"


def test_pattern_example_works(tmp_path: Path) -> None:
    source = titled(HOWTO / "pattern.md", "stubborn.py")
    assert len(source.splitlines()) <= 10
    (tmp_path / "stubborn.py").write_text(source)
    given = Traces(pattern=str(tmp_path / "stubborn.py"), per_question=2)
    found = arrange(Known([True, False] * 6, [0] * 12), patterns_of(given), given, 0)
    assert len(found.traces) == 2
    for pattern, pairs, _ in found.traces:
        assert (pattern.name, pattern.closing) == ("stubborn", "confirmed")
        assert [pair.correct for pair in pairs[-2:]] == [True, True]
        assert not any(pair.correct for pair in pairs[:-2])


def test_pattern_table_lists_every_pattern() -> None:
    section = (HOWTO / "pattern.md").read_text().partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(PATTERNS)


def test_pictures_are_well_formed_and_adapt_to_dark() -> None:
    for picture in (DOCS / "images").glob("*.svg"):
        root = ET.parse(picture).getroot()
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "prefers-color-scheme: dark" in picture.read_text()


def test_demo_recipe_is_what_the_tutorial_says() -> None:
    recipe = read_recipe(shipped()["demo"])
    task = base.get(recipe.questions.task.name, **recipe.questions.task.params)
    page = (DOCS / "tutorial.md").read_text()
    question = task.make(numbers=[12, 4, 2, 7, 3], target=14)
    assert question.text in page
    attempts = re.findall(r"<sample>\n(.*?)</sample>\n<reflect>.*?<verdict>(\w+)</verdict>", page, re.DOTALL)
    assert attempts
    for attempt, verdict in attempts:
        assert (task.grade(question, attempt).outcome == "correct") == (verdict == "Correct")
    assert "one_solution" in recipe.evaluation.sets


def test_the_list_of_markers_is_the_one_in_use() -> None:
    table = (DOCS / "skills.md").read_text(encoding="utf-8").rpartition("|---|---|\n")[2]
    told = {
        kind.strip(): phrases.strip() for kind, phrases in (row.strip("|").split("|") for row in table.splitlines())
    }
    marked = yaml.safe_load((ROOT / "skillfactory" / "evaluation" / "markers.yaml").read_text(encoding="utf-8"))
    assert told == {kind: ", ".join(phrases) for kind, phrases in marked.items()}


def messages() -> Iterator[Any]:
    """The first cells of the tables of docs/troubleshooting.md: what an error says, `…` for what differs."""
    for line in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| (`+)(.+?)\1 \| ", line):
            yield pytest.param(found[2], id=found[2])


def literals() -> Iterator[str]:
    """Every text in the package's code; a NUL stands for what is filled in."""
    for file in sorted((ROOT / "skillfactory").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.fixture(scope="module")
def said() -> list[str]:
    return list(literals())


@pytest.mark.parametrize("message", list(messages()))
def test_messages_are_those_of_the_code(message: str, said: list[str]) -> None:
    if message in OF_OTHERS:
        return
    pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
    assert any(pattern.search(each) for each in said), "no error says so any more"


def test_troubleshooting_has_messages() -> None:
    assert len(list(messages())) > 50
