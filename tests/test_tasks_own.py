"""The user's own questions: reading files, and how each way of grading is checked at load."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skillfactory.errors import QuestionError
from skillfactory.tasks import own

Write = Callable[..., str]


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
