"""What torch needs to be told about the machine: threads, memory allocation, precision."""

import ctypes
import os
import sys
import warnings
from typing import Any

SMALL_MODEL = 50_000_000  # parameters under which one thread beats several (benchmarks/)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_cpu(threads: int) -> None:
    """Set torch's threads and keep freed memory for reuse.

    glibc hands each large buffer back to the system and asks for it anew, which costs up to 60 % of a small model's
    training step in page faults (`benchmarks/`); here it keeps them.
    """
    import torch

    torch.set_num_threads(threads)
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        except (OSError, AttributeError):  # another C library: slower, still right
            return


def quiet_libraries() -> None:
    """Leave progress and notices to us: theirs would interrupt our progress bars."""
    import datasets
    import transformers

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def pick_device(device: str) -> str:
    """`auto` is the best device that torch sees."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def count_parameters(model: Any) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
