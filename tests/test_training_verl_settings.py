"""The recipe in verl's terms, and what of it is refused."""

from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe
from played_verl import with_verl

from skillfactory import pipeline
from skillfactory.errors import RecipeError
from skillfactory.recipe import Recipe
from skillfactory.training.elsewhere import verl_settings
from skillfactory.training.elsewhere.verl_settings import Job


def settings(recipe: Recipe, done: int = 0) -> dict[str, Any]:
    folder = Path("/runs/r/rl/verl")
    return verl_settings.settings(
        recipe, Job(folder, folder / "reward.py", "/models/sft", 77, done, "name", {"A": "b"})
    )


def test_the_papers_settings() -> None:
    recipe = Recipe.model_validate(make_recipe().model_dump() | {"rl": {"schedule": "constant_with_warmup"}})
    found = settings(recipe)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    wanted = {
        "algorithm.adv_estimator": "grpo", "data.train_batch_size": 256, f"{actor}.ppo_mini_batch_size": 32,
        f"{rollout}.n": 16, "trainer.total_training_steps": 150, "data.max_response_length": 4096,
        f"{actor}.optim.lr": 1e-6, f"{actor}.use_kl_loss": False, "algorithm.use_kl_in_reward": False,
        f"{actor}.loss_agg_mode": "seq-mean-token-mean", f"{actor}.clip_ratio_low": 0.2,
        f"{actor}.clip_ratio_high": 0.2, f"{rollout}.name": "vllm", f"{actor}.strategy": "fsdp2",
        "trainer.resume_mode": "auto", f"{rollout}.temperature": 1.0, f"{actor}.optim.lr_warmup_steps": 8,
        "data.max_prompt_length": 77, "actor_rollout_ref.model.path": "/models/sft",
        "trainer.logger": ["console", "file"], "+ray_kwargs.ray_init.runtime_env.env_vars.A": "b",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert not any("lora" in name or "kl_loss_coef" in name or "reward_kwargs" in name for name in found)


@pytest.mark.parametrize(
    ("rl", "wanted"),
    [
        ({"loss_type": "dapo", "epsilon_high": 0.28}, {"loss_agg_mode": "token-mean", "clip_ratio_high": 0.28}),
        ({"loss_type": "dr_grpo"}, {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": 12}),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0,
                                                       "policy_loss.loss_mode": "cispo"}),
        ({"loss_type": "sapo"}, {"policy_loss.loss_mode": "sapo", "loss_agg_mode": "seq-mean-token-mean"}),
        ({"importance": "sequence"}, {"policy_loss.loss_mode": "gspo", "loss_agg_mode": "seq-mean-token-mean"}),
        ({"iterations": 3}, {"ppo_epochs": 3}),
        ({"beta": 0.05}, {"use_kl_loss": True, "kl_loss_coef": 0.05, "kl_loss_type": "low_var_kl"}),
        ({"schedule": "cosine", "warmup": 0.5}, {"optim.lr_scheduler_type": "cosine", "optim.lr_warmup_steps": 2}),
        ({"schedule": "constant", "warmup": 0.5}, {"optim.lr_warmup_steps": 0}),
    ],
)  # fmt: skip
def test_the_recipes_losses(rl: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = settings(with_verl(rl=rl))
    assert {name: found[f"actor_rollout_ref.actor.{name}"] for name in wanted} == wanted


def test_other_settings() -> None:
    found = settings(
        with_verl(
            rl={"lora": {"rank": 8}, "scale_rewards": "none", "shaping": {"overlong": 3}, "dev_every": 2},
            training={"devices": 4, "verl": {"nodes": 2}}, report_to=["wandb"], evaluation=EVALUATION,
        )
    )  # fmt: skip
    model = "actor_rollout_ref.model"
    assert (found["trainer.n_gpus_per_node"], found["trainer.nnodes"]) == (4, 2)
    assert (found[f"{model}.lora_rank"], found[f"{model}.lora_alpha"], found[f"{model}.lora.merge"]) == (8, 16, True)
    assert found["algorithm.norm_adv_by_std_in_grpo"] is False
    assert found["reward.reward_manager.name"] == "dapo"
    assert found["+reward.reward_kwargs.overlong_buffer_cfg.len"] == 3
    assert found["trainer.logger"] == ["console", "file", "wandb"]
    assert (found["trainer.test_freq"], found["trainer.val_before_train"]) == (2, True)
    assert found["actor_rollout_ref.rollout.val_kwargs.temperature"] == 0.4
    assert settings(with_verl(rl={"dev_every": 2}), done=2)["trainer.val_before_train"] is False


EVALUATION = {"temperature": 0.4, "sets": {"s": {"task": {"name": "multiplication"}}}}


@pytest.mark.parametrize(
    ("rl", "every", "kept"),
    [
        ({"save_every": 50}, 50, 1), ({"save_every": 50, "keep_every": 20}, 10, None),
        ({"save_every": 50, "keep": "best", "dev_every": 5}, 5, None), ({"save_every": 50, "dev_every": 5}, 50, 1),
    ],
)  # fmt: skip
def test_checkpoints_that_are_needed_are_made(rl: dict[str, Any], every: int, kept: int | None) -> None:
    found = settings(with_verl(rl=rl))
    assert (found["trainer.save_freq"], found["trainer.max_actor_ckpt_to_keep"]) == (every, kept)


def test_the_users_options_win() -> None:
    options = {"actor_rollout_ref.rollout.n": 5, "+reward.reward_kwargs.max_resp_len": 9, "trainer.device": "npu"}
    found = settings(with_verl(rl={"shaping": {"overlong": 3}}, training={"verl": {"options": options}}))
    assert list(found)[-3:] == list(options)
    assert {name: found[name] for name in options} == options
    plain = {"reward.reward_kwargs.max_resp_len": 9}
    found = settings(with_verl(rl={"shaping": {"overlong": 3}}, training={"verl": {"options": plain}}))
    assert [name for name in found if "max_resp_len" in name] == ["reward.reward_kwargs.max_resp_len"]


def test_hydras_grammar() -> None:
    given = {"a": True, "b": None, "c": 1e-06, "d": "it's", "e": ["x", 1], "f": {"g": [False]}, "h": "end\\", "~i": ""}
    assert verl_settings.overrides(given) == [
        "a=true", "b=null", "c=1e-06", r"d='it\'s'", "e=['x',1]", "f={g:[false]}", r"h='end\\'", "~i",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rl": {"scale_rewards": "batch"}}, "cannot do rl.scale_rewards: batch; say group or none"),
        ({"rl": {"mask_truncated": True}}, "cannot do rl.mask_truncated"),
        ({"rl": {"loss_type": "bnpo"}}, "cannot do rl.loss_type: bnpo; say dapo"),
        ({"rl": {"loss_type": "dapo", "importance": "sequence"}}, "rl.importance: sequence with rl.loss_type: dapo"),
        ({"rl": {"schedule": "linear"}}, "rl.schedule: linear"),
        ({"rl": {"more_tokens": 5}}, "raise rl.steps"),
        ({"rl": {"lora": {"rank": 4, "dropout": 0.1}}}, "rl.lora.dropout; say 0"),
        ({"machine": {"device": "cpu"}}, "machine.device: cpu; it needs CUDA GPUs"),
        ({"training": {"devices": 2, "verl": {"nodes": 4}}}, r"rl.micro_batch \(2\) x training.devices \(8\) must"),
        (
            {"training": {"verl": {"options": {"actor_rollout_ref.rollout.tensor_model_parallel_size": "all"}}}},
            "training.verl.options: actor_rollout_ref.rollout.tensor_model_parallel_size is 'all'",
        ),
        ({"training": {"verl": {"python": ""}}}, "training.verl.python is not set; give the Python"),
        ({"training": {"verl": {"python": "/none/such"}}}, "training.verl.python: there is no /none/such"),
    ],
)
def test_refusals(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        pipeline.check(with_verl(**sections))
