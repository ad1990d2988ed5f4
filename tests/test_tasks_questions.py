"""The user's own questions, and the stage that makes every split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError, RecipeError
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import Grade, Question
from skillfactory.store import Run
from skillfactory.tasks import questions as stage
from skillfactory.tasks.base import home
from skillfactory.tasks.countdown import Countdown
from skillfactory.tasks.jsonl import Jsonl, number
from skillfactory.tasks.questions import grade, make_questions, task_of

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (objects, or lines as they are) to a file and give its path."""

    def write(*rows: object, name: str = "own.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


def sums(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(start, start + n)]


def recipe(task: dict[str, Any], sets: dict[str, Any], **counts: int) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "questions": {"task": task, **counts},
            "evaluation": {"sets": {name: {"task": spec, "n": n} for name, (spec, n) in sets.items()}},
        }
    )


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
        ([], r"own\.jsonl holds no questions"),
        (["", "  "], r"own\.jsonl holds no questions"),
    ],
)
def test_broken_files_name_the_row(write: Write, rows: list[object], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        Jsonl(path=write(*rows)).generate(1, 0)


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"nowhere\.jsonl cannot be read: No such file"):
        Jsonl(path=str(tmp_path / "nowhere.jsonl")).generate(1, 0)
    with pytest.raises(QuestionError, match="cannot be read: Is a directory"):
        Jsonl(path=str(tmp_path)).generate(1, 0)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "\xe4", "answer": "1"}\n')
    with pytest.raises(QuestionError, match=r"latin\.jsonl, row 2: not UTF-8"):
        Jsonl(path=str(latin)).generate(1, 0)
    with pytest.raises(QuestionError, match="row 1: the answer 'two' fails its own check; give a number"):
        Jsonl(path=write({**GOOD, "answer": "two"}), grade="number").generate(1, 0)
    with pytest.raises(QuestionError, match="parameter `grade`"):
        Jsonl(path="x", grade="close")


