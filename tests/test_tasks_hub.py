"""Published data sets: their rows in their own columns, from files and from a small hub on this machine."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import make_recipe
from hub_server import COMMIT, hub
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.records import Question
from skillfactory.tasks import base
from skillfactory.tasks.base import check_references
from skillfactory.tasks.hub import Published
from skillfactory.tasks.published import SETS, boxed
from skillfactory.tasks.questions import make_questions

NAMES = [about.name for about in SETS]
EXAMPLES = {about.name: about.example for about in SETS}

Row = Mapping[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    """The rows as a file of the kind that its name says; nested cells of a csv file are JSON."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(row) for row in rows]), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def published(name: str, **params: Any) -> Published:
    task = tasks.get(name, **{key: str(value) if isinstance(value, Path) else value for key, value in params.items()})
    assert isinstance(task, Published)
    return task


def outcome(task: Published, question: Question, answer: str) -> str:
    return task.grade(question, f"<answer>{answer}</answer>").outcome


# --- every set


@pytest.mark.parametrize("name", NAMES)
def test_a_set_reads_the_same_from_every_kind_of_file(name: str, tmp_path: Path) -> None:
    task = published(name)
    example = task.example()
    for suffix in (".jsonl", ".json", ".parquet", ".csv"):
        copy = published(name, path=write(tmp_path / f"copy{suffix}", [EXAMPLES[name]]))
        data = json.dumps({**json.loads(example.data), "row": 1})
        assert copy.questions == [replace(example, data=data)], suffix
        assert (copy.facts()["rows_read"], copy.facts()["rows_dropped"]) == (1, {})
    check_references(task, [example])
    wrong = "D" if example.answer == "A" else "A" if task.about.rule == "choice" else "-17"
    assert outcome(task, example, wrong) == "wrong"
    assert outcome(task, example, "") == "no_answer"
    asked = example.text.splitlines()[-1].lower()
    assert "answer" in asked or "letter" in asked


def test_settings_have_the_published_places_as_defaults() -> None:
    for about in SETS:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", about.default("hub_id"))
        assert re.fullmatch(r"[0-9a-f]{40}", about.default("revision"))
        assert about.default("split") in ("train", "validation", "test")
    assert list(base.levels("math500")) == [f"level {level}" for level in range(1, 6)]
    with pytest.raises(QuestionError, match="no parameter `domian`; did you mean `domain`"):
        tasks.get("openthoughts3", domian="math")


# --- what each set says


def test_gsm8k_takes_what_follows_the_mark() -> None:
    task = published("gsm8k")
    question = task.make(question="How much?", answer="2 #### is no mark.\n#### 1,200")
    assert question.answer == "1,200"
    assert [outcome(task, question, given) for given in ("1200", "1,200", "$1200", "12", "many")] == [
        "correct", "correct", "correct", "wrong", "wrong",
    ]  # fmt: skip


def test_commonsense_qa_in_both_of_its_forms() -> None:
    task = published("commonsense_qa")
    flat = EXAMPLES["commonsense_qa"]
    pairs = [
        {"label": label, "text": option}
        for label, option in zip(flat["choices"]["label"], flat["choices"]["text"], strict=True)
    ]
    nested = {"answerKey": "C", "question": {"stem": flat["question"], "choices": pairs[::-1]}}
    question, other = task.make(**flat), task.make(**nested)
    assert question.id == other.id
    assert (question.answer, other.answer) == ("C", "C")  # by the label's place, and C is in the middle
    assert json.loads(other.data)["choices"][0] == "garage"
    assert outcome(task, question, "refrigerator") == outcome(task, question, "(c)") == "correct"
    assert outcome(task, question, "oven") == "wrong"


def _gpqa(number: int) -> Row:
    wrong = {f"Incorrect Answer {i}": f"wrong {i} of {number}" for i in (1, 2, 3)}
    return {"Question": f"Question {number}?", "Correct Answer": f"right of {number}"} | wrong


