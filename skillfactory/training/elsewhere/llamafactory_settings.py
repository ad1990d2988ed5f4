"""The recipe's SFT section in the terms of LLaMA-Factory 0.9: what stands in its YAML file."""

import math
from pathlib import Path
from typing import Any

from skillfactory import seeds
from skillfactory.errors import RecipeError
from skillfactory.planning.steps import sft_batch
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage

DATA, DEEPSPEED, OUT = "data", "deepspeed.json", "../checkpoints"  # from the folder that it works in
ROOM = 64  # tokens beyond the longest trace: a template of its own may take a few more, and what is longer it cuts


def check(recipe: Recipe) -> None:
    """Raises RecipeError for what it cannot do of a recipe."""
    if recipe.sft.dev_every or recipe.sft.keep == "best":
        raise RecipeError(
            "training.sft: llamafactory cannot measure dev questions; set sft.dev_every to 0 and sft.keep to last, "
            "or training.sft to trl."
        )


def settings(recipe: Recipe, stage: Stage, traces: int, longest: int) -> dict[str, Any]:
    """Its settings for a recipe, the user's own last. Paths are seen from the stage's folder `llamafactory`."""
    from skillfactory.engines.models import locate
    from skillfactory.machine import pick_device
    from skillfactory.training import loggers

    sft, system = recipe.sft, recipe.training
    micro, accumulated = sft_batch(sft, traces, system.devices)
    model, on_cpu = locate(recipe), pick_device(recipe.machine.device) == "cpu"
    logged = loggers.settings(recipe, stage)
    ours: dict[str, Any] = {
        "model_name_or_path": str(Path(model).absolute()) if Path(model).is_dir() else model,
        **({"model_revision": recipe.revision} if recipe.revision else {}),
        **({"trust_remote_code": True} if recipe.trust_remote_code else {}),
        "stage": "sft",
        "do_train": True,
        **_adapters(recipe),
        "dataset": recipe.name,
        "dataset_dir": DATA,
        "cutoff_len": longest + ROOM,
        "overwrite_cache": True,
        "output_dir": OUT,
        "num_train_epochs": sft.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulated,
        "learning_rate": sft.learning_rate,
        "lr_scheduler_type": sft.schedule,
        "adam_beta2": sft.adam_beta2,
        "weight_decay": sft.weight_decay,
        "max_grad_norm": sft.max_grad_norm,
        "disable_gradient_checkpointing": not sft.gradient_checkpointing,
        "ddp_find_unused_parameters": False,
        "bf16": not on_cpu,
        "use_cpu": on_cpu,
        "seed": seeds.derive(recipe.seed, "sft") % 2**31,
        "save_steps": sft.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": recipe.report_to or "none",
        "plot_loss": False,
        **({"run_name": logged["run_name"], "project": logged["project"]} if recipe.report_to else {}),
        **_sharding(recipe),
    }
    # In steps: a share of them is written in two ways by the versions of transformers that it takes.
    ours["warmup_steps"] = math.ceil(sft.warmup * total_steps(ours, traces, system.devices))
    return ours | system.llamafactory.options


def total_steps(chosen: dict[str, Any], traces: int, devices: int) -> int:
    """Optimizer steps of the whole training."""
    micro: int = chosen["per_device_train_batch_size"]
    at_once: int = chosen["gradient_accumulation_steps"]
    epochs: float = chosen["num_train_epochs"]
    return math.ceil(epochs * math.ceil(math.ceil(traces / (micro * devices)) / at_once))


def _adapters(recipe: Recipe) -> dict[str, Any]:
    lora = recipe.sft.lora
    if not lora.rank:
        return {"finetuning_type": "full"}
    return {
        "finetuning_type": "lora",
        "lora_rank": lora.rank,
        "lora_alpha": lora.alpha or 2 * lora.rank,
        "lora_dropout": lora.dropout,
        "lora_target": ",".join(lora.targets) or "all",
    }


def _sharding(recipe: Recipe) -> dict[str, Any]:
    shard = recipe.training.shard
    if shard == "fsdp2":
        wrap = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"}
        config = {"version": 2, "reshard_after_forward": True, "cpu_ram_efficient_loading": False, **wrap}
        return {"fsdp": "full_shard auto_wrap", "fsdp_config": config}
    return {"deepspeed": DEEPSPEED} if shard in ("zero2", "zero3") else {}


def deepspeed(recipe: Recipe) -> dict[str, Any]:
    """DeepSpeed's configuration; `auto` is filled in from the other settings."""
    auto = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
    stage3 = {"stage3_gather_16bit_weights_on_model_save": True} if recipe.training.shard == "zero3" else {}
    return {
        **auto,
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": 3 if recipe.training.shard == "zero3" else 2, "overlap_comm": True, **stage3},
    }
