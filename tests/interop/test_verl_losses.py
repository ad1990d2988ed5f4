"""verl's losses, with our settings, against TRL's definitions (trl/trainer/grpo_trainer.py)."""

from pathlib import Path
from typing import Any

import pytest
from verl_jobs import composed, job_of, recipe_of

pytest.importorskip("verl", reason="verl is not installed")

import torch

ALL = {"dp_size": 1, "batch_num_tokens": None, "global_batch_size": None}


def trls_loss(rl: Any, new: Any, old: Any, advantages: Any, mask: Any) -> Any:
    log_ratio = new - old
    if rl.importance == "sequence":
        log_ratio = ((log_ratio * mask).sum(-1) / mask.sum(-1)).unsqueeze(-1)
    ratio = log_ratio.exp()
    low, high = rl.epsilon, rl.epsilon_high or rl.epsilon
    if rl.loss_type == "cispo":
        losses = -ratio.clamp(max=high).detach() * advantages * new
    elif rl.loss_type == "sapo":
        tau = torch.where(advantages > 0, torch.tensor(1.0), torch.tensor(1.05))
        losses = -torch.sigmoid(tau * (ratio - 1)) * 4 / tau * advantages
    else:
        losses = -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    losses = losses * mask
    if rl.loss_type in ("grpo", "sapo"):
        return (losses.sum(-1) / mask.sum(-1)).mean()
    return losses.sum() / (len(mask) * rl.max_tokens if rl.loss_type == "dr_grpo" else mask.sum())


@pytest.mark.parametrize(
    "rl",
    [
        {}, {"epsilon_high": 0.28}, {"loss_type": "dapo"}, {"loss_type": "dr_grpo"},
        {"loss_type": "cispo", "epsilon_high": 1.5}, {"loss_type": "sapo"}, {"importance": "sequence"},
    ],
)  # fmt: skip
def test_its_loss_is_trls(tmp_path: Path, rl: dict[str, Any]) -> None:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    recipe = recipe_of(**rl)
    actor = omega_conf_to_dataclass(composed(recipe, job_of(tmp_path)).actor_rollout_ref.actor)
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(6, 9, generator=generator)
    new = (old + 0.4 * torch.randn(6, 9, generator=generator)).requires_grad_()
    mask = (torch.arange(9)[None] < torch.tensor([9, 3, 1, 7, 5, 2])[:, None]).float()
    advantages = torch.tensor([1.5, -0.5, 0.7, -1.0, 0.2, -0.1])[:, None].expand(6, 9)
    actor.global_batch_info.update(ALL | {"loss_scale_factor": actor.loss_scale_factor})
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=old, log_prob=new, advantages=advantages, response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode, config=actor,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, new)
    wanted = trls_loss(recipe.rl, new, old, advantages, mask)
    (wanted_gradient,) = torch.autograd.grad(wanted, new)
    assert float(wanted_gradient.abs().max()) > 1e-3
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-6)
