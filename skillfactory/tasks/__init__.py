"""Where questions come from and how answers are graded: one file a task."""

from skillfactory.tasks import countdown, jsonl, multiplication
from skillfactory.tasks.base import Task, get, home, levels, names, register

__all__ = ["Task", "countdown", "get", "home", "jsonl", "levels", "multiplication", "names", "register"]
