"""Exact, bounded arithmetic on text from strangers: parsed by hand, never evaluated by Python.

Grammar: sums of products of unsigned whole numbers, with + - * / (also × ÷ · −), unary minus and parentheses.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:([0-9]{1,20})(?![0-9.,_])|([-+*/()]))")
_SAME = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
LONGEST = 400
DEEPEST = 32


class ArithmeticSyntaxError(ValueError):
    """Text that is not an expression of the grammar; the message is a short reason."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its exact value, its numbers and binary operators in reading order."""

    value: Fraction
    numbers: list[int]
    operators: list[str]
    unary: bool


def parse(text: str) -> Expression:
    """Parse and evaluate. Raises ArithmeticSyntaxError for anything outside the grammar, or a division by zero."""
    if len(text) > LONGEST:
        raise ArithmeticSyntaxError("too long")
    return _Parser(text.translate(_SAME)).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if not match:
                raise ArithmeticSyntaxError("not an expression")
            self.tokens.append(match.group(1) or match.group(2))
            position = match.end()
        self.tokens.append("")  # end mark
        self.at = 0
        self.depth = 0
        self.numbers: list[int] = []
        self.operators: list[str] = []
        self.unary = False

    def parse(self) -> Expression:
        value = self.sum()
        if self.tokens[self.at]:
            raise ArithmeticSyntaxError("not an expression")
        return Expression(value, self.numbers, self.operators, self.unary)

    def take(self) -> str:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self.tokens[self.at] in ("+", "-"):
            operator = self.take()
            self.operators.append(operator)
            right = self.product()
            value = value + right if operator == "+" else value - right
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.tokens[self.at] in ("*", "/"):
            operator = self.take()
            self.operators.append(operator)
            right = self.factor()
            if operator == "/" and right == 0:
                raise ArithmeticSyntaxError("division by zero")
            value = value * right if operator == "*" else value / right
        return value

    def factor(self) -> Fraction:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ArithmeticSyntaxError("too deep")
        token = self.take()
        if token.isdigit():
            self.numbers.append(int(token))
            value = Fraction(int(token))
        elif token == "-":
            self.unary = True
            value = -self.factor()
        elif token == "(":
            value = self.sum()
            if self.take() != ")":
                raise ArithmeticSyntaxError("unbalanced parentheses")
        else:
            raise ArithmeticSyntaxError("not an expression")
        self.depth -= 1
        return value
