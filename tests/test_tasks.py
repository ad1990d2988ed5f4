"""Answer extraction, arithmetic and the generated tasks, against independent evaluations."""

import ast
import json
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.records import Grade
from skillfactory.tasks.answers import extract_answer, has_trace_tags
from skillfactory.tasks.arithmetic import ArithmeticSyntaxError, parse
from skillfactory.tasks.base import SHARES, check_references
from skillfactory.tasks.countdown import Countdown, CountdownParams, solutions
from skillfactory.tasks.multiplication import Multiplication

TAGS = ["<answer>", "</answer>", "<think>", "</think>", "<sample>", "</reflect>", "$", "```", "=", "\n", "3 + 4", "12"]
hostile = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=6)), max_size=14).map("".join)
plain = st.text(alphabet="abc 123+*/()-", min_size=1).filter(lambda text: text.strip())


# --- answers


@given(hostile)
def test_extraction_takes_hostile_text(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or (answer.strip() == answer != "" and answer in text)


@given(plain, plain, hostile.filter(lambda text: "answer>" not in text and "think>" not in text))
def test_the_last_complete_answer_counts(first: str, last: str, between: str) -> None:
    text = f"<answer>{first}</answer>{between}<answer>{last}</answer> and <answer>cut"
    assert extract_answer(text) == last.strip()


@given(plain, plain)
def test_thinking_has_no_answer(inside: str, after: str) -> None:
    thought = f"<think>hm <answer>{inside}</answer>"
    assert extract_answer(thought) is None
    assert extract_answer(thought + "</think> so it is that") is None
    assert extract_answer(f"{thought}</think>\n<answer>\n{after}\n</answer>") == after.strip()
    assert extract_answer(f"<answer>{inside}</answer></think><answer>{after}</answer><think>again") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>5</answer></answer>", "5"),
        ("<answer>1 <answer>2</answer>", "2"),
        ("<answer>``` \n3 + 4\n```</answer>", "3 + 4"),
        ("<answer>$$7$$</answer>", "7"),
        ("<answer>   </answer>", None),
        ("</answer>5<answer>", None),
        ("<answer>" + "9" * 5000 + "</answer>", None),
        ("no tags", None),
    ],
)
def test_decided_cases(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_trace_tags_are_found() -> None:
    assert all(map(has_trace_tags, ["<sample>", "a</THINK>b", "x <reflect>"]))
    assert not has_trace_tags("<answer>1 < 2</answer> a sample to think on")


# --- arithmetic


def _independent(text: str) -> Fraction:
    """The value by Python's own parser and exact fractions."""

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() as number):
                return Fraction(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return value(operand)
            case ast.BinOp(left=left, op=operator, right=right):
                a, b = value(left), value(right)
                match operator:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                    case ast.Div():
                        return a / b
        raise AssertionError(ast.dump(node))

    return value(ast.parse(text, mode="eval").body)


numbers = st.integers(0, 999).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " - ", " * "]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
    ),
    max_leaves=8,
)


@given(expressions)
def test_arithmetic_agrees_with_python(text: str) -> None:
    assume(len(text) < 300)
    try:
        expected = _independent(text)
    except ZeroDivisionError:
        with pytest.raises(ArithmeticSyntaxError):
            parse(text)
        return
    parsed = parse(text)
    assert parsed.value == expected
    assert len(parsed.operators) == len(parsed.numbers) - 1


@given(st.text(alphabet="0123456789+-*/() .,_e^%x×÷−\n", max_size=40))
def test_arithmetic_refuses_or_agrees(text: str) -> None:
    try:
        parsed = parse(text)
    except ArithmeticSyntaxError:
        return
    in_python = re.sub(",(?=[0-9]{3})", "", text).translate(str.maketrans("×÷−x\n", "*/-* ")).strip()
    # Python reads no leading zeros.
    assume(not any(part.startswith("0") and part.strip("0") for part in ast_numbers(in_python)))
    assert parsed.value == _independent(in_python)


