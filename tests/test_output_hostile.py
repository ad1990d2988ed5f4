"""Runs whose questions, names and samples are hostile, through all that prints and writes: nothing of it is obeyed."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from browser import chromium, require_browser, visit
from markdown_it import MarkdownIt
from raw_server import Answer, chat, http, serving
from reported import check_page
from typer.testing import CliRunner

pytest.importorskip("openai", minversion="3")

from skillfactory import load_run, pipeline
from skillfactory.cli import app
from skillfactory.recipe import Recipe

HTML = (
    "<script>document.title='owned'</script></script><!--<script>--><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=alert(1)><a href='javascript:1'>x</a>]]>\u2028\u2029&lt;script&gt;<style>*{display:none}</style>"
)
TERMINAL = (
    "\x1b[2J\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b]8;;http://evil.example\x07link\x1b]8;;\x07\x9b2J\x9d0;owned\x9c"
    "\x1bP+q\x1b\\\x1bc\x7f\0\b\r\x0e\u202e\u2066\udfff\ud800\ufffe"
)
MARKUP = "[red]r[/red][link=http://evil.example]l[/link][/] | a | `b` **c** [d](http://evil.example) $x$ {{7*7}}"
EVIL = f"=cmd|' /C calc'!A0 {HTML} {TERMINAL} {MARKUP} " + "A" * 3000
NAME = f"=cmd {HTML} \x1b[2J\x9b2J\u202e {MARKUP}"  # of sets; a YAML file has no zero bytes and no halves
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def respond(body: Any) -> Answer:
    """An answer that is right or wrong as the seed says, and true verdicts, within texts that attack."""
    prompt = body["messages"][-1]["content"]
    if "<verdict>" in prompt:
        true = "Correct" if "<answer>4</answer>" in prompt else "Incorrect"
        return http(chat(f"{EVIL}\n<verdict>{true}</verdict>"))
    return http(chat(f"{EVIL}\n<answer>{4 if body['seed'] % 2 else 5}</answer>", model=f"m {TERMINAL}"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A run as far as its traces, and two that only evaluate, with their reports."""
    folder = tmp_path_factory.mktemp("evil")
    rows = [{"question": f"{i} {EVIL} What is 2 + 2?", "answer": "4"} for i in range(40)]
    rows = [{**row, "question": row["question"].replace("\ud800", "").replace("\udfff", "")} for row in rows]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {"name": "jsonl", "params": {"path": str(folder / "own.jsonl")}, "level": NAME}
    with serving(respond=respond) as (url, _):
        for name, method, until in (("a", "skillfactory", "traces"), ("b", "evaluate", None), ("c", "evaluate", None)):
            recipe = Recipe.model_validate({
                "name": name, "method": method, "seed": 1,
                "questions": {"task": task, "sft": 12, "rl": 2, "dev": 0},
                "attempts": {"engine": "openai", "per_variant": 3}, "traces": {"max_tokens": 10**9},
                "evaluation": {"sets": {NAME: {"task": task, "n": 4}, "x": {"task": task, "n": 3, "kind": "other"}},
                               "samples": 2, "engine": "openai" if until is None else "transformers"},
                "engines": {"openai": {"base_url": url, "model": "m"}},
            })  # fmt: skip
            pipeline.run(recipe, folder / name, until)
    return folder / "a", folder / "b", folder / "c"


def safe(text: str) -> str:
    """The text, in which nothing is that a terminal would obey but the colours that are ours."""
    bare = _COLOURS.sub("", text)
    assert not _CONTROL.search(bare), repr(_CONTROL.search(bare))
    assert "\x1b]8" not in text
    return bare


