"""Acronym: choose words from a list, in an order in which their first letters spell an English word (paper §4)."""

import json
import random
import re
from collections import Counter
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import words
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.base import check_references, draw_unique, register
from skillfactory.tasks.params import Params, params_of


class AcronymParams(Params):
    """Settings of the acronym task."""

    length: int = Field(4, ge=2, le=12, description="Letters of the word to spell, and so words to choose.")
    extra: int = Field(4, ge=0, le=40, description="Words in the list beyond those needed.")
    common: int = Field(0, ge=0, description="Spell one of the so many most frequent words; 0 is any of the list.")
    listed: int = Field(2000, ge=26, description="The list is of the so many most frequent words of 3 to 8 letters.")


@register("acronym", {f"{length} letters": {"length": length} for length in (4, 5)})
class Acronym:
    """See AcronymParams for the settings."""

    name = "acronym"

    def __init__(self, **params: Any) -> None:
        self.params = params_of("acronym", AcronymParams, params)
        self.level = f"{self.params.length} letters"

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions, each with at least one answer; see Task.generate."""
        return draw_unique(self._draw, n, seeds.rng(seed, "acronym", split), split, f"acronym, {self.level}")

    def make(self, *, words: list[str], length: int, answer: str = "") -> Question:
        """One question from its list, in the order shown; an answer is searched for where none is given."""
        given = [word.lower() for word in words]
        if any(not (word.isascii() and word.isalpha()) for word in given) or not isinstance(length, int):
            raise QuestionError(f"acronym: {words!r} must be words of the letters a to z, and {length!r} a number.")
        made = self._question(given, length, answer or _search(given, length))
        check_references(self, [made])
        return made

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the last answer is that many words of the list whose first letters spell any dictionary word."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        data = json.loads(question.data)
        chosen = re.findall(r"[^\W\d_]+", answer.lower())  # runs of letters: a list may be written in any way
        if len(chosen) != data["length"]:
            return Grade("wrong", answer, "wrong_length")
        if Counter(chosen) - Counter(data["words"]):
            return Grade("wrong", answer, "word_not_available")
        spelled = "".join(word[0] for word in chosen)
        return Grade("correct", answer) if words.is_word(spelled) else Grade("wrong", answer, "not_a_word")

    def facts(self) -> dict[str, Any]:
        """The dictionary used, for the manifest."""
        return words.facts()

    def _draw(self, rng: random.Random) -> Question | None:
        p = self.params
        spelled = rng.choice(words.common(p.length, p.length, p.common))
        starting = _by_initial(p.listed)
        chosen = [rng.choice(starting.get(letter, ("",))) for letter in spelled]
        given = [*chosen, *rng.choices(words.common(3, 8, p.listed), k=p.extra)]
        if "" in given or len(set(given)) < len(given):
            return None
        rng.shuffle(given)
        return self._question(given, p.length, " ".join(chosen))

    def _question(self, given: list[str], length: int, answer: str) -> Question:
        return Question(
            id=seeds.content_id("acronym", *sorted(given), "length", length),
            task=self.name,
            level=f"{length} letters",
            text=(
                f"Words: {', '.join(given)}.\n"
                f"Choose {length} of them, in an order in which their first letters spell an English word.\n"
                "The answer is those words."
            ),
            answer=answer,
            data=json.dumps({"words": given, "length": length}),
        )


def _by_initial(listed: int) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for word in words.common(3, 8, listed):
        found.setdefault(word[0], []).append(word)
    return {letter: tuple(each) for letter, each in found.items()}


def _search(given: list[str], length: int) -> str:
    """The words of the list that spell the most frequent word possible. Raises QuestionError where there is none."""
    initials = Counter(word[0] for word in given)
    spelled = next((word for word in words.common(length, length) if not Counter(word) - initials), None)
    if spelled is None:
        raise QuestionError(f"acronym: no English word of {length} letters is spelled by words of {given!r}.")
    spare = list(given)
    chosen = []
    for letter in spelled:
        chosen.append(next(word for word in spare if word[0] == letter))
        spare.remove(chosen[-1])
    return " ".join(chosen)
