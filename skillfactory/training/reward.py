"""The reward of GRPO: 1 for a right final answer, else 0 (paper §3). Nothing is shaped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillfactory.recipe import TaskSpec
from skillfactory.records import Question
from skillfactory.tasks.questions import grade, task_of


def make_reward(questions: Mapping[str, Question], spec: TaskSpec) -> Callable[..., list[float | None]]:
    """TRL's reward function over `questions` (by id); its data set must have the columns `prompt` and `question_id`.

    A check that breaks gives None: TRL then leaves the rollout out, instead of punishing it.
    """
    task = task_of(spec)

    def accuracy(completions: Sequence[Any], question_id: Sequence[str], **_: Any) -> list[float | None]:
        rewards: list[float | None] = []
        for completion, question in zip(completions, question_id, strict=True):
            graded = grade(task, questions[question], completion[0]["content"])
            rewards.append(None if graded.reason == "check_failed" else float(graded.outcome == "correct"))
        return rewards

    return accuracy
