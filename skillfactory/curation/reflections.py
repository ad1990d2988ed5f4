"""Stage `reflections`: the model's own critiques of its attempts (paper §1b).

Each usable attempt is shown to the model with its question; a reflection is kept for traces iff its verdict is true.

Deviations:
1. Attempts at questions without one correct attempt are not reflected on: no trace could hold them.
2. Truncated attempts and those without an answer are not reflected on; the paper does not say.
3. No reflection is dropped for the words in it (the authors' code drops those with "idea" or "fast").
4. A reflection that was cut, or holds tags of traces or answers, or contradicts itself, is counted and never used.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.prompts import Prompts, load_prompts
from skillfactory.curation.sampling import collect, usable
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.tasks.answers import has_trace_tags

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Engine
    from skillfactory.store import Run, Stage

_TAG = re.compile(r"</?verdict>", re.IGNORECASE)
_VERDICT = re.compile(r"<verdict>\s*(correct|incorrect)\s*</verdict>", re.IGNORECASE)
_ANSWER = re.compile(r"</?answer>", re.IGNORECASE)

Plan = dict[str, tuple[Attempt, int]]  # reflection id -> attempt, index


def verdict_of(text: str) -> str:
    """The verdict that a reflection gives: "correct", "incorrect", or "" for none, several different, or malformed."""
    verdicts: set[str] = {found.lower() for found in _VERDICT.findall(text)}
    stray_tags = len(_TAG.findall(text)) != 2 * len(_VERDICT.findall(text))
    if len(verdicts) != 1 or stray_tags or has_trace_tags(text) or _ANSWER.search(text):
        return ""
    return verdicts.pop()


def reflection_of(completion: "Completion", planned: Plan) -> Reflection:
    """The reflection that a completion is; it agrees iff it is complete and its verdict is the attempt's outcome."""
    attempt, index = planned[completion.id]
    verdict = verdict_of(completion.text)
    truth = "correct" if attempt.outcome == "correct" else "incorrect"
    return Reflection(
        id=completion.id, attempt_id=attempt.id, index=index, text=completion.text, verdict=verdict,
        agrees=verdict == truth and completion.finish_reason == "stop",
        finish_reason=completion.finish_reason, tokens=completion.tokens,
    )  # fmt: skip


def worth_reflecting(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The usable attempts at questions that have a correct one among them."""
    solved = {attempt.question_id for attempt in attempts if usable(attempt) and attempt.outcome == "correct"}
    return [attempt for attempt in attempts if usable(attempt) and attempt.question_id in solved]


def plan(attempts: Sequence[Attempt], per_attempt: int) -> Plan:
    """Every reflection to make, by its id."""
    return {
        seeds.content_id("reflection", attempt.id, index): (attempt, index)
        for attempt in attempts
        for index in range(per_attempt)
    }


def sample_reflections(
    recipe: Recipe, stage: "Stage", texts: dict[str, str], attempts: Sequence[Attempt], prompts: Prompts,
    load: "Callable[[], Engine]",
) -> list[Reflection]:  # fmt: skip
    """Make the reflections on `attempts` that the stage lacks; all are returned. `texts`: question id -> text."""
    planned = plan(attempts, recipe.reflections.per_attempt)
    made = [reflection for reflection in stage.rows(Reflection) if reflection.id in planned]
    done = {reflection.id for reflection in made}
    missing = [reflection_id for reflection_id in planned if reflection_id not in done]
    if not missing:
        return made

    from skillfactory.engines.base import Request, SamplingParams

    def request(reflection_id: str) -> Request:
        attempt, index = planned[reflection_id]
        seed = seeds.derive(recipe.seed, "reflections", attempt.id, index)
        return Request(reflection_id, prompts.reflection(texts[attempt.question_id], attempt.text.strip()), seed)

    seen = agree = tokens = 0

    def figures(reflection: Reflection) -> dict[str, Any]:
        nonlocal seen, agree, tokens
        seen, tokens, agree = seen + 1, tokens + reflection.tokens, agree + reflection.agrees
        return {"tokens": tokens, "agree": agree / seen}

    with stage.track(len(planned), "reflections", done=len(done)) as advance:
        completions = load().generate([request(key) for key in missing], SamplingParams.of(recipe.reflections))
        return made + collect(stage, map(partial(reflection_of, planned=planned), completions), figures, advance)


def counts_of(reflections: Sequence[Reflection], attempts: Sequence[Attempt]) -> dict[str, Any]:
    """What became of the reflections, with agreement apart for correct and for wrong attempts."""
    right = {attempt.id for attempt in attempts if attempt.outcome == "correct"}
    on_right = [reflection for reflection in reflections if reflection.attempt_id in right]
    on_wrong = [reflection for reflection in reflections if reflection.attempt_id not in right]
    return {
        "reflections": len(reflections),
        "agree": sum(r.agrees for r in reflections),
        "no_verdict": sum(not r.verdict for r in reflections),
        "truncated": sum(r.finish_reason == "length" for r in reflections),
        "on_correct": len(on_right),
        "agree_on_correct": sum(r.agrees for r in on_right),
        "on_wrong": len(on_wrong),
        "agree_on_wrong": sum(r.agrees for r in on_wrong),
        "attempts": len(attempts),
        "attempts_kept": len({r.attempt_id for r in reflections if r.agrees}),
        "tokens": sum(r.tokens for r in reflections),
    }


def require_agreement(counts: dict[str, Any]) -> None:
    """Raise NothingLeftError where no correct attempt has a reflection that agrees: every trace ends on such a pair."""
    if not counts["agree_on_correct"]:
        raise NothingLeftError(
            f"reflections: none of {counts['on_correct']} reflections on correct attempts says that they are correct "
            f"({counts['no_verdict']} of all {counts['reflections']} give no usable verdict, {counts['truncated']} are "
            f"truncated; {counts['agree_on_wrong']} of {counts['on_wrong']} agree on wrong attempts), so no trace can "
            "end; try a larger reflections.per_attempt or reflections.max_tokens, another reflection prompt "
            "(attempts.prompts), or another model."
        )


def run(recipe: Recipe, run: "Run") -> None:
    """Sample reflections and compare verdicts with the truth. Raises NothingLeftError where none could end a trace."""
    texts = {question.id: question.text for question in run.stage("questions").rows(Question)}
    attempts = worth_reflecting(run.stage("attempts").rows(Attempt))

    def load() -> "Engine":
        from skillfactory import engines

        return engines.load(recipe)

    stage = run.stage("reflections")
    prompts = load_prompts(recipe.attempts.prompts)
    counts = counts_of(sample_reflections(recipe, stage, texts, attempts, prompts, load), attempts)
    require_agreement(counts)
    stage.finish(**counts)
