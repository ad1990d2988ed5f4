"""Attempts and true reflections, written as traces in which retrying and checking are explicit (paper §1c).

The format is the paper's, blank lines included. Every piece of a trace is recorded with where it comes from.

Deviations:
1. An attempt enters with one of its true reflections, so no attempt stands twice in a trace.
2. A finished trace is graded like any completion; should its answer not be found right, it is dropped and counted.
3. A trace that is too long is dropped and counted, never cut.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from skillfactory import seeds
from skillfactory.curation.drawing import question_seed
from skillfactory.curation.patterns import Pattern, arrange, patterns_of
from skillfactory.curation.phrases import Phrases, load_phrases
from skillfactory.curation.pool import Pair
from skillfactory.curation.prompts import prompts_of
from skillfactory.curation.samples import CORRECT, Chunk
from skillfactory.curation.tally import percentiles
from skillfactory.engines.base import TokenCounter
from skillfactory.recipe import Recipe
from skillfactory.records import Message, Question, Step, Trace
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import grade_all

LOSSES = ("no_attempt", "no_correct_attempt", "no_true_reflection", "not_enough_pairs", "answer_lost", "too_long")


@dataclass(frozen=True, slots=True)
class Piece:
    """A pair with its texts; `reflection` is None where attempts stand alone."""

    attempt_id: str
    attempt: str
    answer: str
    correct: bool
    reflection_id: str = ""
    reflection: str | None = None


def write_trace(pieces: Sequence[Piece], phrases: Phrases, closing: str, rng: Random) -> tuple[str, list[Step]]:
    """The completion of a trace and its provenance. Its answer is that of the last correct attempt."""
    parts, steps = [], []
    for number, piece in enumerate(pieces, start=1):
        last = number == len(pieces)
        judged = None if piece.reflection is None else piece.correct
        phrase = rng.choice(phrases.before_answer(closing) if last else phrases.glue(judged))
        parts.append(f"<sample>\n{piece.attempt.strip()}\n</sample>")
        if piece.reflection is not None:
            parts.append(f"<reflect>\n{piece.reflection.strip()}\n</reflect>")
        if not last:
            parts.append(phrase)
        steps.append(Step(piece.attempt_id, piece.reflection_id, phrase))
    answer = next(piece.answer for piece in reversed(pieces) if piece.correct)
    thoughts = "\n".join(parts)
    return f"<think>\n{thoughts}\n</think>\n\n{steps[-1].phrase}\n\n<answer>\n{answer}\n</answer>", steps


@dataclass(slots=True)
class _Draft:
    """A trace on its way; `place` is its question's in the chunk."""

    place: int
    pattern: Pattern
    pairs: list[Pair]
    rng: Random
    completion: str = ""
    steps: list[Step] = field(default_factory=list)


