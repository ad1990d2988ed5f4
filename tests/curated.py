"""Samples for tests of curation: questions, attempts, reflections, and what is known of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skillfactory import seeds
from skillfactory.curation.pool import AGREED, NONE, Kind
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Message, Question, Reflection
from skillfactory.tasks.multiplication import Multiplication

TASK = Multiplication()
QUESTIONS = [replace(TASK.make(a=a, b=b), split="sft") for a, b in [(12, 34), (56, 78), (90, 21)]]
VARIANTS = ["original", "rephrase"]


def recipe(**sections: Any) -> Recipe:
    """Two variants with four attempts each, two reflections an attempt, unless said otherwise."""
    spec = {"name": "multiplication"}
    given: dict[str, Any] = {
        "name": "test", "questions": {"task": spec}, "evaluation": {"sets": {"same": {"task": spec}}},
        "machine": {"device": "cpu", "dtype": "float32", "threads": 1},
    }  # fmt: skip
    few = {"variants": VARIANTS, "per_variant": 4}
    sections["attempts"] = few | sections.get("attempts", {})
    sections["reflections"] = {"per_attempt": 2} | sections.get("reflections", {})
    return Recipe.model_validate(given | sections)


def words(messages: list[Message], completion: str = "") -> int:
    return len(" ".join(m["content"] for m in messages).split()) + len(completion.split())


class Words:
    """Counts words as tokens."""

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        return words(messages, completion) + bool(completion)

    def count_each(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def attempt(number: int, right: bool, answer: str = "", question: Question = QUESTIONS[0], **changes: Any) -> Attempt:
    """Attempt `number` of a question: of the first variant up to 3, then of the second."""
    answer = question.answer if right else answer or str(number)
    variant, index = VARIANTS[number // 4 % 2], number % 4
    given = Attempt(
        id=seeds.content_id("attempt", question.id, variant, index), question_id=question.id, variant=variant,
        index=index, text=f"Attempt {number}.\n<answer>{answer}</answer>\n", answer=answer,
        outcome="correct" if right else "wrong", reason="", finish_reason="stop", tokens=5,
    )  # fmt: skip
    return replace(given, **changes)


def reflection(on: Attempt, index: int = 0, agrees: bool = True) -> Reflection:
    truth = on.outcome == "correct"
    said = "Correct" if truth == agrees else "Incorrect"
    return Reflection(
        id=seeds.content_id("reflection", on.id, index), question_id=on.question_id, attempt_id=on.id, index=index,
        text=f"Check {index} of {on.index}.\n<verdict>{said}</verdict>", verdict=said.lower(), agrees=agrees,
        finish_reason="stop", tokens=4,
    )  # fmt: skip


@dataclass
class Known:
    """pool.Samples with a fixed truth; a slot is looked at only once `seen` holds it, where that is given.

    `outcomes`: True correct, False wrong, None useless. `agrees`: the first true reflection's number, or None.
    """

    outcomes: list[bool | None]
    agrees: list[int | None]
    per_attempt: int = 1
    answers: list[str] = field(default_factory=list)
    seen: set[int] | None = None
    reflected: dict[int, int] = field(default_factory=dict)  # reflections drawn on a slot, where `seen` is given
    variants: int = 2

    @property
    def slots(self) -> int:
        return len(self.outcomes)

    def fits(self, slot: int, kind: Kind) -> bool | None:
        if self.seen is not None and slot not in self.seen:
            return None
        found = self.outcomes[slot]
        return found is not None and (kind == "either" or found == (kind == "correct"))

    def agreed(self, slot: int) -> int:
        drawn = self.per_attempt if self.seen is None else self.reflected.get(slot, 0)
        first = self.agrees[slot]
        if first is not None and first < drawn:
            return AGREED
        return NONE if drawn >= self.per_attempt else drawn

    def variant(self, slot: int) -> str:
        return f"v{slot * self.variants // self.slots}"

    def answer(self, slot: int) -> str:
        return self.answers[slot] if self.answers else f"{'right' if self.outcomes[slot] else slot}"

    def is_pair(self, slot: int) -> bool:
        return self.outcomes[slot] is not None and self.agrees[slot] is not None


def random_samples(rng: random.Random, slots: int, correct: float, agree: float = 0.8, useless: float = 0.1) -> Known:
    """A question's samples, drawn with these chances; two reflections an attempt."""
    outcomes = [None if rng.random() < useless else rng.random() < correct for _ in range(slots)]
    agrees = [next((i for i in range(2) if rng.random() < agree), None) for _ in range(slots)]
    return Known(outcomes, agrees, 2, [str(rng.randrange(6)) for _ in range(slots)], variants=4)
