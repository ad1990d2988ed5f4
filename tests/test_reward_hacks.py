"""No task pays for what is no right answer: every attempt of hacks.py, in every task, and what shaping makes of it."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hacks import COMMON, SAID, SPECIAL, Case, table

from skillfactory import tasks
from skillfactory.records import BROKEN, Question
from skillfactory.tasks import deadline, own
from skillfactory.tasks.base import Task
from skillfactory.training.reward import make_rewards

EXAMPLES = {  # of published sets: a right answer in another writing, and a wrong one
    "aime2025": ("$40$", "41"),
    "amc2023": ("36.0", "12"),
    "commonsense_qa": ("refrigerator", "oven"),
    "gpqa": ("neutron", "proton"),
    "gsm8k": ("x = 22", "50"),
    "math500": ("5/6", "\\frac{2}{5}"),
    "openthoughts3": ("\\sqrt{18}", "4"),
}
ELSEWHERE = {"csv", "parquet", "reasoning_gym"}  # read like jsonl; graded by a library (below)


@pytest.fixture(scope="module", autouse=True)
def _workers() -> Iterator[None]:
    yield
    deadline.close()


def asked(case: Case) -> tuple[Task, Question]:
    task = tasks.get(case.task, **case.params)
    return task, task.make(**case.data)


def outcome(task: Task, question: Question, text: str) -> str:
    grade = task.grade(question, text)
    assert grade.reason not in BROKEN, (text, grade)  # what is left out of the reward is not refused
    return grade.outcome


def completions(question: Question, right: str, wrong: str) -> Iterator[tuple[str, str]]:
    for name, text in COMMON.items():
        yield name, text.format(right=right, wrong=wrong, question=question.text)


def test_every_task_is_tried() -> None:
    assert {case.task for case in SPECIAL.values()} | set(EXAMPLES) | ELSEWHERE == set(tasks.names())
    assert len(COMMON) > 60
    page = Path(__file__).parent.parent / "docs" / "hostile-input.md"
    assert table() in page.read_text("utf-8"), "`python tests/hacks.py` prints it"


@pytest.mark.parametrize("name", SPECIAL)
def test_right_answers_are_paid(name: str) -> None:
    task, question = asked(SPECIAL[name])
    for answer in SPECIAL[name].right:
        assert outcome(task, question, f"<think>hm</think> <answer>{answer}</answer>") == "correct", answer
        assert outcome(task, question, f"<answer>7</answer> no: <answer> {answer}\n</answer>.") == "correct", answer


@pytest.mark.parametrize("name", SPECIAL)
def test_hacks_are_not(name: str) -> None:
    case = SPECIAL[name]
    task, question = asked(case)
    paid = [
        hack
        for hack, text in completions(question, case.right[0], case.wrong)
        if outcome(task, question, text) == "correct"
    ]
    paid += [
        hack
        for hack, answer in case.hacks.items()
        if outcome(task, question, f"<answer>{answer}</answer>") == "correct"
    ]
    assert not paid


@pytest.mark.parametrize("name", EXAMPLES)
def test_published_sets_do_not_pay_for_hacks(name: str) -> None:
    task = tasks.get(name)
    question = task.example()  # type: ignore[attr-defined]
    right, wrong = EXAMPLES[name]
    for answer in (question.answer, right):
        assert outcome(task, question, f"<answer>{answer}</answer>") == "correct"
    texts = list(completions(question, question.answer, wrong))
    if name == "math500":
        texts += [("the question's formula", r"<answer>\frac{1}{2} + \frac{1}{3}</answer>")]
    if name == "openthoughts3":
        texts += [("the question's formula", r"<answer>\sqrt{50} - \sqrt{8}</answer>")]
    assert not [hack for hack, text in texts if outcome(task, question, text) == "correct"]


# --- checks that break, and other graders

ENDLESS = "(9^{99})^{(9^{99})}"


def test_what_cannot_be_checked_in_time_is_wrong_where_the_answer_is_to_blame() -> None:
    """Left out of the reward, it would be better than wrong: the model would learn to write it when it is unsure."""
    task = own.jsonl(path="unread", grade="math", seconds=3)
    question = task.make(question="?", answer=r"\sqrt{2}")
    assert outcome(task, question, r"<answer>\frac{2}{\sqrt{2}}</answer>") == "correct"
    assert outcome(task, question, f"<answer>{ENDLESS}</answer>") == "wrong"
    assert outcome(task, question, "<answer>" + "(" * 290 + "</answer>") == "wrong"


def test_the_library_of_reasoning_tasks_does_not_pay_for_them_either() -> None:
    """test_tasks_reasoning_gym.py has what fools its own scorers, task by task."""
    pytest.importorskip("reasoning_gym")
    scoring = importlib.import_module("skillfactory.tasks.reasoning_gym_scoring")
    for member in ("chain_sum", "countdown", "gsm_symbolic", "letter_jumble", "propositional_logic", "spell_backward"):
        task = tasks.get(f"reasoning_gym:{member}")
        with scoring._quiet():
            dataset = scoring._create(member, {"seed": 5, "size": 8})
            entries = [kept for i in range(8) if (kept := scoring._checked(member, dataset, dataset[i]))]
        question, other = (task.make(**entry) for entry in entries[:2])
        assert question.answer != other.answer
        for answer, wanted in ((question.answer, "correct"), (other.answer, "")):
            assert scoring.verdict(member, question.text, question.answer, question.data, answer) == wanted
        for name, text in completions(question, question.answer, other.answer):
            answer = scoring.extract_answer(text)
            if answer is None or (member in scoring.EVALUATES and not scoring.is_safe(answer)):
                continue  # never gets to the scorer; see ReasoningGym.grade
            paid = scoring.verdict(member, question.text, question.answer, question.data, answer) == "correct"
            assert not paid, (member, name, answer)


# --- what shaping adds


def paid_for(texts: list[str], question: Question, **shaping: Any) -> list[float]:
    """The sum of the reward functions for each text, as TRL takes it."""
    from helpers import make_recipe

    recipe = make_recipe(rl={"max_tokens": 40, "shaping": shaping})
    functions, weights = make_rewards({question.id: question}, recipe)
    given: dict[str, Any] = {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[5] * 40] * len(texts),
        "question_id": [question.id] * len(texts),
        "log_metric": lambda *_: None,
    }
    parts = [each(**given) for each in functions]
    return [sum(w * (v or 0.0) for w, v in zip(weights, row, strict=True)) for row in zip(*parts, strict=True)]


def test_without_shaping_no_hack_is_paid_anything() -> None:
    case = SPECIAL["multiplication"]
    _, question = asked(case)
    texts = [text for _, text in completions(question, case.right[0], case.wrong)]
    assert paid_for([f"<answer>{case.right[0]}</answer>"], question) == [1.0]
    assert set(paid_for(texts, question)) == {0.0}


def test_shaping_stays_below_a_right_answer() -> None:
    """A form without a right answer is paid `form`, and no more for more of it: below 1, a right answer is always more.

    test_reward.py and docs/training.md tell what each part cannot see.
    """
    case = SPECIAL["multiplication"]
    _, question = asked(case)
    hollow = SAID.format(right=case.wrong)
    stuffed = hollow.replace("</think>", "<sample><answer>1</answer></sample>" * 500 + "</think>")
    end = f"<answer>{case.wrong}</answer>"
    texts = [text for _, text in completions(question, case.right[0], case.wrong)] + [hollow + end, stuffed + end]
    bare = f"<answer>{case.right[0]}</answer>"
    paid = paid_for(texts, question, form=0.2)
    assert max(paid) == 0.2
    assert paid[-2:] == [0.2, 0.2]
    assert paid_for([bare], question, form=0.2) == [1.0]
    assert max(paid_for(texts, question, overlong=10)) <= 0.0  # only ever takes off
