"""Verifiers that cannot be fooled or hung: the tables of docs/verifiers.md, properties, and other evaluators."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import differential
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from skillfactory.records import Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.arithmetic import divide, parse
from skillfactory.tasks.base import Task
from skillfactory.tasks.countdown import Countdown
from skillfactory.tasks.multiplication import Multiplication

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
MILLISECONDS = 10


# --- the tables of the page


def rows(section: str) -> Iterator[list[str]]:
    """Cells of the first table of a section, with the code in them as it is meant."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert lines, section
    for line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        yield [cells[0], *map(_meant, cells[1:-1]), cells[-1]]


def _meant(cell: str) -> str:
    code = re.fullmatch(r"(`+)( ?)(.*)\2\1", cell)
    text = (code[3] if code else cell).replace("↵", "\n")
    text = re.sub(r"⟨U\+([0-9A-F]{4})⟩", lambda match: chr(int(match[1], 16)), text)
    return re.sub(r"⟨(.*?) × ([0-9]+)⟩", lambda match: match[1] * int(match[2]), text)


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in rows("What is read as the answer")])
def test_answers_are_read_as_the_page_says(row: list[str]) -> None:
    _, completion, answer, why = row
    assert extract_answer(completion) == (None if answer == "none" else answer)
    assert why


TABLES: dict[str, tuple[Task, dict[str, object]]] = {
    "Countdown": (Countdown(count=6, high=9999), {"numbers": [1, 2, 3, 4, 6, 1152], "target": 24}),
    "Countdown in order": (Countdown(operators="+-", in_order=True), {"numbers": [12, 4, 2], "target": 10}),
    "Multiplication": (Multiplication(), {"a": 12, "b": 34}),
    "Multiplication of longer numbers": (Multiplication(digits=3), {"a": 999, "b": 999}),
}
GRADED = [pytest.param(name, row, id=f"{name}: {row[0]}") for name in TABLES for row in rows(name)]


@pytest.mark.parametrize(("table", "row"), GRADED)
def test_answers_are_graded_as_the_page_says(table: str, row: list[str]) -> None:
    task, data = TABLES[table]
    _, answer, outcome, reason, why = row
    question = task.make(**data)
    grade = task.grade(question, f"So it is <answer>{answer}</answer>.")
    assert (grade.outcome, grade.reason) == (outcome, reason)
    assert outcome in ("correct", "wrong")
    assert why


def test_every_reason_is_in_the_tables() -> None:
    told = {row.values[1][3] for row in GRADED}
    assert told >= {
        "not_an_expression", "unbalanced_parentheses", "division_by_zero", "too_long", "too_deep", "wrong_equation",
        "operator_not_allowed", "number_not_available", "numbers_not_in_order", "not_a_number",
    }  # fmt: skip


# --- expressions whose value and numbers are known


@dataclass(frozen=True)
class Tree:
    """An expression made here: its text in full parentheses, value and numbers in reading order."""

    text: str
    value: Fraction
    numbers: tuple[int, ...]


def _joined(left: Tree, operator: str, right: Tree) -> Tree | None:
    do = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}
    if operator == "/" and right.value == 0:
        return None
    value = do[operator](left.value, right.value)
    return Tree(f"({left.text} {operator} {right.text})", value, left.numbers + right.numbers)


@st.composite
def trees(draw: st.DrawFn, most: int = 6) -> Tree:
    parts = [Tree(str(n), Fraction(n), (n,)) for n in draw(st.lists(st.integers(1, 99), min_size=2, max_size=most))]
    while len(parts) > 1:
        i = draw(st.integers(0, len(parts) - 2))
        joined = _joined(parts[i], draw(st.sampled_from("+-*/")), parts[i + 1])
        assume(joined is not None)
        assert joined is not None
        parts[i : i + 2] = [joined]
    return parts[0]


def graded(tree: Tree, answer: str, **params: object) -> tuple[str, str]:
    """Outcome and reason of an answer to the question that the tree answers."""
    task = Countdown(count=len(tree.numbers), **params)
    question = task.make(numbers=list(tree.numbers), target=int(tree.value), answer=tree.text)
    grade = task.grade(question, f"<answer>{answer}</answer>")
    return grade.outcome, grade.reason


@given(trees())
def test_the_value_is_exact(tree: Tree) -> None:
    parsed = parse(tree.text)
    assert parsed.value == tree.value
    assert tuple(parsed.numbers) == tree.numbers


whole = trees().filter(lambda tree: tree.value.denominator == 1)
WRITINGS: list[Callable[[str], str]] = [
    lambda text: text.replace(" ", ""),
    lambda text: text.replace(" ", "\u00a0\n "),
    lambda text: text.replace("(", "((").replace(")", "))"),
    lambda text: re.sub(r"([0-9]+)", r"(\1)", text),
    lambda text: text.replace("(", "[").replace(")", "]"),
    lambda text: text.replace("*", "×").replace("/", "÷").replace("-", "−"),
    lambda text: text.replace("*", "x"),
    lambda text: text.replace("*", "·").replace("/", "∕").replace("-", "–"),
    lambda text: text.replace("*", "\\times").replace("/", "\\div").replace("(", "\\left(").replace(")", "\\right)"),
    lambda text: "$$" + text.replace("*", "\\cdot") + "$$",
    lambda text: f"\\boxed{{{text}}}",
    lambda text: f"```\n{text}\n```",
    lambda text: f"**{text}**.",
    lambda text: f"{text}.",
    lambda text: f"= {text}",
    lambda text: text.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789+-*/()"}),
    lambda text: text.translate({ord(str(d)): 0x0660 + d for d in range(10)}),
    lambda text: re.sub(r"([0-9]+)", r"0\1", text),
]


