"""One process of several that write a checkpoint as verl's trainer does, on CPU: `… MODEL FOLDER RANK_OF_ADAPTERS`.

The weights are changed before, or given adapters; logits of the result go to FOLDER.logits.pt.
"""

import sys

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

TOKENS = torch.arange(5, 25)[None]


def main(source: str, folder: str, rank: int) -> None:
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),), mesh_dim_names=("fsdp",))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    inner = model
    if rank:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    else:
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.25)
    with torch.no_grad():
        logits = model(TOKENS).logits
    for layer in inner.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    tokenizer = AutoTokenizer.from_pretrained(source)
    manager = FSDPCheckpointManager(model, optimizer, processing_class=tokenizer)
    manager.save_checkpoint(folder, None, global_step=2, max_ckpt_to_keep=1)
    if torch.distributed.get_rank() == 0:
        torch.save(logits, f"{folder}.logits.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
