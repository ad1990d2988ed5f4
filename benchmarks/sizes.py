"""What is measured on which model: how many prompts, tokens, steps. Small ones (`--quick`) only show that all runs."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"  # made here from its package where it is missing
NAMES = ("tiny", "smollm2")


@dataclass(frozen=True)
class Sampling:
    """`prompts` different prompts, each asked `copies` times; `even` tokens of every row, or geometric ones of `mean`
    cut at `longest`."""

    prompts: int
    copies: int
    even: int
    mean: int
    longest: int


@dataclass(frozen=True)
class Grpo:
    """Steps of `prompts` x `group` rollouts, the first not counted: geometric lengths, cut at `longest`."""

    steps: int
    prompts: int
    group: int
    mean: int
    longest: int
    micro: int  # ours; TRL has its default of 8


@dataclass(frozen=True)
class Sft:
    """Silver traces with so many pairs of attempt and reflection: geometric of mean `pairs`, cut at `most`."""

    traces: int
    pairs: int
    most: int
    batch: int  # TRL's default is 8


@dataclass(frozen=True)
class Bare:
    """A bare training step: rows, and their lengths in tokens."""

    rows: int
    lengths: tuple[int, ...]
    repeats: int


@dataclass(frozen=True)
class Size:
    sampling: Sampling
    grpo: Grpo
    sft: Sft
    bare: Bare
    seconds: int  # that a case may take at most; threads on a busy machine can slow one down a hundredfold


FULL = {
    "tiny": Size(
        Sampling(64, 2, even=150, mean=100, longest=400),
        Grpo(steps=3, prompts=8, group=16, mean=100, longest=300, micro=8),
        Sft(traces=160, pairs=6, most=14, batch=8),
        Bare(32, (64, 400), 5),
        seconds=900,
    ),
    "smollm2": Size(
        Sampling(16, 4, even=64, mean=48, longest=192),
        Grpo(steps=3, prompts=2, group=8, mean=48, longest=128, micro=4),
        Sft(traces=32, pairs=2, most=4, batch=8),
        Bare(4, (64, 256), 2),
        seconds=1800,
    ),
}
QUICK = {
    "tiny": Size(
        Sampling(8, 2, even=16, mean=12, longest=48),
        Grpo(steps=2, prompts=2, group=8, mean=12, longest=32, micro=8),
        Sft(traces=24, pairs=2, most=3, batch=8),
        Bare(4, (64,), 1),
        seconds=900,
    ),
    "smollm2": Size(
        Sampling(4, 2, even=4, mean=4, longest=8),
        Grpo(steps=2, prompts=2, group=8, mean=4, longest=8, micro=4),
        Sft(traces=16, pairs=1, most=1, batch=8),
        Bare(2, (64,), 1),
        seconds=1800,
    ),
}


def size_of(model: str, quick: bool) -> Size:
    """The sizes for a model's name; those of SmolLM2 for a folder."""
    return (QUICK if quick else FULL)[model if model in NAMES else "smollm2"]


def folder_of(model: str) -> str:
    """What the recipe's `model` is for a name or a folder. Raises ModelError where SmolLM2's package is missing."""
    if model != "smollm2":
        return model
    if not (SMOLLM2 / "config.json").exists():
        from skillfactory.engines.smollm2 import convert

        SMOLLM2.parent.mkdir(exist_ok=True)
        convert(SMOLLM2)
    return str(SMOLLM2)
