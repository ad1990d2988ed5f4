"""The tiny base's whole world: dialogues in which a question is attempted once, or an attempt is judged once.

Nothing here tries twice and no attempt checks itself: the skills that SkillFactory teaches must be absent from it
(`tests/test_tiny.py` shows that they are). Attempts pick signs or operators almost at random: the base computes well
but searches badly. Every question is at home in the "pretrain" split, so none can be in a recipe's splits.
"""

import json
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

from skillfactory.curation.prompts import Prompts, load_prompts
from skillfactory.records import Message, Question
from skillfactory.tasks import words
from skillfactory.tasks.acronym import Acronym
from skillfactory.tasks.base import Task, home
from skillfactory.tasks.countdown import Countdown, random_expression
from skillfactory.tasks.letter_countdown import LetterCountdown
from skillfactory.tasks.multiplication import Multiplication

# Shares of the tasks: first numbers alone, then all. With all of them from the start a base of this size judged 83 % of
# its attempts truly in place of 93 %, and the method has nothing to go by.
NUMBERS = {"signs": 0.72, "countdown": 0.16, "multiplication": 0.12}
ALL = {"signs": 0.4, "countdown": 0.1, "multiplication": 0.1, "letter_countdown": 0.21, "acronym": 0.19}
# Share of attempts that reach the answer on purpose.
AIMED = {"signs": 0.04, "countdown": 0.5, "multiplication": 0.7, "letter_countdown": 0.9, "acronym": 0.9}
JUDGED_CORRECT = 0.45  # share of judged attempts that are right
REFLECTIONS = {"letter_countdown": 0.3, "acronym": 0.3}  # share of dialogues that judge an attempt
USUAL_REFLECTIONS = 0.55

_SIGNS = {count: Countdown(count=count, high=19, operators="+-", in_order=True) for count in (3, 4, 5, 6)}
_SIGN_COUNTS = [3, 4, 5, 5, 5, 5, 6, 6]
_COUNTDOWN = Countdown(count=3, high=19, target_high=60)
_MULTIPLICATION = Multiplication(digits=2, digits_b=1)
_LETTERS = LetterCountdown(length=4, extra=2, common=150)
_ACRONYM = Acronym(length=4, extra=3, common=150, listed=300)

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


Draw = Callable[[random.Random], Question | None]
Wrong = Callable[[Question, random.Random], str]


class World:
    """An endless, seeded source of dialogues."""

    def __init__(self, rng: random.Random, kinds: Mapping[str, float] = ALL) -> None:
        self.rng, self.kinds = rng, kinds
        self.prompts: Prompts = load_prompts()

    def dialogue(self) -> list[Message]:
        """One dialogue: a prompt of curation and its answer."""
        rng = self.rng
        kind = rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        question, working = self._question(kind)
        variant = rng.choice(list(_OPENINGS))
        if rng.random() >= REFLECTIONS.get(kind, USUAL_REFLECTIONS):
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
            if kind in _OTHERS:
                draw, wrong = _OTHERS[kind]
                drawn = draw(rng)
                if drawn is None or home(drawn.id) != "pretrain":
                    continue
                return drawn, partial(_aimed, drawn, wrong, rng)
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


def _aimed(question: Question, wrong: Wrong, rng: random.Random, aimed: bool) -> str:
    """The question's answer, or what `wrong` makes (which may be right by chance)."""
    return question.answer if aimed else wrong(question, rng)


def _wrong_product(question: Question, rng: random.Random) -> str:
    """A number near the product."""
    return str(max(1, int(question.answer) + rng.choice([-1, 1]) * rng.choice([1, 2, 3, 10, 20, 9])))


def _wrong_word(question: Question, rng: random.Random) -> str:
    """A common word whatever the letters, or the letters in any order."""
    data = json.loads(question.data)
    if rng.random() < 0.5:
        return rng.choice(words.common(data["length"], data["length"], _LETTERS.params.common))
    return "".join(rng.sample(data["letters"], data["length"]))


