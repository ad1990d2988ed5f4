"""The reward of GRPO: 1 for a right final answer, else 0 (paper §3). Nothing is shaped: skills are only logged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillfactory.recipe import TaskSpec
from skillfactory.records import BROKEN, Question
from skillfactory.tasks.questions import grade_all, task_of
from skillfactory.training.skills import skill_use


def make_reward(questions: Mapping[str, Question], spec: TaskSpec) -> Callable[..., list[float | None]]:
    """TRL's reward function over `questions` (by id); its data set must have the columns `prompt` and `question_id`.

    A check that breaks or takes too long gives None: TRL then leaves the rollout out, instead of punishing it. The
    skills of the rollouts go into TRL's log as `skills/answers` and so on (skills.SKILLS).
    """
    task = task_of(spec)

    def accuracy(
        completions: Sequence[Any], question_id: Sequence[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        for name, figure in skill_use(texts).items():
            log_metric(f"skills/{name}", figure)
        asked = [(questions[each], text) for each, text in zip(question_id, texts, strict=True)]
        return [None if each.reason in BROKEN else float(each.outcome == "correct") for each in grade_all(task, asked)]

    return accuracy
