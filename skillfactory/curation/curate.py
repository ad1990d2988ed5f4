"""Stage `traces`, and with it `attempts` and `reflections`: draws what the traces need, then builds them (paper §1).

The three are one piece of work, since what to sample next follows from what the traces still lack. Samples outlive the
traces: with another pattern, or a longer one, all that is there is used again and only what is missing is drawn.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation import given, splitting
from skillfactory.curation.drawing import Done, Known, draw, lacking, slots_of
from skillfactory.curation.samples import CORRECT, WRONG, Chunk, QuestionSamples, Slots, chunks
from skillfactory.curation.sampling import save, usable
from skillfactory.curation.tally import Tally
from skillfactory.curation.traces import Builder
from skillfactory.engines.base import PROMPT_TOO_LONG
from skillfactory.errors import EngineError, NothingLeftError
from skillfactory.recipe import Recipe
from skillfactory.records import BROKEN, Attempt, Question, Reflection
from skillfactory.rows import to_records
from skillfactory.tasks.questions import sft_spec, task_of

if TYPE_CHECKING:
    from skillfactory.stage import Stage
    from skillfactory.store import Run

HOPELESS = 2000  # attempts; where none of so many is correct, nothing more is drawn
BROKEN_IN_A_ROW = 100  # failed requests that say that the engine fails, and not the request
_SPARE = 1.15  # questions drawn for traces.limit, beyond those that should suffice


def run(recipe: Recipe, run: "Run") -> None:
    """Draw what is lacking and build the traces. Raises NothingLeftError saying at which step everything was lost."""
    from skillfactory import engines

    stage, samples = run.stage("traces"), (run.stage("attempts"), run.stage("reflections"))
    questions = questions_of(recipe, run.stage("questions"))
    tokenizer = engines.load_tokenizer(recipe)
    if recipe.attempts.given:
        given.fill(recipe, run, questions, tokenizer)
    enough = first_guess(recipe, len(questions))
    while True:
        some = questions[:enough]
        if recipe.attempts.split:
            splitting.fill(recipe, run, some, tokenizer)
        elif not recipe.attempts.given:
            draw_lacking(recipe, stage, samples, some)
        places = _places(recipe, samples[0])
        stage.clear_rows()
        builder, tally = Builder(recipe, task_of(sft_spec(recipe)), tokenizer), Tally()
        done = 0
        with stage.track(len(some), "questions built") as advance:
            passing = tally.counted(chunks(some, *samples, places))
            for some_traces in builder.build(passing):
                stage.append(some_traces)
                advance(builder.looked_at - done, traces=builder.traces)
                done = builder.looked_at
            for _ in passing:  # what is beyond traces.limit was sampled, too
                pass
        if builder.full or enough >= len(questions):
            break
        enough = next_guess(recipe, enough, builder.traces, len(questions))
    attempts, reflections, traces = tally.attempt_counts(), tally.reflection_counts(), builder.counts()
    require_traces(attempts, reflections, traces, recipe)
    samples[0].finish(**attempts)
    samples[1].finish(**reflections)
    stage.finish(**traces)


def _places(recipe: Recipe, attempts: "Stage") -> Slots:
    """The places of a question's attempts, wherever they come from."""
    if recipe.attempts.given:
        return given.places_of(attempts)
    return splitting.places_of(recipe) if recipe.attempts.split else slots_of(recipe)


def questions_of(recipe: Recipe, stage: "Stage") -> list[Question]:
    """The SFT questions in a random order, so that the first ones are as good as any (traces.limit).

    Given data keep the order of their file, so that they can be read through once.
    """
    questions = [question for question in stage.rows(Question) if question.split == "sft"]
    if not questions:
        raise NothingLeftError("attempts: there are no SFT questions to attempt; set questions.sft above 0.")
    return questions if recipe.attempts.given else questions_in_order(recipe, questions)


def questions_in_order(recipe: Recipe, questions: list[Question]) -> list[Question]:
    """A random order that depends on the questions and the recipe's seed alone."""
    ordered = sorted(questions, key=lambda question: question.id)
    seeds.rng(recipe.seed, "traces", "order").shuffle(ordered)
    return ordered


def first_guess(recipe: Recipe, most: int) -> int:
    """How many questions to draw for at first: all, or what traces.limit takes if each gives all that it can."""
    settings = recipe.traces
    if not settings.limit:
        return most
    each = settings.per_question or (settings.max_pairs if settings.pattern == "ladder" else 1)
    return min(most, int(settings.limit / each * _SPARE) + 1)


