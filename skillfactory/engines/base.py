"""What an engine is: requests stream in, completions stream out as they finish."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from skillfactory.recipe import Sampling
from skillfactory.records import FinishReason, Message

# Codes of `Completion.error`; they become the `reason` of an attempt.
PROMPT_TOO_LONG = "prompt_too_long"  # the prompt, with its prefix, leaves no room in the model's context
ENGINE_FAILED = "engine_failed"  # tried again and given up; the log says why


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens; the fields are those of the recipe's `Sampling`."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_tokens: int

    @classmethod
    def of(cls, section: Sampling) -> Self:
        """The sampling settings of a recipe's section."""
        return cls(section.temperature, section.top_p, section.top_k, section.repetition_penalty, section.max_tokens)

    def greedy(self) -> "SamplingParams":
        """The same lengths and penalties at temperature 0."""
        return replace(self, temperature=0.0, top_p=1.0, top_k=0)


@dataclass(frozen=True, slots=True)
class Request:
    """One completion wanted. Its text depends on what it is to follow, the sampling settings and its own seed alone.

    `prefix` is text that the assistant's turn already holds; the completion is what comes after it.
    """

    id: str
    messages: list[Message]
    seed: int
    params: SamplingParams
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion, without the request's prefix. `tokens` counts generated tokens, the end-of-turn token included.

    `error` is "" or, where `finish_reason` is "failed", one of the codes above.
    """

    id: str
    text: str
    tokens: int
    finish_reason: FinishReason
    error: str = ""


def failed(request: Request, error: str) -> Completion:
    """What stands for a completion that could not be made."""
    return Completion(request.id, "", 0, "failed", error)


class TokenCounter(Protocol):
    """Counts tokens as the model's chat template writes them."""

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        """Tokens of the prompt, and of the completion with its end of turn where one is given."""
        ...

    def count_each(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself."""
        ...


class Engine(Protocol):
    """A source of text."""

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """One completion a request, each as soon as it is there; requests are taken as there is room for them.

        None among the requests says that there is nothing to ask for until one of those in flight has come back (it
        never comes while none is in flight): a request may follow from an earlier completion. An engine tries a request
        again that fails for a reason that may pass, and in the end gives a completion that says `failed`. Raises
        EngineError where no request can be served any more; what was yielded before is kept by the caller.
        """
        ...
