"""Published data sets, from the Hugging Face hub or a local copy of the same columns (see tasks/published.py).

A row that is of no use, whose question was there before, or whose reference answer fails its own check is dropped and
counted by reason: nobody who asks for a published set can mend it. A row that is broken stops everything.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from skillfactory.characters import whole
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import pool
from skillfactory.tasks.base import Task, register
from skillfactory.tasks.grading import ask_choice, grade_answer
from skillfactory.tasks.loading import LARGE, digest, local_files, open_rows, revision
from skillfactory.tasks.overlap import text_key
from skillfactory.tasks.params import params_of
from skillfactory.tasks.published import SETS, DataSet, Item, identity
from skillfactory.tasks.texts import plain, unwrapped

_CHECKED_AT_ONCE = 256


class Published:
    """One published data set as a task with a given stock of questions; see its parameters for the settings."""

    def __init__(self, about: DataSet, **params: Any) -> None:
        self.about = about
        self.name = about.name
        self.params = params_of(about.name, about.params, params)
        level = getattr(self.params, "level", 0)
        self.level = f"level {level}" if level else about.name
        self.slow_checks = about.rule == "math"
        self.hints = about.hints
        self.source = self.params.path or f"{about.name} ({self.params.hub_id}, split {self.params.split})"
        self._read = 0
        self._dropped: Counter[str] = Counter()
        self._commit = ""

    @cached_property
    def questions(self) -> list[Question]:
        """All its questions, in its order. Raises QuestionError naming the file or set, and the row."""
        return list(self._usable(self._rows()))

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` questions in a seeded order; with a split, of those at home in it by hash. Recipes use `allot`."""
        if self.lazy and not split:
            return pool.generate(list(islice(self._usable(self._rows(seed)), n)), self.source, n, seed)
        return pool.generate(self.questions, self.source, n, seed, split)

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Disjoint questions for each name in `counts`; see pool.allot."""
        if not self.lazy:
            return pool.allot(self.questions, self.source, counts, seed, exclude)
        fresh = (question for question in self._usable(self._rows(seed)) if question.id not in exclude)
        found = list(islice(fresh, sum(counts.values())))
        return pool.allot(found, self.source, counts, seed)

    def make(self, /, **row: Any) -> Question:
        """The question of a row of the set. Raises QuestionError where it is broken or of no use."""
        made = self._make(row)
        if isinstance(made, str):
            raise QuestionError(f"{self.name}: a row of no use: {made.replace('_', ' ')}.")
        return made

    def example(self) -> Question:
        """The question of a row that this project wrote in the set's columns."""
        return self.make(**self.about.example)

    def grade(self, question: Question, text: str) -> Grade:
        """By the rule of the set; see tasks.grading."""
        return grade_answer(self.about.rule, question, text)

    def facts(self) -> dict[str, Any]:
        """Where the questions came from, what was read so far and what was dropped, for the run's manifest."""
        path = self.params.path
        local = {"path": path, "digest": digest(path)} if path else {}
        remote = {
            "hub_id": self.params.hub_id,
            "config": self.params.config,
            "revision": revision(self.about, self.params),
            "commit": self._commit,
        }
        return {
            "data_set": self.name,
            **(local or remote),
            "split": self.params.split,
            "grading": self.about.rule,
            "rows_read": self._read,
            "rows_dropped": dict(sorted(self._dropped.items())),
        }

    @cached_property
    def lazy(self) -> bool:
        """Whether to read only as far as needed: a large set that is not a small local copy."""
        if not self.about.large or not self.params.path:
            return self.about.large
        return sum(file.stat().st_size for file in local_files(self.params.path)) > LARGE

    def _make(self, row: dict[str, Any]) -> Question | str:
        item = self.about.read(row, self.params)
        if isinstance(item, str):
            return item
        if any(whole(said) != said for said in (item.question, item.answer, *item.choices)):
            raise QuestionError("half a surrogate pair, which is no text; write the letter itself.")
        if len({plain(unwrapped(choice)) for choice in item.choices}) < len(item.choices):
            return "same_option_twice"
        return Question(
            id=identity(self.name, item.question, item.choices),
            task=self.name,
            level=item.level or self.level,
            text=self._text(item),
            answer=item.answer,
            data=json.dumps({"choices": item.choices} if item.choices else {}),
        )

    def _text(self, item: Item) -> str:
        return ask_choice(item.question, item.choices) if item.choices else f"{item.question}\n{self.about.ask}"

    def _usable(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Question]:
        """The questions of the rows that are of use, each once."""
        self._read, self._dropped = 0, Counter()
        questions = self._different(rows)
        found = 0
        while batch := list(islice(questions, _CHECKED_AT_ONCE)):
            for question, grade in zip(batch, self._own_checks(batch), strict=True):
                if grade.outcome == "correct":
                    found += 1
                    yield question
                else:
                    self._dropped["fails_own_check"] += 1
        if not found:
            dropped = ", ".join(f"{reason} {n}" for reason, n in self._dropped.most_common())
            raise QuestionError(
                f"{self.source} holds no questions of use"
                + (f" (rows dropped: {dropped}); check the task's settings." if dropped else "; it is empty.")
            )

    def _different(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Question]:
        seen: set[int] = set()  # by hash, for memory: there may be a million
        for number, row in rows:
            self._read += 1
            try:
                made = self._make(row)
            except QuestionError as error:
                raise QuestionError(f"{self.source}, row {number}: {error}") from error
            if isinstance(made, str):
                self._dropped[made] += 1
            elif (said := hash(text_key(made.text.removesuffix(f"\n{self.about.ask}")))) in seen:
                self._dropped["same_question"] += 1
            else:
                seen.add(said)
                yield made if self.lazy else replace(made, data=json.dumps({**json.loads(made.data), "row": number}))

    def _own_checks(self, questions: list[Question]) -> list[Grade]:
        from skillfactory.tasks.questions import grade_all

        return grade_all(self, [(question, f"<answer>{question.answer}</answer>") for question in questions])

    def _rows(self, seed: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number (from 1) and row, in the set's order or a seeded one (then the number counts what was read)."""
        rows, self._commit = open_rows(self.about, self.params, self.source, seed)
        for number, row in enumerate(islice(rows, self.params.rows or None), start=1):
            if number == 1 and (missing := [column for column in self.about.columns if column not in row]):
                raise QuestionError(
                    f"{self.source} has no column `{missing[0]}`; it has: {', '.join(row)}."
                    if not any(isinstance(cell, list) for cell in row.values())
                    else f"{self.source} has no column `{missing[0]}`; its rows must stand on their own, as a list "
                    f"[{{…}}, …] or one a line, not under {_named(row)}."
                )
            yield number, row


def _named(row: dict[str, Any]) -> str:
    return ", ".join(f"`{column}`" for column in row)


def _publish(about: DataSet) -> None:
    def factory(**params: Any) -> Task:
        return Published(about, **params)

    factory.__doc__ = about.about
    register(about.name, about.levels)(factory)


for _set in SETS:
    _publish(_set)
