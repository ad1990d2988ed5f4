"""Stage `attempts`: the model's own solutions, in several styles (paper §1a).

Each SFT question is asked in every prompt variant, several times; each completion is graded as it arrives. An attempt
that holds tags of traces or reflections keeps its grade for the record, but is malformed and never used.
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
from skillfactory.records import Attempt, Grade, Question
from skillfactory.tasks.answers import has_trace_tags
from skillfactory.tasks.base import Task
from skillfactory.tasks.deadline import ahead
from skillfactory.tasks.questions import grade, is_slow, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Engine
    from skillfactory.store import Run, Stage

_BROKEN = ("check_failed", "check_timed_out", "failed")
_VERDICT = re.compile(r"</?verdict>", re.IGNORECASE)

Plan = dict[str, tuple[Question, str, int]]  # attempt id -> question, variant, index


def plan(questions: Sequence[Question], variants: Sequence[str], per_variant: int) -> Plan:
    """Every attempt to make, by its id."""
    return {
        seeds.content_id("attempt", question.id, variant, index): (question, variant, index)
        for question in questions
        for variant in variants
        for index in range(per_variant)
    }


def attempt_of(completion: "Completion", planned: Plan, task: Task) -> Attempt:
    """The graded attempt that a completion is."""
    question, variant, index = planned[completion.id]
    graded, reason = Grade("no_answer"), "failed"
    if completion.finish_reason != "failed":
        graded = grade(task, question, completion.text)
        malformed = has_trace_tags(completion.text) or _VERDICT.search(completion.text)
        reason = "malformed" if malformed else graded.reason
    return Attempt(
        id=completion.id, question_id=question.id, variant=variant, index=index, text=completion.text,
        answer=graded.answer, outcome=graded.outcome, reason=reason,
        finish_reason=completion.finish_reason, tokens=completion.tokens,
    )  # fmt: skip


def sample_attempts(
    recipe: Recipe, stage: "Stage", questions: Sequence[Question], prompts: Prompts, load: "Callable[[], Engine]"
) -> list[Attempt]:
    """Make the attempts that the stage lacks; all of them are returned. The engine is loaded only if needed."""
    settings = recipe.attempts
    planned = plan(questions, settings.variants, settings.per_variant)
    made = [attempt for attempt in stage.rows(Attempt) if attempt.id in planned]
    done = {attempt.id for attempt in made}
    missing = [attempt_id for attempt_id in planned if attempt_id not in done]
    if not missing:
        return made

    from skillfactory.engines.base import Request, SamplingParams

    def request(attempt_id: str) -> Request:
        question, variant, index = planned[attempt_id]
        seed = seeds.derive(recipe.seed, "attempts", question.id, variant, index)
        return Request(attempt_id, prompts.attempt(variant, question.text), seed)

    seen = correct = tokens = 0

    def figures(attempt: Attempt) -> dict[str, Any]:
        nonlocal seen, correct, tokens
        seen, tokens, correct = seen + 1, tokens + attempt.tokens, correct + (attempt.outcome == "correct")
        return {"tokens": tokens, "correct": correct / seen}

    task = task_of(recipe.questions.task)
    row_of = partial(attempt_of, planned=planned, task=task)
    with stage.track(len(planned), "attempts", done=len(done)) as advance:
        completions = load().generate([request(attempt_id) for attempt_id in missing], SamplingParams.of(settings))
        graded = ahead(row_of, completions, lambda completion: is_slow(task))
        return made + collect(stage, graded, figures, advance)


def counts_of(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """What became of the attempts, in all and as the share correct of each variant."""
    variants = sorted({attempt.variant for attempt in attempts})
    by_variant = {variant: [a.outcome == "correct" for a in attempts if a.variant == variant] for variant in variants}
    return {
        "attempts": len(attempts),
        **{outcome: sum(a.outcome == outcome for a in attempts) for outcome in ("correct", "wrong", "no_answer")},
        "usable": sum(map(usable, attempts)),
        "usable_correct": sum(usable(a) and a.outcome == "correct" for a in attempts),
        "truncated": sum(a.finish_reason == "length" for a in attempts),
        **{reason: sum(a.reason == reason for a in attempts) for reason in ("malformed", *_BROKEN)},
        "questions": len({a.question_id for a in attempts}),
        "questions_solved": len({a.question_id for a in attempts if usable(a) and a.outcome == "correct"}),
        "tokens": sum(a.tokens for a in attempts),
        "share_correct": {variant: sum(hits) / len(hits) for variant, hits in by_variant.items()},
    }


def require_correct(counts: dict[str, Any]) -> None:
    """Raise NothingLeftError where no attempt is correct and fit for a trace."""
    if not counts["usable_correct"]:
        raise NothingLeftError(
            f"attempts: none of {counts['attempts']} attempts at {counts['questions']} questions is correct and usable "
            f"({counts['wrong']} wrong, {counts['no_answer']} without an answer, {counts['truncated']} truncated, "
            f"{counts['malformed']} malformed, {sum(counts[reason] for reason in _BROKEN)} broken), "
            "so there is nothing to build traces from; try easier questions, a larger attempts.per_variant or "
            "attempts.max_tokens, or another model."
        )


def run(recipe: Recipe, run: "Run") -> None:
    """Sample and grade attempts at the SFT questions. Raises NothingLeftError where none can be used."""
    prompts = load_prompts(recipe.attempts.prompts)
    prompts.check(recipe.attempts.variants)
    questions = [question for question in run.stage("questions").rows(Question) if question.split == "sft"]
    if not questions:
        raise NothingLeftError("attempts: there are no SFT questions to attempt; set questions.sft above 0.")

    def load() -> "Engine":
        from skillfactory import engines

        return engines.load(recipe)

    stage = run.stage("attempts")
    counts = counts_of(sample_attempts(recipe, stage, questions, prompts, load))
    require_correct(counts)
    stage.finish(**counts)
