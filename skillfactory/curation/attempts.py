"""Attempts: the model's own solutions, in several styles (paper §1a).

Each SFT question is asked in the prompt variants, several times; each completion is graded as it arrives.

Deviations:
1. As many attempts are made as the traces need, which is enough (`pool.py`), unless `budget: paper` asks for all.
2. An attempt that holds tags of traces or verdicts keeps its grade for the record, but is malformed and never used.
"""

import re
from typing import TYPE_CHECKING

from skillfactory import seeds
from skillfactory.curation.prompts import Prompts
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Grade, Question
from skillfactory.tasks.answers import has_trace_tags
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Request

_VERDICT = re.compile(r"</?verdict>", re.IGNORECASE)


def attempt_request(recipe: Recipe, question: Question, variant: str, index: int, prompts: Prompts) -> "Request":
    """What to ask the engine for attempt number `index` of a variant."""
    from skillfactory.engines.base import Request, SamplingParams

    seed = seeds.derive(recipe.seed, "attempts", question.id, variant, index)
    messages = prompts.attempt(variant, question.text, question.answer)
    params = SamplingParams.of(recipe.attempts)
    return Request(seeds.content_id("attempt", question.id, variant, index), messages, seed, params)


def attempt_of(
    completion: "Completion",
    question: Question,
    variant: str,
    index: int,
    task: Task,
    prompts: Prompts,
    whole: bool = False,
) -> Attempt:
    """The graded attempt that a completion is; a `whole` response may hold tags."""
    text = completion.text
    if completion.finish_reason == "failed":
        graded, reason = Grade("no_answer"), completion.error or "engine_failed"
    else:
        graded = grade(task, question, text)
        reason = graded.reason
        if not whole and (has_trace_tags(text) or _VERDICT.search(text)):
            reason = "malformed"
        elif prompts.leaks_hint(variant, text):
            reason = "leaked"
    return Attempt(
        id=completion.id, question_id=question.id, variant=variant, index=index, text=text, answer=graded.answer,
        outcome=graded.outcome, reason=reason, finish_reason=completion.finish_reason, tokens=completion.tokens,
    )  # fmt: skip