def test_rows_are_read_as_they_are(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"  # byte order mark, Windows line ends, other columns
    path.write_bytes(
        b"\xef\xbb\xbf"
        b'{"question": "a?", "answer": 1.50, "self": 1}\r\n{"question": "b?", "answer": "B", "level": "hard"}'
    )
    first, second = Jsonl(path=str(path)).questions
    assert (first.answer, first.level, json.loads(first.data)) == ("1.50", "marked", {"row": 1})
    assert (second.answer, second.level) == ("B", "hard")


@pytest.mark.parametrize(
    ("rule", "reference", "answer", "outcome"),
    [
        ("exact", "New York", " new  york. ", "correct"),
        ("exact", "$x$", "x", "correct"),
        ("exact", "New York", "York", "wrong"),
        ("exact", "12", "12.0", "wrong"),
        ("number", "1200", "1,200", "correct"),
        ("number", "0.5", "1/2", "correct"),
        ("number", "-3", "x = −3", "correct"),
        ("number", "3", "$3.00", "correct"),
        ("number", "3", "3 apples", "wrong"),
        ("number", "12", "1,2", "wrong"),
        ("number", "1", "1/0", "wrong"),
    ],
)
def test_own_answers_are_graded(rule: str, reference: str, answer: str, outcome: str) -> None:
    task = Jsonl(path="unread.jsonl", grade=rule)
    question = task.make(question="?", answer=reference)
    assert task.grade(question, f"So <answer>{answer}</answer>").outcome == outcome
    assert task.grade(question, answer).outcome == "no_answer"


@given(st.text(max_size=60) | st.text(alphabet="0123456789-+.,/ $=", max_size=30))
def test_numbers_take_any_text(text: str) -> None:
    value = number(text)
    assert value is None or any(letter.isdigit() for letter in text)


def test_allotted_blocks_are_disjoint_and_stable(write: Write) -> None:
    rows = sums(300)
    task = Jsonl(path=write(*rows))
    dealt = task.allot({"test": 50, "sft": 150, "rl": 100, "dev": 200}, seed=1)
    assert {name: len(questions) for name, questions in dealt.items()} == {"test": 50, "sft": 150, "rl": 100, "dev": 0}
    assert len({q.id for questions in dealt.values() for q in questions}) == 300
    # Neither the order of the file nor what training asks for changes the test questions.
    turned = Jsonl(path=write(*rows[::-1], name="turned.jsonl")).allot({"test": 50, "sft": 20, "dev": 9}, seed=1)
    assert [q.id for q in turned["test"]] == [q.id for q in dealt["test"]]
    assert len(turned["dev"]) == 9
    assert [q.id for q in task.allot({"test": 50}, seed=2)["test"]] != [q.id for q in dealt["test"]]
    with pytest.raises(
        QuestionError, match=r"has 300 questions to give, but the recipe asks for 301 \(sft 300, rl 1\)"
    ):
        task.allot({"sft": 300, "rl": 1}, seed=1)


def test_generated_splits_of_a_file_are_disjoint(write: Write) -> None:
    task = Jsonl(path=write(*sums(60)))
    parts = [task.generate(3, 0, split) for split in ("sft", "rl", "dev", "eval")]
    assert len({q.id for part in parts for q in part}) == 12
    with pytest.raises(QuestionError, match=r"holds \d+ questions that belong to the dev split, 50 wanted"):
        task.generate(50, 0, "dev")


# --- the stage

COUNTDOWN = {"name": "countdown", "params": {"count": 3, "high": 9, "operators": "+-"}}
SAME_QUESTIONS = {"name": "countdown", "params": {"count": 3, "high": 9, "operators": "-+"}, "level": "other"}


def test_generated_questions_are_disjoint() -> None:
    made = make_questions(
        recipe(
            COUNTDOWN, {"same": (COUNTDOWN, 40), "twin": (SAME_QUESTIONS, 40), "again": (COUNTDOWN, 40)},
            sft=60, rl=50, dev=20,
        )
    )  # fmt: skip
    assert len({question.id for question in made.rows}) == len(made.rows)
    by_split = {s: [q for q in made.rows if q.split == s] for s in ("sft", "rl", "dev", "eval")}
    assert [len(by_split[s]) for s in ("sft", "rl", "dev")] == [60, 50, 20]
    assert all(home(question.id) == question.split for question in made.rows)
    assert made.sets["dev"] == [question.id for question in by_split["dev"]]
    same, twin, again = (set(made.sets[name]) for name in ("same", "twin", "again"))
    assert len(same) == len(twin) == len(again) == 40
    assert not twin & (same | again)
    assert same != again
    assert {q.level for q in made.rows if q.id in twin} == {"other"}
    assert {q.level for q in made.rows if q.id in same} == {"3 numbers"}
    assert made == make_questions(
        recipe(
            COUNTDOWN, {"same": (COUNTDOWN, 40), "twin": (SAME_QUESTIONS, 40), "again": (COUNTDOWN, 40)},
            sft=60, rl=50, dev=20,
        )
    )  # fmt: skip


def test_too_few_questions_name_the_set() -> None:
    small = {"name": "multiplication", "params": {"digits": 1}}
    with pytest.raises(
        QuestionError, match=r"evaluation\.sets\.tiny: multiplication, 1 x 1 digits: only \d+ different"
    ):
        make_questions(recipe(COUNTDOWN, {"tiny": (small, 500)}, sft=5, rl=5, dev=5))
    with pytest.raises(QuestionError, match=r"questions\.rl: multiplication"):
        make_questions(recipe(small, {"test": (COUNTDOWN, 5)}, sft=5, rl=500, dev=0))
    with pytest.raises(RecipeError, match="`dev` is the name of the development split"):
        make_questions(recipe(COUNTDOWN, {"dev": (COUNTDOWN, 5)}, sft=5, rl=5, dev=5))


def test_own_questions_fill_the_recipe(write: Write) -> None:
    own = {"name": "jsonl", "params": {"path": write(*sums(300)), "grade": "number"}}
    other = {"name": "jsonl", "params": {"path": write(*sums(40, start=290), name="test.jsonl"), "grade": "number"}}
    made = make_questions(recipe(own, {"held_out": (own, 50)}, sft=150, rl=100))
    assert [sum(q.split == s for q in made.rows) for s in ("sft", "rl", "dev", "eval")] == [150, 100, 0, 50]
    # A test file of its own keeps its questions; training does without the ten that both files hold.
    made = make_questions(recipe(own, {"theirs": (other, 40)}, sft=150, rl=140, dev=10))
    assert [sum(q.split == s for q in made.rows) for s in ("sft", "rl", "dev", "eval")] == [150, 140, 0, 40]
    assert len({q.text for q in made.rows}) == 330
    with pytest.raises(QuestionError, match=r"290 questions to give \(10 more are in other evaluation sets\)"):
        make_questions(recipe(own, {"theirs": (other, 40)}, sft=150, rl=141))


def test_run_writes_what_the_other_stages_read(tmp_path: Path) -> None:
    given = recipe(COUNTDOWN, {"same": (COUNTDOWN, 7)}, sft=6, rl=5, dev=4)
    for _ in range(2):  # the second time as after a kill before the stage had finished
        with Run.open(tmp_path / "run", given) as run:
            run.begin("questions", {}, {})
            stage.run(given, run)
            rows = run.stage("questions").rows(Question)
            sets = run.stage("questions").read_json("sets.json")
            manifest = json.loads((tmp_path / "run/questions/manifest.json").read_text("utf-8"))
            assert manifest["finished"]
            (tmp_path / "run/questions/manifest.json").write_text(json.dumps({**manifest, "finished": False}), "utf-8")
    assert [len(sets[name]) for name in ("dev", "same")] == [4, 7]
    assert [q.split for q in rows] == ["sft"] * 6 + ["rl"] * 5 + ["dev"] * 4 + ["eval"] * 7


class Broken(Countdown):
    def grade(self, question: Question, text: str) -> Grade:
        raise RecursionError(text)


def test_a_verifier_that_breaks_is_not_a_wrong_answer() -> None:
    task = task_of(TaskSpec.model_validate(COUNTDOWN))
    question = task.make(numbers=[1, 2, 3], target=6)
    assert grade(Broken(), question, "<answer>6</answer>") == Grade("no_answer", reason="check_failed")
    assert grade(task, question, "<answer>1+2+3</answer>").outcome == "correct"
    with pytest.raises(QuestionError, match="no parameter `name`"):
        tasks.get("countdown", name="x")
