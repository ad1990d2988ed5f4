"""Loading Hugging Face models and tokenizers, with errors that say what is wrong with a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skillfactory.errors import ModelError
from skillfactory.machine import SMALL_MODEL, count_parameters, pick_device, quiet_libraries
from skillfactory.recipe import Recipe
from skillfactory.records import Message
from skillfactory.shortage import is_shortage
from skillfactory.tiny import FOLDER as TINY_FOLDER


def locate(recipe: Recipe, model: str | Path | None = None) -> str:
    """The folder or hub id to load: the recipe's base model unless `model` says another."""
    name = str(model or recipe.model)
    return str(TINY_FOLDER) if name == "tiny" else name


def hub_options(recipe: Recipe, model: str | Path | None = None) -> dict[str, Any]:
    """Revision and trust, for the recipe's own model; what a run has made itself is read without either."""
    if model is not None:
        return {}
    return {"revision": recipe.revision or None, "trust_remote_code": recipe.trust_remote_code}


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer whose chat template works."""

    tokenizer: Any

    @classmethod
    def load(cls, recipe: Recipe, model: str | Path | None = None) -> Self:
        """Load and try it. Raises ModelError for a missing tokenizer, chat template or end-of-turn token."""
        from transformers import AutoTokenizer

        name = locate(recipe, model)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **hub_options(recipe, model))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"Model `{name}`: no tokenizer could be loaded ({first_line(error)}); name a Hugging Face folder with "
                "tokenizer.json and config.json, or a hub id that this machine can reach."
            ) from error
        if not tokenizer.chat_template:
            raise ModelError(
                f"Model `{name}`: its tokenizer has no chat template; use an instruct model, or add a "
                "chat_template.jinja file to the folder."
            )
        if tokenizer.eos_token_id is None:
            raise ModelError(f"Model `{name}`: its tokenizer has no end-of-turn (eos) token; set eos_token.")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "left"
        loaded = cls(tokenizer)
        loaded.encode([{"role": "user", "content": "?"}])
        return loaded

    def encode(self, messages: list[Message], prefix: str = "") -> list[int]:
        """Token ids of a chat up to where the model is to answer, or to go on after the prefix of an answer.

        Raises ModelError where the template fails.
        """
        ids: list[int] = self.tokenizer(self.write(messages) + prefix, add_special_tokens=False)["input_ids"]
        return ids

    def write(self, messages: list[Message], asks: bool = True) -> str:
        """A chat as the template writes it; if it `asks`, up to where the model is to answer.

        Raises ModelError where that fails.
        """
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        except TemplateError as error:
            raise ModelError(
                f"The chat template of the model cannot write roles {[m['role'] for m in messages]}: {error}."
            ) from error
        return text

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        """See TokenCounter."""
        extra = self.count_each([completion])[0] + 1 if completion else 0
        return len(self.encode(messages)) + extra

    def count_each(self, texts: Sequence[str]) -> list[int]:
        """See TokenCounter. Several at once, on all cores."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None and texts:
            return [len(each) for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        return [len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def load_model(recipe: Recipe, model: str | Path | None = None, *, training: bool = False) -> Any:
    """A causal language model on the recipe's device: float32 for training, else the recipe's sampling type.

    Raises ModelError where the folder or id holds no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from skillfactory.engines.attention import NAME, register

    quiet_libraries()
    name = locate(recipe, model)
    device = pick_device(recipe.machine.device)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=torch.float32 if training else _dtype(recipe, device),
            use_safetensors=True,
            **hub_options(recipe, model),
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if is_shortage(error):
            raise
        raise ModelError(
            f"Model `{name}` could not be loaded ({first_line(error)}); name a Hugging Face folder of a causal "
            "language model with safetensors, or a hub id that this machine can reach."
        ) from error
    small = count_parameters(loaded) < SMALL_MODEL
    attention = recipe.machine.attention
    if attention == "auto":
        attention = "grouped" if small and device == "cpu" else "sdpa"
    loaded.set_attn_implementation(register() if attention == NAME else attention)
    if device == "cpu":
        torch.set_num_threads(recipe.machine.threads or (1 if small else torch.get_num_threads()))
    # What is split over devices is brought there in parts.
    system = recipe.training
    is_split = training and system.devices > 1 and bool(system.accelerate or system.shard != "none")
    return loaded if is_split else loaded.to(device)


def _dtype(recipe: Recipe, device: str) -> Any:
    """The type to sample in. `auto` is the file's own, but float32 on a CPU that has no bfloat16 instructions."""
    import torch

    if recipe.machine.dtype != "auto":
        return getattr(torch, recipe.machine.dtype)
    if device == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        return torch.float32
    return "auto"


def first_line(error: Exception) -> str:
    """What a library says went wrong, in one line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