def ast_numbers(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()


@pytest.mark.parametrize(
    "text", ["2**3", "1.5", "1_0", "(" * 500, "-" * 399, "1 2", "", "()", "__import__('os')", "9" * 21]
)
def test_arithmetic_refuses(text: str) -> None:
    with pytest.raises(ArithmeticSyntaxError):
        parse(text)


# --- countdown

countdown_params = st.fixed_dictionaries(
    {
        "count": st.integers(2, 4),
        "high": st.sampled_from([9, 30]),
        "operators": st.sampled_from(["+-", "+-*/", "+*", "-"]),
        "use_all": st.booleans(),
        "in_order": st.booleans(),
    }
)
seeds_ = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(countdown_params, seeds_)
def test_countdown_references_pass(params: dict[str, object], seed: int) -> None:
    task = Countdown(**params)
    questions = task.generate(5, seed)
    check_references(task, questions)
    assert len({question.id for question in questions}) == 5
    assert questions == task.generate(5, seed)
    assert questions == task.generate(9, seed)[:5]


@settings(max_examples=60, deadline=None)
@given(countdown_params, seeds_, st.integers(1, 5), st.data())
def test_countdown_refuses_changed_answers(
    params: dict[str, object], seed: int, change: int, data: st.DataObject
) -> None:
    task = Countdown(**params)
    question = task.generate(1, seed)[0]
    # Another value: one more than the target.
    off = task.grade(question, f"<answer>{question.answer} + {change} - {change} + 1</answer>")
    assert off.outcome == "wrong"
    # The right value from numbers that are not there.
    stolen = task.grade(question, f"<answer>{question.answer} + {10_000 + change} - {10_000 + change}</answer>")
    assert stolen.outcome == "wrong"
    # A number used once more often.
    number = data.draw(st.sampled_from(json.loads(question.data)["numbers"]))
    assert task.grade(question, f"<answer>{question.answer} + {number} - {number}</answer>").outcome == "wrong"
    assert task.grade(question, f"<answer>{question.answer} = {off.answer} </answer>").outcome == "wrong"


@given(hostile, st.booleans())
def test_graders_never_raise(text: str, in_order: bool) -> None:
    question = Countdown(in_order=in_order).make(numbers=[3, 4, 5], target=12)
    grade = Countdown(in_order=in_order).grade(question, text)
    assert grade.outcome in ("correct", "wrong", "no_answer")
    other = Multiplication().make(a=12, b=34)
    assert Multiplication().grade(other, text).outcome in ("wrong", "no_answer")


@given(st.permutations([7, 3, 12]))
def test_in_order_wants_the_order(order: list[int]) -> None:
    task = Countdown(in_order=True, operators="+-")
    question = task.make(numbers=[7, 3, 12], target=22)
    grade = task.grade(question, f"<answer>{' + '.join(map(str, order))}</answer>")
    assert grade.outcome == ("correct" if order == [7, 3, 12] else "wrong")


def test_countdown_rules() -> None:
    task = Countdown(operators="+-")
    question = task.make(numbers=[3, 4, 5], target=7)

    def outcome(answer: str, task: Countdown = task, question=question) -> tuple[str, str]:  # type: ignore[no-untyped-def]
        grade: Grade = task.grade(question, f"<answer>{answer}</answer>")
        return grade.outcome, grade.reason

    assert outcome("3 + 4") == outcome("3 + 4 = 7") == ("correct", "")
    assert outcome("3 + 4 = 8") == ("wrong", "wrong_equation")
    assert outcome("7") == ("wrong", "number_not_available")
    assert outcome("3 * 4 - 5") == ("wrong", "operator_not_allowed")
    everything = Countdown(operators="+-", use_all=True)
    assert outcome("3 + 4", everything, everything.make(numbers=[3, 4, 4], target=3)) == ("wrong", "number_not_used")
    assert task.grade(question, "3 + 4") == Grade("no_answer", reason="no_answer")


def _brute_force(numbers: list[int], operators: str, use_all: bool, in_order: bool) -> Counter[Fraction]:
    """Solutions per value: all orders and groupings, the same where they agree as functions of the numbers.

    Distinct numbers only, at most three: up to there no two different solutions are the same function.
    """
    stand_ins = {n: Fraction(random.Random(n).getrandbits(60)) for n in numbers}
    found: set[tuple[Fraction, Fraction]] = set()

    def build(parts: list[tuple[Fraction, Fraction]]) -> None:
        if len(parts) == 1:
            found.add(parts[0])
            return
        for i in range(len(parts) - 1):
            (a, fa), (b, fb) = parts[i], parts[i + 1]
            for operator in operators:
                if operator == "/" and b == 0:
                    continue
                do = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}
                pair = (do[operator](a, b), do[operator](fa, fb))
                build([*parts[:i], pair, *parts[i + 2 :]])

    sizes = [len(numbers)] if use_all or in_order else range(1, len(numbers) + 1)
    for size in sizes:
        for order in [tuple(numbers)] if in_order else permutations(numbers, size):
            build([(Fraction(n), stand_ins[n]) for n in order])
    return Counter(value for value, _ in found)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=3, unique=True),
    st.sampled_from(["+-", "+-*/", "*", "-", "+"]),
    st.booleans(),
    st.booleans(),
)
@example([1, 2, 3], "-", True, True)
@example([1, 2, 3], "-", True, False)
def test_solutions_are_counted_exactly(chosen: list[int], operators: str, use_all: bool, in_order: bool) -> None:
    params = CountdownParams(count=len(chosen), operators=operators, use_all=use_all, in_order=in_order)
    found = list(solutions(chosen, params))
    assert Counter(value for _, value in found) == _brute_force(chosen, operators, use_all, in_order)
    for text, value in found:
        assert _independent(text) == value


