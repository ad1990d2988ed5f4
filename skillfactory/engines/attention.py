"""Grouped-query attention by plain matrix products: for small models on CPU, where SDPA is slow on short sequences.

`benchmarks/` measures it beside `sdpa` and `eager`. Registered under the name `grouped` through transformers'
`AttentionInterface`, so any model that supports the interface can use it.
"""

from typing import Any

NAME = "grouped"
BLOCK = 128  # queries at a time: what lies in a block's future is never computed, and its scores stay in the cache


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
    Under autocast all of it is done in the lower precision; autocast itself would do the softmax in float32.
    """
    import torch

    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attention_mask is not None:
            # float32's lowest number is -inf in bfloat16, of which a row of padding, all of it masked, would make NaN.
            attention_mask = attention_mask.clamp(min=torch.finfo(dtype).min).to(dtype)
    batch, heads, length, dim = query.shape
    shared, whole = key.shape[1], key.shape[2]
    query = (query * (dim**-0.5 if scaling is None else scaling)).view(batch, shared, heads // shared, length, dim)
    causal = getattr(module, "is_causal", True) and length == whole
    with torch.autocast(kind, enabled=False):
        blocks = []
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            seen = end if causal else whole
            mask = None if attention_mask is None else attention_mask[..., start:end, :seen]
            blocks.append(_block(query[:, :, :, start:end], key[:, :, :seen], value[:, :, :seen], mask))
    mixed = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=3)  # [B, K, G, T, D]
    return mixed.flatten(1, 2).transpose(1, 2).contiguous(), None


def _block(query: Any, key: Any, value: Any, mask: Any) -> Any:
    """Attention of `query` [B, K, G, t, D], already scaled, over [B, K, s, D]; `mask` [B or 1, 1, t, s] or None."""
    group, length = query.shape[2:4]
    scores = query.flatten(2, 3) @ key.transpose(2, 3)  # [B, K, G*t, s]
    if mask is not None:
        scores = (scores.unflatten(2, (group, length)) + mask.unsqueeze(2)).flatten(2, 3)
    return (scores.softmax(-1) @ value).unflatten(2, (group, length))
