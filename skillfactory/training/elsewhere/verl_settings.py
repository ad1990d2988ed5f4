"""The recipe's RL section in the terms of verl 0.9: the settings of `verl.trainer.main_ppo` by their dotted names.

Names and defaults are those of verl's own files (verl/trainer/config). What is not set here is verl's default; two of
these change the result against TRL: its clipping has a second bound for negative advantages (`clip_ratio_c`, 3), and
schedules move once a step, not once an update. `training.verl.options` wins over everything.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillfactory import seeds
from skillfactory.errors import RecipeError
from skillfactory.planning.steps import updates_per_step
from skillfactory.recipe import Recipe, Rl

CHECKPOINTS, ROLLOUTS, FIGURES, TRAIN, DEV = "checkpoints", "rollouts", "figures.jsonl", "train.parquet", "dev.parquet"
# How TRL's losses are averaged over tokens, in verl's words. TRL's `bnpo` averages within a micro-batch: verl never.
_AVERAGED = {
    "grpo": "seq-mean-token-mean",
    "sapo": "seq-mean-token-mean",
    "dapo": "token-mean",
    "cispo": "token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}


@dataclass(frozen=True)
class Job:
    """What the settings need to know beside the recipe: files, the model to start from, tokens of the longest prompt.

    `done` steps are in a checkpoint. `environment` is for verl's workers, which may run on other machines.
    """

    folder: Path
    reward: Path
    model: str
    prompt_tokens: int
    done: int
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


def check(recipe: Recipe) -> None:
    """Raises RecipeError for what verl cannot do of a recipe, in one sentence that says what to do instead."""
    rl = recipe.rl
    cannot = {
        "rl.scale_rewards: batch": (rl.scale_rewards == "batch", "say group or none"),
        "rl.mask_truncated": (rl.mask_truncated, "leave it off, or shape the reward by rl.shaping.overlong"),
        "rl.loss_type: bnpo": (rl.loss_type == "bnpo", "say dapo, which averages over the tokens of an update"),
        f"rl.importance: sequence with rl.loss_type: {rl.loss_type}": (
            rl.importance == "sequence" and rl.loss_type != "grpo", "say grpo",
        ),
        "rl.schedule: linear": (rl.schedule == "linear", "say cosine, constant or constant_with_warmup"),
        "rl.more_tokens and rl.more_seconds": (bool(rl.more_tokens or rl.more_seconds), "raise rl.steps"),
        "rl.lora.dropout": (bool(rl.lora.rank and rl.lora.dropout), "say 0"),
        f"machine.device: {recipe.machine.device}": (recipe.machine.device in ("cpu", "mps"), "it needs CUDA GPUs"),
    }  # fmt: skip
    for what, (wanted, instead) in cannot.items():
        if wanted:
            raise RecipeError(f"training.backend: verl cannot do {what}; {instead}.")
    updates_per_step(rl, recipe.questions.rl, recipe.training.devices * recipe.training.verl.nodes)


def settings(recipe: Recipe, job: Job) -> dict[str, Any]:
    """verl's settings for a recipe, by their dotted names, the user's own last."""
    system = recipe.training
    ours = (
        _data(recipe, job)
        | _learning(recipe, job)
        | _rollouts(recipe)
        | _reward(recipe.rl, job)
        | _trainer(recipe, job)
    )
    given = system.verl.options
    plain = {name.lstrip("+~") for name in given}
    return {name: value for name, value in ours.items() if name.lstrip("+~") not in plain} | given


def overrides(chosen: Mapping[str, Any]) -> list[str]:
    """Settings as Hydra's command line takes them."""
    return [name if name.startswith("~") else f"{name}={written(value)}" for name, value in chosen.items()]


