"""The least time that sampling or training can take on this machine, from what it measurably reads and multiplies.

Sampling. All B rows are in the batch from the first token on, prompts that are asked several times are read once, and
reading memory hides behind computing, or the other way round:

    seconds = max(bytes / read rate, operations / matrix rate)
    bytes = steps * weights + sum over rows and their tokens of (context so far) * cache
    operations = 2 * matrices * (tokens + prompt tokens) + 4 * layers * heads * head width * contexts

`steps` is the longest row's length, `weights` the bytes of all matrices in bfloat16, read once a step; `cache` the
bytes of keys and values a token, 2 * 2 * layers * kv heads * head width; `matrices` the number of their elements, the
head among them; `contexts` the sum over all rows and their tokens of the tokens before and with each.

Training. Forward and backward are three times forward; memory is not counted, for with many tokens it does not bind:

    seconds = 3 * operations / matrix rate, with the head only where a token is learnt

A GRPO step's least time is that of its rollouts and of learning from them.

The read rate is that of an array as large as what a step reads, read again and again, so that a model that fits into a
cache gets the cache's. The matrix rate is that of products of the model's own shapes with as many rows as the batch
has, in the better of bfloat16 and float32, by one thread, times the number of cores. Nothing else is counted
(attention's softmax, norms, drawing tokens, grading, the optimizer), so that no engine can reach it.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MB = 2**20
SIZES = (1 * MB, 4 * MB, 16 * MB, 64 * MB, 256 * MB, 1024 * MB)  # arrays to read


@dataclass(frozen=True)
class Shapes:
    """The matrices of a model of Llama's kind, [out, in] and how many of each; the head apart."""

    layers: int
    heads: int
    kv_heads: int
    width: int  # of a head
    linear: tuple[tuple[int, int, int], ...]  # out, in, how many
    head: tuple[int, int]

    @property
    def body(self) -> int:
        """Elements of all matrices but the head."""
        return sum(out * into * number for out, into, number in self.linear)

    @property
    def weights(self) -> int:
        """Bytes of all matrices in bfloat16."""
        return 2 * (self.body + self.head[0] * self.head[1])

    @property
    def cache(self) -> int:
        """Bytes of keys and values a token in bfloat16."""
        return 2 * 2 * self.layers * self.kv_heads * self.width

    def attention(self, contexts: float) -> float:
        """Operations of attention of queries that look at so many tokens in all."""
        return 4 * self.layers * self.heads * self.width * contexts


@dataclass(frozen=True)
class Work:
    """Rows to sample: tokens of each, those of its prompt, and those of all different prompts together."""

    lengths: Sequence[int]
    prompts: Sequence[int]
    read: int

    @property
    def contexts(self) -> int:
        """Sum over rows and tokens of the tokens before and with each."""
        return sum(p * n + n * (n + 1) // 2 for p, n in zip(self.prompts, self.lengths, strict=True))


def shapes_of(config: Any) -> Shapes:
    """From a Hugging Face configuration."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or hidden // heads
    linear = (
        (heads * width, hidden, layers), (kv_heads * width, hidden, 2 * layers), (hidden, heads * width, layers),
        (config.intermediate_size, hidden, 2 * layers), (hidden, config.intermediate_size, layers),
    )  # fmt: skip
    return Shapes(layers, heads, kv_heads, width, linear, (config.vocab_size, hidden))


def measure(model: str, rows: int, tokens: int) -> dict[str, Any]:
    """What the formulas need of this machine: bytes a second by size, operations a second at `rows` and at `tokens`."""
    from transformers import AutoConfig

    from skillfactory.engines.models import locate
    from skillfactory.recipes import load_recipe

    shapes = shapes_of(AutoConfig.from_pretrained(locate(load_recipe("demo", [f"model={model}"]))))
    return {
        "read": {str(size): read_rate(size) for size in SIZES},
        "multiplied when sampling": matrix_rate(shapes, rows),
        "multiplied when training": matrix_rate(shapes, tokens),
        "cores": cores(),
        "shapes": shapes.__dict__,
    }


def sampling(rates: dict[str, Any], shapes: Shapes, work: Work) -> float:
    """Seconds to sample it at best."""
    steps, contexts = max(work.lengths), work.contexts
    read = steps * shapes.weights + contexts * shapes.cache
    elements = shapes.body + shapes.head[0] * shapes.head[1]
    operations = 2 * elements * sum(work.lengths) + 2 * shapes.body * work.read + shapes.attention(contexts)
    return max(read / _rate(rates, read / steps), operations / rates["multiplied when sampling"])


def training(rates: dict[str, Any], shapes: Shapes, lengths: Sequence[int], learnt: int) -> float:
    """Seconds of forward and backward over rows of so many tokens, of which `learnt` in all have a loss."""
    contexts = sum(n * (n + 1) / 2 for n in lengths)
    operations = 2 * shapes.body * sum(lengths) + 2 * shapes.head[0] * shapes.head[1] * learnt
    return 3 * float((operations + shapes.attention(contexts)) / rates["multiplied when training"])


def read_rate(size: int) -> float:
    """Bytes a second of reading an array again and again, with one thread or all, whichever is faster."""
    import torch

    array = torch.ones(size // 4)
    before, best = torch.get_num_threads(), 0.0
    for threads in {1, cores()}:
        torch.set_num_threads(threads)
        best = max(best, size / _least(array.sum, max(3, 256 * MB // size)))
    torch.set_num_threads(before)
    return best


def matrix_rate(shapes: Shapes, rows: int) -> float:
    """Operations a second of one pass of so many rows through all matrices, on all cores."""
    import torch

    before, best = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    for dtype in (torch.bfloat16, torch.float32):
        seconds, operations = 0.0, 0
        for out, into, number in (*shapes.linear, (*shapes.head, 1)):
            weight, given = torch.randn(out, into, dtype=dtype), torch.randn(rows, into, dtype=dtype)
            seconds += number * _least(lambda w=weight, x=given: torch.nn.functional.linear(x, w), 5)
            operations += number * 2 * rows * out * into
        best = max(best, operations / seconds)
    torch.set_num_threads(before)
    return best * cores()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _least(run: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of so many runs after one."""
    run()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def _rate(rates: dict[str, Any], size: float) -> float:
    """The measured rate of the largest array that is no larger."""
    measured = {int(each): float(rate) for each, rate in rates["read"].items()}
    fitting = [each for each in measured if each <= size]
    return measured[max(fitting) if fitting else min(measured)]
