"""How `skillfactory init` gets its answers: from flags, else by asking on a terminal, else by stated defaults."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeVar

from skillfactory.characters import clean
from skillfactory.cli.shared import screen
from skillfactory.console import new_table, plain
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.starting.look import Look

T = TypeVar("T")


def on_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@dataclass
class Asker:
    """Asks where it may; `assumed` are the flags whose defaults were taken without asking."""

    asks: bool
    assumed: list[str] = field(default_factory=list)

    def get(
        self,
        flag: str,
        given: str | None,
        question: str,
        default: str,
        use: Callable[[str], T],
        options: Mapping[str, str] | None = None,
    ) -> T:
        """What `use` makes of the answer: of the flag if it is given, else of what is typed, else of the default.

        What cannot be used is an error, but for what is typed: that is said and asked again. An empty default has no
        stand-in: RecipeError names the flag.
        """
        if given is not None:
            return use(_known(flag, given, options))
        if not self.asks:
            if not default:
                raise RecipeError(f"{question}? Give {flag}.")
            self.assumed.append(f"{flag} {default}")
            return use(default)
        self.list(options or {})
        while True:
            try:
                return use(_known("", _typed(flag, question, default), options))
            except _EndedError:
                raise
            except SkillFactoryError as error:
                screen().print(plain(f"  {error}"), style="red")

    def list(self, options: Mapping[str, str]) -> None:
        """What there is to choose from, on a terminal."""
        for name, what in options.items() if self.asks else ():
            screen().print(plain(f"    {name:<18} {what}"))

    def show(self, look: Look) -> None:
        """A file's columns with the first value of each, on a terminal."""
        if not self.asks:
            return
        more = "more than " if look.cut else ""
        table = new_table(f"{look.source}: {more}{len(look.rows):,} rows", "column", "for example")
        for column in look.columns:
            first = " ".join(str(next(iter(look.values(column)), "")).split())
            table.add_row(plain(column), plain(first if len(first) < 90 else f"{first[:89]}…"))
        screen().print(table)


def _known(flag: str, given: str, options: Mapping[str, str] | None) -> str:
    """The answer, where it is one of the options. Raises RecipeError naming the nearest."""
    if options is None or given in options:
        return given
    near = get_close_matches(given, options, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(options)}."
    raise RecipeError(f"{flag} {clean(given)} is no choice; {hint}".strip())


def _typed(flag: str, question: str, default: str) -> str:
    """What is typed after the question; the default for an empty line. Raises RecipeError where input has ended."""
    try:
        answer = input(f"{clean(question)}{f' [{clean(default)}]' if default else ''}: ").strip()
    except (EOFError, UnicodeDecodeError) as error:
        raise _EndedError(f"No answer to `{question}`; run it again, or give {flag}.") from error
    return answer or default


class _EndedError(RecipeError):
    """There is no more input."""
