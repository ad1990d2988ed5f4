"""Letter Countdown: make an English word of N letters from scrambled letters (paper §4)."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import words
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.base import check_references, draw_unique, register
from skillfactory.tasks.params import Params, params_of

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"[\W_]*([^\W\d_]+)[\W_]*")  # one run of letters, and marks around it


class LetterCountdownParams(Params):
    """Settings of the letter_countdown task."""

    length: int = Field(4, ge=2, le=12, description="Letters of the word to make.")
    extra: int = Field(0, ge=0, le=12, description="Letters given beyond those of the word that was scrambled.")
    common: int = Field(0, ge=0, description="Scramble one of the so many most frequent words; 0 is any of the list.")


@register("letter_countdown", {f"{length} letters": {"length": length} for length in (4, 5)})
class LetterCountdown:
    """See LetterCountdownParams for the settings."""

    name = "letter_countdown"

    def __init__(self, **params: Any) -> None:
        self.params = params_of("letter_countdown", LetterCountdownParams, params)
        self.level = f"{self.params.length} letters"

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions, each with at least one answer; see Task.generate."""
        what = f"letter_countdown, {self.level}"
        return draw_unique(self._draw, n, seeds.rng(seed, "letter_countdown", split), split, what, every=self._every)

    def make(self, *, letters: str | list[str], length: int, answer: str = "") -> Question:
        """One question from its letters, in the order shown; an answer is searched for where none is given."""
        given = [letter.lower() for letter in letters]
        if any(letter not in ALPHABET or len(letter) != 1 for letter in given) or not isinstance(length, int):
            raise QuestionError(f"letter_countdown: {letters!r} must be letters from a to z, and {length!r} a number.")
        if not answer:
            found = next((word for word in words.common(length, length) if not Counter(word) - Counter(given)), None)
            if found is None:
                raise QuestionError(f"letter_countdown: no word of {length} letters can be made of {letters!r}.")
            answer = found
        made = self._question(given, length, answer)
        check_references(self, [made])
        return made

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is any dictionary word of that length, made of the letters given."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        data = json.loads(question.data)
        match = _WORD.fullmatch(answer)
        if match is None:
            return Grade("wrong", answer, "not_one_word")
        word = match[1].lower()
        if len(word) != data["length"]:
            return Grade("wrong", answer, "wrong_length")
        if Counter(word) - Counter(data["letters"]):
            return Grade("wrong", answer, "letter_not_available")
        return Grade("correct", answer) if words.is_word(word) else Grade("wrong", answer, "not_a_word")

    def facts(self) -> dict[str, Any]:
        """The dictionary used, for the manifest."""
        return words.facts()

    def _every(self) -> Iterator[Question] | None:
        """All questions, where no letters are added."""
        if self.params.extra:
            return None
        each = words.common(self.params.length, self.params.length, self.params.common)
        return (self._question(sorted(word), len(word), word) for word in each)

    def _draw(self, rng: random.Random) -> Question:
        p = self.params
        word = rng.choice(words.common(p.length, p.length, p.common))
        letters = [*word, *rng.choices(ALPHABET, k=p.extra)]
        rng.shuffle(letters)
        return self._question(letters, p.length, word)

    def _question(self, letters: list[str], length: int, answer: str) -> Question:
        return Question(
            id=seeds.content_id("letter_countdown", *sorted(letters), "length", length),
            task=self.name,
            level=f"{length} letters",
            text=(
                f"Letters: {', '.join(letters)}.\n"
                f"Make an English word of {length} letters. Each letter given is used at most once.\n"
                "The answer is a word."
            ),
            answer=answer,
            data=json.dumps({"letters": letters, "length": length}),
        )