def test_gpqa_options_are_shuffled_by_the_question_alone(tmp_path: Path) -> None:
    rows = [_gpqa(number) for number in range(200)]
    task = published("gpqa", path=write(tmp_path / "gpqa.csv", rows))
    for row, question in zip(rows, task.questions, strict=True):
        options = json.loads(question.data)["choices"]
        assert options[ord(question.answer) - ord("A")] == row["Correct Answer"]
        assert sorted(options) == sorted(row[key] for key in row if "Answer" in key)
    letters = [question.answer for question in task.questions]
    assert all(30 < letters.count(letter) < 70 for letter in "ABCD")
    back = published("gpqa", path=write(tmp_path / "back.jsonl", rows[::-1]))
    assert [question.text for question in back.questions[::-1]] == [question.text for question in task.questions]
    assert letters[:8] == list("BCBACDBB"), "another order: results before and after can no longer be compared"


def test_gpqa_keeps_options_that_look_like_nothing(tmp_path: Path) -> None:
    row = {**_gpqa(1), "Incorrect Answer 2": "None", "Incorrect Answer 3": "NA", "Explanation": ""}
    task = published("gpqa", path=write(tmp_path / "gpqa.csv", [row]))
    assert {"None", "NA"} < set(json.loads(task.questions[0].data)["choices"])


def test_rows_with_the_same_option_twice_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [_gpqa(1), {**_gpqa(2), "Correct Answer": "5", "Incorrect Answer 2": "$5$"}, _gpqa(3)]
    task = published("gpqa", path=write(tmp_path / "gpqa.csv", rows))
    assert len(task.questions) == 2
    assert task.facts()["rows_dropped"] == {"same_option_twice": 1}
    twice = {"label": ["A", "B", "C"], "text": ["x", "y", "X"]}
    path = write(tmp_path / "a.jsonl", [EXAMPLES["commonsense_qa"], {**EXAMPLES["commonsense_qa"], "choices": twice}])
    task = published("commonsense_qa", path=path)
    assert len(task.questions) == 1
    assert task.facts()["rows_dropped"] == {"same_option_twice": 1}
    with pytest.raises(QuestionError, match="a row of no use: same option twice"):
        task.make(**{**EXAMPLES["commonsense_qa"], "choices": twice})


def test_math500_by_level(tmp_path: Path) -> None:
    rows = [{**EXAMPLES["math500"], "problem": f"Problem {i}", "level": i % 5 + 1} for i in range(10)]
    path = write(tmp_path / "math.jsonl", rows)
    everything, hard = published("math500", path=path), published("math500", path=path, level=5)
    assert [question.level for question in everything.questions] == [f"level {i % 5 + 1}" for i in range(10)]
    assert hard.level == "level 5"
    assert [question.text.splitlines()[0] for question in hard.questions] == ["Problem 4", "Problem 9"]
    assert hard.facts()["rows_dropped"] == {"other_level": 8}
    assert outcome(hard, hard.questions[0], "10/12") == "correct"


def test_text_that_looks_like_a_date_stays_text(tmp_path: Path) -> None:
    """`datasets` makes dates of a column of JSON that holds nothing else."""
    rows = [{**EXAMPLES["math500"], "problem": f"Problem {i}", "answer": f"2020-01-0{i}"} for i in range(1, 4)]
    task = published("math500", path=write(tmp_path / "dates.jsonl", rows))
    assert [question.answer for question in task.questions] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    times = {**_gpqa(1), "Correct Answer": "1999-12-31", "Incorrect Answer 1": "1999-12-31 23:59:00"}
    (question,) = published("gpqa", path=write(tmp_path / "gpqa.jsonl", [times])).questions
    assert {"1999-12-31", "1999-12-31 23:59:00"} < set(json.loads(question.data)["choices"])
    choices = {"label": ["A", "B"], "text": ["1914-07-28", "1939-09-01"]}
    row = {**EXAMPLES["commonsense_qa"], "choices": choices, "answerKey": "B"}
    (question,) = published("commonsense_qa", path=write(tmp_path / "c.jsonl", [row])).questions
    assert json.loads(question.data)["choices"] == choices["text"]


def test_amc_answers_may_be_floats() -> None:
    task = published("amc2023")
    assert {task.make(question="?", answer=answer).answer for answer in (27.0, "27.0", 27, " 27 ")} == {"27"}


