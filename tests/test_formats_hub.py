"""Sending a data set to a hub and reading it, and raw data, from there: a hub on this machine, whole processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import hub
from hub_upload_server import TOKEN, upload_hub
from raw_files import make_rows, write_raw
from traces_run import dialogue, make_run, make_trace

from skillfactory.errors import StoreError
from skillfactory.formats.export import export
from skillfactory.formats.hub import push

NOT_THERE = "the hub has no such data set, or not for you"
TRACES = [make_trace(i) for i in range(5)]
_PUSH = """
import json, sys
from skillfactory.formats.hub import push
try:
    print(json.dumps(push(*json.loads(sys.argv[1]))))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
_LOAD = """
import json, sys, datasets
rows = datasets.load_dataset(sys.argv[1])["train"]
print(json.dumps([row["conversations"] for row in rows]))
"""
_RAW = """
import dataclasses, json, sys
from skillfactory.formats.raw import read_raw
try:
    print(json.dumps([dataclasses.asdict(row) for row in read_raw(*json.loads(sys.argv[1]))]))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(make_run(tmp_path / "run", [TRACES]), "datasets", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def say(tmp_path: Path) -> Callable[..., Any]:
    """What a script prints, in a process of its own with the hub at an address ("" for none, offline)."""

    def run(script: str, argument: object, endpoint: str, token: str = TOKEN) -> Any:
        place = {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
        place |= {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script, argument if isinstance(argument, str) else json.dumps(argument)],
            env={**os.environ, **place},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("private", [True, False])
def test_what_is_sent_is_what_others_load(folder: Path, say: Callable[..., Any], tmp_path: Path, private: bool) -> None:
    (folder / "notes.txt").write_text("mine")  # not part of the export, so not sent
    with upload_hub(tmp_path / "hub") as there:
        url = say(_PUSH, [str(folder), "me/traces", private], there.address)
    assert url == f"{there.address}/datasets/me/traces"
    assert there.visibility == ("private" if private else "public")
    assert sorted(p.name for p in (tmp_path / "hub" / "me" / "traces").rglob("*") if p.is_file()) == [
        "README.md",
        "train-00000-of-00001.parquet",
    ]
    with hub(tmp_path / "hub") as address:
        assert say(_LOAD, "me/traces", address, "") == [dialogue(trace) for trace in TRACES]


def test_a_name_without_an_owner_is_the_users(folder: Path, say: Callable[..., Any], tmp_path: Path) -> None:
    with upload_hub(tmp_path / "hub") as there:
        assert say(_PUSH, [str(folder), "traces"], there.address) == f"{there.address}/datasets/me/traces"


def test_what_a_hub_refuses_is_one_sentence(folder: Path, say: Callable[..., Any], tmp_path: Path) -> None:
    start = "cannot be sent to the Hugging Face hub:"
    with upload_hub(tmp_path / "hub", forbidden="theirs") as there:
        assert say(_PUSH, [str(folder), "theirs/traces"], there.address) == [
            "StoreError",
            f"theirs/traces {start} the token may not do that; give one with write access to the owner's repositories.",
        ]
        assert say(_PUSH, [str(folder), "me/traces"], there.address, "hf_wrong") == [
            "StoreError",
            f"me/traces {start} {NOT_THERE}; mend its name, or run `hf auth login`, or set HF_TOKEN.",
        ]
        assert say(_PUSH, [str(folder), "a/b/c"], there.address) == [
            "StoreError",
            f"a/b/c {start} that is no name for a repository; give OWNER/NAME.",
        ]
        before = len(there.asked)
        assert say(_PUSH, [str(folder), "me/traces"], there.address, "") == [
            "StoreError",
            "Sending me/traces to the Hugging Face hub needs a token; run `hf auth login`, or set HF_TOKEN.",
        ]
        assert len(there.asked) == before  # nothing was sent
    away = [
        "StoreError",
        f"me/traces {start} the hub cannot be reached; try again where there is a network.",
    ]
    assert say(_PUSH, [str(folder), "me/traces"], there.address) == away  # closed by now
    assert say(_PUSH, [str(folder), "me/traces"], "") == away


def test_a_license_that_the_hub_does_not_know(say: Callable[..., Any], tmp_path: Path) -> None:
    start = "me/traces cannot be sent to the Hugging Face hub:"
    export(make_run(tmp_path / "run", [TRACES]), "datasets", tmp_path / "out", license="free")
    with upload_hub(tmp_path / "hub") as there:
        assert say(_PUSH, [str(tmp_path / "out"), "me/traces"], there.address) == [
            "StoreError",
            f"{start} Invalid metadata in README.md. - \"license\" must be one of ['apache-2.0', 'other'].",
        ]
    assert not (tmp_path / "hub").exists()


def test_a_folder_that_is_no_export_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine")
    with pytest.raises(StoreError, match="is no exported data set; write one with the format `datasets`"):
        push(tmp_path, "me/traces")


def test_raw_data_from_a_hub(say: Callable[..., Any], tmp_path: Path) -> None:
    rows = make_rows(600)  # more than are read at once
    write_raw(tmp_path / "hub" / "theirs" / "RAW" / "data" / "train-0.parquet", rows)
    with hub(tmp_path / "hub", gated="shut/RAW") as address:
        found = say(_RAW, ["theirs/RAW"], address, "")
        assert [row["text"] for row in found] == [row["texts"][0] for row in rows]
        assert [row["row"] for row in found] == list(range(1, 601))
        start = "cannot be read from the Hugging Face hub:"
        kind, told = say(_RAW, ["theirs/OTHER"], address, "")
        assert (kind, told.partition(";")[0]) == (
            "QuestionError", f"theirs/OTHER {start} {NOT_THERE}",
        )  # fmt: skip
        kind, told = say(_RAW, ["theirs/RAW", "v9"], address, "")
        assert (kind, told) == (
            "QuestionError", f"theirs/RAW {start} it has no such revision; leave the revision out or mend it.",
        )  # fmt: skip
        kind, told = say(_RAW, ["shut/RAW"], address, "")
        assert (kind, told.partition(";")[0]) == (
            "QuestionError", f"shut/RAW {start} it is open only to those who accepted its terms",
        )  # fmt: skip
    kind, told = say(_RAW, ["theirs/UNSEEN"], "", "")
    assert (kind, told.partition(";")[0]) == ("QuestionError", f"theirs/UNSEEN {start} the hub cannot be reached")
