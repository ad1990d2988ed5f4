"""How large a model is, and of what shape: by its files on this machine, or its config.json, or what its name says."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skillfactory.recipe import Recipe

_TYPES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # of safetensors: bytes
_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated MLPs (Llama, Qwen, Olmo, …): counts of what it is made of, not bytes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    tied: bool

    @property
    def queries(self) -> int:
        """Width of a token's queries in a layer."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of a token's keys, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def layer(self) -> int:
        """Parameters of a layer, without biases."""
        return 2 * self.hidden * (self.queries + self.keys) + 3 * self.hidden * self.inner + 2 * self.hidden

    @property
    def table(self) -> int:
        """Parameters of the embeddings; as many again of the head, where the two are not tied."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.layers * self.layer + self.table * (1 if self.tied else 2) + self.hidden

    @classmethod
    def like(cls, parameters: int) -> Self:
        """What models of so many parameters look like: a guess for one that is known by its size alone.

        As deep as Qwen2.5 and Llama 3 are, with Qwen's words, heads of 128, and at most 8 heads of keys.
        """
        layers = 28 if parameters < 10e9 else 64 if parameters < 50e9 else 80
        tied, words = parameters < 4e9, 151_936
        tables = words if tied else 2 * words
        hidden = (math.sqrt(tables**2 + 4 * 13 * layers * parameters) - tables) / (2 * 13 * layers)
        heads = max(1, round(hidden / 128))
        return cls(layers, 128 * heads, heads, min(8, max(1, heads // 4)), 128, 448 * heads, words, tied)


@dataclass(frozen=True)
class Weights:
    """A model's size. `parameters` is None where nothing says it, `known_by` is `weights`, `config`, `name` or "".

    `bytes_each` is as it is sampled from; `known_shape` is None where there is no config.json that says it.
    """

    parameters: int | None
    known_by: str
    bytes_each: int = 2
    known_shape: Shape | None = None

    @property
    def bytes(self) -> int | None:
        """What the model takes on disk and in memory, as it is sampled from."""
        return None if self.parameters is None else self.parameters * self.bytes_each

    @property
    def shape(self) -> Shape | None:
        """Its shape, or that of models of its size."""
        guess = Shape.like(self.parameters) if self.parameters else None
        return self.known_shape or guess


def weights_of(recipe: Recipe, model: str = "") -> Weights:
    """The size of a model, the recipe's where none is named, from this machine alone: nothing is downloaded."""
    named = model or recipe.model
    parameters, known_by, stored, shape = _size(named, "" if model else recipe.revision)
    typed = {"float32": 4, "float16": 2, "bfloat16": 2}.get(recipe.machine.dtype, stored)
    return Weights(parameters, known_by, typed, shape)


def _size(model: str, revision: str) -> tuple[int | None, str, int, Shape | None]:
    """Parameters, how they are known, bytes of each in the model's files, and its shape."""
    shape = None
    if folder := _folder(model, revision):
        shape = shape_of(_config(folder / "config.json"))
        headers = [_header(path) for path in sorted(folder.glob("*.safetensors"))]
        if tensors := [each for header in headers for name, each in header.items() if name != "__metadata__"]:
            kinds = {_TYPES.get(str(each["dtype"]), 2) for each in tensors}
            return sum(math.prod(each["shape"]) for each in tensors), "weights", max(kinds, default=2), shape
        if shape:
            return shape.parameters, "config", 2, shape
    if found := _IN_NAME.search(model.rstrip("/").rpartition("/")[2]):
        return round(float(found[1]) * {"B": 1e9, "M": 1e6}[found[2].upper()]), "name", 2, shape
    return None, "", 2, shape


def _folder(model: str, revision: str) -> Path | None:
    """The folder of a local model, or of a hub model that has been downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from skillfactory.tiny import FOLDER

    path = FOLDER if model == "tiny" else Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _config(path: Path) -> dict[str, Any]:
    """What a config.json says; {} for one that is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of the tensors in a safetensors file; {} for one that is broken."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return dict(json.loads(file.read(length))) if length < 2**27 else {}
    except (OSError, ValueError):
        return {}


def shape_of(config: dict[str, Any]) -> Shape | None:
    """The shape that a config.json describes; None for another kind of model, such as a mixture of experts."""
    c = config.get("text_config") or config
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    if not all(isinstance(c.get(key), int) for key in keys) or any("experts" in key for key in c):
        return None
    hidden, layers, heads, inner, words = (int(c[key]) for key in keys)
    return Shape(
        layers, hidden, heads, int(c.get("num_key_value_heads") or heads), int(c.get("head_dim") or hidden // heads),
        inner, words, bool(c.get("tie_word_embeddings", True)),
    )  # fmt: skip
