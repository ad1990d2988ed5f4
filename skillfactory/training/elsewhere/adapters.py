"""Adds low-rank adapters to the model beside which they were trained.

    python -m skillfactory.training.elsewhere.adapters FOLDER

FOLDER is a Hugging Face folder with the adapters in its `lora_adapter`, as verl's merger leaves them. Runs in verl's
environment, which has peft.
"""

import shutil
import sys
from pathlib import Path


def merge(folder: Path) -> None:
    """Add the adapters of a folder to its weights, and delete them."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # so that sums are rounded once
    merged = PeftModel.from_pretrained(base, folder / "lora_adapter").merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(folder)  # as verl's merger writes
    shutil.rmtree(folder / "lora_adapter")


if __name__ == "__main__":
    merge(Path(sys.argv[1]))
