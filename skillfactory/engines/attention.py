"""Grouped-query attention by plain matrix products: for small models on CPU, where SDPA is slow on short sequences.

`benchmarks/` measures it beside `sdpa` and `eager`. Registered under the name `grouped` through transformers'
`AttentionInterface`, so any model that supports the interface can use it.
"""

from typing import Any

NAME = "grouped"


def register() -> str:
    """Make `attn_implementation="grouped"` known to transformers; returns the name. May be called often."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def grouped_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    """Attention of `query` [B, H, T, D] over `key`, `value` [B, K, S, D], H a multiple of K; returns [B, T, H, D].

    `attention_mask` is additive, [B or 1, 1, T, S]. Key and value heads are not copied for the queries that share them.
    """
    batch, heads, length, dim = query.shape
    shared = key.shape[1]
    group = heads // shared
    scale = dim**-0.5 if scaling is None else scaling
    folded = (query * scale).reshape(batch, shared, group * length, dim)
    scores = folded @ key.transpose(2, 3)  # [B, K, G*T, S]
    if attention_mask is not None:
        scores = (scores.view(batch, shared, group, length, -1) + attention_mask.unsqueeze(2)).flatten(2, 3)
    mixed = scores.softmax(-1) @ value  # [B, K, G*T, D]
    return mixed.view(batch, heads, length, dim).transpose(1, 2).contiguous(), None
