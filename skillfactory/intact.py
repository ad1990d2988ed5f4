"""Whether the files of models and checkpoints are whole, by what they say of themselves: no weight is loaded.

A kill, a full disk or a copy that was cut short leaves files that end too early; those are found. A byte that has
flipped among the weights is not (see files.model_fingerprint).
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

# What training needs to go on just as it would have. One process, FSDP and DeepSpeed have other names for the same.
_PARTS = {
    "weights": ("model*.safetensors", "adapter_model.*", "pytorch_model*", "global_step*"),
    "optimizer": ("optimizer*", "global_step*"),
    "random state (rng_state)": ("rng_state*",),
    "trainer_state.json": ("trainer_state.json",),
}
_MOST_HEADER = 100_000_000  # bytes; the limit of safetensors


def damaged(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files under `folder` that are not whole, each with what is wrong with it. Symbolic links are followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (why := damage_of(path)):
            yield path, why


def damage_of_checkpoint(folder: Path) -> str:
    """What is wrong with a checkpoint of transformers, as half a sentence that names the file; "" where nothing is."""
    for part, kinds in _PARTS.items():
        if not any(next(folder.glob(kind), None) for kind in kinds):
            return f"has no {part}"
    return next((f"has a {path.relative_to(folder)} that {why}" for path, why in damaged(folder)), "")


def damage_of(path: Path) -> str:
    """What is wrong with a file, as half a sentence; "" where nothing is, or nothing can be said of such a file."""
    try:
        size = path.stat().st_size
        if not size and path.suffix in {".json", ".safetensors", ".pt", ".pth", ".bin", ".html", ".md"}:
            return "is empty"
        match path.suffix:
            case ".json":
                return _json(path)
            case ".safetensors":
                return _safetensors(path, size)
            case ".pt" | ".pth" | ".bin":
                return _archive(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def is_json(text: str) -> bool:
    """Whether a line is whole JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return "is no whole JSON"
    parts = data.get("weight_map") if isinstance(data, dict) and path.name.endswith(".index.json") else None
    lost = sorted({str(part) for part in parts.values() if not (path.parent / str(part)).is_file()}) if parts else []
    return f"names {lost[0]}, which is missing" if lost else ""


def _safetensors(path: Path, size: int) -> str:
    """The header says where each tensor ends, and the last one ends the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MOST_HEADER):
            return "is cut short, or no safetensors file"
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return "has a header that cannot be read"
    wanted = 8 + length + max(ends, default=0)
    return "" if size == wanted else f"has {size:,} bytes, but its header tells of {wanted:,}"


def _archive(path: Path) -> str:
    """torch.save writes a zip archive, whose table of contents stands at its end."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # what torch saved before 1.6, or no file of torch's
            return "" if path.suffix == ".bin" else "is no file of torch's"
    return "" if zipfile.is_zipfile(path) else "is cut short"
