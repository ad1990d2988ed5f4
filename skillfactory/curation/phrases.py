"""The phrase banks of traces: plain data in `phrases.yaml`, or in the user's own file, linted when read.

Deviation from the authors' code: missing commas fuse some of their phrases into run-on ones; the lint refuses such
lists.
"""

import re
from collections.abc import Iterable
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skillfactory.curation.prompts import first_problem, read_yaml
from skillfactory.errors import RecipeError

LONGEST = 200  # characters
_FUSED = re.compile(r"[.!?:][^\W\d_]|[a-z][A-Z]|,\S")  # "again.Let me", "againLet me"


class Phrases(BaseModel):
    """A phrases file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generic: list[str] = Field(min_length=1)
    after_correct: list[str] = Field(min_length=1)
    after_incorrect: list[str] = Field(min_length=1)
    closing: list[str] = Field(min_length=1)
    go_back: list[str] = []
    confirmed: list[str] = []

    def glue(self, previous_correct: bool | None) -> list[str]:
        """The phrases that may follow a pair when another pair comes; None: an attempt that was not judged."""
        if previous_correct is None:
            return self.generic
        return (self.after_correct if previous_correct else self.after_incorrect) + self.generic

    def before_answer(self, bank: str) -> list[str]:
        """The bank `closing`, `go_back` or `confirmed`. Raises RecipeError where the file does without it."""
        found: list[str] = getattr(self, bank)
        if not found:
            raise RecipeError(f"traces.phrases: the file has no phrases `{bank}`, which the pattern needs; add some.")
        return found


@cache
def load_phrases(path: str = "") -> Phrases:
    """The phrases of a file, or the built-in ones. Raises RecipeError naming the file and the phrase at fault."""
    name = path or "phrases.yaml"
    try:
        phrases = Phrases.model_validate(read_yaml(path, "phrases.yaml"))
    except ValidationError as error:
        raise RecipeError(f"Phrases file {name}: {first_problem(error)}.") from error
    problems = lint(phrases)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecipeError(f"Phrases file {name}: {problems[0]}{more}.")
    return phrases


def lint(phrases: Phrases) -> list[str]:
    """What is wrong with the phrases, one text a problem: not a whole sentence, fused, tags, too long, said twice."""
    everything = [(bank, phrase) for bank, texts in phrases for phrase in texts]
    return [f"{bank}: {phrase!r} {problem}" for bank, phrase in everything for problem in _problems(phrase)] + [
        f"{bank}: {phrase!r} {problem}" for bank, phrase, problem in _repeated(everything)
    ]


def _problems(phrase: str) -> list[str]:
    checks = {
        "is empty": not phrase.strip(),
        "has blanks at an end, or several in a row": phrase.strip() != "" and " ".join(phrase.split()) != phrase,
        "holds < or >, which only the tags of a trace may": "<" in phrase or ">" in phrase,
        f"is longer than {LONGEST} characters": len(phrase) > LONGEST,
        "does not begin with a capital letter": phrase[:1].islower(),
        "does not end a sentence": phrase.strip() != "" and phrase.rstrip()[-1] not in ".!?:…",
        "looks like two phrases run together": _FUSED.search(phrase) is not None,
    }
    return [problem for problem, found in checks.items() if found]


def _repeated(everything: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Phrases that occur before in any bank, or that hold another one whole (a list fused by a missing comma)."""
    everything = list(everything)
    found = []
    seen: dict[str, str] = {}
    for bank, phrase in everything:
        key = phrase.casefold()
        if key in seen:
            found.append((bank, phrase, f"is in {seen[key]} already"))
        seen.setdefault(key, bank)
    for bank, phrase in everything:
        inner = next(
            (other for _, other in everything if other != phrase and len(other) > 12 and _fused(phrase, other)), None
        )
        if inner:
            found.append((bank, phrase, f"is made of {inner!r} and more"))
    return found


def _fused(phrase: str, other: str) -> bool:
    """Whether `phrase` begins and ends with phrases as whole as `other`: it starts or ends with that one."""
    return phrase.startswith(other) or phrase.endswith(other)
