"""The user's own questions: reading files, and how each way of grading is checked at load."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skillfactory.errors import QuestionError
from skillfactory.records import Grade
from skillfactory.tasks import deadline, own
from skillfactory.tasks.questions import grade_all

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (objects, or lines as they are) to a file and give its path."""

    def write(*rows: object, name: str = "own.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


def parquet(folder: Path, **columns: Any) -> str:
    path = folder / "own.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def sums(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(start, start + n)]


# --- jsonl

GOOD = {"question": "What is 1 + 1?", "answer": "2"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, '{"question": "Who?", "answer"'], r"own\.jsonl, row 2: not JSON"),
        ([GOOD, "", '["question"]'], r"own\.jsonl, row 3: not a JSON object but a list"),
        ([{"question": "Who?", "reply": "I"}], r"own\.jsonl, row 1: `answer` is missing or null \(it has: reply\)"),
        ([GOOD, {"question": "Who?", "answer": None}], r"own\.jsonl, row 2: `answer` is missing or null"),
        ([GOOD, {"question": "Who?", "answer": "  "}], r"own\.jsonl, row 2: `answer` is empty"),
        ([GOOD, {"question": "", "answer": "2"}], r"own\.jsonl, row 2: `question` is empty"),
        (
            [GOOD, {"question": "Who?", "answer": ["I"]}],
            r"own\.jsonl, row 2: `answer` must be text or a number, not a list",
        ),
        ([GOOD, {"question": "Who?", "answer": True}], r"row 2: `answer` must be text or a number, not true or false"),
        ([GOOD, {**GOOD, "level": {}}], r"own\.jsonl, row 2: `level` must be text, not an object"),
        ([GOOD, {"question": "Who?", "answer": "I"}, {**GOOD, "answer": "3"}], "row 3: the same question as in row 1"),
        ([{"question": "Who?", "answer": "a</answer>b"}], r"own\.jsonl, row 1: `answer` holds a tag"),
        ([{"question": "Who?", "answer": "``"}], r"own\.jsonl, row 1: the answer .* fails its own check"),
        (['{"question": "Who?", "answer": "\\ud800"}'], r"own\.jsonl, row 1: `answer` holds half a surrogate"),
        ([GOOD, '{"question": "Who?", "answer": NaN}'], r"row 2: `answer` is missing or null; give every row one"),
        ([GOOD, '{"question": "Who?", "answer": -Infinity}'], r"own\.jsonl, row 2: not JSON \(-Infinity is no number"),
        ([GOOD, {"question": "what is  1 ＋ 1?", "answer": "2"}], "row 2: the same question as in row 1 but for case"),
        ([{"question": "x² or x2?", "answer": "1"}, {"question": "x2 or x2?", "answer": "1"}, 7], "row 3: not a JSON"),
        ([], r"own\.jsonl holds no questions"),
        (["", "  "], r"own\.jsonl holds no questions"),
    ],
)
def test_broken_files_name_the_row(write: Write, rows: list[object], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        own.jsonl(path=write(*rows)).generate(1, 0)


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"nowhere\.jsonl cannot be read: No such file"):
        own.jsonl(path=str(tmp_path / "nowhere.jsonl")).generate(1, 0)
    with pytest.raises(QuestionError, match="cannot be read: it is a folder; name a file in it"):
        own.jsonl(path=str(tmp_path)).generate(1, 0)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "\xe4", "answer": "1"}\n')
    with pytest.raises(QuestionError, match=r"latin\.jsonl, row 2: not UTF-8"):
        own.jsonl(path=str(latin)).generate(1, 0)
    with pytest.raises(QuestionError, match="row 1: the answer 'two' fails its own check; give a number"):
        own.jsonl(path=write({**GOOD, "answer": "two"}), grade="number").generate(1, 0)
    with pytest.raises(QuestionError, match="parameter `grade`"):
        own.jsonl(path="x", grade="close")


