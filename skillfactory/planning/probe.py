"""A few questions curated in memory, to say beforehand what all of them would take: `skillfactory run --dry-run`."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from skillfactory.curation.curate import first_guess, next_guess, questions_in_order
from skillfactory.curation.drawing import Known, draw, slots_of
from skillfactory.curation.samples import Chunk, QuestionSamples
from skillfactory.curation.tally import Tally
from skillfactory.curation.traces import Builder
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.rows import from_parquet, to_parquet
from skillfactory.tasks.questions import make_questions, task_of

QUESTIONS = 16


@dataclass(frozen=True)
class Estimate:
    """What a probe of `probed` questions says of the whole recipe. `paper_tokens` is for the paper's fixed budget.

    `attempt_tokens`, `reflection_tokens` and `trace_tokens` are means, as they were in the probe.
    """

    probed: int
    probe_seconds: float
    share_correct: float
    questions: int
    attempts: int
    reflections: int
    traces: int
    tokens: int
    paper_tokens: int
    seconds: float
    attempt_tokens: float
    reflection_tokens: float
    trace_tokens: float


def probe(recipe: Recipe, questions: int) -> Estimate:
    """Draw and build for some SFT questions, writing nothing. Raises what the engine and the task raise."""
    from skillfactory import engines

    some = _questions(recipe, min(questions, recipe.questions.sft))
    places = slots_of(recipe)
    counter = engines.load_tokenizer(recipe)
    items = [Known(question, QuestionSamples.empty(places), {}) for question in some]
    maker = recipe.attempts.model or None
    stream = engines.stream(recipe, recipe.attempts.engine, partial(draw, recipe=recipe), items, maker)
    start = None
    rows = []
    for row in stream:
        start = start or time.monotonic()  # loading the model, and the first completion, do not count
        rows.append(row)
    seconds = time.monotonic() - start if start else 0.0
    attempts, reflections = ([row for row in rows if isinstance(row, kind)] for kind in (Attempt, Reflection))
    chunk = Chunk(some, _table(attempts), _table(reflections), places)
    tally, builder = Tally(), Builder(recipe, task_of(recipe.questions.task), counter)
    for _ in builder.build(tally.counted([chunk])):
        pass
    return _estimate(recipe, tally, builder, seconds)


def _questions(recipe: Recipe, n: int) -> list[Question]:
    """Some of the SFT questions that a run would use, as far as the task can say without making all."""
    sizes = recipe.questions.model_copy(update={"sft": n, "rl": 1, "dev": 0})
    sets = {name: each.model_copy(update={"n": 1}) for name, each in recipe.evaluation.sets.items()}
    evaluation = recipe.evaluation.model_copy(update={"sets": sets})
    made = make_questions(recipe.model_copy(update={"questions": sizes, "evaluation": evaluation}))
    return questions_in_order(recipe, [question for question in made.rows if question.split == "sft"])


def _table(rows: list[Any]) -> Any:
    import pyarrow

    return from_parquet(to_parquet(rows)) if rows else pyarrow.table({})


def _estimate(recipe: Recipe, tally: Tally, builder: Builder, seconds: float) -> Estimate:
    probed = builder.counts()["questions"]
    attempts, reflections = tally.attempt_counts(), tally.reflection_counts()
    most = recipe.questions.sft
    wanted = first_guess(recipe, most)
    if recipe.traces.limit:
        wanted = next_guess(recipe, probed, builder.traces, most)
    scale = wanted / probed
    each_attempt = attempts["tokens"] / max(attempts["attempts"], 1)
    each_reflection = reflections["tokens"] / max(reflections["reflections"], 1)
    slots = len(recipe.attempts.variants) * recipe.attempts.per_variant
    tokens = attempts["tokens"] + reflections["tokens"]
    return Estimate(
        probed=probed,
        probe_seconds=round(seconds, 1),
        share_correct=attempts["correct"] / max(attempts["attempts"], 1),
        questions=wanted,
        attempts=round(attempts["attempts"] * scale),
        reflections=round(reflections["reflections"] * scale),
        traces=min(round(builder.traces * scale), recipe.traces.limit or 10**12),
        tokens=round(tokens * scale),
        paper_tokens=round(most * slots * (each_attempt + recipe.reflections.per_attempt * each_reflection)),
        seconds=round(seconds * scale, 1),
        attempt_tokens=each_attempt,
        reflection_tokens=each_reflection,
        trace_tokens=builder.counts()["tokens"] / max(builder.traces, 1),
    )


def as_facts(estimate: Estimate) -> dict[str, Any]:
    """For --json."""
    return asdict(estimate)
