"""What the forward and backward pass of a micro-batch takes of a device's memory, in bytes. Imports no torch.

For dense decoders with gated MLPs. What autograd keeps of a layer is counted tensor by tensor, as tests hold it against
torch; what is only there for a moment is known roughly.
"""

from dataclasses import dataclass
from typing import Literal

from skillfactory.planning.sizes import Shape

FULL, HALF = 4, 2  # bytes of a number in float32 and in bfloat16
TILE = 4096, 32_768  # tokens and words whose logits TRL has at once: its fused head never makes all of them
BLOCK = 128  # queries that attention.py computes at a time
# On a CPU, glibc keeps what is freed of tensors under 32 MiB, in holes that others do not fit into: so much of what is
# in use comes on top, as benchmarks/bench_memory.py found, and more where layers are computed again.
HEAP, HOLES, MORE_HOLES = 32 * 2**20, 0.5, 1.1


@dataclass(frozen=True)
class Device:
    """What trains: its memory in bytes, whether it computes in bfloat16, and the attention code."""

    kind: Literal["cuda", "cpu"]
    size: int
    half: bool = True
    attention: str = "sdpa"

    @property
    def width(self) -> int:
        """Bytes of a number that is computed with."""
        return HALF if self.half else FULL


@dataclass(frozen=True)
class Batch:
    """Sequences of a micro-batch, tokens of each, how many are scored, and whether layers are computed twice."""

    rows: int
    length: int
    scored: int
    checkpointing: bool

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return self.rows * self.length


def kept_a_token(shape: Shape, device: Device, length: int, padded: bool, rank: int = 0) -> float:
    """Bytes of a layer that autograd keeps of each token for the backward pass, in sequences of `length` tokens."""
    h, q, k, f, width = shape.hidden, shape.queries, shape.keys, shape.inner, device.width
    # Two norms keep input and output in float32; in bfloat16 every linear layer keeps a cast input of its own.
    kept = 8 + 4 * (q + k) * (width // HALF) + 4 * f * width + (26 * h if device.half else 24 * h)
    if rank:  # norms need not keep their output, and adapters have a cast of what attention keeps of its own
        fused = device.attention not in ("eager", "grouped")
        kept += 7 * width * rank - 8 * h + (2 * q if device.half and fused else 0)
    spread = 2 * width * (q - k)  # keys and values are copied for the query heads that share them
    match device.attention:
        case "eager":
            return kept + spread + shape.heads * length * (FULL + HALF if device.half else FULL)
        case "grouped":
            reach = (length + BLOCK) / 2  # of what is before a token, blocks included
            return kept - 2 * width * k + width * reach * (shape.heads + 2 * k / BLOCK)
        case "sdpa" if padded:
            return kept + 4 * shape.heads + spread + width * length
        case _:
            return kept + 4 * shape.heads


def learning(shape: Shape, device: Device, batch: Batch, rank: int, shard: str) -> dict[str, int]:
    """A micro-batch, by parts, as its backward pass begins, or later where that is more; `rank` is of adapters."""
    h, f, width = shape.hidden, shape.inner, device.width
    layer = round(batch.tokens * kept_a_token(shape, device, batch.length, batch.rows > 1, rank))
    moment = batch.tokens * width * (4 * f + 4 * h) + 3 * FULL * h * f  # gradients of one layer
    ends = batch.tokens * 16 * h  # embeddings, and the last norm with its output
    last = head(shape, device, batch, rank, shard)
    cast = width * shape.layers * shape.layer if device.half and shard == "none" else 0
    if batch.checkpointing:
        # Autocast keeps its copies of trained weights until the forward pass ends, and of a layer while it is repeated.
        stored = batch.tokens * FULL * h * shape.layers + ends + max(layer + moment - last, 0)
        parts = {"bfloat16 weights": cast // shape.layers if rank else cast, "activations": stored, "logits": last}
    else:
        parts = {"bfloat16 weights": cast, "activations": shape.layers * layer + ends, "logits": max(last, moment)}
    in_heap = device.kind == "cpu" and batch.tokens * FULL * h <= HEAP
    return parts | {"holes": round((MORE_HOLES if batch.checkpointing else HOLES) * parts["activations"] * in_heap)}


def head(shape: Shape, device: Device, batch: Batch, rank: int, shard: str) -> int:
    """TRL's fused head: a tile of logits, gradients of the last layer's output, and of the head's own weights."""
    scored = batch.rows * (batch.scored if device.kind == "cuda" else batch.length)
    tokens, words = min(scored, TILE[0]), min(shape.vocab, TILE[1])
    # Triton works in place on a GPU; elsewhere torch makes seven float32 copies of the tile.
    tile = HALF * tokens * TILE[1] if device.kind == "cuda" else tokens * words * (device.width + 7 * FULL)
    tables = (not rank) + (shard == "fsdp2")  # its gradient; itself, brought together
    return tile + 2 * FULL * scored * shape.hidden + tables * FULL * shape.table
