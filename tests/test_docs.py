"""The documents say what is true: recipes load, commands parse, examples run, links lead somewhere."""

import importlib.util
import re
import shlex
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from curated import Known
from typer.main import get_command

from skillfactory import pipeline
from skillfactory.cli import app
from skillfactory.curation.patterns import PATTERNS, arrange, patterns_of
from skillfactory.curation.prompts import load_prompts
from skillfactory.experiments.grid import load_experiment
from skillfactory.recipe import Recipe, Traces
from skillfactory.recipes import load_recipe, read_recipe, shipped
from skillfactory.tasks import base, own
from skillfactory.tasks.questions import make_questions, task_of

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE_PATH = re.compile(r"`((?:skillfactory|recipes|docs|tests|benchmarks)/[\w./-]+)`")

Block = tuple[Path, str]


def blocks(language: str) -> list[Any]:
    """(page, text) of every fenced block of a language, as test parameters."""
    found = [(page, text) for page in PAGES for kind, text in _FENCE.findall(page.read_text()) if kind == language]
    return [pytest.param(each, id=f"{each[0].stem}-{number}") for number, each in enumerate(found)]


def commands() -> Iterator[Any]:
    """(page, words) of every `skillfactory …` line in a bash block."""
    for parameter in blocks("bash"):
        page, text = parameter.values[0]
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["skillfactory"]:
                yield pytest.param((page, words[1:]), id=f"{page.stem}: {line.partition('#')[0].strip()}")


def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipes_of(page: Path, folder: Path) -> None:
    """Write every whole recipe of a page into a folder, under its name."""
    for kind, text in _FENCE.findall(page.read_text()):
        if kind == "yaml" and "name" in (data := yaml.safe_load(text)):
            (folder / f"{data['name']}.yaml").write_text(text)


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    text = _FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == make_reference().make(), (
        "docs/reference.md is stale: run `python docs/make_reference.py`"
    )