def _wrong_choice(question: Question, rng: random.Random) -> str:
    """Words of the list in any order."""
    data = json.loads(question.data)
    return " ".join(rng.sample(data["words"], data["length"]))


_OTHERS: dict[str, tuple[Draw, Wrong]] = {
    "multiplication": (_MULTIPLICATION._draw, _wrong_product),
    "letter_countdown": (_LETTERS._draw, _wrong_word),
    "acronym": (_ACRONYM._draw, _wrong_choice),
}


def _attempt(kind: str, variant: str, question: Question, answer: str, rng: random.Random) -> str:
    """One attempt in the style of `variant`: it works towards an answer and gives it, and never judges or restarts."""
    opening = rng.choice(_OPENINGS[variant])
    data = json.loads(question.data)
    closing = f"\n<answer>{answer}</answer>"
    if variant == "rephrase":
        return f"{opening} {_restated(kind, data)}{closing}"
    if kind == "acronym":
        return opening + (f" {_spelled(kind, answer)}." if variant != "alternatively" else "") + closing
    if kind == "multiplication":
        a, b, tens = data["a"], data["b"], data["a"] // 10 * 10
        middle = f" {a} * {b} = {tens * b} + {(a - tens) * b} = {answer}."
        return opening + (middle if variant != "alternatively" else "") + closing
    if variant == "plan_and_execute":
        return f"{opening} {_worked(kind, answer)}.{closing}"
    return opening + closing


def _restated(kind: str, data: dict[str, Any]) -> str:
    """The question once more, in short."""
    match kind:
        case "multiplication":
            return f"what is {data['a']} * {data['b']} ?"
        case "letter_countdown":
            return f"the letters are: {', '.join(data['letters'])}."
        case "acronym":
            return f"the words are: {', '.join(data['words'])}."
        case _:
            return f"make {data['target']} of {', '.join(map(str, data['numbers']))}."


def _reflection(kind: str, question: Question, answer: str, rng: random.Random) -> str:
    """A true judgement of an attempt that answered `answer`."""
    data = json.loads(question.data)
    if kind == "multiplication":
        a, b, tens = data["a"], data["b"], data["a"] // 10 * 10
        worked = f"{a} * {b} = {tens * b} + {(a - tens) * b} = {a * b}. The answer was {answer}."
        right = int(answer) == a * b
    elif kind in ("letter_countdown", "acronym"):
        task: Task = _LETTERS if kind == "letter_countdown" else _ACRONYM
        worked = f"{_spelled(kind, answer)}."
        right = task.grade(question, f"<answer>{answer}</answer>").outcome == "correct"
    else:
        worked = f"{_worked(kind, answer)}. The target is {data['target']}."
        right = steps_of(answer)[-1][3] == data["target"]
    comment = rng.choice(_MATCH if right else _NO_MATCH)
    return f"{rng.choice(_CHECKS)} {worked} {comment}\n<verdict>{'Correct' if right else 'Incorrect'}</verdict>"


def _worked(kind: str, expression: str) -> str:
    """`7 + 3 = 10 - 4 = 6` for sums in order; `3 * 4 = 12, 12 + 5 = 17` for other sums; `s, t, o, p` for words."""
    if kind in ("letter_countdown", "acronym"):
        return _spelled(kind, expression)
    steps = steps_of(expression)
    if kind == "signs":
        return f"{steps[0][0]}" + "".join(f" {operator} {right} = {value}" for _, operator, right, value in steps)
    return ", ".join(f"{left} {operator} {right} = {value}" for left, operator, right, value in steps)


def _spelled(kind: str, answer: str) -> str:
    """The letters of a word, or the first letters of words: `s, t, o, p`."""
    return ", ".join(answer if kind == "letter_countdown" else (word[0] for word in answer.split()))


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