def next_guess(recipe: Recipe, enough: int, traces: int, most: int) -> int:
    """More questions, by what the first ones gave."""
    return min(most, max(enough * 3 // 2 + 8, int(enough * recipe.traces.limit / max(traces, 1) * _SPARE)))


def draw_lacking(recipe: Recipe, stage: "Stage", samples: "tuple[Stage, Stage]", questions: Sequence[Question]) -> None:
    """Draw until no question lacks anything; rows are kept as they come. The engine is loaded only if needed."""
    from skillfactory import engines

    attempts, reflections = samples
    counts = {"attempts": 0, "reflections": 0, "tokens": 0, "correct": 0.0}
    with stage.track(len(questions), "questions") as advance:
        items = _Incomplete(recipe, samples, questions, advance)
        stream = iter(items)
        first = next(stream, None)
        if first is None:
            return
        attempts.reopen()
        reflections.reopen()
        clock = _Clock(stage, attempts, reflections)
        work = partial(draw, recipe=recipe)
        everything = engines.stream(
            recipe, recipe.attempts.engine, work, chain([first], stream), recipe.attempts.model or None
        )
        right = failed = 0
        for row in save(everything, {Attempt: attempts, Reflection: reflections}, clock.charge):
            if isinstance(row, Done):
                advance(1, **counts)
                continue
            broken = row.finish_reason == "failed" and getattr(row, "reason", "") != PROMPT_TOO_LONG
            failed = failed + 1 if broken else 0
            if failed >= BROKEN_IN_A_ROW:
                raise EngineError(
                    f"attempts.engine={recipe.attempts.engine}: {failed} requests in a row failed; see the messages "
                    "above and mend the cause, then run the same command again."
                )
            clock.tokens[type(row)] += row.tokens
            counts["tokens"] += row.tokens
            if isinstance(row, Attempt):
                counts["attempts"] += 1
                right += usable(row) and row.outcome == "correct"
                counts["correct"] = right / counts["attempts"]
                if not right and not items.any_correct and counts["attempts"] >= HOPELESS:
                    break
            else:
                counts["reflections"] += 1
            advance(0, **counts)


@dataclass
class _Incomplete:
    """The questions that lack samples, with those that are there; `any_correct` of all that have passed so far."""

    recipe: Recipe
    samples: "tuple[Stage, Stage]"
    questions: Sequence[Question]
    advance: Callable[..., None]
    any_correct: bool = False

    def __iter__(self) -> Iterator[Known]:
        for chunk in chunks(self.questions, *self.samples, slots_of(self.recipe)):
            self.any_correct |= bool((chunk.state == CORRECT).any())
            for place, (question, known) in enumerate(zip(chunk.questions, chunk.samples(), strict=True)):
                known.answers = [known.answers[slot] for slot in range(known.slots)]  # to be written to
                if lacking(self.recipe, question, known):
                    yield Known(question, known, _usable_attempts(chunk, place, known))
                else:
                    self.advance(1)


def _usable_attempts(chunk: Chunk, place: int, samples: QuestionSamples) -> dict[int, Attempt]:
    slots = [slot for slot, state in enumerate(samples.state) if state in (CORRECT, WRONG)]
    if not slots:
        return {}
    rows = chunk.attempts.take(chunk.attempt_row[place, slots])
    return dict(zip(slots, to_records(rows, Attempt, "attempts"), strict=True))


class _Clock:
    """Shares the time of drawing out between attempts and reflections, by their tokens."""

    def __init__(self, stage: "Stage", attempts: "Stage", reflections: "Stage") -> None:
        self.stage, self.stages = stage, {Attempt: attempts, Reflection: reflections}
        self.tokens: dict[type, int] = {Attempt: 0, Reflection: 0}
        self.last = time.monotonic()

    def charge(self) -> None:
        """Charge the time since the last call."""
        now = time.monotonic()
        spent, self.last = now - self.last, now
        total = sum(self.tokens.values())
        for kind, stage in self.stages.items():
            if total:
                stage.spend(spent * self.tokens[kind] / total)
                stage.note(seconds=round(stage.seconds(), 3))
        if total:
            self.stage.spend(-spent)
        self.tokens = dict.fromkeys(self.tokens, 0)


def require_traces(
    attempts: dict[str, Any], reflections: dict[str, Any], traces: dict[str, Any], recipe: Recipe
) -> None:
    """Raise NothingLeftError where there is no trace, saying why and what to try."""
    if traces["traces"]:
        return
    if not attempts["usable_correct"]:
        broken = {reason: attempts[reason] for reason in sorted(BROKEN) if attempts[reason]}
        why = (
            f"none of {attempts['attempts']} attempts at {attempts['questions']} questions is correct and usable "
            f"({attempts['wrong']} wrong, {attempts['no_answer']} without an answer, "
            f"{attempts['truncated']} truncated, {attempts['malformed']} malformed, "
            f"{attempts['leaked']} that leak the hint, {attempts['empty']} empty, "
            f"{sum(broken.values())} broken{_list(broken)}); try easier questions, a larger attempts.per_variant or "
            "attempts.max_tokens, or another model"
        )
    elif traces["lost"].get("no_true_reflection") and not reflections["agree_on_correct"]:
        why = (
            f"none of {reflections['on_correct']} reflections on correct attempts says that they are correct "
            f"({reflections['no_verdict']} of all {reflections['reflections']} give no usable verdict, "
            f"{reflections['truncated']} are truncated; {reflections['agree_on_wrong']} of {reflections['on_wrong']} "
            "agree on wrong attempts), so no trace can end; try a larger reflections.per_attempt or "
            "reflections.max_tokens, another reflection prompt (attempts.prompts), or another model"
        )
    elif not traces["built"]:
        why = (
            f"the pattern built none from the pairs of {traces['questions']} questions (lost{_list(traces['lost'])}); "
            "try another traces.pattern, or a smaller traces.max_pairs or traces.pairs"
        )
    elif traces["too_long"]:
        why = (
            f"all {traces['too_long']} traces are longer than traces.max_tokens = {recipe.traces.max_tokens} (the "
            f"shortest has {traces['shortest_dropped']} tokens); raise it, or lower traces.max_pairs or "
            "attempts.max_tokens"
        )
    else:
        why = f"none of {traces['built']} traces passes its task's check; correct the task's `grade`"
    raise NothingLeftError(f"traces: nothing is left to train on: {why}.")


def _list(counts: dict[str, int]) -> str:
    return f": {', '.join(f'{n} {name}' for name, n in counts.items())}" if counts else ""
