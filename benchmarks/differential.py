"""Our arithmetic against others': `python benchmarks/differential.py --number 20000`. Half a minute.

Random expressions, half of them broken by random edits, are read by `skillfactory.tasks.arithmetic` and by a walk over
Python's own syntax tree with exact fractions; then by sympy; then graded as Countdown answers beside reasoning-gym's
scorer at full score. Every difference is counted by its kind; "unexplained" must stay empty.
"""

import ast
import json
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Annotated

import typer

from skillfactory.records import Question
from skillfactory.tasks.arithmetic import DEEPEST, LONGEST, ArithmeticSyntaxError, parse
from skillfactory.tasks.countdown import Countdown

Read = Fraction | None  # what a text is worth; None where it is refused
_EDITS = "0123456789+-*/() x×÷−._,[]^eE=%#"
# The first that fits says why another reader differs from ours.
KINDS: dict[str, Callable[[str], object]] = {
    f"longer than {LONGEST} characters": lambda text: len(text) > LONGEST,
    f"brackets deeper than {DEEPEST}": lambda text: text.count("(") > DEEPEST,
    "more than 20 digits": re.compile(r"[0-9]{21}").search,
    "comment": re.compile("#").search,
    "power": re.compile(r"\*\s*\*|\^").search,
    "decimal or exponent": re.compile(r"[0-9]\s*\.|\.\s*[0-9]|[0-9][eE]").search,
    "hexadecimal": re.compile(r"0[xX]").search,
    "digits joined by _": re.compile(r"[0-9]_[0-9]").search,
    "floor division": re.compile(r"/\s*/").search,
    "thousands separator": re.compile(r"[0-9],[0-9]{3}").search,
    "leading zero": re.compile(r"(?<![0-9])0[0-9]").search,
    "x, × ÷ − as operators": re.compile("[xX×÷−]").search,
    "square brackets": re.compile(r"\[").search,
    "equation": re.compile("=").search,
    "comma, percent or name": re.compile(r"[,%_eE]").search,
    "implied product": re.compile(r"[0-9)]\s*\(|\)\s*[0-9]|[0-9]\s+[0-9]").search,
    "full stop at the end": re.compile(r"\.$").search,
}


def _divides_by_zero(text: str) -> bool:
    try:
        parse(text)
    except ArithmeticSyntaxError as error:
        return str(error) == "division_by_zero"
    return False


KINDS["division by zero in a part"] = _divides_by_zero


def expressions(number: int, seed: int, leaves: Sequence[int] = ()) -> Iterator[str]:
    """Random texts: half of them expressions (of exactly `leaves`, where given), half such with one to three edits."""
    rng = random.Random(seed)
    for i in range(number):
        given = list(leaves) or [
            rng.choice([rng.randint(0, 12), rng.randint(0, 9999)]) for _ in range(rng.randint(1, 7))
        ]
        rng.shuffle(given)
        text = _tree(given, rng)
        yield edited(text, rng.randint(1, 3), rng) if i % 2 else text


def edited(text: str, times: int, rng: random.Random) -> str:
    """The text with characters put in, taken out or changed."""
    for _ in range(times):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice([rng.choice(_EDITS), ""]) + text[at + rng.randint(0, 1) :]
    return text


def _tree(leaves: list[int], rng: random.Random) -> str:
    if len(leaves) == 1:
        return f"-{leaves[0]}" if rng.random() < 0.05 else str(leaves[0])
    split = rng.randint(1, len(leaves) - 1)
    space = rng.choice(["", " "])
    text = space.join([_tree(leaves[:split], rng), rng.choice("+-*/"), _tree(leaves[split:], rng)])
    return f"({text})" if rng.random() < 0.6 else text


def by_us(text: str) -> Read:
    """What our parser says."""
    try:
        return Fraction(parse(text).value)
    except ArithmeticSyntaxError:
        return None


