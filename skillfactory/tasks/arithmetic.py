r"""Exact, bounded arithmetic on text from strangers: parsed by hand, never evaluated by Python.

Grammar: sums of products of whole numbers with + - * /, signs, ( ) and [ ]. Other writings of the same are read too:
× ÷ · −, `x`, full-width characters, thousands separators, \times \cdot \div \frac{}{} \left( \right). Nothing that
would be another language is: powers, decimals, implied products, names. docs/verifiers.md has a table of the cases.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from skillfactory.tasks.answers import unwrap

Value = int | Fraction  # a whole number is an int, where it was got without fractions

LONGEST = 400
LONGEST_NUMBER = 20
DEEPEST = 32

_PLAIN = re.compile(r"[0-9+\-*/() \n]*")
_TOKEN = re.compile(r"[0-9]+|\\[dt]?frac\s*\{|\}\{|\S")
_OPERATORS = ("+", "-", "*", "/")
_CLOSING = {"(": ")", "[": "]"}
_CLOSERS = (")", "]", "}{", "}")  # the last two: of the halves of a LaTeX fraction
# Characters written for others. No em dash, colon or superscript: these say something else, or nothing certain.
_SAME = {
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "✕": "*", "✖": "*",
    "÷": "/", "∕": "/", "⁄": "/", "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-",
    "＋": "+", "－": "-", "＊": "*", "／": "/", "（": "(", "）": ")", "［": "[", "］": "]",
    "，": ",", "．": ".", "。": ".", "＝": "=",
    "\u200b": " ", "\u200c": " ", "\u200d": " ", "\u2060": " ", "\ufeff": " ",
}  # fmt: skip
_LATEX = re.compile(r"\\(?:(?:(times|cdot|ast)|(div)|quad|qquad)(?![A-Za-z])|(?:left|right)(?=\s*[()\[\]])|[,;:! ])")
_HALVES = re.compile(r"\}\s*\{")
_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,.])")
_HEXADECIMAL = re.compile(r"(?<![0-9])0[xX]")


class ArithmeticSyntaxError(ValueError):
    """Text that is not an expression of the grammar; the message is a short code."""


@dataclass(slots=True)
class Expression:
    """A parsed expression: its exact value, its numbers and binary operators in reading order.

    `unary` says whether a minus stands before an operand (a plus there changes nothing).
    """

    value: Value
    numbers: list[int]
    operators: list[str]
    unary: bool


def divide(left: Value, right: Value) -> Value:
    """The exact quotient, an int where two ints have a whole one. Raises ZeroDivisionError."""
    if type(left) is int and type(right) is int:
        whole, rest = divmod(left, right)
        return Fraction(left, right) if rest else whole
    return left / Fraction(right)


def sides(answer: str) -> list[str]:
    """The sides of an equation (one, where there is no `=`), without what wraps each.

    A full stop at the end and an `=` at the beginning, with nothing before it, are overlooked.
    """
    text = answer if answer.isascii() else _in_ascii(answer)
    text = text.removesuffix(".")
    if "=" not in text:
        return [unwrap(text)]
    return [unwrap(side) for side in text.strip().removeprefix("=").split("=")]


def parse(text: str) -> Expression:
    """Parse and evaluate. Raises ArithmeticSyntaxError for anything outside the grammar, or a division by zero.

    Takes one pass over at most LONGEST characters, without recursion.
    """
    if len(text) > LONGEST:
        raise ArithmeticSyntaxError("too_long")
    if not _PLAIN.fullmatch(text):
        text = _respelled(text)
    return _evaluated(_TOKEN.findall(text))


def value_of(text: str) -> Value | None:
    """The value of an expression, or None where it is none."""
    try:
        return parse(text).value
    except ArithmeticSyntaxError:
        return None


def _in_ascii(text: str) -> str:
    """Text with the writings of _SAME and decimal digits of all scripts in ASCII; anything else stays as it is."""
    found = []
    for character in text:
        same = _SAME.get(character)
        if same is None and not character.isascii():
            digit = unicodedata.decimal(character, None)
            same = None if digit is None else str(digit)
        found.append(same or character)
    return "".join(found)


def _respelled(text: str) -> str:
    """Other writings of the grammar in its own."""
    if not text.isascii():
        text = _in_ascii(text)
    if "\\" in text:
        text = _LATEX.sub(lambda match: "*" if match[1] else "/" if match[2] else " ", text)
        text = _HALVES.sub("}{", text)
    if "," in text:
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text.replace("{,}", ","))
    if ("x" in text or "X" in text) and not _HEXADECIMAL.search(text):
        text = text.replace("x", "*").replace("X", "*")
    return text


def _evaluated(tokens: list[str]) -> Expression:
    """One pass. On each level of brackets `total` is the sum so far, `term` the product so far, `pending` its operator.

    Outer levels wait on a stack, with the sign before their bracket and what must close it.
    """
    numbers: list[int] = []
    operators: list[str] = []
    waiting: list[tuple[Value, Value, str, bool, str]] = []
    numerators: list[Value] = []
    total: Value = 0
    term: Value = 0
    value: Value
    pending, negative, unary, wanted = "+", False, False, True
    for token in tokens:
        if wanted:
            if token.isdecimal():
                if len(token) > LONGEST_NUMBER:
                    raise ArithmeticSyntaxError("too_long")
                value = int(token)
                numbers.append(value)
            elif token == "-":
                negative, unary = not negative, True
                continue
            elif token == "+":
                continue
            elif token in _CLOSING or token[0] == "\\" != token:  # a bracket, or the beginning of a fraction
                if len(waiting) == DEEPEST:
                    raise ArithmeticSyntaxError("too_deep")
                waiting.append((total, term, pending, negative, _CLOSING.get(token, "}{")))
                total, term, pending, negative = 0, 0, "+", False
                continue
            else:
                raise ArithmeticSyntaxError("not_an_expression")
        elif token in _OPERATORS:
            operators.append(token)
            if token in ("+", "-"):
                total += term
            pending, wanted = token, True
            continue
        elif token in _CLOSERS:
            if not waiting or waiting[-1][4] != token:
                raise ArithmeticSyntaxError("unbalanced_parentheses")
            value = total + term
            if token == "}{":  # between the halves of a fraction
                numerators.append(value)
                waiting[-1] = (*waiting[-1][:4], "}")
                total, term, pending, wanted = 0, 0, "+", True
                continue
            if token == "}":
                operators.append("/")
                value = _quotient(numerators.pop(), value)
            total, term, pending, negative, _ = waiting.pop()
        else:
            raise ArithmeticSyntaxError("not_an_expression")
        term = _term(term, pending, -value if negative else value)
        negative = wanted = False
    if wanted or waiting:
        raise ArithmeticSyntaxError("not_an_expression" if wanted else "unbalanced_parentheses")
    return Expression(total + term, numbers, operators, unary)


def _term(before: Value, operator: str, value: Value) -> Value:
    """The product so far once an operand has come: it goes on after * and /, and begins anew after + and -."""
    if operator == "*":
        return before * value
    if operator == "/":
        return _quotient(before, value)
    return value if operator == "+" else -value


def _quotient(left: Value, right: Value) -> Value:
    try:
        return divide(left, right)
    except ZeroDivisionError:
        raise ArithmeticSyntaxError("division_by_zero") from None
