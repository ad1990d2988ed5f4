"""The transformers engine: any Hugging Face causal model with a chat template, on the machine at hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.recipe import Recipe
from skillfactory.records import Message


class TransformersEngine:
    """See Engine. Samples up to `batch_size` rows at once (`sampler.py`)."""

    def __init__(self, model: Any, chat: ChatTokenizer, batch_size: int) -> None:
        self.model, self.chat, self.batch_size = model, chat, batch_size

    @classmethod
    def load(cls, recipe: Recipe, model: str | Path | None = None) -> Self:
        """The recipe's base model, or a folder. Raises ModelError."""
        chat = ChatTokenizer.load(recipe, model)
        return cls(load_model(recipe, model).eval(), chat, recipe.machine.batch_size)

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        """See Engine."""
        from skillfactory.engines.sampler import sample

        stops = stop_ids(self.model, self.chat.tokenizer)
        prompts = [self.chat.encode(request.messages) for request in requests]
        for done in sample(self.model, prompts, [r.seed for r in requests], params, stops, self.batch_size):
            text = self.chat.decode(done.ids[:-1] if done.stopped else done.ids)
            yield Completion(requests[done.index].id, text, len(done.ids), "stop" if done.stopped else "length")

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        """See TokenCounter."""
        return self.chat.count_tokens(messages, completion)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those of the model's generation settings."""
    more = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = more if isinstance(more, list) else [more]
    return sorted({i for i in [tokenizer.eos_token_id, *more] if i is not None})
