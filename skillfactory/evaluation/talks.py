"""How one sample of a question becomes its responses: the first budget, and the two lines of budget forcing after it.

A talk asks for one completion after another and never waits itself, so that an engine can hold thousands of them.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.prompts import Prompts
from skillfactory.evaluation.forcing import answered, closed, reopened
from skillfactory.recipe import Recipe
from skillfactory.records import FinishReason, Message, Question

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Request, SamplingParams

Key = tuple[str, str, str, str, int]  # model, set, mode, question id, sample
Talk = Generator["Request | Drafted", "Completion | None", Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A response so far: all of its text, and the tokens that the model wrote, with those that forcing took away."""

    text: str
    tokens: int
    finish_reason: FinishReason
    forced: int = 0
    cut: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One sample that is wanted: who answers what. `mode` is "sampled" or "greedy"."""

    model: str
    set: str
    mode: str
    question: Question
    sample: int

    def key(self, mode: str) -> Key:
        return self.model, self.set, mode, self.question.id, self.sample


@dataclass(frozen=True, slots=True)
class Item:
    """A sample with the modes in which it is still lacking, and its response to the first budget, if that is there."""

    ask: Ask
    missing: tuple[str, ...]
    begun: Draft | None = None


@dataclass(frozen=True, slots=True)
class Drafted:
    """A response that is to be graded."""

    ask: Ask
    mode: str
    draft: Draft


def modes_of(ask: Ask, recipe: Recipe) -> tuple[str, ...]:
    """The modes of the responses that come of one sample: itself, and with budgets both of its lines."""
    budgets = recipe.evaluation.forcing.budgets
    if ask.mode != "sampled" or not budgets or "@" in ask.model:  # models kept on the way show skills, no more
        return (ask.mode,)
    first = f"unforced-{recipe.evaluation.max_tokens}"
    return (ask.mode, first, *(f"{line}-{budget}" for budget in budgets for line in ("unforced", "forced")))


def talk(item: Item, prompts: Prompts, recipe: Recipe) -> Talk:
    """Ask for a sample's responses one after the other: yields requests, is sent completions, and yields drafts."""
    ask, section = item.ask, recipe.evaluation
    write = partial(_write, ask, prompts.train(ask.question.text), recipe)
    draft = item.begun
    if draft is None:
        draft = yield from write(ask.mode, Draft("", 0, "length"), section.max_tokens)
        yield Drafted(ask, ask.mode, draft)
    if set(item.missing) <= {ask.mode}:
        return
    left_alone = forced = draft
    for budget in (section.max_tokens, *section.forcing.budgets):
        lines = {f"unforced-{budget}": left_alone}
        if budget > section.max_tokens:
            left_alone = yield from write(f"unforced-{budget}", left_alone, budget)
            again = replace(
                forced, text=reopened(forced.text, section.forcing), forced=forced.forced + 1, finish_reason="length"
            )
            forced = yield from write(f"forced-{budget}", forced if forced.error else again, budget)
            lines = {f"unforced-{budget}": left_alone, f"forced-{budget}": forced}
        for mode, draft in lines.items():
            if mode in item.missing:
                yield Drafted(ask, mode, (yield from _close(ask, prompts, recipe, mode, draft)))


def _write(ask: Ask, messages: list[Message], recipe: Recipe, mode: str, draft: Draft, budget: int) -> Talk:
    """Let the model go on with a draft that was cut off, up to `budget` tokens in all; returns the longer draft."""
    from skillfactory.engines.base import PROMPT_TOO_LONG, Request

    if draft.finish_reason != "length" or draft.tokens >= budget:
        return draft
    # The seed does not depend on the model, so that models differ by nothing but themselves.
    own = seeds.derive(recipe.seed, "evaluation", ask.question.id, mode, ask.sample)
    params = replace(params_of(recipe, ask.mode), max_tokens=budget - draft.tokens)
    completion = yield Request("", messages, own, params, draft.text)
    assert completion is not None, "a request is answered by a completion"
    if completion.error == PROMPT_TOO_LONG and draft.text:
        return draft  # it has come to the end of the model's context: that is its budget
    if completion.finish_reason == "failed":
        return replace(draft, finish_reason="failed", error=completion.error or "engine_failed")
    return replace(
        draft,
        text=draft.text + completion.text,
        tokens=draft.tokens + completion.tokens,
        finish_reason=completion.finish_reason,
    )


def _close(ask: Ask, prompts: Prompts, recipe: Recipe, mode: str, draft: Draft) -> Talk:
    """Ask for an answer where a line has come to its end without one; returns the draft that has it."""
    phrase = load_phrases(recipe.traces.phrases).closing[0]
    text = None if draft.error else closed(draft.text, phrase)
    if text is None:
        return draft
    asked = replace(draft, text=text, finish_reason="length")
    budget = draft.tokens + recipe.evaluation.forcing.answer_tokens
    done: Draft = yield from _write(ask, prompts.train(ask.question.text), recipe, f"{mode}, answer", asked, budget)
    if done.error or done.tokens == draft.tokens:  # there was no room to ask
        return replace(done, text=draft.text, finish_reason="failed" if done.error else draft.finish_reason)
    kept = len(text.rpartition("<answer>")[0])
    return replace(done, text=answered(text, done.text[len(text) :]), finish_reason=draft.finish_reason, cut=kept)


def params_of(recipe: Recipe, mode: str) -> "SamplingParams":
    """The engine's sampling parameters; greedy is temperature 0."""
    from skillfactory.engines.base import SamplingParams

    section = recipe.evaluation
    return SamplingParams.of(section if mode == "sampled" else section.model_copy(update={"temperature": 0.0}))
