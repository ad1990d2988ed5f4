"""Expressions and products that are drawn: what is said of them holds, and they have their law."""

import json
import random
import time
from fractions import Fraction

import differential
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skillfactory.tasks.arithmetic import ArithmeticSyntaxError, parse
from skillfactory.tasks.countdown import Countdown, CountdownParams, random_expression, solutions
from skillfactory.tasks.expressions import count_solutions, solve
from skillfactory.tasks.multiplication import Multiplication

# --- drawing


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=6),
    st.sampled_from(["+-*/", "*/", "/", "-*", "+-", "-"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**9),
)
def test_random_expressions_are_what_they_say(
    numbers: list[int], operators: str, use_all: bool, in_order: bool, seed: int
) -> None:
    rules = CountdownParams(count=len(numbers), operators=operators, use_all=use_all, in_order=in_order)
    drawn = random_expression(numbers, rules, random.Random(seed))
    if drawn is None:
        assert "/" in operators
        return
    text, value = drawn
    parsed = parse(text)
    assert parsed.value == value == differential.by_ast(text)
    assert set(parsed.operators) <= set(operators)
    spare = numbers.copy()
    for number in parsed.numbers:
        spare.remove(number)
    assert len(spare) <= (0 if rules.uses_all or len(numbers) == 2 else 1)
    if in_order:
        assert parsed.numbers == numbers


def test_random_expressions_have_their_law() -> None:
    """Against the plain way: shuffle, take two neighbours, join them by a random operator; bad divisions dropped."""
    rules, rng, times = CountdownParams(count=3, use_all=True), random.Random(0), 6000

    def plain() -> Fraction | None:
        terms = [Fraction(n) for n in (6, 3, 2)]
        while len(terms) > 1:
            rng.shuffle(terms)
            a, b, operator = terms[0], terms.pop(1), rng.choice("+-*/")
            if operator == "/" and (b == 0 or (a / b).denominator != 1):
                return None
            terms[0] = {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b
        return terms[0]

    theirs = [plain() for _ in range(times)]
    drawn = [random_expression([6, 3, 2], rules, rng) for _ in range(times)]
    ours = [None if each is None else each[1] for each in drawn]
    assert set(theirs) == set(ours)
    for value in set(theirs):
        share = theirs.count(value) / times
        assert abs(ours.count(value) / times - share) < 5 * (2 * share / times) ** 0.5, value


def test_signs_are_drawn_as_ever() -> None:
    """The demo's questions: another use of the random numbers would make other ones."""
    task = Countdown(count=5, high=19, operators="+-", in_order=True, solutions_low=1, solutions_high=1)
    asked = [json.loads(question.data) for question in task.generate(3, 7, "sft")]
    assert [(data["numbers"], data["target"]) for data in asked] == [
        ([17, 8, 11, 18, 4], 36),
        ([9, 2, 4, 5, 6], 26),
        ([8, 11, 6, 13, 6], 22),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.sampled_from(["+-*/", "+*", "-/", "/", "*", "+-", "-"]),
    st.booleans(),
    st.booleans(),
    st.integers(-30, 60),
)
def test_solving_finds_what_listing_finds(
    numbers: list[int], operators: str, use_all: bool, in_order: bool, target: int
) -> None:
    assume(len(numbers) < 5 or in_order or len(operators) < 3)
    rules = CountdownParams(count=len(numbers), operators=operators, use_all=use_all, in_order=in_order)
    listed = [value for _, value in solutions(numbers, rules)]
    assert count_solutions(numbers, target, rules) == listed.count(target)
    found = solve(numbers, target, rules)
    assert (found is not None) == (target in listed)
    if found is not None:
        question = Countdown(**rules.model_dump()).make(numbers=numbers, target=target, answer=found)
        assert Countdown(**rules.model_dump()).grade(question, f"<answer>{found}</answer>").outcome == "correct"


def test_six_numbers_are_solved_at_once() -> None:
    began = time.thread_time()
    question = Countdown(count=6).make(numbers=[97, 89, 83, 71, 61, 53], target=7)
    assert Countdown().grade(question, f"<answer>{question.answer}</answer>").outcome == "correct"
    assert solve([1, 2, 1, 3, 1, 2], 9797, CountdownParams(count=6)) is None
    assert time.thread_time() - began < 5


# --- multiplication


@given(st.integers(2, 99_999), st.integers(2, 99_999), st.data())
def test_a_product_is_right_in_each_writing_and_no_other_number_is(a: int, b: int, data: st.DataObject) -> None:
    task = Multiplication(digits=5)
    question, product = task.make(a=a, b=b), a * b

    def outcome(answer: str) -> str:
        return task.grade(question, f"<answer>{answer}</answer>").outcome

    for right in (
        str(product),
        f"{product:,}",
        f"{product:,}".replace(",", "{,}"),
        f"{b} × {a} = {product}.",
        f"${product}$",
    ):
        assert outcome(right) == "correct", right
    digits = str(product)
    at = data.draw(st.integers(0, len(digits) - 1))
    wrong = digits[:at] + data.draw(st.sampled_from("0123456789").filter(lambda d: d != digits[at])) + digits[at + 1 :]
    for other in (
        wrong,
        digits[:at] + " " + wrong[at:],
        f"{digits}0",
        f"{a} * {b}",
        f"{digits}.0",
        f"{digits} or {wrong}",
    ):
        assert outcome(other) == "wrong", other


def test_parse_gives_short_reasons() -> None:
    for text, reason in {"(" * 33: "too_deep", "1+" * 300: "too_long", "1/0": "division_by_zero"}.items():
        with pytest.raises(ArithmeticSyntaxError, match=f"^{reason}$"):
            parse(text)
