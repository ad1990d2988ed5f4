"""Stage `traces`: attempts and true reflections arranged into traces in which retrying and checking are explicit (§1c).

The format is the paper's, blank lines included. Every piece of a trace is recorded with where it comes from.

Deviations:
1. An attempt enters with one of its true reflections, drawn at random, so no attempt stands twice in a trace.
2. A finished trace is graded like any completion; should its answer not be found right, it is dropped and counted.
3. A trace that is too long is dropped and counted, never cut.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.patterns import PATTERNS, Pair
from skillfactory.curation.phrases import Phrases, load_phrases
from skillfactory.curation.prompts import Prompts, load_prompts
from skillfactory.curation.sampling import usable
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Message, Question, Reflection, Step, Trace
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade, task_of

if TYPE_CHECKING:
    from skillfactory.store import Run

CountTokens = Callable[[list[Message], str], int]  # prompt, completion -> tokens with the chat template
PERCENTILES = (5, 50, 90, 99, 100)


@dataclass
class Built:
    """The traces, and what was lost on the way."""

    traces: list[Trace]
    counts: dict[str, Any] = field(default_factory=dict)


def pairs_of(attempts: Sequence[Attempt], reflections: Mapping[str, Sequence[Reflection]], rng: Random) -> list[Pair]:
    """One pair for each usable attempt with true reflections (`reflections`: attempt id -> those), in their order."""
    usable_attempts = [attempt for attempt in attempts if usable(attempt) and reflections.get(attempt.id)]
    return [Pair(attempt, rng.choice(reflections[attempt.id])) for attempt in usable_attempts]


def write_trace(pairs: Sequence[Pair], phrases: Phrases, rng: Random) -> tuple[str, list[Step]]:
    """The completion of a trace and its provenance. Its answer is that of the last correct attempt."""
    parts, steps = [], []
    for number, pair in enumerate(pairs, start=1):
        last = number == len(pairs)
        phrase = rng.choice(phrases.closing if last else phrases.glue(pair.correct))
        parts.append(
            f"<sample>\n{pair.attempt.text.strip()}\n</sample>\n<reflect>\n{pair.reflection.text.strip()}\n</reflect>"
        )
        if not last:
            parts.append(phrase)
        steps.append(Step(pair.attempt.id, pair.reflection.id, phrase))
    answer = next(pair.attempt.answer for pair in reversed(pairs) if pair.correct)
    thoughts = "\n".join(parts)
    return f"<think>\n{thoughts}\n</think>\n\n{steps[-1].phrase}\n\n<answer>\n{answer}\n</answer>", steps


def traces_of(
    question: Question, attempts: Sequence[Attempt], reflections: Mapping[str, Sequence[Reflection]], recipe: Recipe,
    prompts: Prompts, phrases: Phrases, count_tokens: CountTokens,
) -> list[Trace]:  # fmt: skip
    """The traces of one question, of any length. Depends on nothing but the arguments and the recipe's seed."""
    settings = recipe.traces
    rng = seeds.rng(recipe.seed, "traces", question.id)
    pairs = pairs_of(sorted(attempts, key=lambda attempt: attempt.id), reflections, rng)
    correct, incorrect = [p for p in pairs if p.correct], [p for p in pairs if not p.correct]
    arranged = PATTERNS[settings.pattern](correct, incorrect, rng, settings)
    if settings.per_question and len(arranged) > settings.per_question:
        arranged = rng.sample(arranged, settings.per_question)
    prompt = prompts.train(question.text)
    traces = []
    for pairs in arranged:
        completion, steps = write_trace(pairs, phrases, rng)
        traces.append(
            Trace(
                id=seeds.content_id("trace", question.id, completion),
                question_id=question.id,
                pattern=settings.pattern,
                steps=steps,
                prompt=prompt,
                completion=completion,
                tokens=count_tokens(prompt, completion),
            )
        )
    return traces


