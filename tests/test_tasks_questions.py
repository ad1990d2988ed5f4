"""The stage that makes every split: disjoint, checked, and reported."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from skillfactory import tasks
from skillfactory.cli import app
from skillfactory.errors import QuestionError, RecipeError
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import Grade, Question
from skillfactory.store import Run
from skillfactory.tasks import base
from skillfactory.tasks import questions as stage
from skillfactory.tasks.base import check_references, draw_unique, home
from skillfactory.tasks.countdown import Countdown
from skillfactory.tasks.multiplication import Multiplication
from skillfactory.tasks.overlap import check_disjoint, text_key
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
        QuestionError,
        match=r"evaluation\.sets\.tiny: multiplication, 1 x 1 digits: there are only 3 different questions",
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


# --- overlap


def test_an_evaluation_file_keeps_its_questions_and_the_overlap_is_told(write: Write, tmp_path: Path) -> None:
    train = {"name": "jsonl", "params": {"path": write(*sums(30), name="train.jsonl")}}
    # The same questions in other words' clothing: case, spacing, Unicode forms.
    held = [{"question": f"  what IS {i}  ＋ 1?", "answer": i + 1} for i in range(25, 35)]
    test = {"name": "jsonl", "params": {"path": write(*held, name="test.jsonl")}}
    given = recipe(train, {"theirs": (test, 10)}, sft=15, rl=10, dev=5)
    with Run.open(tmp_path / "run", given) as run:
        run.begin("questions", {}, {})
        stage.run(given, run)
        rows = run.stage("questions").rows(Question)
        counts = run.stage("questions").manifest["counts"]
    assert [counts[split] for split in ("sft", "rl", "dev", "eval")] == [15, 10, 0, 10]
    trained = {text_key(q.text) for q in rows if q.split != "eval"}
    assert not trained & {text_key(row["question"]) for row in held}
    assert counts["overlap"] == 5
    (told,) = counts["overlaps"]
    assert (told["set"], told["questions"]) == ("theirs", 5)
    assert told["training"].endswith("train.jsonl")
    assert {(each["evaluation_row"], each["training_row"]) for each in told["first"]} == {
        (i - 24, i + 1) for i in range(25, 30)
    }
    assert "training does without questions of an evaluation set" in (tmp_path / "run/log.jsonl").read_text("utf-8")


def test_the_overlap_is_printed(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(*sums(30), name="train.jsonl"), write(*sums(10, start=23), name="test.jsonl")
    Path("r.yaml").write_text(
        "name: t\nquestions: {task: {name: jsonl, params: {path: train.jsonl}}, sft: 10, rl: 10, dev: 0}\n"
        "evaluation: {sets: {theirs: {task: {name: jsonl, params: {path: test.jsonl}}, n: 10}}}\n"
    )
    done = CliRunner().invoke(app, ["run", "r.yaml", "--until", "questions"])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if "does without" in line]
    told, _, rows = line.partition(" (rows ")
    assert told == "questions: training does without 7 questions of train.jsonl that evaluation set `theirs` holds"
    assert rows.endswith(", …)")
    assert len({int(row) for row in rows[:-4].split(", ")} & set(range(24, 31))) == 5


def test_references_are_checked_once(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("counting.py").write_text("def same(q, a):\n    print(a, file=open('seen', 'a'))\n    return a == q.answer\n")
    spec = {"name": "jsonl", "params": {"path": write(*sums(9)), "grade": "counting.same"}}
    make_questions(recipe(spec, {"e": (spec, 3)}, sft=3, rl=3, dev=0))
    assert len(Path("seen").read_text().split()) == 9


def test_rows_of_one_file_are_no_overlap(write: Write) -> None:
    own = {"name": "jsonl", "params": {"path": write(*sums(30))}}
    made = make_questions(recipe(own, {"held_out": (own, 10)}, sft=10, rl=10, dev=0))
    assert made.overlaps == []


def test_generated_training_does_without_a_file_of_the_same_questions(write: Write) -> None:
    small = {"name": "multiplication", "params": {"digits": 2}}
    drawn = make_questions(recipe(small, {"e": (small, 1)}, sft=50, rl=50, dev=0))
    copied = [{"question": q.text.upper(), "answer": q.answer} for q in drawn.rows if q.split == "sft"][:20]
    theirs = {"name": "jsonl", "params": {"path": write(*copied)}}
    made = make_questions(recipe(small, {"theirs": (theirs, 20)}, sft=50, rl=50, dev=0))
    assert [(o.set, len(o.pairs)) for o in made.overlaps] == [("theirs", 20)]
    assert sum(q.split == "sft" for q in made.rows) == 50
    assert not {text_key(q.text) for q in made.rows if q.split == "sft"} & {text_key(c["question"]) for c in copied}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 1 + 1?", "what  is 1 + 1?\n", True),
        ("What is 1 + 1?\nThe answer is a number.", "What is 1 + 1?", True),
        ("Which?\nA. cat\nB. dog\nThe answer is a letter.", "Which?\nA. dog\nB. cat", True),
        ("Which?\nA. cat\nB. dog", "Which?\nA. cat\nB. cow", False),
        ("What is 1 + 1?", "What is 1 + 2?", False),
        ("The answer is what?", "The answer is why?", False),
    ],
)
def test_what_counts_as_the_same_question(one: str, other: str, same: bool) -> None:
    assert (text_key(one) == text_key(other)) is same


def question(split: str, numbers: list[int], text: str = "", **data: Any) -> Question:
    made = Countdown().make(numbers=numbers, target=sum(numbers))
    return replace(made, split=split, text=text or made.text, **data)


def test_splits_are_compared_whatever_drew_them() -> None:
    first = question("sft", [1, 2, 3])
    check_disjoint([first, question("sft", [1, 2, 3]), question("eval", [1, 2, 4])])
    with pytest.raises(QuestionError, match=f"question {first.id} of the eval split is the same as {first.id} of the"):
        check_disjoint([first, question("eval", [3, 2, 1])])
    with pytest.raises(QuestionError, match="numbers \\[1, 2, 3\\] to make 6"):  # another id and text
        check_disjoint([first, question("rl", [3, 2, 1], "Other words", id="0")])
    with pytest.raises(QuestionError, match="the dev split is the same as"):
        check_disjoint([first, question("dev", [7, 8], first.text.upper())])
    with pytest.raises(QuestionError, match="the dev split is the same as"):
        check_disjoint([first, question("dev", [7, 8], first.text.replace(" ", "  "))])


class Shouting(Multiplication):
    """Its RL questions begin with all those of the SFT split in capitals."""

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        if split != "rl":
            self.quiet = super().generate(n, seed, split)
            return self.quiet
        loud = [replace(q, text=q.text.upper(), id=q.id[::-1]) for q in self.quiet]
        return [*loud, *_all_of(self, "rl")][:n]


def test_splits_do_without_the_same_question_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._registry, "multiplication", Shouting)
    small = {"name": "multiplication", "params": {"digits": 1}}
    made = make_questions(recipe(small, {"other": (COUNTDOWN, 5)}, sft=21, rl=3, dev=0))
    assert [home(q.id) for q in made.rows if q.split == "rl"] == ["rl"] * 3


class Overlapping(Countdown):
    """Gives the same questions whatever the split."""

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        return super().generate(n, 0)


def test_a_task_that_overlaps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._registry, "countdown", Overlapping)
    with pytest.raises(QuestionError, match="is in both the"):
        make_questions(recipe(COUNTDOWN, {"same": (COUNTDOWN, 5)}, sft=5, rl=5, dev=0))


# --- how many there are


def test_small_spaces_are_counted_exactly() -> None:
    digits = {(a, b) for a in range(2, 10) for b in range(a, 10)}
    task = Multiplication(digits=1)
    assert len(task.generate(len(digits), 0)) == len(digits) == 36  # the whole space, to the last
    with pytest.raises(QuestionError, match="there are only 36 different questions, 37 wanted"):
        task.generate(37, 0)
    small = Countdown(count=2, high=5)
    pairs = [(a, b) for a in range(1, 6) for b in range(a, 6)]
    expected = {
        (a, b, t) for a, b in pairs for t in {a + b, a - b, b - a, a * b, *([b // a] if b % a == 0 else [])}
        if 1 <= t <= 100
    }  # fmt: skip
    made = small.generate(len(expected), 3)
    check_references(small, made)
    with pytest.raises(QuestionError, match=f"there are only {len(expected)} different questions, 999 wanted"):
        small.generate(999, 3)
    splits = [len(_all_of(small, split)) for split in base.SHARES]
    assert sum(splits) == len(expected)


def _all_of(task: Any, split: str) -> list[Question]:
    return [each for each in task._every() if home(each.id) == split]


def test_where_they_cannot_be_listed_it_says_how_many_were_found() -> None:
    def draw(rng: random.Random) -> Question:
        return Countdown().make(numbers=[rng.randint(1, 9), 1], target=1)

    with pytest.raises(
        QuestionError, match=r"it: only 9 different questions found \(there may be a few more\), 10 wan"
    ):
        draw_unique(draw, 10, random.Random(0), "", "it", misses=500)


# --- the manifest, progress and bad input


def test_the_manifest_says_where_questions_come_from(tmp_path: Path) -> None:
    letters = {"name": "letter_countdown"}
    made = make_questions(recipe(COUNTDOWN, {"letters": (letters, 5)}, sft=5, rl=5, dev=0))
    assert set(made.sources) == {"letter_countdown"}
    assert "Hunspell" in made.sources["letter_countdown"]["dictionary"]


def test_progress_is_shown_when_it_takes_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = recipe(COUNTDOWN, {"same": (COUNTDOWN, 7)}, sft=6, rl=5, dev=4)
    for name, quiet in (("quick", 2.0), ("slow", -1.0)):
        monkeypatch.setattr(stage, "QUIET", quiet)
        with Run.open(tmp_path / name, given) as run:
            run.begin("questions", {}, {})
            stage.run(given, run)
        told = capfd.readouterr().err
        assert told == ("" if quiet > 0 else told)
    assert "questions: 22 / 22 questions" in told


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("q.jsonl", ['{"question": "a?", "answer": "1"}', '{"question": "b?"}'], "q.jsonl, row 2: `answer` is missing"),
        ("q.jsonl", ['{"question": "a?", "answer": null}'], "q.jsonl, row 1: `answer` is missing or null"),
        ("q.jsonl", [], "q.jsonl holds no questions"),
        ("q.jsonl", ['{"question": "a?", "answer": "1"}'] * 2, "q.jsonl, row 2: the same question as in row 1"),
        (
            "q.jsonl",
            ['{"question": "a?", "answer": "1", "id": "x"}', '{"question": "b?", "answer": "1", "id": "x"}'],
            "q.jsonl, row 2: the same `id` as in row 1",
        ),
        ("q.jsonl", ['{"question": "a?", "answer": "one"}'], "row 1: the answer 'one' fails its own check"),
        ("none.jsonl", None, "none.jsonl cannot be read: No such file"),
        ("folder.jsonl", None, "folder.jsonl cannot be read: it is a folder; name a file in it"),
        ("q.csv", ["question,reply", "a?,1"], "q.csv"),
        ("q.parquet", ["no parquet"], "q.parquet"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, lines: list[str] | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if lines is None:
        Path("folder.jsonl").mkdir()
    else:
        Path(file).write_text("".join(f"{line}\n" for line in lines))
    params = f"{{path: {file}, grade: number}}"
    Path("r.yaml").write_text(
        f"name: t\nquestions: {{task: {{name: {file.partition('.')[2]}, params: {params}}}, sft: 1, rl: 1, dev: 0}}\n"
        "evaluation: {sets: {e: {task: {name: countdown}, n: 2}}}\n"
    )
    done = CliRunner().invoke(app, ["run", "r.yaml", "--until", "questions"])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_bad_input_prints_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: t\nquestions: {task: {name: multiplication, params: {digits: 1}}, sft: 900, rl: 1, dev: 0}\n"
        "evaluation: {sets: {e: {task: {name: countdown}, n: 2}}}\n"
    )
    command = [sys.executable, "-m", "skillfactory", "run", "r.yaml", "--until", "questions"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: questions.sft: multiplication, 1 x 1 digits: there are only 21 different questions for the sft split, "
        "900 wanted; ask for fewer or widen the task's settings.\n"
    )
