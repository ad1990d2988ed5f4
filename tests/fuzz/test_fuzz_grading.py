"""What a model wrote never makes a reader raise, take long or take much memory. docs/hostile-input.md has the bounds.

Timings are of the processor, and ten times what the page promises: for a busy machine, and far below what a text costs
that is read in quadratic time. `python tests/fuzz/guided.py` looks further, led by coverage.
"""

import contextlib
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile import MAY_RAISE, PARTS, PIECES, READERS, answers, completions, graders, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.records import BROKEN
from skillfactory.tasks import deadline, own
from skillfactory.tasks.answers import LONGEST_ANSWER, extract_answer
from skillfactory.tasks.published import SETS
from skillfactory.tasks.reasoning_gym_guards import GUARDS

SECONDS = 0.1  # promised of each check
BUSY = 10
MEGABYTE = 2**20
TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module", autouse=True)
def _workers() -> Iterator[None]:
    yield
    deadline.close()


def grade(text: str) -> None:
    for task, question in graders():
        found = task.grade(question, text)
        assert found.outcome in ("correct", "wrong", "no_answer")
        assert found.reason not in BROKEN, (task.name, text, found)
        assert len(found.answer) <= LONGEST_ANSWER


def spent(function: Callable[[str], Any], text: str) -> float:
    """Seconds of the processor, in the better of two times."""
    best = float("inf")
    for _ in range(2):
        began = time.thread_time()
        function(text)
        best = min(best, time.thread_time() - began)
        if best < SECONDS:
            break
    return best


def check_time(text: str, functions: dict[str, Callable[[str], Any]]) -> None:
    for name, function in functions.items():
        seconds = spent(function, text)
        assert seconds < BUSY * SECONDS, (name, seconds, text[:80], len(text))


def one_by_one() -> dict[str, Callable[[str], Any]]:
    """A grader of each task, by name."""

    def one(i: int) -> Callable[[str], Any]:
        task, question = graders()[i]
        return lambda text: task.grade(question, text)

    return {f"{task.name} {i}": one(i) for i, (task, _) in enumerate(graders())}


@settings(max_examples=150)
@given(completions)
def test_no_completion_makes_a_reader_raise(text: str) -> None:
    for function in READERS.values():
        function(text)
    grade(text)


@settings(max_examples=150)
@given(hostile)
def test_no_answer_makes_a_verifier_raise(answer: str) -> None:
    for function in PARTS.values():
        function(answer[:LONGEST_ANSWER])
    grade(f"<answer>{answer}</answer>")


@settings(max_examples=40)
@given(answers)
def test_no_answer_breaks_a_check_in_a_worker(text: str) -> None:
    """Where math-verify breaks on an answer, the answer is wrong: left out, it would be worth more than a wrong one."""
    task = own.jsonl(path="unread", grade="math", seconds=60)
    found = task.grade(task.make(question="?", answer=r"\sqrt{2}"), text)
    assert found.reason not in BROKEN


ENTRY = {
    "answer": "[1, 2]",
    "metadata": {"solution": [[1.0]], "numbers": [1, 2], "target": 3, "variable": "x", "valid_answers": ["Q"],
                 "puzzle": {"vertices": [0, 1]}},
}  # fmt: skip


