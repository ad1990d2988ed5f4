"""What a task is, where its questions may be used, and the registry that finds it by name."""

import random
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any, Protocol

from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question

# A question's content decides its split, so no seed, level or recipe can ever train on what another evaluates on.
# "pretrain" is kept for models that are made with this package (the embedded tiny base).
SHARES = {"sft": 5, "rl": 4, "dev": 1, "eval": 2, "pretrain": 4}
_HOMES = [split for split, share in SHARES.items() for _ in range(share)]


class TooFewError(QuestionError):
    """A task makes fewer questions than are wanted: `there` are at least so many."""

    def __init__(self, message: str, there: int) -> None:
        super().__init__(message)
        self.there = there


class Task(Protocol):
    """Questions of one kind, and the verifier of their answers.

    A task may also have: `example() -> Question`, for the list of tasks where `generate` would need a file or the
    network; `facts() -> dict`, what its questions come from, for the manifest; `slow_checks = True`, where `grade`
    waits for another process, so that several are worth grading at once; `references_checked = True`, where it has
    graded the reference answers of its stock itself; and `hints = True`, where its questions are so hard that attempts
    should also be asked for with the answer shown.
    """

    name: str
    level: str

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions, all at home in `split` ("" for any). Raises QuestionError where there are fewer."""
        ...

    def make(self, *args: Any, **data: Any) -> Question:
        """One question from its data, by name: `make(numbers=[3, 5, 7], target=15)`.

        Raises QuestionError where it cannot be answered.
        """
        ...

    def grade(self, question: Question, text: str) -> Grade:
        """Grade a completion, whose answer stands in `<answer>` tags. Never raises on any text; takes bounded time."""
        ...


Levels = Mapping[str, Mapping[str, Any]]  # a level's label -> the parameters that make it

_registry: dict[str, Callable[..., Task]] = {}
_levels: dict[str, Levels] = {}
_families: set[str] = set()

# Told of every question that is drawn or checked, so that a stage can show how far it is.
progress: ContextVar[Callable[[int], object]] = ContextVar("progress", default=lambda n: None)


def register(
    name: str, levels: Levels | None = None, family: bool = False
) -> Callable[[Callable[..., Task]], Callable[..., Task]]:
    """Class decorator: make a task known as `name`, with the levels that `skillfactory tasks` lists.

    A family is many tasks `name:MEMBER`; its factory takes the member's name first.
    """

    def add(factory: Callable[..., Task]) -> Callable[..., Task]:
        _registry[name] = factory
        _levels[name] = levels or {}
        if family:
            _families.add(name)
        return factory

    return add


def levels(name: str) -> Levels:
    """The usual levels of a registered task, easiest first: {label: parameters}."""
    return _levels[name]


def names() -> list[str]:
    """All registered tasks."""
    return sorted(_registry)


def get(name: str, /, **params: Any) -> Task:
    """The task of that name with these parameters. Raises QuestionError for an unknown name or parameter.

    `get("countdown", count=4)`, `get("reasoning_gym:chain_sum")`, `get("jsonl", path="mine.jsonl", grade="number")`.
    """
    family, _, member = name.partition(":")
    if family in _families:
        return _registry[family](member, **params)
    if name not in _registry:
        near = get_close_matches(name, _registry, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(names())}."
        raise QuestionError(f"Unknown task `{name}`; {hint}")
    return _registry[name](**params)


def factory(name: str) -> Callable[..., Task]:
    """What makes the tasks of a registered name."""
    return _registry[name]


def home(question_id: str) -> str:
    """The split in which a question may be used: one of SHARES, from the hash of its content."""
    return _HOMES[int(question_id, 16) % len(_HOMES)]


def draw_unique(
    draw: Callable[[random.Random], Question | None],
    n: int,
    rng: random.Random,
    split: str,
    what: str,
    *,
    every: Callable[[], Iterable[Question] | None] = lambda: None,
    misses: int = 20_000,
) -> list[Question]:
    """Draw until there are `n` different questions at home in `split`.

    After `misses` draws in a row that gave nothing new the rest is taken from `every`: all questions of these settings,
    where they are few enough to list, or None. Raises TooFewError saying how many there are, where not enough.
    `draw` returns None for a draw that does not fit the task's settings.
    """
    found: dict[str, Question] = {}
    tell = progress.get()
    missed = 0
    while len(found) < n and missed < misses:
        question = draw(rng)
        if question is None or question.id in found or (split and home(question.id) != split):
            missed += 1
            continue
        missed = 0
        found[question.id] = question
        tell(1)
    if len(found) < n:
        listed = every()
        for question in listed or ():
            if not split or home(question.id) == split:
                found.setdefault(question.id, question)
        where = f" for the {split} split" if split else ""
        if len(found) < n:
            number = f"there are only {len(found):,} different questions{where}"
            if listed is None:
                number = f"only {len(found):,} different questions found{where} (there may be a few more)"
            message = f"{what}: {number}, {n:,} wanted; ask for fewer or widen the task's settings."
            raise TooFewError(message, len(found))
    return list(found.values())[:n]


def check_references(task: Task, questions: Iterable[Question]) -> None:
    """Every reference answer must pass its own check. Raises QuestionError naming the question that does not."""
    for question in questions:
        grade = task.grade(question, f"<answer>{question.answer}</answer>")
        if grade.outcome != "correct":
            raise QuestionError(
                f"Task `{task.name}`, question {question.id}: its reference answer {question.answer!r} fails its own "
                f"check ({grade.reason or grade.outcome}); correct the answer or the way it is graded."
            )
