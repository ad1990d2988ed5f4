"""The tiny base's whole world: dialogues in which a question is attempted once, or an attempt is judged once.

Nothing here tries twice and no attempt checks itself: the skills that SkillFactory teaches must be absent from it
(`tests/test_tiny.py` shows that they are). Attempts pick signs or operators almost at random: the base computes well
but searches badly. Every question is at home in the "pretrain" split, so none can be in a recipe's splits.
"""

import json
import random
from collections.abc import Callable
from fractions import Fraction
from functools import partial

from skillfactory.curation.prompts import Prompts, load_prompts
from skillfactory.records import Message, Question
from skillfactory.tasks.base import home
from skillfactory.tasks.countdown import Countdown, random_expression
from skillfactory.tasks.multiplication import Multiplication

AIMED = {"signs": 0.04, "countdown": 0.5, "multiplication": 0.7}  # share of attempts that reach the answer on purpose
JUDGED_CORRECT = 0.45  # share of judged attempts that are right
KINDS = {"signs": 0.72, "countdown": 0.16, "multiplication": 0.12}
REFLECTIONS = 0.55  # share of dialogues that judge an attempt

_SIGNS = {count: Countdown(count=count, high=19, operators="+-", in_order=True) for count in (3, 4, 5, 6)}
_SIGN_COUNTS = [3, 4, 5, 5, 5, 5, 6, 6]
_COUNTDOWN = Countdown(count=3, high=19, target_high=60)
_MULTIPLICATION = Multiplication(digits=2, digits_b=1)

_OPENINGS = {
    "original": ["I will try this one.", "Let me think step by step.", "My choice is this.", "I settle on this one."],
    "alternatively": ["One possible answer is this.", "A possible answer comes to mind.", "This answer is possible."],
    "rephrase": ["In other words:", "To say it again:", "Put differently:"],
    "plan_and_execute": [
        "Plan: go from left to right.",
        "Plan: take one number after another.",
        "Plan: do it in steps.",
    ],
}
_CHECKS = ["Let me check:", "I compute it again:", "Going through it:", "Checking the attempt:"]
_MATCH = ["That is right.", "It matches.", "So the attempt is right."]
_NO_MATCH = ["That is wrong.", "It does not match.", "So the attempt is wrong."]