def test_reference_has_every_setting() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    for section, field in Recipe.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        for key in [f"{section}.{name}" for name in keys if name != "task"] or [section]:
            assert f"`{key}`" in page or f"`{key}." in page


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_examples_are_accepted(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(block[1])
    if "reflection" in yaml.safe_load(block[1]):
        load_prompts(str(file)).check(list(yaml.safe_load(block[1])["variants"]))
    elif "methods" in yaml.safe_load(block[1]):
        load_experiment(file)
    else:
        load_recipe(file)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_are_accepted(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize("block", blocks("jsonl"))
def test_question_file_examples_are_accepted(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(block[1])
    task = own.jsonl(path=str(file), grade="number")
    assert len(task.questions) == len(block[1].splitlines())
    base.check_references(task, task.questions)


def test_own_questions_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "howto.md").read_text()
    section = page.partition("## Your own questions")[2].partition("\n## ")[0]
    example = _FENCE.findall(section)[:3]
    assert [language for language, _ in example] == ["jsonl", "python", "yaml"]
    assert sum(line != "" for _, text in example for line in text.splitlines()) == 10
    for name, (_, text) in zip(("questions.jsonl", "estimates.py", "estimates.yaml"), example, strict=True):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(tmp_path / "estimates.yaml")
    made = make_questions(recipe)
    assert sorted(question.split for question in made.rows) == ["eval"] * 100 + ["rl", "sft"]
    task = task_of(recipe.questions.task)
    month = next(question for question in made.rows if "month" in question.text)
    graded = [task.grade(month, f"<answer>{text}</answer>") for text in ("30.5", "31", "a month")]
    assert [(each.outcome, each.reason) for each in graded] == [("correct", ""), ("wrong", ""), ("wrong", "")]
    own_rules = re.findall(r"^\| `([\w.]+)` \|", section.partition("`grade` says")[2].partition("\n\n`math`")[0], re.M)
    assert own_rules[1:] == ["exact", "number", "math", "choice", "package.module.function"]


def test_own_questions_tables_are_true() -> None:
    section = (ROOT / "docs" / "howto.md").read_text().partition("`math` reads all")[2].partition("A whole recipe")[0]
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


@pytest.mark.parametrize("command", list(commands()))
def test_commands_exist_with_their_options(
    command: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, (name, *words) = command
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert name in known
    parsed = known[name].make_context(name, list(words)).params  # raises for an option or value that is none
    if name in ("run", "demo"):
        recipes_of(page, tmp_path)
        monkeypatch.chdir(tmp_path)
        recipe = load_recipe(parsed.get("recipe", "demo"), parsed["overrides"] or [])
        for stage in filter(None, (parsed.get("until"), parsed.get("fresh"))):
            assert stage in pipeline.stages_of(recipe)


def test_there_are_commands_to_check() -> None:
    assert len(list(commands())) > 10


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }  # fmt: skip
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if anchor:
            assert anchor in headings(file), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_named_exist(page: Path) -> None:
    for name in _CODE_PATH.findall(page.read_text()):
        assert (ROOT / name).exists(), name


def test_architecture_lists_every_part() -> None:
    listing = next(text for _, text in _FENCE.findall((ROOT / "docs" / "architecture.md").read_text()))
    named = set(re.findall(r"^  ([\w./]+)", listing, re.MULTILINE))
    package = ROOT / "skillfactory"
    files = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == files | folders


def test_task_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(text for p in blocks("python") for text in [p.values[0][1]] if "@register" in text)
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    module = ModuleType("remainder_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "howto.md", "exec"), module.__dict__)
    task = base.get("remainder", high=50)
    questions = task.generate(20, seed=0, split="rl")
    base.check_references(task, questions)
    assert {base.home(question.id) for question in questions} == {"rl"}
    assert task.grade(questions[0], "<answer>none</answer>").outcome == "wrong"
    assert task.grade(questions[0], "none").outcome == "no_answer"


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_compile(block: Block) -> None:
    compile(block[1], block[0].name, "exec")


def test_pattern_example_works(tmp_path: Path) -> None:
    source = next(text for p in blocks("python") for text in [p.values[0][1]] if "def arrange" in text)
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
    section = (
        (ROOT / "docs" / "howto.md").read_text().partition("## The pattern of the traces")[2].partition("\n## ")[0]
    )
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(PATTERNS)


def test_pictures_are_well_formed_and_adapt_to_dark() -> None:
    for picture in (ROOT / "docs" / "images").glob("*.svg"):
        root = ET.parse(picture).getroot()
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "prefers-color-scheme: dark" in picture.read_text()


def test_demo_recipe_is_what_the_tutorial_says() -> None:
    recipe = read_recipe(shipped()["demo"])
    task = base.get(recipe.questions.task.name, **recipe.questions.task.params)
    page = (ROOT / "docs" / "tutorial.md").read_text()
    question = task.make(numbers=[12, 4, 2, 7, 3], target=14)
    assert question.text in page
    attempts = re.findall(r"<sample>\n(.*?)</sample>\n<reflect>.*?<verdict>(\w+)</verdict>", page, re.DOTALL)
    assert attempts
    for attempt, verdict in attempts:
        assert (task.grade(question, attempt).outcome == "correct") == (verdict == "Correct")
    assert "one_solution" in recipe.evaluation.sets


def test_the_list_of_markers_is_the_one_in_use() -> None:
    table = (ROOT / "docs" / "skills.md").read_text(encoding="utf-8").rpartition("|---|---|\n")[2]
    told = {
        kind.strip(): phrases.strip() for kind, phrases in (row.strip("|").split("|") for row in table.splitlines())
    }
    marked = yaml.safe_load((ROOT / "skillfactory" / "evaluation" / "markers.yaml").read_text(encoding="utf-8"))
    assert told == {kind: ", ".join(phrases) for kind, phrases in marked.items()}
