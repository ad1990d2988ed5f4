"""Exports: whole or not there, every trace as it was, and a card that no recipe can break."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces_run import dialogue, make_run, make_trace

from skillfactory import store
from skillfactory.errors import StoreError
from skillfactory.formats import card
from skillfactory.formats.export import FORMATS, export

TRACES = [make_trace(i, system=i % 2 == 0) for i in range(7)]


@pytest.fixture
def run(tmp_path: Path) -> store.LoadedRun:
    return make_run(tmp_path / "run", [TRACES[:3], TRACES[3:]])


def written(folder: Path) -> list[dict[str, Any]]:
    """The rows of an export, without any library of a trainer."""
    import pyarrow.parquet as pq

    found = [file for file in folder.rglob("train*") if file.is_file()]
    assert len(found) == 1
    if found[0].suffix == ".parquet":
        return list(pq.read_table(found[0]).to_pylist())
    return [json.loads(line) for line in found[0].read_text("utf-8").splitlines()]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_every_trace(run: store.LoadedRun, tmp_path: Path, format: str) -> None:
    out = tmp_path / "new" / "out"
    done = export(run, format, out)
    assert done.traces == len(TRACES)
    assert sorted(done.files) == sorted(file for file in out.rglob("*") if file.is_file())
    for row, trace in zip(written(out), TRACES, strict=True):
        chat = row.get("messages") or row.get("conversations") or row["prompt"] + row["completion"]
        assert chat == dialogue(trace)
        if "prompt" in row:
            assert (row["prompt"], row["completion"]) == (trace.prompt, dialogue(trace)[-1:])


def test_patterns_have_the_authors_names(run: store.LoadedRun, tmp_path: Path) -> None:
    export(run, "llamafactory-conversations", tmp_path / "out")
    names = [row["sft_template_type_idx"] for row in written(tmp_path / "out")]
    assert names == ["algorithm1", "2C", "*C*IC", "*CC", "0C", "algorithm1", "1C"]


def test_dataset_info_names_every_tag(run: store.LoadedRun, tmp_path: Path) -> None:
    export(run, "llamafactory", tmp_path / "out")
    (about,) = json.loads((tmp_path / "out" / "dataset_info.json").read_text()).values()
    assert about["formatting"] == "sharegpt"
    assert len(about["tags"]) == 7
    assert all(about["tags"].values())


def test_more_traces_than_fit_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skillfactory.formats.export._AT_ONCE", 2)
    export(make_run(tmp_path / "run", [TRACES[:3], TRACES[3:]]), "trl", tmp_path / "out")
    assert [row["completion"][0]["content"] for row in written(tmp_path / "out")] == [t.completion for t in TRACES]


def refused(run: store.LoadedRun, out: Path, format: str = "trl") -> str:
    with pytest.raises(StoreError) as error:
        export(run, format, out)
    assert not list(out.parent.glob(".tmp-*"))
    return str(error.value)


def test_what_is_refused(run: store.LoadedRun, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    wanted = "name a folder that is empty or not there yet."
    assert refused(run, tmp_path / "full") == f"{tmp_path}/full is not empty; {wanted}"
    assert refused(run, tmp_path / "full" / "mine.txt") == f"{tmp_path}/full/mine.txt is a file; {wanted}"
    assert "there are: trl, trl-messages, llamafactory" in refused(run, tmp_path / "out", "alpaca")
    assert os.listdir(tmp_path / "full") == ["mine.txt"]
    assert "has no traces to export" in refused(make_run(tmp_path / "none", []), tmp_path / "out")
    (tmp_path / "run" / "traces" / "part-00001.parquet").write_bytes(b"PAR1 half")
    assert "is damaged" in refused(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unfinished_traces_are_refused(tmp_path: Path) -> None:
    from helpers import make_recipe

    with store.Run.open(tmp_path / "run", make_recipe()) as run:
        run.begin("traces", {}, {}).append(TRACES)
    assert "has no finished traces" in refused(store.load_run(tmp_path / "run"), tmp_path / "out")


def test_an_empty_folder_is_taken(run: store.LoadedRun, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export(run, "verl", tmp_path / "out").files == (tmp_path / "out" / "train.parquet",)


_SLOW = """
import sys, time
from pathlib import Path
from skillfactory.formats import export
from skillfactory.store import load_run
whole = export._rows
def slowly(run):
    for row in whole(run):
        yield row
        time.sleep(0.2)