@pytest.mark.parametrize("coloured", [False, True])
def test_what_the_terminal_gets(
    runs: tuple[Path, ...], coloured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if coloured:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    a, b, c = map(str, runs)
    for words in (
        ["show", a], ["show", b], ["status", a], ["status", b], ["compare", b, c], ["show", a, "--traces", "3"],
        ["show", a, "--json"], ["status", a, "--json"], ["compare", b, c, "--json"],
        ["run", f"{a}/recipe.yaml", "--run", a, "--dry-run", "--probe", "0"],
        ["run", f"{a}/recipe.yaml", "--run", a, "--until", "traces"],
        ["run", f"{a}/recipe.yaml", "--run", a, "--until", "traces", f"seed={ord('z')}"],
        ["run", f"{a}/recipe.yaml", f"x={json.dumps(MARKUP)}"],
        ["show", f"{tmp_path}/\x1b[2J\u202e"],
        ["run", f"{TERMINAL.replace(chr(0), '')}.yaml"],
    ):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.exit_code in (0, 2)
        out = safe(done.stdout) + safe(done.stderr)
        assert out
        if words[0] == "show" and words[1] == a and "--json" not in words:
            assert "[red]r[/red]" in out  # shown as it is
            assert "<script>" in out
        if "--json" in words:
            json.loads(done.stdout)


def test_pages_run_no_script(runs: tuple[Path, ...], tmp_path: Path) -> None:
    _, b, c = runs
    done = CliRunner().invoke(app, ["compare", str(b), str(c), "--out", str(tmp_path / "comparison.html")])
    assert done.exit_code == 0, done.stderr
    for path in (b / "report.html", tmp_path / "comparison.html"):
        text = path.read_text(encoding="utf-8")
        found = check_page(text, links=[each.name for each in path.parent.iterdir()])
        assert not {"img", "a:javascript"} & set(found.tags)
        assert not any((value or "").startswith("javascript") for _, value in found.attributes)
        assert not _CONTROL.search(text)
        assert text.count("</script>") == 2
        assert "{{7*7}}" in text  # no template of ours
        assert "A" * 100 in text


def test_a_browser_shows_it_all_and_runs_nothing(runs: tuple[Path, ...]) -> None:
    require_browser()
    with chromium() as browser, visit(browser, runs[1] / "report.html") as seen:
        assert seen.page.title() != "owned"
        assert "=cmd" in seen.page.inner_text("body")
        for each in seen.page.query_selector_all("summary, button"):
            if each.is_visible() and each.is_enabled():
                each.click()
        assert seen.page.title() != "owned"
        assert seen.page.query_selector("img, a[href^=javascript], svg[onload]") is None


def test_tables_for_other_programs(runs: tuple[Path, ...]) -> None:
    """No cell of a CSV file is a formula; Markdown shows names as they are, without HTML, links or more columns."""
    folder = runs[1]
    for path in folder.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                assert not any(cell.lstrip().startswith(("=", "@", "\t", "\r")) for cell in row), (path, row)
        assert not _CONTROL.search(path.read_text(encoding="utf-8").replace("\r\n", "\n"))
    pages = [*folder.glob("*.md")]
    assert pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not _CONTROL.search(text)
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        assert not re.search(r"<(script|img|svg|a|style)\b", html)
    assert list(folder.rglob("*.csv"))


@pytest.mark.parametrize(
    "name", ["trl", "trl-messages", "llamafactory", "llamafactory-conversations", "verl", "datasets"]
)
def test_exports_and_the_data_card(runs: tuple[Path, ...], name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(runs[0]), name, str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    safe(done.stdout)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    data = [str(pq.read_table(path).to_pylist()) for path in files if path.suffix == ".parquet"]
    data += [path.read_text("utf-8") for path in files if path.suffix == ".jsonl"]
    assert "<script>" in data[0]  # learnt from as it is: escaping is for those who show it
    for path in files:
        if path.suffix == ".md":
            card = path.read_text(encoding="utf-8")
            _, header, text = card.split("---\n", 2)
            assert yaml.safe_load(header)["configs"]
            assert not _CONTROL.search(card)
            html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
            assert not re.search(r"<(script|img|svg|style)\b", html)
            assert 'evil.example"' not in html


def test_logs_and_manifests_are_plain(runs: tuple[Path, ...]) -> None:
    """Lines of JSON that `cat` may show, and no half of a character in any file."""
    for run in runs:
        for path in [*run.rglob("*.json"), *run.rglob("*.jsonl")]:
            text = path.read_text(encoding="utf-8")
            for line in text.rstrip().split("\n") if path.suffix == ".jsonl" else [text]:
                json.loads(line)
            assert not re.search("[\x00-\x08\x0b-\x1f]", text), path
            assert path.name != "log.jsonl" or text.isascii()
        attempts = load_run(run).table("attempts" if run.name == "a" else "evaluation", ["text"])["text"].to_pylist()
        assert all("\ufffd\ufffd" in text and "\x1b]0;owned" in text for text in attempts)
