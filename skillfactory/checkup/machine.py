"""Checks of the machine: Python, processors, memory, GPUs, disks, the hub."""

import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from skillfactory.checkup.check import Check, ok, problem, warning
from skillfactory.console import bytes_text
from skillfactory.machine import cores

TRIED = ((3, 11), (3, 13))  # versions of Python, first and last
LITTLE_MEMORY = 4e9  # bytes: the demo takes less
LITTLE_DISK, NO_DISK = 5e9, 0.5e9
SECONDS = 5.0  # to wait for the hub


def checks(run_folder: Path) -> Iterator[Check]:
    """All of them; runs would be in this folder."""
    yield python(sys.version_info[:2])
    yield system(platform.system(), platform.machine())
    yield processors()
    yield memory()
    yield from gpus()
    yield disk("disk for runs", run_folder)
    yield from cache()
    yield hub()


def python(version: tuple[int, int]) -> Check:
    """Whether this Python is one that is tried."""
    text = f"Python {version[0]}.{version[1]}"
    first, last = (".".join(map(str, each)) for each in TRIED)
    if version < TRIED[0]:
        return problem("python", f"{text} is too old.", f"Install Python {first} to {last}.")
    if version > TRIED[1]:
        return warning(
            "python", f"{text} is newer than what is tried ({first} to {last}).", f"Take {last} if it fails."
        )
    return ok("python", f"{text} ({sys.executable})")


def system(name: str, processor: str) -> Check:
    """Whether this operating system is one that is tried."""
    text = f"{name} on {processor}"
    if name == "Linux":
        return ok("system", text)
    if name == "Darwin":
        return warning("system", f"{text}: not tried, though nothing speaks against it.")
    return problem("system", f"{text}: runs need a POSIX system.", "Take Linux, on Windows inside WSL 2.")


def processors() -> Check:
    """Cores that this process may use, and a number of threads that the environment sets."""
    own = cores()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return ok("processors", f"{own} core{'s' if own > 1 else ''}{f', OMP_NUM_THREADS={threads}' if threads else ''}")


def memory() -> Check:
    """Main memory that is free for this process."""
    from skillfactory.planning.room import main_memory

    free, size = main_memory()
    text = f"{bytes_text(free)} of {bytes_text(size)} are free."
    if free < LITTLE_MEMORY:
        return warning("memory", text, f"The demo wants {bytes_text(LITTLE_MEMORY)}: close other programs.")
    return ok("memory", text)


def gpus() -> Iterator[Check]:
    """torch, the driver it finds, and each GPU."""
    try:
        import torch
    except ImportError as error:
        yield problem("torch", f"torch cannot be imported ({error}).", "Install it: https://pytorch.org/get-started.")
        return
    built = torch.version.cuda
    there = torch.cuda.is_available()
    yield driver(torch.__version__, built, driver_version(), there)
    for number in range(torch.cuda.device_count() if there else 0):
        yield _gpu(number)
    if torch.backends.mps.is_available():
        yield ok("gpu", "Apple's GPU (mps) is there.")


def driver(version: str, built: str | None, supports: tuple[int, int] | None, there: bool) -> Check:
    """Whether torch, built for CUDA `built` or for none, can use the driver: None for none, else what it supports."""
    text = f"torch {version}"
    if there:
        return ok("torch", f"{text}, built for CUDA {built}; the driver goes up to {_dotted(supports)}.")
    if supports is None:
        return ok("torch", f"{text}; no NVIDIA driver, so everything runs on the CPU.")
    if built is None:
        return problem(
            "torch", f"{text} is built for the CPU, though there is an NVIDIA driver (CUDA {_dotted(supports)}).",
            "Install a CUDA build: https://pytorch.org/get-started.",
        )  # fmt: skip
    if int(built.partition(".")[0]) > supports[0]:
        return problem(
            "torch", f"{text} is built for CUDA {built}, but the driver only goes up to {_dotted(supports)}.",
            "Install a newer driver, or a torch that is built for an older CUDA.",
        )  # fmt: skip
    return problem(
        "torch", f"{text}, built for CUDA {built}, finds no GPU, though there is a driver (CUDA {_dotted(supports)}).",
        "See what nvidia-smi and CUDA_VISIBLE_DEVICES say.",
    )  # fmt: skip


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver supports; None without a driver."""
    import ctypes

    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    found = ctypes.c_int(0)
    return (
        (found.value // 1000, found.value % 1000 // 10)
        if library.cuDriverGetVersion(ctypes.byref(found)) == 0
        else None
    )


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version)) if version else "?"


def has_code(major: int, minor: int, built: Sequence[str]) -> bool:
    """Whether a build for these architectures (torch.cuda.get_arch_list) runs on a GPU of this compute capability.

    Code of the same generation runs (`sm_80` on 8.6), and what the driver compiles for newer ones (`compute_90`).
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", each) for each in built]
    if not all(found):  # AMD's have other names, and none is known of others
        return True
    parts = [(each[1], int(each[2]), int(each[3])) for each in found if each]
    return not parts or any(
        (kind == "sm" and a == major and b <= minor) or (kind == "compute" and (a, b) <= (major, minor))
        for kind, a, b in parts
    )