# --- openthoughts3


def _thoughts(reply: str, question: str = "How many?", domain: str = "math") -> Row:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
    return {"difficulty": 5, "source": "test", "domain": domain, "conversations": turns}


def test_openthoughts_rows_of_no_use_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        _thoughts("<think>\\boxed{1} or \\boxed{2}</think> \\boxed{\\frac{3}{4}} or $\\boxed{ \\frac{3}{4} }$.", "a"),
        _thoughts("no thinking, \\boxed{5}", "b"),
        _thoughts("<think>\\boxed{1}</think> So one.", "c"),
        _thoughts("<think>cut \\boxed{1}", "d"),
        _thoughts("<think>x</think>\\boxed{1} and \\boxed{2}", "e"),
        _thoughts("<think>x</think>\\boxed{}", "f"),
        _thoughts("<think>x</think>\\boxed{7", "g"),
        _thoughts("<think>x</think>\\boxed{8}", "h", "code"),
        _thoughts("<think>x</think>\\boxed{8}", "  "),
        _thoughts("<think>x</think>\\boxed{9}", " b"),
        _thoughts("<think>x</think>\\boxed{</answer>}", "i"),
    ]  # fmt: skip
    for suffix in (".jsonl", ".parquet"):
        task = published("openthoughts3", path=write(tmp_path / f"rows{suffix}", rows))
        assert [(question.text[0], question.answer) for question in task.questions] == [
            ("a", "\\frac{3}{4}"),
            ("b", "5"),
        ]
        facts = task.facts()
        assert facts["rows_read"] == 11
        assert facts["rows_dropped"] == {
            "fails_own_check": 1, "no_boxed_answer": 3, "no_question": 1, "other_domain": 1, "same_question": 1,
            "several_boxed_answers": 1, "thinking_cut": 1,
        }  # fmt: skip
    code = published("openthoughts3", path=tmp_path / "rows.jsonl", domain="code")
    assert [question.answer for question in code.questions] == ["8"]


inside = st.recursive(
    st.text(alphabet="x1+ $", max_size=5),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(
        lambda parts: "".join(f"\\frac{{{part}}}\\{{" for part in parts)
    ),
    max_leaves=8,
)


