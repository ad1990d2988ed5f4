"""The key-value cache of a batch: prompts read into it a bounded number of tokens at a time, and room that grows."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

CHUNK = 64  # positions by which the cache grows
READ = 8192  # prompt tokens in one forward pass, padding included; more where one prompt alone is longer


class GrowingLayer(DynamicLayer):
    """A cache layer that writes into a buffer with room ahead, where DynamicLayer copies itself at every token.

    While reading the prompt it returns what it holds; for later tokens it returns the whole buffer, which is contiguous
    (a slice of it would be copied by every matrix product), so the caller's mask must cover the room ahead.
    """

    keys: Any
    values: Any
    buffers: list[torch.Tensor]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append [B, K, t, D]; returns all keys and values so far, [B, K, T, D], or the buffers [B, K, room(T), D]."""
        length = self.get_seq_length()
        needed = length + key_states.shape[-2]
        reading = not self.is_initialized
        if reading:
            self.lazy_initialization(key_states, value_states)
            self.hold([_spread(states, len(states)) for states in (key_states, value_states)], needed)
            return self.keys, self.values
        if needed > self.buffers[0].shape[-2]:
            self.buffers = [_spread(states, len(states), needed) for states in (self.keys, self.values)]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:needed] = states
        self.hold(self.buffers, needed)
        return tuple(self.buffers)

    def hold(self, buffers: list[torch.Tensor], length: int) -> None:
        """Keep the buffers, of keys and values, in which so many positions are taken."""
        self.buffers = buffers
        self.keys, self.values = (buffer[:, :, :length] for buffer in buffers)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows, in this order; some may come several times."""
        self.hold([buffer.index_select(0, beam_idx) for buffer in self.buffers], self.get_seq_length())


def room(length: int) -> int:
    """Positions in a buffer that holds `length`."""
    return -(-length // CHUNK) * CHUNK


def _spread(states: torch.Tensor, rows: int, length: int = 0, start: int = 0) -> torch.Tensor:
    """The states [n, K, t, D] from row `start` of zeros [rows, K, room, D], with room for `length` or t positions."""
    heads, own, dim = states.shape[1:]
    new = states.new_zeros(rows, heads, room(max(length, own)), dim)
    new[start : start + len(states), :, :own] = states
    return new


def read(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, DynamicCache]:
    """Logits [U, V] after each prompt, and the cache of all, from ids and mask [U, P], padded left, short ones first.

    Prompts are read a few at a time, so that a forward pass has READ tokens at most; all at once where the model keeps
    more of a prompt than keys and values.
    """
    lengths = mask.sum(-1).tolist()
    slices = list(_slices(lengths)) if _can_join(new_cache(model)) else [(0, len(lengths))]
    logits: list[torch.Tensor] = []
    whole: DynamicCache | None = None
    for start, end in reversed(slices):  # the longest first: it says how much room all need
        width = lengths[end - 1]
        cache, seen = new_cache(model), mask[start:end, -width:]
        out = model(
            input_ids=ids[start:end, -width:],
            attention_mask=seen,
            position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits.insert(0, out.logits[:, -1].float())
        if whole is not None:
            _place(cache, whole, start)
        elif len(slices) > 1:
            whole = _widened(cache, len(lengths), start)
        else:
            whole = cache
    assert whole is not None
    return torch.cat(logits), whole


def _slices(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Where each slice of prompts starts and ends; lengths rise."""
    start = 0
    for end, length in enumerate(lengths):
        if end > start and (end + 1 - start) * length > READ:
            yield start, end
            start = end
    yield start, len(lengths)


def _widened(cache: DynamicCache, rows: int, start: int) -> DynamicCache:
    """The cache with so many rows, its own from row `start`, the rest still to be placed."""
    for layer in cache.layers:
        if not layer.is_initialized:  # it shares another's keys
            continue
        length = layer.keys.shape[-2]
        layer.keys, layer.values = (_spread(states, rows, start=start) for states in (layer.keys, layer.values))
        if isinstance(layer, GrowingLayer):
            layer.hold([layer.keys, layer.values], length)
        else:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
    return cache


def _place(cache: DynamicCache, whole: DynamicCache, start: int) -> None:
    """Copy what is no longer than the whole into its rows from `start`, its last position where the whole's last is."""
    for layer, into in zip(cache.layers, whole.layers, strict=True):
        if layer.is_initialized:
            rows, first = slice(start, start + len(layer.keys)), into.keys.shape[-2] - layer.keys.shape[-2]
            into.keys[rows, :, first:], into.values[rows, :, first:] = layer.keys, layer.values


def new_cache(model: Any) -> DynamicCache:
    """The model's own kind of cache; made to grow in place where all its layers are plain (see `is_growing`)."""
    cache = DynamicCache(config=model.config)
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if plain and "flash" not in model.config._attn_implementation:
        cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache


def is_growing(cache: DynamicCache) -> bool:
    """Whether the cache returns room ahead, which the mask must cover."""
    return all(type(layer) is GrowingLayer for layer in cache.layers)


def _can_join(cache: DynamicCache) -> bool:
    return all(type(layer) in (GrowingLayer, DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