@settings(max_examples=250)
@given(hostile.map(lambda text: text[:LONGEST_ANSWER]))
def test_guards_of_reasoning_tasks_take_any_text(text: str) -> None:
    """They may raise (the answer is wrong then), but only what is the fault of the text."""
    for name, guard in GUARDS.items():
        began = time.thread_time()
        with contextlib.suppress(*MAY_RAISE):
            guard(text, ENTRY)
        assert time.thread_time() - began < BUSY * SECONDS, (name, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
    | st.sampled_from(["A", "B", "red", "#### 3", "<think>", "</answer>", "\ud800", "1e999999999", "\x00"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["label", "text", "stem", "choices",
                                                                  "from", "value", "role", "x"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
COLUMNS = ["question", "answer", "choices", "level", "id", "x", *sorted({c for each in SETS for c in each.columns})]
rows = st.dictionaries(st.sampled_from(COLUMNS), json_values, max_size=8)


@settings(max_examples=150)
@given(rows, st.sampled_from(["exact", "number", "choice"]))
def test_rows_from_strangers_give_questions_or_our_own_error(row: dict[str, Any], rule: str) -> None:
    task = own.jsonl(path="unread", grade=rule)
    with contextlib.suppress(QuestionError):
        question = task.make(**row)
        assert task.grade(question, f"<answer>{question.answer}</answer>").outcome == "correct"
    for each in SETS:
        with contextlib.suppress(QuestionError):
            tasks.get(each.name).make(**row)


@pytest.mark.parametrize("each", SETS, ids=[each.name for each in SETS])
@pytest.mark.parametrize(
    "value", ["\udca5", None, 1.5, [], {}, True, [{"label": "A"}], [{"from": "gpt", "value": "\ud800"}]]
)
def test_rows_of_one_value_give_our_own_error(each: Any, value: Any) -> None:
    with contextlib.suppress(QuestionError):
        tasks.get(each.name).make(**dict.fromkeys(each.columns, value))


# --- size


ONE = [
    "(",
    "1",
    "<",
    " ",
    "\\",
    "{",
    "^",
    "\u0301",
    "\u200b",
    "\U0001f600",
    *("</answer>", "<answer>", "<sample>", "</think>"),
]


@pytest.mark.parametrize("piece", ONE)
def test_ten_megabytes_of_one_character(piece: str) -> None:
    for size in (1_000_000, TEN_MEGABYTES):
        inside = piece * (size // len(piece.encode()))
        text = f"{inside}<answer>{inside[: size // 4]}</answer>"
        check_time(text, READERS)
        check_time(text, one_by_one())


@pytest.mark.parametrize("piece", ["(", "\U0001f600", "<sample>", "</think><answer>"])
def test_ten_megabytes_take_no_hundred(piece: str) -> None:
    inside = piece * (TEN_MEGABYTES // 2 // len(piece.encode()))
    text = f"<think>{inside}</think><answer>{inside}</answer>"
    for function in (*READERS.values(), grade):
        tracemalloc.start()
        function(text)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 * MEGABYTE, (function, peak / MEGABYTE)


NESTED = (
    "(", "[", "{", "\\frac{", "\\sqrt{", "\\text{", "\\boxed{", "$", "`", "-", "\\left(", "1-(", "^{", "<answer>",
    "```", "**",
)  # fmt: skip
MANY = (
    "1+", "9", "9*", "9^", "10^10^", "!", "1,000,", "0.3", "=1", "1=", "\\approx ", "or ", "a ", "a,", "\u0301", "x",
    "A", "not ", "1/", "}{", "] [", "\n", "%", "①", "٣",
)  # fmt: skip


@pytest.mark.parametrize("piece", [*NESTED, *MANY])
def test_deep_and_long_answers_take_no_time(piece: str) -> None:
    for size in (290, LONGEST_ANSWER - 1):
        text = piece * (size // len(piece))
        check_time(text, PARTS)
        check_time(f"<answer>{text}</answer>", one_by_one())


HUGE = [
    "10^10^10", "9**9**9**9", "9^{9^{9}}", "99999999!", "1e999999999", "1e-999999999", "9" * 1999, "0." + "3" * 1990,
    "1/" + "9" * 1990, "9" * 19 + "*" + "9" * 19, "/".join(["9" * 18] * 20), "٣" * 1000, "1" + ",000" * 400,
    "-" * 1999,
]  # fmt: skip


@pytest.mark.parametrize("answer", HUGE)
def test_huge_numbers_take_no_time(answer: str) -> None:
    check_time(answer, PARTS)
    check_time(f"<answer>{answer}</answer>", one_by_one())


def test_digits_of_other_scripts_are_digits_or_nothing() -> None:
    """`int("٣")` is 3 to Python: where they count as digits they count by their value, and a raised 3 is no 3."""
    task, question = next(pair for pair in graders() if pair[0].name == "multiplication")
    for answer in ("٤٠٨", "４０８"):
        assert task.grade(question, f"<answer>{answer}</answer>").outcome == "correct"
    for answer in ("⁴⁰⁸", "④⓪⑧", "四〇八"):
        assert task.grade(question, f"<answer>{answer}</answer>").outcome == "wrong"


# --- the worker of mathematics


def test_a_comparison_takes_no_more_memory_than_it_may() -> None:
    equal = "skillfactory.tasks.equality:equal"
    assert deadline.call(equal, "2", r"\frac{4}{2}", seconds=60) is True
    first = deadline.call("os:getpid", seconds=60)
    before = deadline.call("resource:getrusage", resource.RUSAGE_SELF, seconds=60)[2]
    for bomb in ("2^{10^{10}}", r"\sqrt{2}^{10^9}", "x^{" * 30):
        try:
            assert deadline.call(equal, "2", bomb, seconds=10) is False, bomb
        except deadline.DeadlineError:
            continue
    if deadline.call("os:getpid", seconds=60) == first:
        after = deadline.call("resource:getrusage", resource.RUSAGE_SELF, seconds=60)[2]
        assert after - before < 150 * 1024  # kilobytes: what was asked for at once is refused, what grew is ended


# --- what the fuzzers found


FOUND = [
    "<answer>\\text{</answer>",
    "<answer>\\boxed{1}\\text{ is {}wrong}</answer>",
    "<answer>" + "\\text{a}" * 240 + "</answer>",
]


@pytest.mark.parametrize("text", FOUND)
def test_what_was_found_stays_mended(text: str) -> None:
    grade(text)
    for function in READERS.values():
        function(text)
    for function in PARTS.values():
        function(extract_answer(text) or "")


@pytest.mark.slow
def test_pieces_are_all_tried_in_pairs() -> None:
    for first in PIECES:
        for second in PIECES:
            grade(f"<answer>{first}{second}</answer>")
            for function in (*READERS.values(), *PARTS.values()):
                function(first + second)