@given(st.lists(inside, max_size=4), st.text(alphabet="ab }\\{", max_size=6).filter(lambda text: "{" not in text))
def test_boxes_with_any_braces_in_them(contents: list[str], between: str) -> None:
    between = between.replace("\\", "")
    written = between.join(f"\\boxed{{{content}}}" for content in contents)
    assert list(boxed(written)) == [content.strip() for content in contents]
    assert list(boxed(written + "\\boxed{{open}")) == [content.strip() for content in contents]


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\", "\\{", "x"]), max_size=200).map("".join))
def test_boxes_in_hostile_text(text: str) -> None:
    assert all(content in text for content in boxed(text))


# --- splits


def _sums(numbers: range) -> list[Row]:
    return [{"question": f"What is {n} + {n}?", "answer": f"#### {2 * n}"} for n in numbers]


def test_a_recipe_takes_disjoint_questions_from_two_splits(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k" / "main"
    folder.mkdir(parents=True)
    write(folder / "train-00000-of-00001.parquet", _sums(range(100)))
    write(folder / "test-00000-of-00001.parquet", _sums(range(90, 150)))
    spec = {"name": "gsm8k", "params": {"path": str(tmp_path / "gsm8k")}}
    train = {"name": "gsm8k", "params": {"path": str(tmp_path / "gsm8k"), "split": "train"}}
    recipe = make_recipe(
        questions={"task": train, "sft": 40, "rl": 40, "dev": 10},
        evaluation={"sets": {"gsm8k": {"task": spec, "n": 60}}},
    )
    made = make_questions(recipe)
    found = {split: {q.id for q in made.rows if q.split == split} for split in ("sft", "rl", "dev", "eval")}
    assert {split: len(ids) for split, ids in found.items()} == {"sft": 40, "rl": 40, "dev": 10, "eval": 60}
    assert len(set().union(*found.values())) == 150
    with pytest.raises(QuestionError, match="100"):
        published("gsm8k", **train["params"]).allot({"sft": 101}, 0)


def test_a_large_set_is_read_no_further_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skillfactory.tasks.hub.LARGE", 0)
    for part in range(4):
        rows = [_thoughts(f"<think>x</think>\\boxed{{{part}{n}}}", f"{part} and {n}?") for n in range(1000)]
        write(tmp_path / f"train-{part}.parquet", rows)
    spec = {"name": "openthoughts3", "params": {"path": str(tmp_path)}}
    first, again, other = (
        make_questions(make_recipe(questions={"task": spec, "sft": 20, "rl": 20, "dev": 5}, seed=seed))
        for seed in (0, 0, 1)
    )
    assert first.sources["openthoughts3"]["rows_read"] < 1000
    assert first.rows == again.rows
    assert len({q.id for q in first.rows} & {q.id for q in other.rows}) < 15, "the first rows, whatever the seed"


def test_rows_and_repeated_questions(tmp_path: Path) -> None:
    path = write(
        tmp_path / "sums.jsonl",
        [*_sums(range(5)), *_sums(range(3)), {"question": "What is\n0 + 0?", "answer": "#### 0"}],
    )
    task = published("gsm8k", path=path)
    assert len(task.questions) == 5
    assert task.facts()["rows_dropped"] == {"same_question": 4}
    assert len(published("gsm8k", path=path, rows=3).questions) == 3


def test_questions_that_differ_in_case_or_in_how_the_answer_is_asked_for_are_the_same(tmp_path: Path) -> None:
    texts = ["How many are left?", "how  many are LEFT?", "How many are left?\nThe answer is a whole number.", "How?"]
    path = write(tmp_path / "a.jsonl", [{"question": text, "answer": "#### 1"} for text in texts])
    task = published("gsm8k", path=path)
    assert [question.text.splitlines()[0] for question in task.questions] == ["How many are left?", "How?"]
    assert task.facts()["rows_dropped"] == {"same_question": 2}


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
        ("openthoughts3", "a.jsonl", json.dumps(_thoughts("none")), r"rows dropped: no_boxed_answer 1\); check"),
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
    _repository(tmp_path, "main", {"train": [_sums(range(3))], "test": [_sums(range(5, 7)), _sums(range(7, 9))]})
    assert len(published("gsm8k", path=tmp_path).questions) == 4
    assert len(published("gsm8k", path=tmp_path, split="train").questions) == 3
    with pytest.raises(QuestionError, match=r"has no split 'dev'; there are: train, test\."):
        _ = published("gsm8k", path=tmp_path, split="dev").questions
    first, digest = published("gsm8k", path=tmp_path).facts(), "digest"
    write(tmp_path / "main" / "train-00000-of-00001.parquet", _sums(range(4)))
    assert published("gsm8k", path=tmp_path).facts()[digest] != first[digest]


def test_the_digest_is_of_all_that_decides_what_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    _repository(folder, "main", {"train": [_sums(range(3))], "test": [_sums(range(3, 6))]})
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
    write(tmp_path / "sums.jsonl", _sums(range(3)))
    task = published("gsm8k", path="~/sums.jsonl")
    assert len(task.questions) == 3
    assert task.facts()["digest"] == published("gsm8k", path=tmp_path / "sums.jsonl").facts()["digest"]


def test_what_save_to_disk_wrote_is_named(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([dict(row) for row in _sums(range(3))]).save_to_disk(tmp_path / "saved")
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
    _repository(repositories / "openai/gsm8k", "main", {"train": [_sums(range(3))], "test": [_sums(range(5, 9))]})
    files = [[_thoughts(f"<think>x</think>\\boxed{{{n}}}", f"{n}?") for n in range(k, k + 400)] for k in (0, 400, 800)]
    _repository(repositories / "a/thoughts", "default", {"train": files})
    thoughts = {"hub_id": "a/thoughts"}
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
            ("openthoughts3", thoughts, {"sft": 5, "rl": 5}),
            ("openthoughts3", thoughts, {"sft": 5, "rl": 5}),
            ("openthoughts3", {**thoughts, "stream": False}, {"sft": 600, "rl": 601}),
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
