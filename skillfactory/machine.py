"""What torch and its libraries need to be told about the machine."""

import os
import warnings
from typing import Any

# Parameters under which one thread is the default: several are faster while nothing else runs (benchmarks/), but beside
# another process their small pieces of work wait for each other, at worst for seconds a step.
SMALL_MODEL = 50_000_000
# Libraries that report their use, or their errors, to their makers unless told not to. Read when they are imported.
_NO_REPORTS = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_ERROR_REPORTING": "false",
}


def report_nothing() -> None:
    """Have libraries, also those of programs that we start, send nothing to their makers, unless the user has said so.

    Best before they are imported.
    """
    for name, value in _NO_REPORTS.items():
        os.environ.setdefault(name, value)


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


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
