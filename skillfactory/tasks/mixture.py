"""Several tasks as one: questions of each in turn, every one graded by its own task.

For SFT data and RL over more than one task. A question keeps the id, and so the split, that it has in its own task.
"""

import json
from dataclasses import replace
from typing import Any

from pydantic import Field

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks.base import Task, get, register
from skillfactory.tasks.params import Params, params_of


class MixtureParams(Params):
    """Settings of the mixture task."""

    tasks: list[dict[str, Any]] = Field(
        [{"name": "countdown"}, {"name": "multiplication"}],
        min_length=2,
        description="Two tasks or more that make their questions, each with its `name` and `params`; in equal shares.",
    )


@register("mixture")
class Mixture:
    """See MixtureParams for the settings."""

    name = "mixture"
    level = ""

    def __init__(self, **params: Any) -> None:
        self.params = params_of("mixture", MixtureParams, params)
        self.tasks: list[Task] = []
        for number, given in enumerate(self.params.tasks, start=1):
            if not {"name"} <= set(given) <= {"name", "params", "level"} or not isinstance(
                given.get("params", {}), dict
            ):
                raise QuestionError(
                    f"Task `mixture`: task {number} of `tasks` must have a `name`, and may have `params` and a `level`."
                )
            member = get(str(given["name"]), **given.get("params", {}))
            if hasattr(member, "allot"):
                raise QuestionError(
                    f"Task `mixture`: `{given['name']}` deals out a given stock of questions, and only tasks that make "
                    "their questions can be mixed."
                )
            self.tasks.append(member)
        self.hints = any(getattr(task, "hints", False) for task in self.tasks)
        self.slow_checks = any(getattr(task, "slow_checks", False) for task in self.tasks)

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions, the first of each task, then the second of each, and so on."""
        each = [n // len(self.tasks) + (i < n % len(self.tasks)) for i in range(len(self.tasks))]
        made = [
            task.generate(count, seeds.derive(seed, "mixture", i), split) if count else []
            for i, (task, count) in enumerate(zip(self.tasks, each, strict=True))
        ]
        found: dict[str, Question] = {}
        for row in range(max(each, default=0)):
            for i, questions in enumerate(made):
                if row < len(questions):
                    question = self._mixed(questions[row], i)
                    found.setdefault(question.id, question)
        if len(found) < n:
            raise QuestionError(
                f"Task `mixture`: {n - len(found)} of {n} questions are in two of its tasks; choose tasks that differ."
            )
        return list(found.values())

    def make(self, *, member: int = 0, **data: Any) -> Question:
        """A question of the task with this place in the list, from 0, from its data."""
        return self._mixed(self.tasks[member].make(**data), member)

    def grade(self, question: Question, text: str) -> Grade:
        """Graded by the question's own task."""
        inner = json.loads(question.data)
        task: Task = self.tasks[inner["member"]]
        return task.grade(replace(question, task=task.name, data=inner["data"]), text)

    def _mixed(self, question: Question, member: int) -> Question:
        data = json.dumps({"member": member, "data": question.data})
        level = f"{question.task}, {question.level}" if question.level else question.task
        return replace(question, task=self.name, level=level, data=data)
