"""Where published data sets come from: broken files, folders, and a small hub on this machine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, hub
from published_sets import EXAMPLES, Row, published, sums, thoughts, write

from skillfactory.errors import QuestionError
from skillfactory.tasks import base

# --- bad input


def _line(name: str = "", **cells: Any) -> str:
    return json.dumps({**EXAMPLES.get(name, {}), **cells}) + "\n"


_GOOD = _line(question="q", answer="#### 1")


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("gsm8k", "a.jsonl", "", r"a\.jsonl is empty\."),
        ("gsm8k", "a.jsonl", "\n\n", r"a\.jsonl holds no questions of use; it is empty\."),
        ("gsm8k", "a.csv", "question,answer\n", r"a\.csv holds no questions of use; it is empty\."),
        ("gsm8k", "a.jsonl", _line(question="q", solution="s"), r"no column `answer`; it has: question, solution\."),
        ("gsm8k", "a.jsonl", _GOOD + _line(question="r", answer=None), r"a\.jsonl, row 2: `answer` is null or empty\."),
        ("gsm8k", "a.csv", "question,answer\nq,#### 1\nr,\n", r"a\.csv, row 2: `answer` is null or empty\."),
        ("gsm8k", "a.jsonl", _line(question="q", answer="5"), r"row 1: `answer` has no number after `####`\."),
        (
            "gsm8k",
            "a.jsonl",
            _line(question=["q"], answer="#### 1"),
            r"row 1: `question` must be text or a number, not",
        ),
        ("gsm8k", "a.jsonl", _line(question="q", answer="#### many"), r"of use \(rows dropped: fails_own_check 1\)"),
        ("gsm8k", "a.jsonl", _GOOD + '{"question": \n', r"a\.jsonl, row 2: not JSON"),
        ("gsm8k", "a.jsonl", _line(question="\ud800", answer="#### 1"), r"a\.jsonl, row 1: half a surrogate"),
        (
            "gsm8k",
            "a.csv",
            "question,answer\nq,#### 1,more\n",
            r"a\.csv has more cells in a row than its header has col",
        ),
        (
            "gsm8k",
            "a.csv",
            "question,answer\nq,#### 1\nr,#### 1,more\n",
            r"a\.csv, line 3: 3 cells, but there are 2 columns; quote cells that hold commas\.$",
        ),
        (
            "gsm8k",
            "a.json",
            json.dumps({"data": [{"question": "q", "answer": "#### 1"}]}),
            r"rows must stand on their own, as a list \[\{…\}, …\] or one a line, not under `data`\.",
        ),
        ("gsm8k", "a.parquet", "PAR1 and no more", r"a\.parquet is no whole parquet file"),
        ("gsm8k", "a.txt", "q", r"a\.txt has no file of a known kind; give \.json, \.jsonl, \.csv, \.parquet\."),
        ("gsm8k", "", "", r"is not there; give `path` a file or a folder\."),
        (
            "commonsense_qa",
            "a.jsonl",
            _line("commonsense_qa", answerKey=""),
            r"row 1: `answerKey` is null or empty; the",
        ),
        (
            "commonsense_qa",
            "a.jsonl",
            _line("commonsense_qa", answerKey="F"),
            r"'F' is none of the labels A, B, C, D, E\.",
        ),
        ("commonsense_qa", "a.jsonl", _line("commonsense_qa", choices={"label": ["A"]}), r"row 1: `choices` must have"),
        ("gpqa", "a.jsonl", _line("gpqa", **{"Incorrect Answer 2": None}), r"row 1: `Incorrect Answer 2` is null or"),
        ("openthoughts3", "a.jsonl", json.dumps(thoughts("none")), r"rows dropped: no_boxed_answer 1\); check"),
    ],
)
def test_bad_input_is_one_sentence(name: str, file: str, content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / (file or "gone.jsonl")
    if file:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(QuestionError, match=says) as caught:
        _ = published(name, path=path).questions
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\nq,caf\xe9 #### 1\n")
    with pytest.raises(QuestionError, match=r"a\.csv, row 2: not UTF-8 text\."):
        _ = published("gsm8k", path=path).questions


# --- folders and the hub


def _repository(folder: Path, config: str, splits: dict[str, list[list[Row]]]) -> None:
    """A data set as the hub has it: parquet files by config and split, and a README that says so."""
    (folder / config).mkdir(parents=True)
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n"
    for split, files in splits.items():
        card += f"  - split: {split}\n    path: {config}/{split}-*\n"
        for number, rows in enumerate(files):
            write(folder / config / f"{split}-{number:05}-of-{len(files):05}.parquet", rows)
    (folder / "README.md").write_text(card + "---\n")


def test_a_folder_has_configurations_and_splits(tmp_path: Path) -> None:
    _repository(tmp_path, "main", {"train": [sums(range(3))], "test": [sums(range(5, 7)), sums(range(7, 9))]})
    assert len(published("gsm8k", path=tmp_path).questions) == 4
    assert len(published("gsm8k", path=tmp_path, split="train").questions) == 3
    with pytest.raises(QuestionError, match=r"has no split 'dev'; there are: train, test\."):
        _ = published("gsm8k", path=tmp_path, split="dev").questions
    first, digest = published("gsm8k", path=tmp_path).facts(), "digest"
    write(tmp_path / "main" / "train-00000-of-00001.parquet", sums(range(4)))
    assert published("gsm8k", path=tmp_path).facts()[digest] != first[digest]


def test_the_digest_is_of_all_that_decides_what_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    _repository(folder, "main", {"train": [sums(range(3))], "test": [sums(range(3, 6))]})
    seen = set()

    def digest() -> str:
        task = published("gsm8k", path=folder)
        _ = task.questions
        return str(task.facts()["digest"])

    def changes() -> bool:
        before = len(seen)
        seen.add(digest())
        return len(seen) > before

    assert changes()
    card = folder / "README.md"
    card.write_text(card.read_text().replace("split: train", "split: other"))
    assert changes(), "the README says which file is which split"
    (folder / "main" / "extra.jsonl.gz").write_bytes(b"not read here, but by `datasets`")
    assert changes()
    (folder / "main" / "extra.jsonl.gz").rename(folder / "extra.jsonl.gz")
    assert changes(), "the name of a folder may decide the split"
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").touch()
    assert not changes(), "what a download leaves behind"
    folder.rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    assert not changes(), "the same copy elsewhere"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "sums.jsonl", sums(range(3)))
    task = published("gsm8k", path="~/sums.jsonl")
    assert len(task.questions) == 3
    assert task.facts()["digest"] == published("gsm8k", path=tmp_path / "sums.jsonl").facts()["digest"]


def test_what_save_to_disk_wrote_is_named(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([dict(row) for row in sums(range(3))]).save_to_disk(tmp_path / "saved")
    says = r"saved was written by `save_to_disk`; write it with `to_parquet` or `to_json` and name that file\.$"
    with pytest.raises(QuestionError, match=says):
        _ = published("gsm8k", path=tmp_path / "saved").questions


_ASK = """
import json, sys
from skillfactory import tasks
from skillfactory.errors import QuestionError
for name, params, counts in json.loads(sys.argv[1]):
    try:
        task = tasks.get(name, **params)
        dealt = task.allot(counts, 3)
        said = {"dealt": {key: [q.id for q in found] for key, found in dealt.items()}, "facts": task.facts()}
    except QuestionError as error:
        said = {"error": str(error)}
    print(json.dumps(said))
