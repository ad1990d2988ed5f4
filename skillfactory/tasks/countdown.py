"""Countdown: combine numbers with arithmetic to reach a target (paper §4).

A question's difficulty is set by how many numbers there are and, where wanted, by how many distinct solutions it has.
Solutions are distinct as tasks/expressions.py says.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations_with_replacement, product
from math import comb
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Outcome, Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.arithmetic import ArithmeticSyntaxError, parse, sides, value_of
from skillfactory.tasks.base import draw_unique, register
from skillfactory.tasks.expressions import count_solutions, random_expression, random_steps, solutions, solve, written
from skillfactory.tasks.params import Params, params_of

__all__ = ["Countdown", "CountdownParams", "random_expression", "solutions"]

MOST_LISTED = 200_000  # expressions up to which all questions of some settings are listed
_EXPRESSIONS = {2: 8, 3: 100, 4: 1500, 5: 27_142}  # about, of so many numbers
MOST_COUNTED = 5  # numbers up to which all four operators' solutions are counted: 27,142 expressions at 5


class CountdownParams(Params):
    """Settings of the countdown task."""

    count: int = Field(3, ge=2, le=10, description="How many numbers.")
    low: int = Field(1, ge=1, description="Smallest number.")
    high: int = Field(99, le=9999, description="Largest number.")
    target_low: int = Field(1, description="Smallest target.")
    target_high: int = Field(100, description="Largest target.")
    operators: str = Field("+-*/", description="Operators allowed, a string such as `+-`.")
    use_all: bool = Field(False, description="Every number must be used; else each at most once.")
    in_order: bool = Field(False, description="The numbers must stand in the order given (implies use_all).")
    solutions_low: int = Field(0, ge=0, description="Fewest distinct solutions; 0 and no solutions_high: not counted.")
    solutions_high: int = Field(0, ge=0, description="Most distinct solutions; 0 is no limit.")

    @field_validator("operators")
    @classmethod
    def _known(cls, operators: str) -> str:
        if not operators or set(operators) - set("+-*/"):
            raise ValueError("operators must be some of + - * /")
        return "".join(o for o in "+-*/" if o in operators)

    @model_validator(mode="after")
    def _consistent(self) -> "CountdownParams":
        if self.high < self.low or self.target_high < self.target_low:
            raise ValueError("a range's high end is below its low end")
        if self.solutions_high and self.solutions_high < max(1, self.solutions_low):
            raise ValueError("solutions_high is below solutions_low")
        if self.counts_solutions and not self.additive and self.count > MOST_COUNTED:
            raise ValueError(f"solutions are counted up to {MOST_COUNTED} numbers, or with + and - alone")
        return self

    @property
    def counts_solutions(self) -> bool:
        return bool(self.solutions_low or self.solutions_high)

    @property
    def uses_all(self) -> bool:
        return self.use_all or self.in_order

    @property
    def additive(self) -> bool:
        """Whether every expression is a pattern of signs. With - alone it is not: 1 - (2 - 3) is 1 - 2 + 3."""
        return self.operators in ("+-", "+") and self.uses_all


@register("countdown", {f"{count} numbers": {"count": count} for count in (3, 4, 5, 6)})
class Countdown:
    """See CountdownParams for the settings."""

    name = "countdown"

    def __init__(self, **params: Any) -> None:
        self.params = params_of("countdown", CountdownParams, params)
        self.level = f"{self.params.count} numbers"
        p = self.params
        some = not p.uses_all and p.count > 2  # all numbers, or all but one
        width = p.high - p.low + 1
        self._drawing = p.low, width, p.count, some, p.operators, p.in_order, p.target_low, p.target_high
        self._draw = self._draw_signs if self.params.additive else self._draw_steps

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different solvable questions; see Task.generate."""
        rng, what = seeds.rng(seed, "countdown", split), f"countdown, {self.level}"
        return draw_unique(self._draw, n, rng, split, what, every=self._every)

    def make(self, *, numbers: list[int], target: int, answer: str = "") -> Question:
        """One question from its numbers and target; the reference answer is searched for where none is given."""
        if not answer:
            found = solve(numbers, target, self.params)
            if found is None:
                raise QuestionError(f"countdown: {target} cannot be made from {numbers} under these settings.")
            answer = found
        data = {
            "numbers": numbers,
            "target": target,
            "operators": self.params.operators,
            "use_all": self.params.uses_all,
            "in_order": self.params.in_order,
        }
        return Question(
            # By sorted numbers and target, whatever the settings: so levels that share a question share its split.
            id=seeds.content_id("countdown", *sorted(numbers), "target", target),
            task=self.name,
            level=self.level,
            text=self._text(numbers, target),
            answer=answer,
            data=json.dumps(data),
        )

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer uses allowed numbers and operators and its exact value is the target.

        It may be an equation: then the first side is graded (the second, where the first is the target itself) and all
        sides must have one value. docs/verifiers.md has a table of the cases.
        """
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        outcome, reason = _outcome(answer, _rules(question.data))
        return Grade(outcome, answer, reason)

    def _text(self, numbers: list[int], target: int) -> str:
        p = self.params
        listed = ", ".join(str(number) for number in numbers)
        often = "exactly once" if p.uses_all else "at most once"
        order = " and in this order" if p.in_order else ""
        return (
            f"Use the numbers {listed} to make {target}.\n"
            f"Each number is used {often}{order}. The operators allowed are {' '.join(p.operators)} .\n"
            "The answer is an expression."
        )

    def _draw_signs(self, rng: random.Random) -> Question | None:
        p = self.params
        numbers = [rng.randint(p.low, p.high) for _ in range(p.count)]
        answer, value = random_expression(numbers, p, rng) or ("", 0)
        if not p.target_low <= value <= p.target_high or not self._fits(numbers, int(value)):
            return None
        return self.make(numbers=numbers, target=int(value), answer=answer)

    def _draw_steps(self, rng: random.Random) -> Question | None:
        """As random_expression draws; but of six numbers one draw in fifty fits, so only that one is written."""
        low, width, count, some, operators, in_order, target_low, target_high = self._drawing
        draw = rng.random
        numbers = [low + int(draw() * width) for _ in range(count)]
        used = numbers[:-1] if some and draw() < 0.5 else numbers
        drawn = random_steps(used, operators, in_order, rng)
        if drawn is None or not target_low <= drawn[1] <= target_high or not self._fits(numbers, drawn[1]):
            return None
        return self.make(numbers=numbers, target=drawn[1], answer=written(used, drawn[0], in_order))

    def _fits(self, numbers: list[int], target: int) -> bool:
        """Whether the question has as many solutions as wanted."""
        p = self.params
        if not p.counts_solutions:
            return True
        count = count_solutions(numbers, target, p)
        return count >= p.solutions_low and (not p.solutions_high or count <= p.solutions_high)

    def _every(self) -> Iterator[Question] | None:
        """All questions that two or more numbers solve, where they are few enough to list."""
        p = self.params
        width = p.high - p.low + 1
        lists = width**p.count if p.in_order else comb(width + p.count - 1, p.count)
        if p.count > MOST_COUNTED or lists * _EXPRESSIONS[p.count] > MOST_LISTED:
            return None
        numbers = range(p.low, p.high + 1)
        every: Iterator[tuple[int, ...]] = (
            product(numbers, repeat=p.count) if p.in_order else combinations_with_replacement(numbers, p.count)
        )
        return (question for each in every for question in self._about(list(each)))

    def _about(self, numbers: list[int]) -> Iterator[Question]:
        """All questions about these numbers."""
        p = self.params
        found = list(solutions(numbers, p))
        times = Counter(value for _, value in found)
        answers = {value: text for text, value in reversed(found) if not text.isdigit()}
        for value, answer in answers.items():
            fits = value.denominator == 1 and p.target_low <= value <= p.target_high
            if fits and p.solutions_low <= times[value] <= (p.solutions_high or times[value]):
                yield self.make(numbers=numbers, target=int(value), answer=answer)


class _Rules(NamedTuple):
    numbers: list[int]
    target: int
    operators: frozenset[str]
    use_all: bool
    in_order: bool


@lru_cache(maxsize=4096)  # all attempts at a question are graded one after another
def _rules(data: str) -> _Rules:
    """What the question's data says; not to be changed."""
    read = json.loads(data)
    operators = frozenset(read["operators"])
    return _Rules(read["numbers"], read["target"], operators, read["use_all"], read["in_order"])


def _outcome(answer: str, rules: _Rules) -> tuple[Outcome, str]:
    """Outcome and reason of an answer."""
    first, *others = sides(answer)
    try:
        expression = parse(first)
        if others and not expression.operators and expression.value == rules.target:  # `24 = …`
            expression = parse(others[0])
    except ArithmeticSyntaxError as error:
        return "wrong", str(error)
    if others and any(value_of(side) != expression.value for side in (first, *others)):
        return "wrong", "wrong_equation"
    if not rules.operators.issuperset(expression.operators):
        return "wrong", "operator_not_allowed"
    if expression.unary and "-" not in rules.operators:
        return "wrong", "operator_not_allowed"
    if rules.in_order:
        if expression.unary or expression.numbers != rules.numbers:
            return "wrong", "numbers_not_in_order"
    else:
        spare = rules.numbers.copy()
        try:
            for number in expression.numbers:
                spare.remove(number)
        except ValueError:
            return "wrong", "number_not_available"
        if spare and rules.use_all:
            return "wrong", "number_not_used"
    return ("correct" if expression.value == rules.target else "wrong"), ""
