"""Our attention against eager attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_recipe

from skillfactory.engines.attention import grouped_attention
from skillfactory.engines.models import load_model


def reference_attention(query: Any, key: Any, value: Any, mask: Any, scaling: float) -> Any:
    """Eager attention with key and value heads repeated: [B, T, H, D]."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(2, 3) * scaling
    return ((scores if mask is None else scores + mask).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("lengths", [(7, 7), (1, 9), (3, 9)])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_attention_is_eager_attention(heads: tuple[int, int], lengths: tuple[int, int], masked: bool) -> None:
    torch.manual_seed(0)
    query = torch.randn(4, heads[0], lengths[0], 8, requires_grad=True)
    key, value = torch.randn(4, heads[1], lengths[1], 8), torch.randn(4, heads[1], lengths[1], 8)
    mask = None
    if masked:
        hidden = torch.rand(4, 1, *lengths) < 0.4
        hidden[..., 0] = False
        mask = hidden.float() * torch.finfo(torch.float32).min
    found, _ = grouped_attention(None, query, key, value, mask, scaling=0.3)
    wanted = reference_attention(query, key, value, mask, 0.3)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(out.square().sum(), query)[0] for out in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_grouped_attention_in_a_model_with_padding(random_model: Path) -> None:
    recipe = make_recipe(model=str(random_model))
    ids = torch.randint(5, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0] * 5 + [1] * 7, [1] * 12])
    logits = []
    for attention in ("grouped", "eager"):
        machine = recipe.machine.model_copy(update={"attention": attention})
        model = load_model(recipe.model_copy(update={"machine": machine}), training=True)
        assert model.config._attn_implementation == attention
        logits.append(model(input_ids=ids, attention_mask=mask).logits[mask.bool()])
    torch.testing.assert_close(*logits)


def test_padding_before_short_prompts_is_harmless_in_bfloat16(random_model: Path) -> None:
    """A row of padding may look at nothing at all: no NaN may come of it, in training either."""
    models = {
        name: load_model(
            make_recipe(model=str(random_model), machine={"attention": name, "device": "cpu"}), training=True
        )
        for name in ("grouped", "sdpa")
    }
    ids, mask = torch.randint(5, 60, (2, 24), generator=torch.Generator().manual_seed(0)), torch.ones(2, 24).long()
    mask[0, :7] = 0
    found = {}
    for name, model in models.items():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=mask).logits
        logits[:, 7:].float().log_softmax(-1).mean().backward()
        found[name] = logits[:, 7:].float()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    apart = (found["grouped"] - found["sdpa"]).abs().mean() / found["sdpa"].std()
    assert float(apart) < 0.05  # rounding