def test_a_path_may_begin_at_home(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(GOOD)
    assert [question.answer for question in own.jsonl(path="~/own.jsonl").questions] == ["2"]


def test_rows_are_read_as_they_are(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"  # byte order mark, Windows line ends, other columns
    path.write_bytes(
        b"\xef\xbb\xbf"
        b'{"question": "a?", "answer": 1.50, "self": 1}\r\n{"question": "b?", "answer": "B", "level": "hard"}'
    )
    first, second = own.jsonl(path=str(path)).questions
    assert (first.answer, first.level, json.loads(first.data)) == ("1.50", "marked", {"row": 1})
    assert (second.answer, second.level) == ("B", "hard")


def test_allotted_blocks_are_disjoint_and_stable(write: Write) -> None:
    rows = sums(300)
    task = own.jsonl(path=write(*rows))
    dealt = task.allot({"test": 50, "sft": 150, "rl": 100, "dev": 200}, seed=1)
    assert {name: len(questions) for name, questions in dealt.items()} == {"test": 50, "sft": 150, "rl": 100, "dev": 0}
    assert len({q.id for questions in dealt.values() for q in questions}) == 300
    # Neither the order of the file nor what training asks for changes the test questions.
    turned = own.jsonl(path=write(*rows[::-1], name="turned.jsonl")).allot({"test": 50, "sft": 20, "dev": 9}, seed=1)
    assert [q.id for q in turned["test"]] == [q.id for q in dealt["test"]]
    assert len(turned["dev"]) == 9
    assert [q.id for q in task.allot({"test": 50}, seed=2)["test"]] != [q.id for q in dealt["test"]]
    with pytest.raises(
        QuestionError, match=r"has 300 questions to give, but the recipe asks for 301 \(sft 300, rl 1\)"
    ):
        task.allot({"sft": 300, "rl": 1}, seed=1)


def test_generated_splits_of_a_file_are_disjoint(write: Write) -> None:
    task = own.jsonl(path=write(*sums(60)))
    parts = [task.generate(3, 0, split) for split in ("sft", "rl", "dev", "eval")]
    assert len({q.id for part in parts for q in part}) == 12
    with pytest.raises(QuestionError, match=r"holds \d+ questions that belong to the dev split, 50 wanted"):
        task.generate(50, 0, "dev")


# --- the same questions in other formats


def test_every_format_gives_the_same_questions(write: Write, tmp_path: Path) -> None:
    rows = [{"question": 'Half of "1", or\n1/2?', "answer": "0.50", "level": "easy"}, {"question": "2?", "answer": "2"}]
    text = '\ufeffanswer,level,question,note\r\n0.50,easy,"Half of ""1"", or\n1/2?",x\r\n\r\n2,,2?,\r\n'
    tables = {
        "jsonl": write(*rows),
        "csv": write(text, name="own.csv"),
        "parquet": parquet(
            tmp_path, question=[r["question"] for r in rows], answer=["0.50", "2"], level=["easy", None]
        ),
    }
    made = {name: own.Own(name, path=path, grade="number").questions for name, path in tables.items()}
    parts = {name: [(q.id, q.text, q.answer, q.level) for q in questions] for name, questions in made.items()}
    assert parts["jsonl"] == parts["csv"] == parts["parquet"]
    assert [level for *_, level in parts["csv"]] == ["easy", "own"]
    assert [json.loads(question.data) for question in made["csv"]] == [{"row": 2}, {"row": 4}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"own\.csv holds no questions"),
        ("question,answer\n", r"own\.csv holds no questions"),
        (
            "question,reply\nWho?,I\n",
            r"own\.csv has no column `answer` \(it has: question, reply\); separate the cells",
        ),
        ("question;answer\nWho?;I\n", r"own\.csv has no column `question` \(it has: question;answer\)"),
        ("question,answer,answer\nWho?,I,me\n", r"own\.csv has two columns named `answer`"),
        ("question,answer\nWho?,I\nWho, then?,me\n", r"own\.csv, row 3: 3 cells, but the first row names 2 columns"),
        ("question,answer\nWho?\n", r"own\.csv, row 2: 1 cells, but the first row names 2 columns"),
        ("question,answer\nWho?,\n", r"own\.csv, row 2: `answer` is missing or null"),
        ("question,answer\rWho?,I\r", r"own\.csv, row 1: not CSV .*; save it with the line ends of Unix or Windows"),
        ('question,answer\nWho?,"I\n', r"own\.csv, row 2: not CSV \(unexpected end of data\)"),
        ('question,answer\n"Who"?,I\n', r"own\.csv, row 2: not CSV"),
        ('question,answer\n"a\nb",1\nWho?,\n', r"own\.csv, row 3: `answer` is missing"),
        ("question,answer\nWho?,I\nWho?,me\n", r"own\.csv, row 3: the same question as in row 2"),
        ("id,question,answer\n7,a?,I\n8,b?,I\n7,c?,I\n", r"own\.csv, row 4: the same `id` as in row 2, '7'"),
    ],
)
def test_broken_tables_name_the_row(write: Write, text: str, message: str) -> None:
    path = write(name="own.csv")
    Path(path).write_text(text, "utf-8")
    with pytest.raises(QuestionError, match=message):
        own.csv(path=path).generate(1, 0)