def build(
    recipe: Recipe, questions: Sequence[Question], attempts: Sequence[Attempt], reflections: Sequence[Reflection],
    task: Task, count_tokens: CountTokens,
) -> Built:  # fmt: skip
    """All traces of the recipe. Raises NothingLeftError saying at which step everything was lost."""
    settings = recipe.traces
    prompts, phrases = load_prompts(recipe.attempts.prompts), load_phrases(settings.phrases)
    by_question: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_question.setdefault(attempt.question_id, []).append(attempt)
    by_attempt: dict[str, list[Reflection]] = {}
    for reflection in sorted(reflections, key=lambda reflection: reflection.id):
        if reflection.agrees:
            by_attempt.setdefault(reflection.attempt_id, []).append(reflection)

    made: dict[str, Trace] = {}
    repeated = 0
    for question in questions:
        ours = by_question.get(question.id, [])
        for trace in traces_of(question, ours, by_attempt, recipe, prompts, phrases, count_tokens):
            repeated += trace.id in made
            made.setdefault(trace.id, trace)
    asked = {question.id: question for question in questions}
    sound = [t for t in made.values() if grade(task, asked[t.question_id], t.completion).outcome == "correct"]
    short = [trace for trace in sound if trace.tokens <= settings.max_tokens]
    kept = short
    if settings.limit and len(short) > settings.limit:
        chosen = seeds.rng(recipe.seed, "traces", "limit").sample(range(len(short)), settings.limit)
        kept = [short[index] for index in sorted(chosen)]
    outcomes = {attempt.id: attempt.outcome for attempt in attempts}
    with_pairs = [attempt for attempt in attempts if usable(attempt) and attempt.id in by_attempt]
    counts: dict[str, Any] = {
        "traces": len(kept),
        "built": len(made) + repeated,
        "repeated": repeated,
        "answer_lost": len(made) - len(sound),
        "too_long": len(sound) - len(short),
        "over_limit": len(short) - len(kept),
        "questions": len(questions),
        "questions_with_traces": len({trace.question_id for trace in kept}),
        "pairs_correct": sum(attempt.outcome == "correct" for attempt in with_pairs),
        "pairs_incorrect": sum(attempt.outcome == "wrong" for attempt in with_pairs),
        "in_traces": _steps(kept, outcomes),
        "tokens": sum(trace.tokens for trace in kept),
        "tokens_percentiles": percentiles([trace.tokens for trace in kept]),
    }
    _require_traces(counts, attempts, settings.max_tokens, [trace.tokens for trace in sound])
    return Built(kept, counts)


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Nearest-rank percentiles, keyed by "5", "50", …; empty for no lengths."""
    ordered = sorted(lengths)
    return {str(p): ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in PERCENTILES} if ordered else {}


def _steps(traces: Sequence[Trace], outcomes: Mapping[str, str]) -> dict[str, Any]:
    """How many pairs of which outcome the traces hold, and how many traces hold 1, 2, … pairs."""
    used = Counter(outcomes[step.attempt_id] for trace in traces for step in trace.steps)
    lengths = Counter(len(trace.steps) for trace in traces)
    return {
        "correct": used["correct"],
        "incorrect": used["wrong"],
        "by_pairs": {str(n): lengths[n] for n in sorted(lengths)},
    }


def _require_traces(counts: dict[str, Any], attempts: Sequence[Attempt], most: int, lengths: Sequence[int]) -> None:
    if counts["traces"]:
        return
    if not any(usable(attempt) and attempt.outcome == "correct" for attempt in attempts):
        why = (
            f"none of {len(attempts)} attempts is correct and usable; try easier questions or a larger "
            "attempts.per_variant"
        )
    elif not counts["pairs_correct"]:
        why = (
            "no reflection agrees on a correct attempt; try a larger reflections.per_attempt or another reflection "
            "prompt"
        )
    elif not counts["built"]:
        why = "the pattern built none from the pairs; try another traces.pattern"
    elif not lengths:
        why = f"none of {counts['built']} traces passes its task's check; correct the task's `grade`"
    else:
        why = (
            f"all {counts['too_long']} traces are longer than traces.max_tokens = {most} (the shortest has "
            f"{min(lengths)} tokens); raise it, or lower traces.max_pairs or attempts.max_tokens"
        )
    raise NothingLeftError(f"traces: nothing is left to train on: {why}.")


def run(recipe: Recipe, run: "Run") -> None:
    """Build the traces from the records of the stages before. Raises NothingLeftError where there are none."""
    from skillfactory import engines

    questions = [question for question in run.stage("questions").rows(Question) if question.split == "sft"]
    attempts, reflections = run.stage("attempts").rows(Attempt), run.stage("reflections").rows(Reflection)
    tokenizer = engines.load_tokenizer(recipe)
    built = build(recipe, questions, attempts, reflections, task_of(recipe.questions.task), tokenizer.count_tokens)
    stage = run.stage("traces")
    kept = {trace.id for trace in stage.rows(Trace)}  # of a run that was interrupted here
    stage.append([trace for trace in built.traces if trace.id not in kept])
    stage.finish(**built.counts)