def by_ast(text: str) -> Read:
    """What Python's parser says, with whole numbers, + - * /, signs and exact fractions alone."""

    def value(node: ast.AST) -> Fraction:
        match node:
            case ast.Constant(value=int() as number) if type(number) is int:
                return Fraction(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return value(operand)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return value(left) / value(right)
        raise ValueError(node)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "int object is not callable", for 2(3)
            return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def by_sympy(text: str) -> Read:
    """What sympy's parser says. It evaluates Python, so it is given nothing but texts made here, and no powers."""
    from sympy import Rational
    from sympy.parsing.sympy_parser import parse_expr

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = parse_expr(text)
        return Fraction(int(value.p), int(value.q)) if isinstance(value, Rational) else None
    except Exception:  # it raises what Python raises
        return None


def compare(
    texts: Sequence[str], first: Callable[[str], object], second: Callable[[str], object]
) -> tuple[int, Counter[str]]:
    """How many texts both read alike, and the kinds of those that they do not."""
    same, differ = 0, Counter[str]()
    for text in texts:
        one, other = first(text), second(text)
        if one == other:
            same += 1
        elif isinstance(one, Fraction) and isinstance(other, Fraction):  # no way of writing excuses two values
            differ[f"unexplained: {text}"] += 1
        else:
            differ[next((kind for kind, fits in KINDS.items() if fits(text)), f"unexplained: {text}")] += 1
    return same, differ


def graders(seed: int) -> tuple[Question, Callable[[str], bool], Callable[[str], bool]]:
    """A Countdown question that uses all its numbers, our grader of answers to it, and reasoning-gym's."""
    import reasoning_gym

    task = Countdown(count=4, use_all=True, high=12)
    question = task.generate(1, seed)[0]
    dataset = reasoning_gym.create_dataset("countdown", size=1, seed=0)
    entry = {"metadata": json.loads(question.data)}

    def ours(answer: str) -> bool:
        return task.grade(question, f"<answer>{answer}</answer>").outcome == "correct"

    def theirs(answer: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(dataset.score_answer(answer, entry) == 1.0)

    return question, ours, theirs


def main(
    number: Annotated[int, typer.Option(help="Random expressions for each comparison.")] = 20_000,
    seed: Annotated[int, typer.Option(help="What they are drawn from.")] = 0,
) -> None:
    """Count and explain the differences."""
    texts = list(expressions(number, seed))
    read = sum(by_us(text) is not None for text in texts)
    print(f"{number:,} texts, of which we read {read:,}")
    _show("ast and fractions", *compare(texts, by_us, by_ast))
    harmless = [text for text in texts if not KINDS["power"](text)]  # a power can take all memory
    _show(f"sympy, {len(harmless):,} texts without powers", *compare(harmless, by_us, by_sympy))
    same, right, differ = 0, 0, Counter[str]()
    for block in range(number // 1000):
        question, ours, theirs = graders(seed + block)
        answers = list(answers_to(question, 1000, seed + block))
        found = compare(answers, ours, theirs)
        right += sum(map(ours, answers))
        same, differ = same + found[0], differ + found[1]
    print(f"reasoning-gym: {number // 1000 * 1000:,} answers, of which we find {right:,} right")
    _show("reasoning-gym", same, differ)


def answers_to(question: Question, number: int, seed: int) -> Iterator[str]:
    """Random answers of the question's numbers; every third one is its reference with up to three edits."""
    rng = random.Random(seed)
    for i, text in enumerate(expressions(number, seed, json.loads(question.data)["numbers"])):
        yield text if i % 3 else edited(question.answer, rng.randint(0, 3), rng)


def _show(name: str, same: int, differ: Counter[str]) -> None:
    print(f"{name}: {same:,} alike, {differ.total():,} not")
    for kind, times in differ.most_common():
        print(f"  {times:6,}  {kind}")


if __name__ == "__main__":
    typer.run(main)