def test_equal_numbers_give_no_more_solutions() -> None:
    found = [text for text, _ in solutions([4, 4, 5], CountdownParams(operators="+"))]
    assert sorted(found) == ["4", "4 + 4", "4 + 4 + 5", "4 + 5", "5"]
    assert len(list(solutions([4, 4, 5], CountdownParams(operators="+-", use_all=True)))) == 5  # 13, 3, 5, -5, -3


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_sign_patterns_are_counted_exactly(chosen: list[int]) -> None:
    params = CountdownParams(count=len(chosen), operators="+-", in_order=True)
    values = Counter(value for _, value in solutions(chosen, params))
    signs = product([1, -1], repeat=len(chosen) - 1)
    expected = Counter(chosen[0] + sum(s * n for s, n in zip(p, chosen[1:], strict=True)) for p in signs)
    assert values == expected


def test_levels_by_number_of_solutions() -> None:
    hard = Countdown(count=4, high=12, operators="+-", in_order=True, solutions_low=1, solutions_high=1)
    for question in hard.generate(10, 3):
        data = json.loads(question.data)
        values = [value for _, value in solutions(data["numbers"], hard.params)]
        assert values.count(data["target"]) == 1


# --- multiplication and the registry


@given(st.integers(1, 9), st.integers(0, 9), seeds_)
def test_multiplication_references_pass(digits: int, digits_b: int, seed: int) -> None:
    task = Multiplication(digits=digits, digits_b=digits_b)
    check_references(task, task.generate(3, seed))


@given(st.integers(2, 9999), st.integers(2, 9999), st.integers(1, 50))
def test_multiplication_grades_the_product(a: int, b: int, off: int) -> None:
    task = Multiplication()
    question = task.make(a=a, b=b)
    for right in (str(a * b), f"{a * b:,}", f"{a} * {b} = {a * b}"):
        assert task.grade(question, f"<answer>{right}</answer>").outcome == "correct"
    for wrong in (str(a * b + off), f"{a} * {b}", "many"):
        assert task.grade(question, f"<answer>{wrong}</answer>").outcome == "wrong"


@settings(max_examples=10, deadline=None)
@given(seeds_, seeds_)
def test_splits_are_disjoint_whatever_the_seed(seed: int, other: int) -> None:
    task = Countdown(count=3, high=9)
    splits = list(SHARES)
    ids = {split: {q.id for q in task.generate(20, seed if i % 2 else other, split)} for i, split in enumerate(splits)}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))


def test_the_registry_names_the_nearest() -> None:
    with pytest.raises(QuestionError, match="did you mean `countdown`"):
        tasks.get("countdwon")
    with pytest.raises(QuestionError, match="no parameter `cuont`; did you mean `count`"):
        tasks.get("countdown", cuont=3)
    with pytest.raises(QuestionError, match="there are only 36 different questions"):
        Multiplication(digits=1).generate(500, 0)
    assert {"acronym", "countdown", "jsonl", "letter_countdown", "multiplication"} <= set(tasks.names())


def test_a_wrong_reference_is_named() -> None:
    task = Countdown()
    question = task.make(numbers=[3, 4, 5], target=12, answer="3 + 4")
    with pytest.raises(QuestionError, match=f"question {question.id}: its reference answer '3 \\+ 4' fails"):
        check_references(task, [question])
