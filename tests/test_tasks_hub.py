"""Published data sets: their rows in their own columns, from files and from a small hub on this machine."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import make_recipe
from hypothesis import given
from hypothesis import strategies as st
from published_sets import EXAMPLES, NAMES, Row, outcome, published, sums, thoughts, write

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.tasks import base
from skillfactory.tasks.base import check_references
from skillfactory.tasks.published import SETS, boxed
from skillfactory.tasks.questions import make_questions

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


def test_openthoughts_rows_of_no_use_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        thoughts("<think>\\boxed{1} or \\boxed{2}</think> \\boxed{\\frac{3}{4}} or $\\boxed{ \\frac{3}{4} }$.", "a"),
        thoughts("no thinking, \\boxed{5}", "b"),
        thoughts("<think>\\boxed{1}</think> So one.", "c"),
        thoughts("<think>cut \\boxed{1}", "d"),
        thoughts("<think>x</think>\\boxed{1} and \\boxed{2}", "e"),
        thoughts("<think>x</think>\\boxed{}", "f"),
        thoughts("<think>x</think>\\boxed{7", "g"),
        thoughts("<think>x</think>\\boxed{8}", "h", "code"),
        thoughts("<think>x</think>\\boxed{8}", "  "),
        thoughts("<think>x</think>\\boxed{9}", " b"),
        thoughts("<think>x</think>\\boxed{</answer>}", "i"),
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


def test_a_recipe_takes_disjoint_questions_from_two_splits(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k" / "main"
    folder.mkdir(parents=True)
    write(folder / "train-00000-of-00001.parquet", sums(range(100)))
    write(folder / "test-00000-of-00001.parquet", sums(range(90, 150)))
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
        rows = [thoughts(f"<think>x</think>\\boxed{{{part}{n}}}", f"{part} and {n}?") for n in range(1000)]
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
        [*sums(range(5)), *sums(range(3)), {"question": "What is\n0 + 0?", "answer": "#### 0"}],
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
