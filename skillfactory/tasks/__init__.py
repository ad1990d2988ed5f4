"""Where questions come from and how answers are graded: one file a task."""

from skillfactory.tasks import (
    acronym,
    countdown,
    hub,
    letter_countdown,
    mixture,
    multiplication,
    own,
    raw_data,
    reasoning_gym,
)
from skillfactory.tasks.base import Task, get, home, levels, names, register

__all__ = [
    "Task",
    "acronym",
    "countdown",
    "get",
    "home",
    "hub",
    "letter_countdown",
    "levels",
    "mixture",
    "multiplication",
    "names",
    "own",
    "raw_data",
    "reasoning_gym",
    "register",
]