"""


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Ask for questions in a process of its own, with a hub at an address ("" for no network)."""

    def run(endpoint: str, *wanted: tuple[str, dict[str, Any], dict[str, int]]) -> list[dict[str, Any]]:
        place = {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
        environment = {**os.environ, **place, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": ""}
        done = subprocess.run(
            [sys.executable, "-c", _ASK, json.dumps(wanted)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_no_network_is_one_sentence(ask: Callable[..., list[dict[str, Any]]]) -> None:
    said = ask("", ("gsm8k", {}, {"eval": 1}), ("openthoughts3", {}, {"sft": 1}))
    for answer, place in zip(said, ("openai/gsm8k", "open-thoughts/OpenThoughts3-1.2M"), strict=True):
        assert re.fullmatch(
            rf"\w+ \({place}, split \w+\) cannot be fetched: the Hugging Face hub cannot be reached; "
            "run it once where there is a network, or give `path` a local copy.",
            answer["error"],
        )


def test_sets_from_a_hub(ask: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    repositories = tmp_path / "hub"
    _repository(repositories / "openai/gsm8k", "main", {"train": [sums(range(3))], "test": [sums(range(5, 9))]})
    files = [[thoughts(f"<think>x</think>\\boxed{{{n}}}", f"{n}?") for n in range(k, k + 400)] for k in (0, 400, 800)]
    _repository(repositories / "a/thoughts", "default", {"train": files})
    own = {"hub_id": "a/thoughts"}
    with hub(repositories, gated="Idavidrein/gpqa") as endpoint:
        gsm8k, elsewhere, moved, split, config, gone, gated, few, more, kept = ask(
            endpoint,
            ("gsm8k", {}, {"eval": 4}),
            ("gsm8k", {"revision": "main", "split": "train"}, {"sft": 2, "rl": 1}),
            ("gsm8k", {"revision": "1" * 40}, {"eval": 1}),
            ("gsm8k", {"split": "validation"}, {"eval": 1}),
            ("gsm8k", {"config": "socratic"}, {"eval": 1}),
            ("gsm8k", {"hub_id": "openai/gsm9k"}, {"eval": 1}),
            ("gpqa", {}, {"eval": 1}),
            ("openthoughts3", own, {"sft": 5, "rl": 5}),
            ("openthoughts3", own, {"sft": 5, "rl": 5}),
            ("openthoughts3", {**own, "stream": False}, {"sft": 600, "rl": 601}),
        )
    assert gsm8k["facts"] == {
        "data_set": "gsm8k", "hub_id": "openai/gsm8k", "config": "main", "split": "test", "revision": COMMIT,
        "commit": COMMIT, "grading": "number", "rows_read": 4, "rows_dropped": {},
    }  # fmt: skip
    assert len(set(gsm8k["dealt"]["eval"])) == 4
    assert (elsewhere["facts"]["revision"], elsewhere["facts"]["commit"]) == ("main", COMMIT)
    assert "has no such revision on the hub; leave `revision` out or mend it." in moved["error"]
    assert split["error"] == "gsm8k (openai/gsm8k, split validation) has no split 'validation'; there are: train, test."
    assert "no configuration 'socratic'; there are: main." in config["error"]
    assert gone["error"].startswith("gsm8k (openai/gsm9k, split test): the hub has no such data set, or not for you;")
    assert "accept them at https://huggingface.co/datasets/Idavidrein/gpqa, then set HF_TOKEN" in gated["error"]
    # A large set is read no further than needed, in an order of the seed's.
    assert few == more
    assert few["facts"]["rows_read"] < 600
    assert len({*few["dealt"]["sft"], *few["dealt"]["rl"]}) == 10
    assert "has 1200 questions to give" in kept["error"]
    # What was fetched once is there without a network, and only that.
    assert ask("", ("gsm8k", {}, {"eval": 4}))[0] == gsm8k
    assert "revision 1111111" in ask("", ("gsm8k", {"revision": "1" * 40}, {"eval": 1}))[0]["error"]


def test_only_openthoughts_asks_for_hints() -> None:
    assert [name for name in ("gsm8k", "math500", "openthoughts3", "gpqa") if base.get(name).hints] == ["openthoughts3"]  # type: ignore[attr-defined]