def test_a_cell_may_be_long(write: Write) -> None:
    path = write("question,answer", f"{'x' * 200_000},1", name="own.csv")
    assert len(own.csv(path=path).questions[0].text) == 200_000


def test_files_of_another_kind(write: Write, tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes("question,answer\nWho?,I\nWo?,ä\n".encode("latin-1"))
    with pytest.raises(QuestionError, match=r"latin\.csv, line 3: not UTF-8"):
        own.csv(path=str(latin)).generate(1, 0)
    with pytest.raises(
        QuestionError, match=r"own\.jsonl is not a Parquet file that can be read \(.*\); write it again"
    ):
        own.parquet(path=write(GOOD)).generate(1, 0)
    good = parquet(tmp_path, **{key: [value] for key, value in GOOD.items()})
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(Path(good).read_bytes()[:-20])
    with pytest.raises(QuestionError, match=r"cut\.parquet is not a Parquet file"):
        own.parquet(path=str(cut)).generate(1, 0)
    with pytest.raises(QuestionError, match=r"own\.parquet, row 1: not UTF-8|own\.parquet, row 1: not JSON"):
        own.jsonl(path=good).generate(1, 0)
    with pytest.raises(QuestionError, match=r"nowhere\.parquet cannot be read: No such file"):
        own.parquet(path=str(tmp_path / "nowhere.parquet")).generate(1, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": ["a?"], "reply": ["b"]}, r"own\.parquet has no column `answer` \(it has: question, reply\)"),
        ({"question": ["a?", "b?"], "answer": ["a", None]}, r"own\.parquet, row 2: `answer` is missing or null"),
        ({"question": ["a?"], "answer": [float("nan")]}, r"own\.parquet, row 1: `answer` is missing or null"),
        (
            {"question": ["a?"], "answer": [["b"]]},
            r"own\.parquet, row 1: `answer` must be text or a number, not a list",
        ),
        ({"question": ["a?"], "answer": [b"b"]}, r"own\.parquet, row 1: `answer` must be text or a number, not bytes"),
        (
            {"question": ["a?", "b?"], "answer": ["a", "b"], "bounds": [[1.0], [float("inf")]]},
            r"own\.parquet, row 2: column `bounds` holds an infinite number; write it as text",
        ),
        (
            {"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())},
            r"own\.parquet holds no questions",
        ),
    ],
)
def test_broken_parquet_names_the_row(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        own.parquet(path=parquet(tmp_path, **columns)).generate(1, 0)


def test_numbers_of_parquet_are_texts(tmp_path: Path) -> None:
    path = parquet(tmp_path, question=["a?", "b?", "c?", "d?"], answer=[80.0, 0.25, -3.0, 1e300])
    assert [q.answer for q in own.parquet(path=path, grade="exact").questions] == ["80", "0.25", "-3", "1e+300"]
    path = parquet(tmp_path, question=["a?", "b?"], answer=pa.array([0.1, 16777216], pa.float32()))
    assert [q.answer for q in own.parquet(path=path, grade="number").questions] == ["0.1", "16777216"]


@pytest.mark.usefixtures("module")
def test_columns_of_every_type_reach_a_function(tmp_path: Path) -> None:
    halves = pa.array([[{"at": 0.1}]], pa.list_(pa.struct([("at", pa.float32())])))
    columns = {
        "day": [date(2020, 1, 2)], "time": [datetime(2020, 1, 2, 3, 4)], "took": [timedelta(seconds=90)],
        "price": [[Decimal("1.50"), None]], "picture": [{"bytes": b"x", "path": "p"}], "raw": [b"x"], "halves": halves,
        "good": [True], "none": [float("nan")],
    }  # fmt: skip
    path = parquet(tmp_path, question=["a?"], answer=["b"], **columns)
    (question,) = own.parquet(path=path, grade="own_grading.same").questions
    assert json.loads(question.data)["columns"] == {
        "day": "2020-01-02", "time": "2020-01-02T03:04:00", "took": "0:01:30", "price": ["1.50", None],
        "picture": {"path": "p"}, "halves": [{"at": "0.1"}], "good": True, "none": None,
    }  # fmt: skip


def test_a_row_made_by_hand_is_read_like_one_of_a_file(tmp_path: Path) -> None:
    task = own.jsonl(path="unread", grade="number")
    made = [task.make(question="2 + 2?", answer=answer) for answer in (4, 4.0, np.int64(4), Decimal(4), "4")]
    assert {question.answer for question in made} == {"4"}
    assert task.make(question="?", answer=np.float32(0.1)).answer == "0.1"
    with pytest.raises(QuestionError, match="column `other` holds a value of type set; write it as text"):
        task.make(question="?", answer=4, other={1})


def test_options_may_be_numbers_in_every_format(write: Write, tmp_path: Path) -> None:
    row = {"question": "One and one?", "choices": [1, 2, 2.50], "answer": 2}
    path = parquet(tmp_path, question=[row["question"]], choices=[[1, 2]], answer=[2])
    made = [
        own.jsonl(path=write(row), grade="choice").questions[0],
        own.csv(path=write('question,choices,answer\nOne and one?,"[1, 2, 2.5]",2\n', name="own.csv"), grade="choice")
        .questions[0],
        own.jsonl(path="unread", grade="choice").make(**row),
    ]  # fmt: skip
    assert len({(q.id, q.text, q.answer) for q in made}) == 1
    assert "\nB. 2\n" in own.parquet(path=path, grade="choice").questions[0].text


# --- multiple choice

COLOURS = {"question": "Which is hot?", "choices": ["blue", "Red", "A"], "answer": "red"}


def test_choices_are_asked_and_graded(write: Write) -> None:
    asked = {**COLOURS, "choices": json.dumps(COLOURS["choices"])}
    in_csv = 'question,choices,answer\nWhich is hot?,"[""blue"", ""Red"", ""A""]",B\n'
    made = [
        own.jsonl(path=write(COLOURS), grade="choice").questions[0],
        own.jsonl(path=write(asked, name="text.jsonl"), grade="choice").questions[0],
        own.csv(path=write(in_csv, name="own.csv"), grade="choice").questions[0],
    ]
    assert len({(q.id, q.text, q.answer) for q in made}) == 1
    assert made[0].answer == "B"
    assert made[0].text == ("Which is hot?\n\nA. blue\nB. Red\nC. A\n\nThe answer is the letter of the right option.")
    # The same options in another order are the same question, other options another one.
    task = own.jsonl(path="unread", grade="choice")
    assert task.make(**{**COLOURS, "choices": ["Red", "blue", "A"]}).id == made[0].id
    assert task.make(**{**COLOURS, "choices": ["Red", "blue"]}).id != made[0].id


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": None}, "row 1: `choices` must be a JSON list of texts"),
        ({"choices": "blue, red"}, "row 1: `choices` must be a JSON list of texts"),
        ({"choices": ["blue", 3]}, None),  # numbers arrive as they were written
        ({"choices": ["blue", ["red"]]}, "row 1: `choices` must be a JSON list of texts"),
        ({"choices": ["red"]}, "row 1: `choices` has 1 options; give 2 to 26"),
        ({"choices": ["red", "Red."]}, "row 1: `choices` names the same option twice"),
        ({"answer": "green"}, "row 1: `answer` 'green' is none of `choices`"),
        ({"answer": "D"}, "row 1: `answer` 'D' is none of `choices`"),
        ({"answer": "A"}, "row 1: `answer` 'A' is one option's letter and another's text"),
    ],
)
def test_broken_choices_name_the_row(write: Write, changed: dict[str, Any], message: str | None) -> None:
    task = own.jsonl(path=write({**COLOURS, "answer": "B", **changed}), grade="choice")
    if message is None:
        assert len(task.questions) == 1
        return
    with pytest.raises(QuestionError, match=message):
        task.generate(1, 0)


# --- a grading function of the user's

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