def written(value: Any) -> str:
    """A value in Hydra's grammar; text is quoted, whatever it holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quoted = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", value)
        quoted = re.sub(r"(\\+)$", lambda found: found[1] * 2, quoted)
        return "'" + quoted.replace("${", r"\${") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value)


def save_every(rl: Rl) -> int:
    """Steps between checkpoints: as the recipe says, and where a model may have to be kept."""
    kept = [rl.keep_every] if rl.keep_every else []
    return math.gcd(rl.save_every, *kept, *([rl.dev_every] if rl.keep == "best" and rl.dev_every else []))


def _data(recipe: Recipe, job: Job) -> dict[str, Any]:
    return {
        "data.train_files": str(job.folder / TRAIN),
        "data.val_files": str(job.folder / DEV),
        "data.train_batch_size": recipe.rl.prompts_per_step,
        "data.max_prompt_length": job.prompt_tokens,
        "data.max_response_length": recipe.rl.max_tokens,
        "data.shuffle": False,  # the file has the questions in the order in which they are asked
        "data.truncation": "error",
        "data.seed": _seed(recipe),
        "data.trust_remote_code": recipe.trust_remote_code,
    }


def _learning(recipe: Recipe, job: Job) -> dict[str, Any]:
    rl, actor, model = recipe.rl, "actor_rollout_ref.actor", "actor_rollout_ref.model"
    lower, upper = rl.epsilon, rl.epsilon_high or rl.epsilon
    if rl.loss_type == "cispo":  # TRL's bound is of the ratio itself, with none below
        lower, upper = 1.0, upper - 1.0
    mode = "gspo" if rl.importance == "sequence" else {"cispo": "cispo", "sapo": "sapo"}.get(rl.loss_type, "vanilla")
    warmup = 0 if rl.schedule == "constant" else math.ceil(rl.warmup * rl.steps)
    found: dict[str, Any] = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": rl.scale_rewards == "group",
        "algorithm.use_kl_in_reward": False,
        f"{model}.path": job.model,
        f"{model}.trust_remote_code": recipe.trust_remote_code,
        f"{model}.enable_gradient_checkpointing": rl.gradient_checkpointing,
        f"{actor}.strategy": "fsdp2",
        f"{actor}.ppo_mini_batch_size": rl.mini_batch or rl.prompts_per_step,
        f"{actor}.ppo_micro_batch_size_per_gpu": rl.micro_batch,
        f"{actor}.ppo_epochs": rl.iterations,
        f"{actor}.data_loader_seed": _seed(recipe),
        f"{actor}.clip_ratio": lower,
        f"{actor}.clip_ratio_low": lower,
        f"{actor}.clip_ratio_high": upper,
        f"{actor}.loss_agg_mode": _AVERAGED[rl.loss_type],
        f"{actor}.policy_loss.loss_mode": mode,
        f"{actor}.use_kl_loss": rl.beta > 0,
        f"{actor}.entropy_coeff": 0,
        f"{actor}.optim.lr": rl.learning_rate,
        f"{actor}.optim.lr_scheduler_type": "cosine" if rl.schedule == "cosine" else "constant",
        f"{actor}.optim.lr_warmup_steps": warmup,
        f"{actor}.optim.betas": [0.9, rl.adam_beta2],
        f"{actor}.optim.weight_decay": rl.weight_decay,
        f"{actor}.optim.clip_grad": rl.max_grad_norm,
    }
    if rl.loss_type == "dr_grpo":
        found[f"{actor}.loss_scale_factor"] = rl.max_tokens
    if rl.beta:
        found |= {f"{actor}.kl_loss_coef": rl.beta, f"{actor}.kl_loss_type": "low_var_kl"}
        found["actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu"] = rl.micro_batch
    if rl.lora.rank:
        found |= {f"{model}.lora_rank": rl.lora.rank, f"{model}.lora_alpha": rl.lora.alpha or 2 * rl.lora.rank}
        # Merged for sampling as well: vLLM then needs to know nothing of adapters.
        found |= {f"{model}.target_modules": rl.lora.targets or "all-linear", f"{model}.lora.merge": True}
    return found


def _rollouts(recipe: Recipe) -> dict[str, Any]:
    rl, rollout = recipe.rl, "actor_rollout_ref.rollout"
    found: dict[str, Any] = {
        f"{rollout}.name": "vllm",
        f"{rollout}.n": rl.group_size,
        f"{rollout}.temperature": rl.temperature,
        f"{rollout}.top_p": 1.0,
        f"{rollout}.top_k": -1,
        f"{rollout}.seed": _seed(recipe),
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": rl.micro_batch,
        # On dev questions it samples as the evaluation does, but for a penalty on repetitions, which verl has not.
        f"{rollout}.val_kwargs.do_sample": recipe.evaluation.temperature > 0,
        f"{rollout}.val_kwargs.temperature": recipe.evaluation.temperature,
        f"{rollout}.val_kwargs.top_p": recipe.evaluation.top_p,
        f"{rollout}.val_kwargs.top_k": recipe.evaluation.top_k or -1,
        f"{rollout}.val_kwargs.n": 1,
    }
    if recipe.machine.dtype != "auto":
        found[f"{rollout}.dtype"] = recipe.machine.dtype
    return found


def _reward(rl: Rl, job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {
        "reward.custom_reward_function.path": str(job.reward),
        "reward.custom_reward_function.name": "compute_score",
    }
    if rl.shaping.overlong:
        buffer = {"enable": True, "len": rl.shaping.overlong, "penalty_factor": 1.0, "log": False}
        found |= {"reward.reward_manager.name": "dapo", "+reward.reward_kwargs.max_resp_len": rl.max_tokens}
        found |= {f"+reward.reward_kwargs.overlong_buffer_cfg.{name}": value for name, value in buffer.items()}
    return found


def _trainer(recipe: Recipe, job: Job) -> dict[str, Any]:
    rl = recipe.rl
    return {
        "trainer.total_epochs": 1,  # the file holds the questions of all steps
        "trainer.total_training_steps": rl.steps,
        "trainer.n_gpus_per_node": recipe.training.devices,
        "trainer.nnodes": recipe.training.verl.nodes,
        "trainer.default_local_dir": str(job.folder / CHECKPOINTS),
        "trainer.resume_mode": "auto",
        "trainer.save_freq": save_every(rl),
        # What else is kept of earlier ones is sorted out by verl_watch.py.
        "trainer.max_actor_ckpt_to_keep": 1 if rl.keep == "last" and not rl.keep_every else None,
        "trainer.test_freq": rl.dev_every or -1,
        "trainer.val_before_train": bool(rl.dev_every) and not job.done,
        "trainer.rollout_data_dir": str(job.folder / ROLLOUTS),
        "trainer.logger": ["console", "file", *recipe.report_to],
        "trainer.project_name": "skillfactory",
        "trainer.experiment_name": job.name,
        "hydra.run.dir": str(job.folder / "hydra"),
        **{f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}": value for name, value in job.environment.items()},
    }


def _seed(recipe: Recipe) -> int:
    return seeds.derive(recipe.seed, "rl") % 2**31
