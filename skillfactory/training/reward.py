"""The reward of GRPO: 1 for a right final answer, else 0 (paper §3). Nothing else, unless `rl.shaping` says so.

Shaping is off by default: the paper has none, and what is shaped gets hacked. Each part is a reward function of its
own for TRL, which adds them up, so that accuracy is logged by itself (`rewards/accuracy/mean`), whatever is added.

- `rl.shaping.form`: added for a rollout whose tags are all there and in place. It pays for tags, not for what they
  hold: a model that finds no answers can still learn to write one empty attempt and to call it correct.
- `rl.shaping.overlong`: up to 1 is taken off over the last so many tokens before `rl.max_tokens` (DAPO,
  arXiv 2503.14476, eq. 13). It pays for stopping, not for an answer: to give up early costs nothing.

docs/training.md shows what both cannot tell, and tests/test_reward.py that it is so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillfactory.recipe import Recipe, Shaping, TaskSpec
from skillfactory.records import BROKEN, Question
from skillfactory.tags import blocks, missing_tags, verdict_of
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.questions import grade_all, task_of
from skillfactory.training.skills import skill_use

Reward = Callable[..., list[float | None]]
_THINK, _END = "<think>", "</think>"


def make_reward(questions: Mapping[str, Question], spec: TaskSpec) -> Reward:
    """TRL's reward function over `questions` (by id); its data set must have the columns `prompt` and `question_id`.

    A check that breaks or takes too long gives None: TRL then leaves the rollout out, instead of punishing it. The
    skills of the rollouts go into TRL's log as `skills/answers` and so on (skills.SKILLS); where checks broke, the
    share of rollouts that they broke on as `broken`.
    """
    task = task_of(spec)

    def accuracy(
        completions: Sequence[Any], question_id: Sequence[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float | None]:
        texts = _texts(completions)
        for name, figure in skill_use(texts).items():
            log_metric(f"skills/{name}", figure)
        asked = [(questions[each], text) for each, text in zip(question_id, texts, strict=True)]
        found = [None if each.reason in BROKEN else float(each.outcome == "correct") for each in grade_all(task, asked)]
        if broken := found.count(None):
            log_metric("broken", broken / len(found))
        return found

    return accuracy


def make_rewards(questions: Mapping[str, Question], recipe: Recipe) -> tuple[list[Reward], list[float]]:
    """All of a recipe's reward functions for TRL, accuracy first, and their weights (`GRPOConfig.reward_weights`).

    TRL calls them in this order on the same rollouts. What accuracy has no figure for gets none from the others either:
    a rollout whose check broke is left out, whatever its form.
    """
    accuracy = make_reward(questions, recipe.questions.task)
    parts = _parts(recipe)
    known: list[float | None] = []

    def remembered(**given: Any) -> list[float | None]:
        known[:] = accuracy(**given)
        return list(known)

    def beside(name: str, part: Callable[..., list[float]]) -> Reward:
        def reward(**given: Any) -> list[float | None]:
            figures = part(**given)
            return [None if first is None else figure for first, figure in zip(known, figures, strict=True)]

        reward.__name__ = name  # TRL logs it as `rewards/NAME/mean`
        return reward

    remembered.__name__ = accuracy.__name__
    functions = [remembered, *(beside(name, part) for name, (part, _) in parts.items())]
    return functions, [1.0, *(weight for _, weight in parts.values())]


def accuracy_in(logs: Mapping[str, Any]) -> float | None:
    """The share of right rollouts in TRL's log of a step, whatever is added to the reward; None where no check came
    back."""
    share = logs.get("rewards/accuracy/mean", logs.get("reward"))
    return None if share is None else float(share)


def is_shaped(shaping: Shaping) -> bool:
    """Whether anything is added to accuracy."""
    return bool(shaping.form or shaping.overlong)


def well_formed(text: str, reflect: bool = True) -> bool:
    """Whether a response shows the skills in tags that are all there and in place.

    It begins with `<think>`; in there is at least one attempt with an answer and, with `reflect`, a reflection with a
    verdict, each whole; after `</think>` comes an answer, and no block any more. A response without tags has no form.
    """
    start, _, inner = text.partition(_THINK)
    thought, ended, after = inner.partition(_END)
    if start.strip() or not ended or _THINK in inner or _END in after:
        return False
    if missing_tags(text, cut=False) or blocks(after)[0] or extract_answer(after) is None:
        return False
    found, _ = blocks(thought)
    attempts = [block.text for block in found if block.kind == "sample"]
    reflections = [block.text for block in found if block.kind == "reflect"]
    whole = all(map(extract_answer, attempts)) and all(map(verdict_of, reflections))
    return whole and bool(attempts) and (bool(reflections) or not reflect)


def _parts(recipe: Recipe) -> dict[str, tuple[Callable[..., list[float]], float]]:
    """What is added to accuracy, and how much of it: {name: (function, weight)}."""
    shaping = recipe.rl.shaping
    parts: dict[str, tuple[Callable[..., list[float]], float]] = {}
    if shaping.form:
        parts["form"] = (_form_of(recipe.traces.reflect), shaping.form)
    if shaping.overlong:
        from trl.rewards import get_soft_overlong_punishment

        parts["overlong"] = (get_soft_overlong_punishment(recipe.rl.max_tokens, shaping.overlong), 1.0)
    return parts


def _form_of(reflect: bool) -> Callable[..., list[float]]:
    def form(completions: Sequence[Any], **_: Any) -> list[float]:
        return [float(well_formed(text, reflect)) for text in _texts(completions)]

    return form


def _texts(completions: Sequence[Any]) -> list[str]:
    return [completion[0]["content"] for completion in completions]
