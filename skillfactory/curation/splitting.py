"""Attempts and reflections out of tagged responses (`attempts.split`): for a model that retries and reflects by itself.

The prompt is that of SFT and RL. Each `<sample>` of a response is an attempt, graded by itself, and the `<reflect>`
right behind it a reflection on it. A response has room for MOST attempts; what comes after them is not read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from skillfactory import seeds
from skillfactory.curation.prompts import prompts_of
from skillfactory.curation.reflections import verdict_of
from skillfactory.curation.samples import Slots
from skillfactory.curation.sampling import save
from skillfactory.engines.base import TokenCounter
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Outcome, Question, Reflection
from skillfactory.tags import bare, blocks
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade, sft_spec, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Engine, Request
    from skillfactory.store import Run

VARIANT = "response"
MOST = 32  # attempts in a response
EXPECTED = 4  # attempts in a response, by which as many are asked for as the recipe would make attempts

Item = tuple[Question, int]  # a question, and which of the responses to it
Row = Attempt | Reflection


def places_of(recipe: Recipe) -> Slots:
    """The places that `fill` fills; there is no more to come."""
    return Slots((VARIANT,), _responses(recipe) * MOST, 1, final=True)


def _responses(recipe: Recipe) -> int:
    """Responses a question."""
    return -(-recipe.attempts.per_variant * len(recipe.attempts.variants) // EXPECTED)


def fill(recipe: Recipe, run: "Run", questions: list[Question], counter: TokenCounter) -> None:
    """Sample the responses to these questions that are not there yet, and write what they hold.

    An attempt tells that its response has been read, so reflections are written first; those that a kill left without
    their attempts are not written twice.
    """
    from skillfactory import engines

    attempts, reflections, stage = run.stage("attempts"), run.stage("reflections"), run.stage("traces")
    done = {
        (question, index // MOST)
        for table in attempts.tables(["question_id", "index"])
        for question, index in zip(table["question_id"].to_pylist(), table["index"].to_pylist(), strict=True)
    }
    written = {each for table in reflections.tables(["id"]) for each in table["id"].to_pylist()}
    each = _responses(recipe)
    items = [(q, n) for q in questions for n in range(each) if (q.id, n) not in done]
    if not items:
        return
    attempts.reopen()
    reflections.reopen()
    total = len(questions) * each
    with stage.track(total, "responses", done=total - len(items)) as advance:
        rows = engines.stream(recipe, recipe.attempts.engine, partial(respond, recipe=recipe), items)
        fresh = (row for row in rows if not (isinstance(row, Reflection) and row.id in written))
        for row in save(_measured(fresh, counter), {Reflection: reflections, Attempt: attempts}):
            if isinstance(row, Attempt) and row.index % MOST == 0:
                advance(1)


def respond(engine: "Engine", items: Iterable[Item], recipe: Recipe) -> Iterator[Row]:
    """The attempts and reflections of each response, as responses come."""
    task, prompts = task_of(sft_spec(recipe)), prompts_of(recipe.attempts)
    asked: dict[str, Item] = {}

    def requests() -> "Iterator[Request]":
        from skillfactory.engines.base import Request, SamplingParams

        params = SamplingParams.of(recipe.attempts)
        for question, number in items:
            request_id = seeds.content_id("response", question.id, number)
            asked[request_id] = question, number
            seed = seeds.derive(recipe.seed, "attempts", question.id, VARIANT, number)
            yield Request(request_id, prompts.train(question.text), seed, params)

    for completion in engine.generate(requests()):
        yield from read(completion, *asked.pop(completion.id), task)


def read(completion: "Completion", question: Question, number: int, task: Task) -> list[Row]:
    """Reflections and attempts of one response; a single malformed attempt where it holds none."""
    found: list[Row] = []
    judged: Attempt | None = None
    count = 0
    for block in blocks(completion.text)[0]:
        if block.kind == "sample" and count < MOST:
            judged = _attempt(bare(block.text).strip(), question, number * MOST + count, task)
            found.append(judged)
            count += 1
        elif block.kind == "reflect" and judged is not None:
            found.append(_reflection(block.text.strip(), judged))
            judged = None
        else:
            judged = None
    if not count:
        reason = completion.error or "engine_failed" if completion.finish_reason == "failed" else "malformed"
        found = [_row(completion.text, question, number * MOST, "", "no_answer", reason)]
    return found


def _attempt(text: str, question: Question, index: int, task: Task) -> Attempt:
    graded = grade(task, question, text)
    return _row(text, question, index, graded.answer, graded.outcome, graded.reason)


def _row(text: str, question: Question, index: int, answer: str, outcome: Outcome, reason: str) -> Attempt:
    return Attempt(
        id=seeds.content_id("attempt", question.id, VARIANT, index), question_id=question.id, variant=VARIANT,
        index=index, text=text, answer=answer, outcome=outcome, reason=reason, finish_reason="stop", tokens=0,
    )  # fmt: skip


def _reflection(text: str, attempt: Attempt) -> Reflection:
    verdict = verdict_of(text)
    return Reflection(
        id=seeds.content_id("reflection", attempt.id, 0), question_id=attempt.question_id, attempt_id=attempt.id,
        index=0, text=text, verdict=verdict,
        agrees=verdict == ("correct" if attempt.outcome == "correct" else "incorrect"), finish_reason="stop", tokens=0,
    )  # fmt: skip


def _measured(rows: Iterable[Row], counter: TokenCounter) -> Iterator[Row]:
    """The rows with the tokens of their texts."""
    for row in rows:
        yield replace(row, tokens=counter.count_each([row.text])[0])
