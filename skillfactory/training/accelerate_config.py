"""What `accelerate launch` is told of the GPUs of one machine."""

from typing import Any

from skillfactory.recipe import Recipe


def of(recipe: Recipe, stage: str) -> dict[str, Any]:
    """A configuration of `accelerate launch` for the GPUs of one machine."""
    system = recipe.training
    section = recipe.sft if stage.startswith("sft") else recipe.rl
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "mixed_precision": "bf16",
        "num_machines": 1,
        "num_processes": system.devices,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if system.shard == "fsdp2":
        return config | {
            "distributed_type": "FSDP",
            "fsdp_config": {
                "fsdp_version": 2,
                "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "fsdp_reshard_after_forward": True,
                "fsdp_state_dict_type": "FULL_STATE_DICT",
                "fsdp_cpu_ram_efficient_loading": False,
                "fsdp_activation_checkpointing": False,  # transformers has it done
                "fsdp_offload_params": False,
            },
        }
    if system.shard in ("zero2", "zero3"):
        stage3 = {"zero3_init_flag": False, "zero3_save_16bit_model": True} if system.shard == "zero3" else {}
        return config | {
            "distributed_type": "DEEPSPEED",
            "deepspeed_config": {
                "zero_stage": int(system.shard[-1]),
                "offload_optimizer_device": "none",
                "offload_param_device": "none",
                "gradient_clipping": section.max_grad_norm,
                **stage3,
            },
        }
    return config
