"""Batched sampling from a Hugging Face causal model: what the transformers engine and GRPO rollouts share.

Beside plain `generate`: a prompt that is asked several times is read once; finished rows leave the batch, so that a few
long completions do not hold up the rest; the key-value cache grows in place; and every row has a random stream of its
own, so that its text does not depend on its neighbours (up to rounding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from skillfactory.engines.base import SamplingParams

SHRINK = 0.75  # the batch is gathered anew when at most this share of its rows is alive
CHUNK = 64  # positions by which the cache and the history grow


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids that a model added to prompt number `index`, its stop token included; `stopped` where it found one."""

    index: int
    ids: list[int]
    stopped: bool


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    params: SamplingParams,
    stop_ids: Sequence[int],
    batch_size: int,
) -> Iterator[Sample]:
    """One sample a prompt (token ids), in the order they finish. Equal prompts, or ones of like length, go together."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _sample_batch(model, [prompts[i] for i in rows], [seeds[i] for i in rows], params, stop_ids)
        yield from (Sample(rows[row], ids, stopped) for row, ids, stopped in batch)


def _sample_batch(
    model: Any, prompts: list[list[int]], seeds: list[int], params: SamplingParams, stop_ids: Sequence[int]
) -> Iterator[tuple[int, list[int], bool]]:
    device = model.device
    unique = {tuple(prompt): i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    which = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)  # [B]
    ids, mask = _pad_left([list(prompt) for prompt in unique], device)  # [U, P]
    cache, plain = _cache(model)
    logits = (
        model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        .logits[which, -1]
        .float()
    )  # [B, V]
    cache.batch_select_indices(which)
    mask = mask[which]  # [B, T]
    seen = None
    if params.repetition_penalty != 1:
        # Added up, since padding has the id of a token that may also be in the prompt.
        seen = torch.zeros_like(logits).scatter_add_(1, ids[which], mask.to(logits.dtype)) > 0

    alive = torch.arange(len(prompts), device=device)  # row numbers still in the batch
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # [B], finished but not yet gathered away
    streams = torch.tensor(seeds, device=device)
    stops = torch.tensor(list(stop_ids), device=device)
    positions = mask.sum(-1)
    history = torch.empty(len(prompts), 0, dtype=torch.long, device=device)
    for step in range(params.max_tokens):
        token = draw(logits, seen, uniform(streams, step), params)  # [B]
        if step % CHUNK == 0:
            history = torch.cat([history, history.new_empty(len(history), CHUNK)], dim=1)
        history[:, step] = token
        ended = torch.isin(token, stops) & ~done
        last = step + 1 == params.max_tokens
        leaving = (~done if last else ended).nonzero().flatten()
        if len(leaving):
            texts = history[leaving, : step + 1].tolist()
            yield from zip(alive[leaving].tolist(), texts, ended[leaving].tolist(), strict=True)
            done |= ended
            if last or bool(done.all()):
                return
            if int((~done).sum()) <= SHRINK * len(alive):
                keep = (~done).nonzero().flatten()
                cache.batch_select_indices(keep)
                alive, streams, positions = alive[keep], streams[keep], positions[keep]
                token, mask, history, done = token[keep], mask[keep], history[keep], done[keep]
                seen = seen[keep] if seen is not None else None
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = (
            model(
                input_ids=token[:, None],
                attention_mask=_additive(mask, model.dtype) if plain else mask,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            .logits[:, -1]
            .float()
        )
        positions = positions + 1


def draw(logits: torch.Tensor, seen: torch.Tensor | None, chance: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Tokens [B] from logits [B, V] and one uniform number a row [B].

    Repetition penalty, temperature, top-k, top-p in transformers' order (its warpers are what the test compares with).
    `seen` [B, V] marks tokens of the row so far; None where there is no penalty.
    """
    if seen is not None:
        penalized = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
        logits = torch.where(seen, penalized, logits)
    if params.temperature == 0:
        return logits.argmax(-1)
    logits = logits / params.temperature
    k = min(params.top_k or logits.shape[-1], logits.shape[-1])
    if params.top_p == 1 and k == logits.shape[-1]:
        return _inverse(logits.softmax(-1), chance)
    values, tokens = logits.topk(k, dim=-1)  # sorted, [B, k]
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= params.top_p, 0.0)
    return tokens.gather(1, _inverse(probabilities, chance)[:, None]).squeeze(1)


def _inverse(weights: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """The index at which the cumulative weight [B, n] passes the share `chance` [B] of the total."""
    cumulative = weights.cumsum(-1)
    wanted = chance.to(weights.dtype)[:, None] * cumulative[:, -1:]
    return (cumulative <= wanted).sum(-1).clamp(max=weights.shape[-1] - 1)


def uniform(streams: torch.Tensor, step: int) -> torch.Tensor:
    """Number `step` in [0, 1) of each random stream [B]: splitmix64 of the stream's seed, as a counter."""
    offset = (step + 1) * 0x9E3779B97F4A7C15 % 2**64
    x = streams + (offset - 2**64 if offset >= 2**63 else offset)  # int64, wrapping round
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685  # 0x94D049BB133111EB
    x = x ^ ((x >> 31) & 0x1FFFFFFFF)
    return ((x >> 40) & 0xFFFFFF).double() / 2**24


class GrowingLayer(DynamicLayer):
    """A cache layer that writes into a buffer with room ahead, where DynamicLayer copies itself at every token.

    While reading the prompt it returns what it holds; for later tokens it returns the whole buffer, which is contiguous
    (a slice of it would be copied by every matrix product), so the caller's mask must cover the room ahead.
    """

    keys: Any
    values: Any

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append [B, K, t, D]; returns all keys and values so far, [B, K, T, D], or the buffers [B, K, room(T), D]."""
        length = self.get_seq_length()
        needed = length + key_states.shape[-2]
        reading = not self.is_initialized
        if reading:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [_buffer(None, key_states, needed), _buffer(None, value_states, needed)]
        elif needed > self.buffers[0].shape[-2] or len(self.buffers[0]) != len(key_states):
            self.buffers = [_buffer(self.keys, key_states, needed), _buffer(self.values, value_states, needed)]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:needed] = states
        self.keys, self.values = (buffer[:, :, :needed] for buffer in self.buffers)
        return (self.keys, self.values) if reading else tuple(self.buffers)


def room(length: int) -> int:
    """Positions in a buffer that holds `length`."""
    return -(-length // CHUNK) * CHUNK


def _buffer(old: torch.Tensor | None, like: torch.Tensor, needed: int) -> torch.Tensor:
    batch, heads, _, dim = like.shape
    new = like.new_zeros(batch, heads, room(needed), dim)
    if old is not None:
        new[:, :, : old.shape[-2]] = old
    return new


def _cache(model: Any) -> tuple[DynamicCache, bool]:
    """The model's own kind of cache; made to grow in place where all its layers are plain, and whether they are."""
    cache = DynamicCache(config=model.config)
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if plain and "flash" not in model.config._attn_implementation:
        cache.layers = [GrowingLayer() for _ in cache.layers]
        return cache, True
    return cache, False


def _pad_left(prompts: list[list[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [U, P] padded on the left with 0, and their mask."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask [B, T] as numbers to add to one query's attention scores over a buffer, [B, 1, 1, room(T)]."""
    whole = torch.nn.functional.pad(mask, (0, room(mask.shape[1]) - mask.shape[1]))
    return ((1 - whole) * torch.finfo(dtype).min).to(dtype)[:, None, None, :]