def _gpu(number: int) -> Check:
    """One GPU: its name, memory, and whether torch has code for it."""
    import torch

    about = torch.cuda.get_device_properties(number)
    name = f"gpu {number}"
    try:
        free, size = torch.cuda.mem_get_info(number)
    except RuntimeError as error:
        return problem(name, f"{about.name} cannot be used ({str(error).partition(chr(10))[0]}).", "See nvidia-smi.")
    text = f"{about.name}, {bytes_text(free)} of {bytes_text(size)} free"
    if not has_code(about.major, about.minor, torch.cuda.get_arch_list()):
        return problem(
            name, f"{text}: this torch has no code for it (sm_{about.major}{about.minor}).",
            "Install a torch that has: a newer one for a new GPU, an older one for an old GPU.",
        )  # fmt: skip
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return warning(name, f"{text}, without bfloat16: training is slow.", "Set machine.dtype: float16 to sample.")
    if free < size * 0.9:
        return warning(name, f"{text}: something else uses it.", "See nvidia-smi.")
    return ok(name, f"{text}, bfloat16")


def disk(name: str, folder: Path, wanted: float = LITTLE_DISK, needed: float = NO_DISK) -> Check:
    """Free space where a folder is, or would be: a warning below what is `wanted`, a problem below what is `needed`."""
    import psutil  # type: ignore[import-untyped]

    place = _there(folder)
    free = psutil.disk_usage(str(place)).free
    text = f"{bytes_text(free)} are free in {folder}"
    mend = "Free some space, or put it elsewhere."
    if free < needed:
        return problem(name, f"{text}, where {bytes_text(needed)} are needed.", mend)
    if free < wanted:
        return warning(name, f"{text}, where up to {bytes_text(wanted)} may be needed.", mend)
    return ok(name, f"{text}.")


def writable(folder: Path) -> str:
    """Why no file can be written in a folder, or where it would be made; "" where one can."""
    try:
        with tempfile.TemporaryFile(dir=_there(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that there is."""
    folder = folder.expanduser().absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def cache() -> Iterator[Check]:
    """The folder that models and data sets of the hub are kept in."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    if why := writable(folder):
        yield warning("cache", f"{folder} cannot be written ({why}).", "Set HF_HOME to a folder that can.")
    else:
        yield disk("cache", folder, needed=0)


def hub(seconds: float = SECONDS) -> Check:
    """Whether the hub can be reached: one HEAD request to its address, through the proxy that is set."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return ok("hub", "HF_HUB_OFFLINE is set: only models and data sets in the cache are used.")
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds, follow_redirects=True)
    except Exception as error:  # of whichever HTTP library huggingface_hub has
        why = str(error).partition("\n")[0] or type(error).__name__
        return warning(
            "hub", f"{constants.ENDPOINT} cannot be reached ({why}).",
            "Models and data sets must be in the cache or in folders; set HF_ENDPOINT to a mirror, or HTTPS_PROXY.",
        )  # fmt: skip
    return ok("hub", f"{constants.ENDPOINT} answers.")
