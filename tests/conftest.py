"""Settings of all tests, and the models that they share."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # some tests hold the benchmarks to their word
settings.register_profile("tests", deadline=None)  # the first example pays for imports
settings.load_profile("tests")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A tokenizer as the embedded model's, over a small sample of its world."""
    from skillfactory import seeds
    from skillfactory.tiny import tokenizer
    from skillfactory.tiny.world import World

    world = World(seeds.rng(0, "test"))
    texts = [message["content"] for _ in range(400) for message in world.dialogue()]
    return tokenizer.build(texts, ["Let me try again.", "This is the final answer."])


@pytest.fixture(scope="session")
def random_model(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a Llama of two layers with random weights in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
        initializer_range=0.3, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "random"
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base_model() -> str:
    """The model of end-to-end tests: the embedded one, or another folder that SKILLFACTORY_TEST_MODEL names."""
    return os.environ.get("SKILLFACTORY_TEST_MODEL", "tiny")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows (objects, or lines as they are) to a file and give its path."""

    def write(*rows: object, name: str = "own.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return str(path)

    return write
