"""Batched sampling from a Hugging Face causal model: what the transformers engine and GRPO rollouts share.

Beside plain `generate`: a prompt that is asked several times is read once; finished rows leave the batch, so that a few
long completions do not hold up the rest; the key-value cache grows in place; and every row has a random stream of its
own, so that its text does not depend on its neighbours (up to rounding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from skillfactory.engines.base import SamplingParams
from skillfactory.engines.cache import CHUNK, is_growing, read, room

SHRINK = 0.75  # the batch is gathered anew when at most this share of its rows is alive


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
    limits: Sequence[int] | None = None,
) -> Iterator[Sample]:
    """One sample a prompt (token ids), in the order they finish. Equal prompts, or ones of like length, go together.

    `limits` are most tokens of each sample, 1 or more; where it is None, `params.max_tokens` of all.
    """
    limits = [params.max_tokens] * len(prompts) if limits is None else limits
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        each = ([prompts[i] for i in rows], [seeds[i] for i in rows], [limits[i] for i in rows])
        batch = _sample_batch(model, *each, params, stop_ids)
        yield from (Sample(rows[row], ids, stopped) for row, ids, stopped in batch)


def _sample_batch(
    model: Any,
    prompts: list[list[int]],
    seeds: list[int],
    limits: list[int],
    params: SamplingParams,
    stop_ids: Sequence[int],
) -> Iterator[tuple[int, list[int], bool]]:
    device = model.device
    ids, mask, logits, cache = _read_prompts(model, prompts)
    additive = is_growing(cache)
    seen = None
    if params.repetition_penalty != 1:
        # Added up, since padding has the id of a token that may also be in the prompt.
        seen = torch.zeros_like(logits).scatter_add_(1, ids, mask.to(logits.dtype)) > 0

    alive = torch.arange(len(prompts), device=device)  # row numbers still in the batch
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # [B], finished but not yet gathered away
    streams = torch.tensor(seeds, device=device)
    most = torch.tensor(limits, device=device)  # [B]
    stops = torch.tensor(list(stop_ids), device=device)
    positions = mask.sum(-1)
    history = torch.empty(len(prompts), 0, dtype=torch.long, device=device)
    for step in range(max(limits)):
        token = draw(logits, seen, uniform(streams, step), params)  # [B]
        if step % CHUNK == 0:
            history = torch.cat([history, history.new_empty(len(history), CHUNK)], dim=1)
        history[:, step] = token
        stopped = torch.isin(token, stops)
        leaving = ((stopped | (most <= step + 1)) & ~done).nonzero().flatten()
        if len(leaving):
            texts = history[leaving, : step + 1].tolist()
            yield from zip(alive[leaving].tolist(), texts, stopped[leaving].tolist(), strict=True)
            done[leaving] = True
            if bool(done.all()):
                return
            if int((~done).sum()) <= SHRINK * len(alive):
                keep = (~done).nonzero().flatten()
                cache.reorder_cache(keep)
                alive, streams, most, positions = alive[keep], streams[keep], most[keep], positions[keep]
                token, mask, history, done = token[keep], mask[keep], history[keep], done[keep]
                seen = seen[keep] if seen is not None else None
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        wide = _additive(mask, model.dtype) if additive else mask
        logits = _next_logits(model, token, wide, positions, cache)
        positions = positions + ~done  # no row goes beyond the context, also not one that waits to be gathered away


def _read_prompts(model: Any, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
    """Prompts padded on the left [B, P], their mask, the logits that follow [B, V], and the cache.

    Equal prompts are read once.
    """
    unique = {tuple(prompt): i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids, mask = _pad_left([list(prompt) for prompt in unique], model.device)  # [U, P]
    logits, cache = read(model, ids, mask)
    if len(unique) < len(prompts):
        which = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=model.device)  # [B]
        ids, mask, logits = ids[which], mask[which], logits[which]
        cache.reorder_cache(which)  # which also takes the states of hybrid models, batch_select_indices does not
    return ids, mask, logits, cache


def _next_logits(
    model: Any, token: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
) -> torch.Tensor:
    """Logits [B, V] after one more token a row [B], which the cache then holds."""
    done = model(
        input_ids=token[:, None],
        attention_mask=mask,
        position_ids=positions[:, None],
        past_key_values=cache,
        use_cache=True,
    )
    return done.logits[:, -1].float()  # type: ignore[no-any-return]


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


def _pad_left(prompts: list[list[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [U, P] padded on the left with 0, and their mask."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask [B, T] as numbers to add to one query's attention scores over a GrowingLayer, [B, 1, 1, room(T)]."""
    whole = torch.nn.functional.pad(mask, (0, room(mask.shape[1]) - mask.shape[1]))
    return ((1 - whole) * torch.finfo(dtype).min).to(dtype)[:, None, None, :]
