"""The reward of GRPO: 1 for a right final answer, else 0 (paper §3). Nothing is shaped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillfactory.recipe import TaskSpec
from skillfactory.records import BROKEN, Question
from skillfactory.tasks.questions import grade_all, task_of


def make_reward(questions: Mapping[str, Question], spec: TaskSpec) -> Callable[..., list[float | None]]:
    """TRL's reward function over `questions` (by id); its data set must have the columns `prompt` and `question_id`.

    A check that breaks or takes too long gives None: TRL then leaves the rollout out, instead of punishing it.
    """
    task = task_of(spec)

    def accuracy(completions: Sequence[Any], question_id: Sequence[str], **_: Any) -> list[float | None]:
        asked = [(questions[each], text[0]["content"]) for each, text in zip(question_id, completions, strict=True)]
        return [None if each.reason in BROKEN else float(each.outcome == "correct") for each in grade_all(task, asked)]

    return accuracy
