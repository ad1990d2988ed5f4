"""What an engine is: requests go in, completions come out as they finish."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from skillfactory.recipe import Sampling
from skillfactory.records import FinishReason, Message


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
        return SamplingParams(0.0, 1.0, 0, self.repetition_penalty, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Request:
    """One completion wanted. Its text depends on the messages, the sampling settings and its own seed alone."""

    id: str
    messages: list[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. `tokens` counts generated tokens, the end-of-turn token included."""

    id: str
    text: str
    tokens: int
    finish_reason: FinishReason


class TokenCounter(Protocol):
    """Counts tokens as the model's chat template writes them."""

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        """Tokens of the prompt, and of the completion with its end of turn where one is given."""
        ...


class Engine(TokenCounter, Protocol):
    """A source of text."""

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        """One completion a request, in the order they finish."""
        ...
