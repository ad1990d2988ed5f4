"""Questions that a function of the user's grades."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skillfactory.errors import QuestionError
from skillfactory.records import Grade
from skillfactory.tasks import deadline, own
from skillfactory.tasks.questions import grade_all

Write = Callable[..., str]

MODULE = """
import os, time

def near(question, answer):
    return abs(float(answer) - float(question.answer)) < 0.1

def columns(question, answer):
    import json
    return answer in json.loads(question.data)["columns"]["also"]

def hangs(question, answer):
    while answer == "forever":
        pass
    if answer == "sleep":
        time.sleep(60)
    if answer == "exit":
        os._exit(3)
    if answer == "leave":
        raise SystemExit(0)
    if answer == "memory":
        bytearray(10**12)
    return "yes" if answer == "word" else answer == question.answer

def same(question, answer):
    return answer == question.answer

def fails(question, answer):
    if answer == "bare":
        raise MemoryError
    if answer == "die":
        os._exit(3)
    if answer == "hang":
        time.sleep(60)
    raise ValueError("one\\ntwo " + 3000 * "x")

def slowly(question, answer):
    with open("begun", "a") as file:
        file.write(answer + " ")
    time.sleep(0 if answer == "0" else 0.5)
    return answer != "0"

def no_arguments():
    return True

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of grading functions in the working directory."""
    (tmp_path / "own_grading.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("module")
def test_a_function_of_the_users_grades(write: Write) -> None:
    task = own.jsonl(path=write({"question": "Pi?", "answer": 3.14}), grade="own_grading.near")
    question = task.questions[0]
    answers = ["3.1", "4", "about 3", ""]
    grades = grade_all(task, [(question, f"<answer>{answer}</answer>") for answer in answers])
    assert [(each.outcome, each.reason) for each in grades] == [
        ("correct", ""), ("wrong", ""), ("no_answer", "check_failed"), ("no_answer", "no_answer"),
    ]  # fmt: skip
    row = {"question": "Who?", "answer": "me", "also": ["I", "me"]}
    task = own.jsonl(path=write(row, name="also.jsonl"), grade="own_grading.columns")
    assert task.grade(task.questions[0], "<answer>I</answer>").outcome == "correct"


@pytest.mark.usefixtures("module")
def test_a_function_that_hangs_or_dies_is_no_wrong_answer(write: Write) -> None:
    task = own.jsonl(path=write({"question": "?", "answer": "right"}), grade="own_grading.hangs", seconds=0.5)
    answers = ["forever", "exit", "sleep", "leave", "memory", "word", "right", "else"]
    grades = grade_all(task, [(task.questions[0], f"<answer>{answer}</answer>") for answer in answers])
    timed_out, failed = ("no_answer", "check_timed_out"), ("no_answer", "check_failed")
    assert [(each.outcome, each.reason) for each in grades] == [
        timed_out, timed_out, timed_out, failed, failed, failed, ("correct", ""), ("wrong", ""),
    ]  # fmt: skip
    assert [each.answer for each in grades] == answers


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_grading.far", "`own_grading.far` cannot be used: own_grading has no `far`; it must be a function"),
        ("nowhere.near", "cannot be used: importing nowhere gives ModuleNotFoundError: No module named 'nowhere'"),
        ("own_grading.constant", "cannot be used: `constant` is a int"),
        ("own_grading.no_arguments", "cannot be used: it does not take two arguments"),
        (
            "own_grading.near",
            r"own\.jsonl, row 1: the answer 'two' fails its own check: `own_grading.near` gave ValueErr",
        ),
    ],
)
def test_a_function_that_cannot_grade_stops_at_once(write: Write, path: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        own.jsonl(path=write({"question": "One and one?", "answer": "two"}), grade=path).generate(1, 0)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("long", r"`own_grading\.fails` gave ValueError: one two x{150,200}…; mend the function or the row\.$"),
        ("bare", r"`own_grading\.fails` gave MemoryError; mend the function or the row\.$"),
        ("die", r"its process died \(it ended itself, or took too much memory\); mend the check or the row\.$"),
        ("hang", r"it took more than 0\.5 s; mend the check or the row, or allow more\.$"),
    ],
)
def test_what_a_function_breaks_with_is_told_in_a_line(write: Write, answer: str, message: str) -> None:
    task = own.jsonl(path=write({"question": "?", "answer": answer}), grade="own_grading.fails", seconds=0.5)
    with pytest.raises(QuestionError, match=message) as raised:
        task.generate(1, 0)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("module")
def test_a_failing_row_does_not_wait_for_all_the_others(write: Write) -> None:
    path = write(*({"question": f"{n}?", "answer": n} for n in range(100)))
    with pytest.raises(QuestionError, match="row 1: the answer '0' fails its own check"):
        own.jsonl(path=path, grade="own_grading.slowly").generate(1, 0)
    assert len(Path("begun").read_text().split()) <= 1 + deadline.WORKERS


def test_importing_a_function_does_not_count_as_its_time(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slow_import.py").write_text("import time\ntime.sleep(1)\ndef same(q, a): return q.answer == a\n")
    task = own.jsonl(path=write({"question": "?", "answer": "1"}), grade="slow_import.same", seconds=0.5)
    (question,) = task.questions
    deadline.close()
    assert task.grade(question, "<answer>1</answer>").outcome == "correct"


def test_the_nearest_rule_is_named() -> None:
    with pytest.raises(
        QuestionError, match=r"Task `csv`, parameter `grade`: no way to grade is called `maths`; did you mean `math`\?$"
    ):
        own.csv(path="x", grade="maths")
    assert own.csv(path="x").grade(own.csv(path="x").example(), "<answer>360</answer>") == Grade("correct", "360")


@pytest.mark.usefixtures("module")
def test_columns_of_every_type_reach_a_function(tmp_path: Path) -> None:
    halves = pa.array([[{"at": 0.1}]], pa.list_(pa.struct([("at", pa.float32())])))
    columns = {
        "day": [date(2020, 1, 2)], "time": [datetime(2020, 1, 2, 3, 4)], "took": [timedelta(seconds=90)],
        "price": [[Decimal("1.50"), None]], "picture": [{"bytes": b"x", "path": "p"}], "raw": [b"x"], "halves": halves,
        "good": [True], "none": [float("nan")],
    }  # fmt: skip
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"question": ["a?"], "answer": ["b"], **columns}), path)
    (question,) = own.parquet(path=str(path), grade="own_grading.same").questions
    assert json.loads(question.data)["columns"] == {
        "day": "2020-01-02", "time": "2020-01-02T03:04:00", "took": "0:01:30", "price": ["1.50", None],
        "picture": {"path": "p"}, "halves": [{"at": "0.1"}], "good": True, "none": None,
    }  # fmt: skip
