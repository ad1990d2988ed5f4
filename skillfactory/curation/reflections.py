"""Reflections: the model's own critiques of its attempts (paper §1b).

A usable attempt is shown to the model with its question; a reflection is kept for traces iff its verdict is true.

Deviations:
1. They are drawn one by one until one agrees, at most `per_attempt`, and only on attempts that a trace would use. With
   `budget: paper` all are drawn, on every usable attempt at a question that has a correct one: the others cannot be
   part of a trace.
2. Truncated attempts and those without an answer are not reflected on; the paper does not say.
3. No reflection is dropped for the words in it (the authors' code drops those with "idea" or "fast").
4. A reflection that was cut, or holds tags of traces or answers, or contradicts itself, is counted and never used.
5. Of several that agree the first is taken, where the authors' code draws one: they are drawn alike.
"""

import re
from typing import TYPE_CHECKING

from skillfactory import seeds
from skillfactory.curation.prompts import Prompts
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.tasks.answers import has_trace_tags

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Request

_TAG = re.compile(r"</?verdict>", re.IGNORECASE)
_VERDICT = re.compile(r"<verdict>\s*(correct|incorrect)\s*</verdict>", re.IGNORECASE)
_ANSWER = re.compile(r"</?answer>", re.IGNORECASE)


def verdict_of(text: str) -> str:
    """The verdict that a reflection gives: "correct", "incorrect", or "" for none, several different, or malformed."""
    if has_trace_tags(text) or _ANSWER.search(text):
        return ""
    found = [verdict.lower() for verdict in _VERDICT.findall(text)]
    verdicts: set[str] = set(found)
    if len(verdicts) != 1 or len(_TAG.findall(text)) != 2 * len(found):
        return ""
    return verdicts.pop()


def reflection_request(recipe: Recipe, question: Question, attempt: Attempt, index: int, prompts: Prompts) -> "Request":
    """What to ask the engine for reflection number `index` on an attempt. The reference answer is never in it."""
    from skillfactory.engines.base import Request, SamplingParams

    seed = seeds.derive(recipe.seed, "reflections", attempt.id, index)
    messages = prompts.reflection(question.text, attempt.text.strip())
    params = SamplingParams.of(recipe.reflections)
    return Request(seeds.content_id("reflection", attempt.id, index), messages, seed, params)


def reflection_of(completion: "Completion", attempt: Attempt, index: int) -> Reflection:
    """The reflection that a completion is; it agrees iff it is complete and its verdict is the attempt's outcome."""
    verdict = verdict_of(completion.text)
    truth = "correct" if attempt.outcome == "correct" else "incorrect"
    return Reflection(
        id=completion.id, question_id=attempt.question_id, attempt_id=attempt.id, index=index, text=completion.text,
        verdict=verdict, agrees=verdict == truth and completion.finish_reason == "stop",
        finish_reason=completion.finish_reason, tokens=completion.tokens,
    )  # fmt: skip