@given(whole, st.lists(st.sampled_from(WRITINGS[:8]), max_size=2), st.sampled_from(WRITINGS))
def test_other_writings_pass(tree: Tree, inner: list[Callable[[str], str]], outer: Callable[[str], str]) -> None:
    text = tree.text
    for write in inner:
        text = write(text)
    text = outer(text)
    assume(len(text) < 380)
    assert graded(tree, text) == ("correct", "")
    if not text.startswith(("*", "\\boxed", "$", "`", "=")) and not text.endswith("."):
        assert graded(tree, f"{text} = {tree.value}") == ("correct", "")
        assert graded(tree, f"{tree.value} = {text} = {tree.value}") == ("correct", "")


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_latex_fractions_are_divisions(a: int, b: int, c: int) -> None:
    assert parse(rf"\frac{{{a}}}{{{b}}} + \dfrac{{{c} - 1}}{{\tfrac {{{a}}} {{2}}}}").value == (
        Fraction(a, b) + Fraction(2 * (c - 1), a)
    )


@given(whole, st.data())
def test_another_value_fails(tree: Tree, data: st.DataObject) -> None:
    """One operator is changed: right exactly where the value is the same all the same."""
    at = data.draw(st.sampled_from([m.start() for m in re.finditer(r"[-+*/]", tree.text)]))
    changed = tree.text[:at] + data.draw(st.sampled_from("+-*/")) + tree.text[at + 1 :]
    value = differential.by_ast(changed)
    outcome, reason = graded(tree, changed)
    assert (outcome == "correct") == (value == tree.value)
    assert (reason == "division_by_zero") == (value is None)


@given(whole, st.data())
def test_other_numbers_fail(tree: Tree, data: st.DataObject) -> None:
    """One number is changed, put in or taken out, and the value kept by numbers that are not there."""
    at = data.draw(st.integers(0, len(tree.numbers) - 1))
    other = data.draw(st.integers(1, 99).filter(lambda n: n not in tree.numbers))
    spans = [match.span() for match in re.finditer("[0-9]+", tree.text)]
    first, last = spans[at]
    changed = tree.text[:first] + str(other) + tree.text[last:]
    value = differential.by_ast(changed)
    assert graded(tree, changed)[0] == "wrong"
    if value is not None:
        mended = f"{changed} + ({tree.value - value})"  # the target's value, by numbers that are not there
        assert graded(tree, mended) == ("wrong", "number_not_available")
    number = tree.numbers[at]
    assert graded(tree, f"{tree.text} + {number} - {number}") == ("wrong", "number_not_available")
    assert graded(tree, f"{tree.text} * {number} / {number}") == ("wrong", "number_not_available")
    assert graded(tree, str(tree.value), use_all=True)[0] == "wrong"
    if len(set(tree.numbers)) == len(tree.numbers) > 2:
        assert graded(Tree(tree.text, tree.value, (*tree.numbers, 7)), tree.text, use_all=True)[1] == "number_not_used"


@given(whole, st.integers(-3, 3).filter(bool))
def test_an_equation_must_hold(tree: Tree, off: int) -> None:
    assert graded(tree, f"{tree.text} = {tree.value + off}") == ("wrong", "wrong_equation")
    assert graded(tree, f"{tree.value + off} = {tree.text}")[0] == "wrong"
    assert graded(tree, f"{tree.text} = {tree.value} = {tree.value + off}") == ("wrong", "wrong_equation")
    assert graded(tree, f"{tree.text} ({off})")[0] == "wrong"


def test_a_sign_is_no_way_round_the_operators() -> None:
    task = Countdown(operators="+")
    question = task.make(numbers=[3, 4, 5], target=9)
    assert task.grade(question, "<answer>4 + 5</answer>").outcome == "correct"
    grade = task.grade(
        Countdown(operators="+").make(numbers=[3, 4, 8], target=5, answer="5"), "<answer>8 + -3</answer>"
    )
    assert (grade.outcome, grade.reason) == ("wrong", "operator_not_allowed")


@given(st.integers(-(10**30), 10**30), st.fractions(max_denominator=10**6).filter(bool))
def test_division_is_exact(left: int, right: Fraction) -> None:
    assert divide(left, right) == Fraction(left) / right
    assert divide(left * right.denominator, right.denominator) == left
    with pytest.raises(ZeroDivisionError):
        divide(right, 0)


# --- any text, in bounded time

