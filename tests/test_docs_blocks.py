"""Every code block of the documents is run, or read where it cannot run here (documents.py: how blocks are marked)."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import BLOCKS, ROOT, Block
from raw_files import make_rows, write_raw
from typer.main import get_command

from skillfactory import pipeline
from skillfactory.cli import app
from skillfactory.curation.prompts import load_prompts
from skillfactory.errors import ModelError
from skillfactory.experiments.grid import load_experiment
from skillfactory.recipes import load_recipe
from skillfactory.tasks import base

SHELL = """\
#!/bin/bash
exec {python} {command} "$@"
"""
RUN = sorted({b.page for b in BLOCKS if b.language in ("bash", "python") and not b.mark})
SLOW = sorted({b.page for b in BLOCKS if b.mark == "slow"})


def name_of(value: Any) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def of(*languages: str, mark: str | None = None) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and mark in (None, block.mark)]


# --- every block is one of those that are tested


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_classified(block: Block) -> None:
    marks = {
        "bash": ("", "slow", "not run"), "python": ("", "slow"), "text": ("output", "example"),
        "yaml": ("",), "json": ("",), "jsonl": ("",), "bibtex": ("",),
    }  # fmt: skip
    assert block.language in marks, "a block needs a language; see documents.py"
    assert block.mark in marks[block.language], f"a {block.language} block needs another mark; see documents.py"
    assert bool(block.reason) == (block.mark in ("not run", "example")), "a reason belongs to a block that is not run"
    if block.mark == "output":
        before = BLOCKS[BLOCKS.index(block) - 1]
        assert before.page == block.page
        assert before.language in ("bash", "python")
        assert before.mark == "", "an output is that of a block which is always run"


def test_most_blocks_run() -> None:
    code = of("bash", "python")
    assert len(code) > 60
    assert sum(block.mark != "not run" for block in code) > len(code) / 2


# --- run


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to have first on the path: `skillfactory` for small runs, and this Python."""
    folder = tmp_path_factory.mktemp("programs")
    file = folder / "skillfactory"
    file.write_text(SHELL.format(python=sys.executable, command=ROOT / "tests" / "small_command.py"))
    file.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return folder


@pytest.fixture(scope="session")
def demo_runs(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/demo` of the tutorial's first command, which every page begins with."""
    folder = tmp_path_factory.mktemp("demo")
    shell("skillfactory demo", folder, programs)
    return folder / "runs"


def shell(text: str, folder: Path, programs: Path) -> str:
    """What commands print, which must all succeed."""
    environment = os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1", "COLUMNS": "140", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Page:
    """A page's blocks, run in their order in one folder; its Python is one session."""

    def __init__(self, page: Path, folder: Path, programs: Path) -> None:
        self.blocks = [block for block in BLOCKS if block.page == page]
        self.folder, self.programs = folder, programs
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""

    def run(self, slow: bool) -> None:
        for block in self.blocks:
            if block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")
            if block.mark == "not run" or (block.mark == "slow" and not slow):
                continue
            if block.language == "bash":
                self.printed = shell(block.text, self.folder, self.programs)
            elif block.language == "python" and not block.title:
                self.printed = self.python(block)
            elif block.mark == "output":
                self.compare(block)

    def python(self, block: Block) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), self.names)
        return printed.getvalue()

    def compare(self, block: Block) -> None:
        """Every line was printed, in this order; `…` stands for what differs, or for other lines."""
        given = iter(self.printed.splitlines())
        for line in block.text.splitlines():
            pattern = re.compile(".*".join(map(re.escape, line.rstrip().split("…"))))
            told = line == "…" or any(pattern.fullmatch(each.rstrip()) for each in given)
            assert told, f"{block}: {line!r} is not in\n{self.printed}"


def write_teacher(file: Path) -> None:
    """Another model's responses, as chats."""
    rows = [{"prompt": f"What is {n} + 1?", "completion": f"It is <answer>{n + 1}</answer>"} for n in range(20)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, demo_runs: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    """The page that the test names, in a folder that has what readers have at hand."""
    shutil.copytree(demo_runs, tmp_path / "runs", symlinks=True)
    write_raw(tmp_path / "raw.parquet", make_rows(48))
    write_teacher(tmp_path / "teacher.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    monkeypatch.setattr(base, "_levels", dict(base._levels))
    before = set(sys.modules)
    yield Page(request.param, tmp_path, programs)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("opened", RUN, indirect=True, ids=name_of)
def test_blocks_run(opened: Page) -> None:
    opened.run(slow=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("opened", SLOW, indirect=True, ids=name_of)
def test_slow_blocks_run(opened: Page) -> None:
    opened.run(slow=True)


# --- read


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_accepted(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in BLOCKS:
        if other.page == block.page and other.title:
            (tmp_path / other.title).write_text(other.text, encoding="utf-8")
    file = tmp_path / "example.yaml"
    file.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = yaml.safe_load(block.text)
    if "reflection" in data:
        load_prompts(str(file)).check(list(data["variants"]))
    elif "methods" in data:
        load_experiment(file)
    else:
        load_recipe(file)


@pytest.mark.parametrize("block", of("json", "jsonl"), ids=str)
def test_json_is_accepted(block: Block) -> None:
    for text in [block.text] if block.language == "json" else block.text.splitlines():
        json.loads(text)


@pytest.mark.parametrize("block", of("bibtex"), ids=str)
def test_bibtex_is_balanced(block: Block) -> None:
    assert re.match(r"@\w+\{[\w-]+,", block.text)
    assert block.text.count("{") == block.text.count("}")


def commands(*marks: str) -> list[Any]:
    """(block, words) of each command of the bash blocks with such a mark."""
    found = []
    for block in of("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and block.mark in marks:
                for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                    found.append(pytest.param(block, shlex.split(part), id=f"{block} {part[:60]}"))
    return found


@pytest.mark.parametrize(("block", "words"), commands("not run", "slow", ""))
def test_command_is_one(block: Block, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a block that is run: what its settings are there is not what they are here."""
    program, *rest = words[1:] if words[0] == "exec" else words
    for other in BLOCKS:
        if other.page == block.page and other.title:
            (tmp_path / other.title).write_text(other.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if program.endswith("skillfactory"):
        check_command(*rest)
    elif program == "make":
        targets = [word for word in rest if "=" not in word]
        subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, check=True, capture_output=True)
    elif program.endswith("python"):
        for file in [word for word in rest if word.startswith(("tests/", "benchmarks/", "docs/"))]:
            assert (ROOT / file).exists(), file
    else:
        assert program in KNOWN or program.endswith("/pip"), f"{program} is not known to this test"


KNOWN = (
    "cat", "cp", "export", "hf", "pip", "python3", "python3.12", "ray", "source", "tensorboard", "truncate", "vllm",
)  # fmt: skip


def check_command(name: str, *words: str) -> None:
    """The command has these arguments and options, and the recipe or experiment it names can be read."""
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert name in known
    given = known[name].make_context(name, list(words)).params  # raises for an option or value that is none
    if name in ("run", "demo"):
        recipe = load_recipe(given.get("recipe", "demo"), given["overrides"] or [])
        for stage in filter(None, (given.get("until"), given.get("fresh"))):
            assert stage in pipeline.stages_of(recipe)
    elif name == "experiment":
        try:
            load_experiment(given["file"], given["overrides"] or [])
        except ModelError as error:  # of a run that an earlier command of the page makes
            if "There is no model folder runs/" not in str(error):
                raise
    elif name == "examples":
        load_recipe(given["recipe"], [*given["overrides"], "method=evaluate"])
