"""Countdown: combine numbers with arithmetic to reach a target (paper §4).

A question's difficulty is set by how many numbers there are and, where wanted, by how many distinct solutions it has.
Solutions are distinct when they still differ after reordering and regrouping sums and products.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product
from typing import Any

from pydantic import Field, field_validator, model_validator

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.arithmetic import ArithmeticSyntaxError, parse
from skillfactory.tasks.base import draw_unique, register
from skillfactory.tasks.params import Params, params_of

_WORDS = {"+": "+", "-": "-", "*": "*", "/": "/"}
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

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different solvable questions; see Task.generate."""
        return draw_unique(self._draw, n, seeds.rng(seed, "countdown", split), split, f"countdown, {self.level}")

    def make(self, *, numbers: list[int], target: int, answer: str = "") -> Question:
        """One question from its numbers and target; the reference answer is searched for where none is given."""
        if not answer:
            found = next((text for text, value in solutions(numbers, self.params) if value == target), None)
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
        """Right iff the last answer uses allowed numbers and operators and its exact value is the target."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        data = json.loads(question.data)
        expression_text, equals, right = answer.partition("=")
        if equals and right.strip() != str(data["target"]):
            return Grade("wrong", answer, "wrong_equation")
        try:
            expression = parse(expression_text)
        except ArithmeticSyntaxError as error:
            return Grade("wrong", answer, str(error))
        return Grade(*_verdict(answer, expression, data))

    def _text(self, numbers: list[int], target: int) -> str:
        p = self.params
        listed = ", ".join(str(number) for number in numbers)
        often = "exactly once" if p.uses_all else "at most once"
        order = " and in this order" if p.in_order else ""
        words = " ".join(_WORDS[o] for o in p.operators)
        return (
            f"Use the numbers {listed} to make {target}.\n"
            f"Each number is used {often}{order}. The operators allowed are {words} .\n"
            "The answer is an expression."
        )

    def _draw(self, rng: random.Random) -> Question | None:
        p = self.params
        numbers = [rng.randint(p.low, p.high) for _ in range(p.count)]
        drawn = random_expression(numbers, p, rng)
        if drawn is None:
            return None
        answer, value = drawn
        if value.denominator != 1 or not p.target_low <= value <= p.target_high:
            return None
        target = int(value)
        if p.counts_solutions:
            count = sum(1 for _, other in solutions(numbers, p) if other == target)
            if count < p.solutions_low or (p.solutions_high and count > p.solutions_high):
                return None
        return self.make(numbers=numbers, target=target, answer=answer)


def _verdict(answer: str, expression: Any, data: dict[str, Any]) -> tuple[Any, str, str]:
    """Outcome, answer and reason of a parsed answer."""
    if set(expression.operators) - set(data["operators"]):
        return "wrong", answer, "operator_not_allowed"
    if data["in_order"]:
        if expression.unary or expression.numbers != data["numbers"]:
            return "wrong", answer, "numbers_not_in_order"
    else:
        spare = Counter(data["numbers"])
        spare.subtract(expression.numbers)
        if min(spare.values()) < 0:
            return "wrong", answer, "number_not_available"
        if data["use_all"] and any(spare.values()):
            return "wrong", answer, "number_not_used"
    return ("correct", answer, "") if expression.value == data["target"] else ("wrong", answer, "")


def random_expression(numbers: list[int], params: CountdownParams, rng: random.Random) -> tuple[str, Fraction] | None:
    """A random expression over `numbers` (or some, where not all are needed) and its value; None for a bad division."""
    if params.additive:
        order = list(numbers)
        if not params.in_order:
            rng.shuffle(order)
        signs = [rng.choice(params.operators) for _ in order[1:]]
        value = order[0] + sum(n if s == "+" else -n for s, n in zip(signs, order[1:], strict=True))
        return " ".join([str(order[0]), *(f"{s} {n}" for s, n in zip(signs, order[1:], strict=True))]), Fraction(value)
    terms: list[tuple[str, Fraction, str]] = [(str(n), Fraction(n), "") for n in numbers]
    if not params.uses_all:
        terms = rng.sample(terms, rng.randint(max(2, len(terms) - 1), len(terms)))
    while len(terms) > 1:
        i = rng.randrange(len(terms) - 1)
        if not params.in_order:
            rng.shuffle(terms)
        left, right = terms[i], terms.pop(i + 1)
        operator = rng.choice(params.operators)
        if operator == "/" and (right[1] == 0 or (left[1] / right[1]).denominator != 1):
            return None
        terms[i] = (_join(left, operator, right), _apply(left[1], operator, right[1]), operator)
    return terms[0][0], terms[0][1]


def _apply(left: Fraction, operator: str, right: Fraction) -> Fraction:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right


def _join(left: tuple[str, Fraction, str], operator: str, right: tuple[str, Fraction, str]) -> str:
    """Write `left operator right` with the parentheses that it needs and no others."""
    weak = "+-"
    a = f"({left[0]})" if operator in "*/" and left[2] and left[2] in weak else left[0]
    tight = right[2] and (
        (operator in "*/" and right[2] in weak) or (operator == "-" and right[2] in weak) or operator == "/"
    )
    return f"{a} {operator} " + (f"({right[0]})" if tight else right[0])


def solutions(numbers: list[int], params: CountdownParams) -> Iterator[tuple[str, Fraction]]:
    """Every distinct expression over `numbers` under these settings, with its value (any value, not only a target)."""
    if params.additive and params.in_order:
        for signs in product(params.operators, repeat=len(numbers) - 1):
            total = numbers[0] + sum(n if s == "+" else -n for s, n in zip(signs, numbers[1:], strict=True))
            text = " ".join([str(numbers[0]), *(f"{s} {n}" for s, n in zip(signs, numbers[1:], strict=True))])
            yield text, Fraction(total)
        return
    if params.additive:
        seen = set()
        for signs in product(params.operators, repeat=len(numbers)):
            pairs = tuple(sorted(zip(signs, numbers, strict=True)))  # "+" sorts before "-"
            if pairs[0][0] == "-" or pairs in seen:
                continue
            seen.add(pairs)
            text = str(pairs[0][1]) + "".join(f" {s} {n}" for s, n in pairs[1:])
            yield text, Fraction(sum(n if s == "+" else -n for s, n in pairs))
        return
    sizes = [len(numbers)] if params.uses_all else range(1, len(numbers) + 1)
    seen_keys: set[Any] = set()
    for size in sizes:
        for chosen in combinations(range(len(numbers)), size):
            trees = _trees(tuple(numbers[i] for i in chosen), params.operators, params.in_order)
            for key, (text, value, _) in trees.items():
                if key not in seen_keys:
                    seen_keys.add(key)
                    yield text, value


def _trees(numbers: tuple[int, ...], operators: str, in_order: bool) -> dict[Any, tuple[str, Fraction, str]]:
    """All distinct expressions that use exactly `numbers`: canonical form -> (text, value, last operator)."""
    if len(numbers) == 1:
        return {("n", numbers[0]): (str(numbers[0]), Fraction(numbers[0]), "")}
    found: dict[Any, tuple[str, Fraction, str]] = {}
    for left, right in _halves(numbers, in_order):
        for left_key, a in _trees(left, operators, in_order).items():
            for right_key, b in _trees(right, operators, in_order).items():
                for operator in operators:
                    if operator == "/" and b[1] == 0:
                        continue
                    key = _canonical(left_key, operator, right_key)
                    if key not in found:
                        found[key] = (_join(a, operator, b), _apply(a[1], operator, b[1]), operator)
    return found


def _halves(numbers: tuple[int, ...], in_order: bool) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    if in_order:
        yield from ((numbers[:i], numbers[i:]) for i in range(1, len(numbers)))
        return
    for size in range(1, len(numbers)):
        for chosen in combinations(range(len(numbers)), size):
            yield (
                tuple(numbers[i] for i in chosen),
                tuple(n for i, n in enumerate(numbers) if i not in chosen),
            )


def _canonical(left: Any, operator: str, right: Any) -> Any:
    """A key that is equal for expressions that differ only in the order and grouping of sums and of products."""
    kind = "sum" if operator in "+-" else "product"
    sign = 1 if operator in "+*" else -1
    parts: Counter[Any] = Counter()

    def add(key: Any, direction: int) -> None:
        if key[0] == kind:
            for part, part_sign, times in key[1]:
                parts[(part, part_sign * direction)] += times
        else:
            parts[(key, direction)] += 1

    add(left, 1)
    add(right, sign)
    return kind, tuple(sorted(((part, s, times) for (part, s), times in parts.items()), key=repr))