class World:
    """An endless, seeded source of dialogues."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.prompts: Prompts = load_prompts()

    def dialogue(self) -> list[Message]:
        """One dialogue: a prompt of curation and its answer."""
        rng = self.rng
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        question, working = self._question(kind)
        variant = rng.choice(list(_OPENINGS))
        if rng.random() >= REFLECTIONS:
            answer = working(rng.random() < AIMED[kind])
            messages = self.prompts.attempt(variant, question.text)
            return [*messages, {"role": "assistant", "content": _attempt(kind, variant, question, answer, rng)}]
        answer = working(rng.random() < JUDGED_CORRECT)
        attempt = _attempt(kind, variant, question, answer, rng)
        messages = self.prompts.reflection(question.text, attempt)
        return [*messages, {"role": "assistant", "content": _reflection(kind, question, answer, rng)}]

    def _question(self, kind: str) -> tuple[Question, Callable[[bool], str]]:
        """A question at home in "pretrain", and a function that gives a right or a random answer to it."""
        rng = self.rng
        while True:
            if kind == "multiplication":
                drawn = _MULTIPLICATION._draw(rng)
                if home(drawn.id) != "pretrain":
                    continue
                return drawn, partial(_product, int(drawn.answer), rng)
            task = _SIGNS[rng.choice(_SIGN_COUNTS)] if kind == "signs" else _COUNTDOWN
            found = task._draw(rng)
            if found is None or home(found.id) != "pretrain":
                continue
            numbers: list[int] = json.loads(found.data)["numbers"]

            def working(
                aimed: bool, question: Question = found, numbers: list[int] = numbers, task: Countdown = task
            ) -> str:
                if aimed:
                    return question.answer
                while True:
                    expression = random_expression(numbers, task.params, rng)
                    if expression and all(abs(step[3]) < 100 for step in steps_of(expression[0])):
                        return expression[0]

            if all(abs(step[3]) < 100 for step in steps_of(found.answer)):
                return found, working


def _product(number: int, rng: random.Random, aimed: bool) -> str:
    """The product, or a wrong one near it."""
    if aimed:
        return str(number)
    return str(max(1, number + rng.choice([-1, 1]) * rng.choice([1, 2, 3, 10, 20, 9])))


def _attempt(kind: str, variant: str, question: Question, answer: str, rng: random.Random) -> str:
    """One attempt in the style of `variant`: it works towards an answer and gives it, and never judges or restarts."""
    opening = rng.choice(_OPENINGS[variant])
    data = json.loads(question.data)
    closing = f"\n<answer>{answer}</answer>"
    if variant == "rephrase":
        restated = (
            f"what is {data['a']} * {data['b']} ?"
            if kind == "multiplication"
            else f"make {data['target']} of {', '.join(map(str, data['numbers']))}."
        )
        return f"{opening} {restated}{closing}"
    if kind == "multiplication":
        a, b, tens = data["a"], data["b"], data["a"] // 10 * 10
        middle = f" {a} * {b} = {tens * b} + {(a - tens) * b} = {answer}."
        return opening + (middle if variant != "alternatively" else "") + closing
    if variant == "plan_and_execute":
        return f"{opening} {_worked(kind, answer)}.{closing}"
    return opening + closing


def _reflection(kind: str, question: Question, answer: str, rng: random.Random) -> str:
    """A true judgement of an attempt that answered `answer`."""
    data = json.loads(question.data)
    if kind == "multiplication":
        a, b, tens = data["a"], data["b"], data["a"] // 10 * 10
        worked = f"{a} * {b} = {tens * b} + {(a - tens) * b} = {a * b}. The answer was {answer}."
        right = int(answer) == a * b
    else:
        worked = f"{_worked(kind, answer)}. The target is {data['target']}."
        right = steps_of(answer)[-1][3] == data["target"]
    comment = rng.choice(_MATCH if right else _NO_MATCH)
    return f"{rng.choice(_CHECKS)} {worked} {comment}\n<verdict>{'Correct' if right else 'Incorrect'}</verdict>"


def _worked(kind: str, expression: str) -> str:
    """`7 + 3 = 10 - 4 = 6` for sums in order; `3 * 4 = 12, 12 + 5 = 17` for the rest."""
    steps = steps_of(expression)
    if kind == "signs":
        return f"{steps[0][0]}" + "".join(f" {operator} {right} = {value}" for _, operator, right, value in steps)
    return ", ".join(f"{left} {operator} {right} = {value}" for left, operator, right, value in steps)


def steps_of(expression: str) -> list[tuple[Fraction, str, Fraction, Fraction]]:
    """The calculations of an expression in the order they are done: (left, operator, right, value)."""
    tokens = expression.replace("(", "( ").replace(")", " )").split()
    steps: list[tuple[Fraction, str, Fraction, Fraction]] = []
    values: list[Fraction] = []
    operators: list[str] = []
    strength = {"+": 1, "-": 1, "*": 2, "/": 2, "(": 0}

    def apply() -> None:
        right, left, operator = values.pop(), values.pop(), operators.pop()
        value = (
            {"+": left + right, "-": left - right, "*": left * right}.get(operator) if operator != "/" else left / right
        )
        assert value is not None
        steps.append((left, operator, right, value))
        values.append(value)

    for token in tokens:
        if token.isdigit():
            values.append(Fraction(token))
        elif token == "(":
            operators.append(token)
        elif token == ")":
            while operators[-1] != "(":
                apply()
            operators.pop()
        else:
            while operators and strength[operators[-1]] >= strength[token]:
                apply()
            operators.append(token)
    while operators:
        apply()
    return steps


def notes(rng: random.Random, sentences: int) -> str:
    """Unrelated text of varying length, so that a question may stand far above its answer."""
    listed = (
        f"Note: {', '.join(str(rng.randint(1, 60)) for _ in range(rng.randint(2, 8)))}." for _ in range(sentences)
    )
    return "\n".join(listed)