export._rows = slowly
export.export(load_run(sys.argv[1]), "llamafactory", Path(sys.argv[2]))
"""


def test_a_kill_leaves_nothing_half(run: store.LoadedRun, tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(run.path), str(out)])
    deadline = time.monotonic() + 60
    while not list(out.parent.glob(".tmp-*-out/train.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    export(run, "llamafactory", out)
    assert os.listdir(out.parent) == ["out"]  # and what the kill left is gone
    assert len(written(out)) == len(TRACES)


HOSTILE = (
    "a\n---\n- x: [\"'}}\n\n# Heading | `code` ``` ~~~ <script>alert(1)</script> [x](http://y) {{ 7 * 7 }} \u2028 &amp;"
)


def card_of(run: store.LoadedRun, out: Path, **options: str) -> tuple[dict[str, Any], str]:
    from huggingface_hub import DatasetCard

    export(run, "datasets", out, **options)
    loaded = DatasetCard.load(out / "README.md")
    return loaded.data.to_dict(), loaded.text


def test_the_card_says_what_it_is(run: store.LoadedRun, tmp_path: Path) -> None:
    header, text = card_of(run, tmp_path / "out", license="apache-2.0")
    assert header["license"] == "apache-2.0"
    assert header["language"] == ["en"]
    assert header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["config_name"] == "sft_train"
    assert "| algorithm1 | 2 |" in text
    assert "| 50 | 103 |" in text  # the median of the tokens
    assert "7 silver traces for supervised fine-tuning, over 4 questions" in text
    assert "| traces | dropped.too\\_long | 3 |" in text
    assert "multiplication" in text
    assert re.search(r"Made with skillfactory 0\.\S+, .*pyarrow [\d.]+\.\n", text)
    assert "no stronger model wrote any of it" in text
    assert "base_url" not in text  # where it ran is nobody's business


def test_the_card_says_where_given_attempts_are_from(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [TRACES], attempts={"given": "SkillFactory/RAW_DATA-x"})
    _, text = card_of(run, tmp_path / "out")
    assert "Attempts and checks were taken from the data set SkillFactory/RAW\\_DATA-x." in text
    assert "no stronger model" not in text


def test_a_hostile_recipe_cannot_break_the_card(tmp_path: Path) -> None:
    from markdown_it import MarkdownIt

    task = {"name": "multiplication", "params": {"digits": HOSTILE}, "level": HOSTILE}
    run = make_run(tmp_path / "run", [TRACES], model=HOSTILE, revision=HOSTILE, questions={"task": task})
    header, text = card_of(run, tmp_path / "out", license=HOSTILE, language=HOSTILE)
    assert header["license"] == " ".join(HOSTILE.split())
    assert header["language"] == [" ".join(HOSTILE.split())]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert titles == ["SkillFactory traces: test", "What is in it", "How it was made", "Limits", "Citation"]
    assert not [t for t in tokens if t.type == "html_block"]
    inside = [child for token in tokens for child in token.children or []]
    assert not [child for child in inside if child.type == "html_inline"]
    assert {child.attrGet("href") for child in inside if child.type == "link_open"} == {
        "https://arxiv.org/abs/2512.04072"
    }
    assert "7 * 7" in text
    assert " ".join(HOSTILE.split()) in "".join(child.content for child in inside)  # shown as it was written
    assert len([token for token in tokens if token.type == "fence"]) == 3


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_survives_the_header_on_one_line(license: str, language: str) -> None:
    from huggingface_hub import DatasetCard

    loaded = DatasetCard(f"---\n{card.header('x', 1000, 'sft_train', license, language)}\n---\n\n# body\n")
    assert loaded.data.to_dict()["license"] == card.one_line(license)
    assert loaded.data.to_dict()["language"] == [card.one_line(language)]
    assert loaded.text.strip() == "# body"


@given(st.text())
def test_a_fence_holds_any_text(text: str) -> None:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(f"before\n\n{card.fenced(text, 'yaml')}\n\nafter\n")
    assert [token.type for token in tokens].count("fence") == 1
    assert tokens[-2].content == "after"
