"""The transformers engine: any Hugging Face causal model with a chat template, on the machine at hand."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from skillfactory.engines.base import ENGINE_FAILED, PROMPT_TOO_LONG, Completion, Request, SamplingParams, failed
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.recipe import Recipe

AHEAD = 4  # batches' worth of requests to choose the next batch from: prompts of one length go together


class TransformersEngine:
    """See Engine. Samples up to `batch_size` rows at once (`sampler.py`); fewer once a batch did not fit in memory."""

    def __init__(self, model: Any, chat: ChatTokenizer, batch_size: int) -> None:
        self.model, self.chat, self.batch_size = model, chat, batch_size
        self.context = getattr(model.config, "max_position_embeddings", None) or 10**9

    @classmethod
    def load(cls, recipe: Recipe, model: str | Path | None = None) -> Self:
        """The recipe's base model, or a folder. Raises ModelError."""
        chat = ChatTokenizer.load(recipe, model)
        return cls(load_model(recipe, model).eval(), chat, recipe.machine.batch_size)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """See Engine. Requests are asked for until there are a few batches of them, and the longest kind goes first.

        A kind is all that has the same settings but for `max_tokens`: each row of a batch has a limit of its own.
        """
        stream, ended = iter(requests), False
        waiting: dict[SamplingParams, list[tuple[Request, list[int]]]] = {}
        while True:
            while not ended and sum(map(len, waiting.values())) < AHEAD * self.batch_size:
                try:
                    request = next(stream)
                except StopIteration:
                    ended = True
                    break
                if request is None:
                    break
                prompt = self.chat.encode(request.messages, request.prefix)
                if len(prompt) >= self.context:
                    yield failed(request, PROMPT_TOO_LONG)
                else:
                    waiting.setdefault(replace(request.params, max_tokens=0), []).append((request, prompt))
            if not waiting:
                if ended:
                    return
                continue
            params = max(waiting, key=lambda key: len(waiting[key]))
            chosen = sorted(waiting.pop(params), key=lambda each: (len(each[1]), each[1]))
            if rest := chosen[self.batch_size :]:
                waiting[params] = rest
            yield from self._batch(chosen[: self.batch_size], params)

    def _batch(self, chosen: list[tuple[Request, list[int]]], params: SamplingParams) -> Iterator[Completion]:
        """One batch; where memory does not suffice, what is not done is tried again in halves."""
        from skillfactory.engines.sampler import sample

        stops = stop_ids(self.model, self.chat.tokenizer)
        left = dict(enumerate(chosen))
        try:
            prompts, streams = [prompt for _, prompt in chosen], [request.seed for request, _ in chosen]
            limits = [min(request.params.max_tokens, self.context - len(prompt)) for request, prompt in chosen]
            for done in sample(self.model, prompts, streams, params, stops, len(chosen), limits):
                request, _ = left.pop(done.index)
                text = self.chat.decode(done.ids[:-1] if done.stopped else done.ids)
                yield Completion(request.id, text, len(done.ids), "stop" if done.stopped else "length")
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        again = list(left.values())
        if len(chosen) == 1:
            yield failed(again[0][0], ENGINE_FAILED)
            return
        release(self.model)
        half = len(chosen) // 2
        self.batch_size = min(self.batch_size, half)  # of later batches, too
        for start in range(0, len(again), half):
            yield from self._batch(again[start : start + half], params)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the machine's, did not suffice."""
    import torch

    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text


def release(model: Any) -> None:
    """Give cached device memory back before trying a smaller batch."""
    import gc

    import torch

    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a turn: the tokenizer's, and those of the model's generation settings."""
    more = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = more if isinstance(more, list) else [more]
    return sorted({i for i in [tokenizer.eos_token_id, *more] if i is not None})
