"""Drawing samples: for each question what its traces lack, until they lack nothing; or the paper's whole budget.

A question's needs follow from what has been drawn (`patterns.arrange`), so requests follow from completions: they
stream into the engine, from as many questions at once as it has room for, oldest first.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skillfactory import seeds
from skillfactory.curation.attempts import attempt_of, attempt_request
from skillfactory.curation.patterns import arrange, patterns_of
from skillfactory.curation.pool import ATTEMPT, Want
from skillfactory.curation.prompts import prompts_of
from skillfactory.curation.reflections import reflection_of, reflection_request
from skillfactory.curation.samples import CORRECT, UNDRAWN, USELESS, WRONG, QuestionSamples, Slots
from skillfactory.curation.sampling import usable
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.tasks.deadline import WORKERS
from skillfactory.tasks.questions import is_slow, sft_spec, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Engine, Request


@dataclass(frozen=True, slots=True)
class Known:
    """A question and the samples of it that are there already; `attempts` are those that reflections may be on."""

    question: Question
    samples: QuestionSamples
    attempts: dict[int, Attempt]


@dataclass(frozen=True, slots=True)
class Done:
    """All that a question's traces need has been drawn."""

    question_id: str


Row = Attempt | Reflection | Done


@dataclass
class _Asked:
    """A question at work: its usable attempts by slot, and how many requests are out."""

    question: Question
    samples: QuestionSamples
    attempts: dict[int, Attempt]
    out: int = 0


def question_seed(recipe: Recipe, question: Question) -> int:
    """The seed of all that is random in arranging a question's traces."""
    return seeds.derive(recipe.seed, "traces", question.id)


def lacking(recipe: Recipe, question: Question, samples: QuestionSamples) -> list[Want]:
    """The samples to draw next for a question; none where its traces are complete."""
    if recipe.attempts.budget == "paper":
        return _paper(samples, reflect=any(pattern.reflect for pattern, _ in patterns_of(recipe.traces).values()))
    return arrange(samples, patterns_of(recipe.traces), recipe.traces, question_seed(recipe, question)).wants


def _paper(samples: QuestionSamples, reflect: bool) -> list[Want]:
    """Every attempt; then, if one is correct, every reflection on the usable ones (without one no trace can be)."""
    attempts = [Want(slot) for slot, state in enumerate(samples.state) if state == UNDRAWN]
    if attempts or not reflect or CORRECT not in samples.state:
        return attempts
    return [
        Want(slot, number)
        for slot, state in enumerate(samples.state)
        if state in (CORRECT, WRONG)
        for number in range(samples.places.per_attempt)
        if not samples.drawn[slot] >> number & 1
    ]


@dataclass
class _Desk:
    """Turns questions into requests and completions into rows."""

    recipe: Recipe
    items: Iterator[Known]
    asked: dict[str, tuple[_Asked, Want]] = field(default_factory=dict)  # by request id
    queue: "deque[Request]" = field(default_factory=deque)
    rows: deque[Row] = field(default_factory=deque)
    grading: "dict[Future[Attempt], str]" = field(default_factory=dict)
    in_flight: int = 0

    def __post_init__(self) -> None:
        self.task = task_of(sft_spec(self.recipe))
        self.prompts = prompts_of(self.recipe.attempts)
        self.threads = ThreadPoolExecutor(WORKERS)
        self.slow = is_slow(self.task)

    def requests(self) -> "Iterator[Request | None]":
        """Requests as long as there are any; None while all that is known is in flight."""
        while True:
            if self.queue:
                self.in_flight += 1
                yield self.queue.popleft()
            elif (item := next(self.items, None)) is not None:
                self._ask(_Asked(item.question, item.samples, item.attempts))
            elif self.in_flight:
                yield None
            elif self.grading:
                self.collect(wait_for_one=True)
            else:
                return

    def take(self, completion: "Completion") -> None:
        """A completion has come: note what it says, and ask for what follows from it."""
        self.in_flight -= 1
        asked, want = self.asked[completion.id]
        if want.reflection != ATTEMPT:
            del self.asked[completion.id]
            self._note_reflection(asked, want, reflection_of(completion, asked.attempts[want.slot], want.reflection))
        elif self.slow:
            future = self.threads.submit(self._grade, completion, asked, want)
            self.grading[future] = completion.id
            self.collect(wait_for_one=len(self.grading) > 4 * WORKERS)
        else:
            del self.asked[completion.id]
            self._note_attempt(asked, want, self._grade(completion, asked, want))

    def collect(self, wait_for_one: bool = False) -> None:
        """Take in the attempts whose slow checks are done."""
        if wait_for_one:
            wait(self.grading, return_when=FIRST_COMPLETED)
        for future in [future for future in self.grading if future.done()]:
            asked, want = self.asked.pop(self.grading.pop(future))
            self._note_attempt(asked, want, future.result())

    def _grade(self, completion: "Completion", asked: _Asked, want: Want) -> Attempt:
        variant, index = asked.samples.places.place(want.slot)
        whole = self.recipe.attempts.whole
        return attempt_of(completion, asked.question, variant, index, self.task, self.prompts, whole)

    def _note_attempt(self, asked: _Asked, want: Want, attempt: Attempt) -> None:
        samples = asked.samples
        samples.state[want.slot] = USELESS
        if usable(attempt):
            samples.state[want.slot] = CORRECT if attempt.outcome == "correct" else WRONG
            samples.answers[want.slot] = attempt.answer
            asked.attempts[want.slot] = attempt
        self._came(asked, attempt)

    def _note_reflection(self, asked: _Asked, want: Want, reflection: Reflection) -> None:
        asked.samples.drawn[want.slot] |= 1 << want.reflection
        asked.samples.agree[want.slot] |= int(reflection.agrees) << want.reflection
        self._came(asked, reflection)

    def _came(self, asked: _Asked, row: Row) -> None:
        self.rows.append(row)
        asked.out -= 1
        if not asked.out:
            self._ask(asked)

    def _ask(self, asked: _Asked) -> None:
        wants = lacking(self.recipe, asked.question, asked.samples)
        for want in wants:
            request = self._request(asked, want)
            self.asked[request.id] = (asked, want)
            self.queue.append(request)
        asked.out = len(wants)
        if not wants:
            self.rows.append(Done(asked.question.id))

    def _request(self, asked: _Asked, want: Want) -> "Request":
        if want.reflection == ATTEMPT:
            variant, index = asked.samples.places.place(want.slot)
            return attempt_request(self.recipe, asked.question, variant, index, self.prompts)
        attempt = asked.attempts[want.slot]
        return reflection_request(self.recipe, asked.question, attempt, want.reflection, self.prompts)


def draw(engine: "Engine", items: Iterable[Known], recipe: Recipe) -> Iterator[Row]:
    """What the questions lack, as it comes: attempts, reflections, and `Done` once for each question."""
    desk = _Desk(recipe, iter(items))
    try:
        try:
            for completion in engine.generate(desk.requests()):
                desk.take(completion)
                while desk.rows:
                    yield desk.rows.popleft()
        except (Exception, KeyboardInterrupt):
            yield from desk.rows  # what has been graded is kept
            raise
        yield from desk.rows
    finally:
        desk.threads.shutdown(wait=False, cancel_futures=True)


def slots_of(recipe: Recipe) -> Slots:
    """The places of attempts that the recipe asks for."""
    variants = prompts_of(recipe.attempts).asked(recipe.attempts, task_of(recipe.questions.task))
    return Slots(tuple(variants), recipe.attempts.per_variant, recipe.reflections.per_attempt)