class Builder:
    """Builds traces chunk by chunk, and counts what was lost on the way.

    `lacking` are questions whose samples are not complete: they give no traces yet. Building depends on nothing but the
    samples and the recipe; so whatever was sampled besides, the traces are the same.
    """

    def __init__(self, recipe: Recipe, task: Task, counter: TokenCounter) -> None:
        self.recipe, self.task, self.counter = recipe, task, counter
        self.prompts = prompts_of(recipe.attempts)
        self.phrases = load_phrases(recipe.traces.phrases)
        self.patterns = patterns_of(recipe.traces)
        self.lacking: list[Question] = []
        self.lengths: Counter[int] = Counter()  # traces that are kept, by their number of tokens
        self.shortest_dropped = 0
        self._count: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._by_pairs: Counter[int] = Counter()
        self._by_pattern: Counter[str] = Counter()

    @property
    def traces(self) -> int:
        """How many there are so far."""
        return self.lengths.total()

    @property
    def looked_at(self) -> int:
        """Questions so far."""
        return self._count["questions"]

    @property
    def full(self) -> bool:
        """Whether traces.limit is reached."""
        return 0 < self.recipe.traces.limit <= self.traces

    def build(self, chunks: Iterable[Chunk]) -> Iterator[list[Trace]]:
        """The traces of each chunk of questions in turn, until the limit is reached."""
        pending: tuple[Chunk, list[_Draft], set[int], Future[list[int]]] | None = None
        with ThreadPoolExecutor(1) as thread:  # tokens of one chunk are counted while the next is arranged
            for chunk in chunks:
                drafts, lacking = self._arrange(chunk)
                self._write(chunk, drafts)
                drafts = self._distinct(drafts)
                counted = thread.submit(self.counter.count_each, [draft.completion for draft in drafts])
                if pending:
                    yield self._finish(*pending)
                    pending = None
                    if self.full:
                        return
                pending = chunk, drafts, lacking, counted
            if pending:
                yield self._finish(*pending)

    def _finish(
        self, chunk: Chunk, arranged: list[_Draft], lacking: set[int], counted: "Future[list[int]]"
    ) -> list[Trace]:
        """Grade and measure what was arranged; note what was lost where."""
        self._count["questions"] += len(chunk.questions)
        sound = self._sound(chunk, list(zip(arranged, counted.result(), strict=True)))
        kept = self._measured(chunk, sound)
        reached = {
            "not_enough_pairs": arranged, "answer_lost": [draft for draft, _ in sound],
            "too_long": [draft for draft, _ in kept],
        }  # fmt: skip
        self._note_lost(chunk, {step: {draft.place for draft in drafts} for step, drafts in reached.items()}, lacking)
        if self.recipe.traces.limit:
            kept = kept[: self.recipe.traces.limit - self.traces]
        for draft, trace in kept:
            self.lengths[trace.tokens] += 1
            self._by_pairs[len(draft.pairs)] += 1
            self._by_pattern[trace.pattern] += 1
            right = sum(pair.correct for pair in draft.pairs)
            self._count["pairs_correct"] += right
            self._count["pairs_incorrect"] += len(draft.pairs) - right
        self._count["questions_with_traces"] += len({draft.place for draft, _ in kept})
        return [trace for _, trace in kept]

    def _note_lost(self, chunk: Chunk, reached: dict[str, set[int]], lacking: set[int]) -> None:
        """For each question without a trace, the step at which it had none left."""
        reflect = any(pattern.reflect for pattern, _ in self.patterns.values())
        right = chunk.state == CORRECT
        tried, solved = np.any(chunk.attempt_row >= 0, axis=1).tolist(), np.any(right, axis=1).tolist()
        paired = np.any(right & (chunk.agree > 0), axis=1).tolist() if reflect else solved
        for place in set(range(len(chunk.questions))) - lacking - reached["too_long"]:
            if not solved[place]:
                self._lost["no_correct_attempt" if tried[place] else "no_attempt"] += 1
            elif not paired[place]:
                self._lost["no_true_reflection"] += 1
            else:
                self._lost[next(step for step, places in reached.items() if place not in places)] += 1

    def counts(self) -> dict[str, Any]:
        """For the manifest. `lost` are questions without a trace, by the step that took the last one."""
        keys = (
            "built", "repeated", "answer_lost", "too_long", "not_enough_pairs", "questions", "questions_with_traces",
            "pairs_correct", "pairs_incorrect",
        )  # fmt: skip
        return {
            "traces": self.traces,
            **{key: self._count[key] for key in keys},
            "lost": {step: self._lost[step] for step in LOSSES if self._lost[step]},
            "by_pairs": {str(n): self._by_pairs[n] for n in sorted(self._by_pairs)},
            "by_pattern": dict(sorted(self._by_pattern.items())),
            "tokens": sum(length * n for length, n in self.lengths.items()),
            "tokens_percentiles": percentiles(self.lengths),
            "shortest_dropped": self.shortest_dropped,
        }

    def _arrange(self, chunk: Chunk) -> tuple[list[_Draft], set[int]]:
        """Traces without their texts, and the places of questions that lack samples."""
        drafts, lacking = [], set[int]()
        for place, (question, samples) in enumerate(zip(chunk.questions, chunk.samples(), strict=True)):
            found = arrange(samples, self.patterns, self.recipe.traces, question_seed(self.recipe, question))
            if found.wants:
                self.lacking.append(question)
                lacking.add(place)
                continue
            self._count["not_enough_pairs"] += found.short
            drafts += [_Draft(place, *each) for each in found.traces]
        return drafts, lacking

    def _write(self, chunk: Chunk, drafts: list[_Draft]) -> None:
        """Write the completions; texts are read from the tables all at once."""
        import pyarrow

        if not drafts:
            return
        pairs = [(draft.place, pair.slot, draft.pattern.reflect) for draft in drafts for pair in draft.pairs]
        rows = chunk.attempts.take(pyarrow.array([chunk.attempt_row[place, slot] for place, slot, _ in pairs]))
        ids, texts = rows["id"].to_pylist(), rows["text"].to_pylist()
        judged = [chunk.reflection_row[place, slot] for place, slot, reflect in pairs if reflect]
        said = chunk.reflections.take(pyarrow.array(judged)) if judged else None
        reflections = iter(zip(said["id"].to_pylist(), said["text"].to_pylist(), strict=True) if said else ())
        own = iter(zip(ids, texts, strict=True))
        for draft in drafts:
            pieces = [
                Piece(*next(own), pair.answer, pair.correct, *(next(reflections) if draft.pattern.reflect else ()))
                for pair in draft.pairs
            ]
            if draft.pattern.plain:
                draft.completion, draft.steps = pieces[0].attempt.strip(), [Step(pieces[0].attempt_id, "", "")]
            else:
                draft.completion, draft.steps = write_trace(pieces, self.phrases, draft.pattern.closing, draft.rng)
        self._count["built"] += len(drafts)

    def _distinct(self, drafts: list[_Draft]) -> list[_Draft]:
        unique = {(draft.place, draft.completion): draft for draft in reversed(drafts)}
        self._count["repeated"] += len(drafts) - len(unique)
        return list(reversed(unique.values()))

    def _sound(self, chunk: Chunk, drafts: list[tuple[_Draft, int]]) -> list[tuple[_Draft, int]]:
        grades = grade_all(self.task, [(chunk.questions[draft.place], draft.completion) for draft, _ in drafts])
        # What is learnt as it is was graded as an attempt, by whoever could; the text is the same.
        sound = [
            each
            for each, grade in zip(drafts, grades, strict=True)
            if grade.outcome == "correct" or each[0].pattern.plain
        ]
        self._count["answer_lost"] += len(drafts) - len(sound)
        return sound

    def _measured(self, chunk: Chunk, drafts: list[tuple[_Draft, int]]) -> list[tuple[_Draft, Trace]]:
        """Those that fit the SFT context, as records; drafts come with the tokens of their completions."""
        most = self.recipe.traces.max_tokens
        prompts: dict[int, tuple[list[Message], int]] = {}
        traces = []
        for draft, tokens in drafts:
            question = chunk.questions[draft.place]
            if draft.place not in prompts:
                prompt = self.prompts.train(question.text)
                prompts[draft.place] = prompt, self.counter.count_tokens(prompt)
            prompt, of_prompt = prompts[draft.place]
            total = of_prompt + tokens + 1
            if total > most:
                self._count["too_long"] += 1
                self.shortest_dropped = min(self.shortest_dropped or total, total)
                continue
            trace_id = seeds.content_id("trace", question.id, draft.completion)
            trace = Trace(trace_id, question.id, draft.pattern.name, draft.steps, prompt, draft.completion, total)
            traces.append((draft, trace))
        return traces
