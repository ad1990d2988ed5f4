"""Multiplication of two whole numbers of given lengths (paper §4)."""

import json
import random
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.records import Grade, Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.arithmetic import ArithmeticSyntaxError, parse, sides, value_of
from skillfactory.tasks.base import draw_unique, register
from skillfactory.tasks.params import Params, params_of

MOST_LISTED = 6  # digits of both numbers up to which all questions can be listed: 405,450 of 3 x 3 digits


class MultiplicationParams(Params):
    """Settings of the multiplication task."""

    digits: int = Field(2, ge=1, le=9, description="Digits of the first number.")
    digits_b: int = Field(0, ge=0, le=9, description="Digits of the second number; 0 is as many as the first's.")


@register("multiplication", {f"{digits} x {digits} digits": {"digits": digits} for digits in (2, 3, 4, 5)})
class Multiplication:
    """See MultiplicationParams for the settings."""

    name = "multiplication"

    def __init__(self, **params: Any) -> None:
        self.params = params_of("multiplication", MultiplicationParams, params)
        self.digits = (self.params.digits, self.params.digits_b or self.params.digits)
        self.level = f"{self.digits[0]} x {self.digits[1]} digits"

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions; see Task.generate."""
        what = f"multiplication, {self.level}"
        return draw_unique(self._draw, n, seeds.rng(seed, "multiplication", split), split, what, every=self._every)

    def make(self, *, a: int, b: int) -> Question:
        """The question a * b."""
        return Question(
            id=seeds.content_id("multiplication", *sorted((a, b))),
            task=self.name,
            level=self.level,
            text=f"What is {a} * {b} ?\nThe answer is a number.",
            answer=str(a * b),
            data=json.dumps({"a": a, "b": b}),
        )

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is the product, one whole number; thousands separators may be there.

        It may be an equation: then its last side is graded, and all sides must have one value.
        """
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        *others, last = sides(answer)
        try:
            expression = parse(last)
        except ArithmeticSyntaxError as error:
            return Grade("wrong", answer, str(error))
        if expression.operators:
            return Grade("wrong", answer, "not_a_number")
        if any(value_of(other) != expression.value for other in others):
            return Grade("wrong", answer, "wrong_equation")
        return Grade("correct" if expression.value == int(question.answer) else "wrong", answer)

    def _draw(self, rng: random.Random) -> Question:
        a, b = (rng.randint(low, high) for low, high in self._ranges())
        return self.make(a=a, b=b)

    def _ranges(self) -> list[tuple[int, int]]:
        return [(10 ** (d - 1) if d > 1 else 2, 10**d - 1) for d in self.digits]

    def _every(self) -> Iterator[Question] | None:
        """All questions, where they are few enough to list."""
        if sum(self.digits) > MOST_LISTED:
            return None
        first, second = (range(low, high + 1) for low, high in self._ranges())
        return (self.make(a=a, b=b) for a in first for b in second if first != second or a <= b)