PIECES = [
    "<answer>", "</answer>", "<think>", "</think>", "$", "$$", "```", "`", "**", "=", ".", "\n", "\\boxed{", "}", "{",
    "\\frac{", "}{", "\\left(", "\\right)", "\\times", "(", ")", "[", "]", "+", "-", "*", "/", "x", "0x", "1,000", ",",
    "3", "4", "12", " ", "\u200b", "\u202e", "×", "²", "３", "\x00", "\ud800", "9" * 30,
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=40).map("".join)
TASKS: list[tuple[Task, Question]] = [
    (task, task.make(**data))
    for task, data in (
        *TABLES.values(),
        (Countdown(use_all=True), {"numbers": [3, 4, 5], "target": 12}),
        (Countdown(operators="+", in_order=True), {"numbers": [3, 4, 5], "target": 12}),
    )
]


def check_time(text: str) -> None:
    """No grader raises, or takes 10 ms of the processor in the better of three times."""
    for task, question in TASKS:
        spent = []
        for _ in range(3):
            began = time.thread_time()
            assert task.grade(question, text).outcome in ("correct", "wrong", "no_answer")
            spent.append(time.thread_time() - began)
            if spent[-1] < MILLISECONDS / 1000:
                break
        assert min(spent) < MILLISECONDS / 1000, (task.name, text[:100], spent)


@settings(deadline=None)
@given(st.one_of(hostile, hostile.map(lambda text: f"<answer>{text}</answer>")))
def test_no_text_raises_or_takes_long(text: str) -> None:
    check_time(text)


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_no_bytes_raise_or_take_long(data: bytes) -> None:
    for text in (data.decode("utf-8", "replace"), data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        check_time(text)
        check_time(f"<answer>{text[:1900]}</answer>")


INSIDE = [
    "1+", "(", ")", "((", "1-(", "-", "=", "1=", "=1", "\\frac{", "\\frac{1}{", "}{", "}", "{", "$", "$$", "`", "``` ",
    "\n", "```\n", "\\boxed{", "**", "*", "x", "0x", "1,111", ",111", "1,", "9", "9*", "9/7/", "1/", "×", "٣",
    "\\left(", "\\left ", "\u200b", "\u200b ", ".", "1.", "1 ", " ",
]  # fmt: skip


@pytest.mark.parametrize("piece", INSIDE)
def test_long_answers_take_no_time(piece: str) -> None:
    for text in (piece * (1999 // len(piece)), "1" + piece * 130, piece * 100 + "1" + "}" * 100, "```" + piece * 900):
        check_time(f"<answer>{text}</answer>")
        check_time(f"<answer>{text} = {text}</answer>")


OUTSIDE = [
    "<answer>", "</answer>", "<answer></answer>", "<answer>1</answer>", "</answer><answer>", "<think>", "</think>",
    "<think></think>", "<answer", "<", "a", " ", "</think><answer>", "<answer>" + "1+" * 1000 + "</answer>",
]  # fmt: skip


@pytest.mark.parametrize("piece", OUTSIDE)
def test_long_completions_take_no_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    for whole_text in (
        text,
        f"{text}<answer>3 * 4</answer>",
        f"<answer>3 * 4</answer>{text}",
        f"<answer>{text}</answer>",
    ):
        check_time(whole_text)


_INNERMOST = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


@given(st.lists(st.sampled_from(["<answer>", "</answer>", "a", "1", " ", "<"]), max_size=12).map("".join))
@example("<answer>5</answer></answer>")
def test_the_last_innermost_pair_is_found(text: str) -> None:
    found = _INNERMOST.findall(text)
    assert extract_answer(text) == ((found[-1].strip() or None) if found else None)


@given(hostile)
def test_the_answer_is_a_part_of_the_text(text: str) -> None:
    answer = extract_answer(f"<answer>{text}</answer>")
    assert answer is None or (answer in text and answer == answer.strip())


# --- beside other evaluators


def test_arithmetic_beside_python() -> None:
    texts = list(differential.expressions(20_000, seed=1))
    same, differ = differential.compare(texts, differential.by_us, differential.by_ast)
    assert same > 19_000
    assert differ.total() > 100  # both ways of writing are drawn
    assert not [kind for kind in differ if kind.startswith("unexplained")]
    assert 10_000 < sum(differential.by_us(text) is not None for text in texts[:20_000]) < 18_000


def test_arithmetic_beside_sympy() -> None:
    texts = [text for text in differential.expressions(1_000, seed=2) if not differential.KINDS["power"](text)]
    same, differ = differential.compare(texts, differential.by_us, differential.by_sympy)
    assert same > 900
    assert not [kind for kind in differ if kind.startswith("unexplained")]


def test_grading_beside_reasoning_gym() -> None:
    pytest.importorskip("reasoning_gym")
    right = 0
    for seed in (1, 2):
        question, ours, theirs = differential.graders(seed)
        answers = list(differential.answers_to(question, 1_000, seed))
        _, differ = differential.compare(answers, ours, theirs)
        assert not [kind for kind in differ if kind.startswith("unexplained")]
        right += sum(map(ours, answers))
    assert right > 50
