"""Whether SFT or RL will fit into the memory there is, said before it starts, with the setting to lower first.

It is an estimate, so what may not fit is started all the same: micro-batches are rarely all as long as they may be.
Only where weights, gradients and optimizer alone are more than a GPU has is it refused, since nothing could come of it
but a long loading and CUDA's own error. A CPU's memory has no such bound: it may be swapped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from skillfactory.errors import RecipeError
from skillfactory.machine import SMALL_MODEL, pick_device
from skillfactory.planning import memory
from skillfactory.planning.memory import Lengths, Memory
from skillfactory.planning.passes import Device
from skillfactory.planning.sizes import Weights, weights_of
from skillfactory.planning.steps import sft_batch, updates_per_step
from skillfactory.recipe import Recipe, changed

FEWEST = 8  # sequences sampled at once, below which it is too slow to propose
RANK = 16  # of the adapters to propose
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Mend:
    """Settings that would make a stage fit, from the mildest on, and what it would then take."""

    settings: dict[str, Any]
    memory: Memory

    def __str__(self) -> str:
        words = " ".join(f"{key}={shown(value)}" for key, value in self.settings.items())
        changes = {key.rpartition(".")[2] for key in self.settings} & {"rank", "max_tokens"}
        return f"{words} would come to {_gb(self.memory.total)}" + (", and changes what is learnt" if changes else "")


def check_memory(recipe: Recipe, name: str, lengths: Lengths | None = None) -> dict[str, str]:
    """Warnings by name where `sft` or `rl` may not fit into the free memory of this machine; none where it should.

    `lengths` are the run's own, where they are known; else the longest that the recipe allows. Raises RecipeError where
    not even the state of the training fits a GPU.
    """
    weights = weights_of(recipe)
    if not weights.parameters:
        return {}
    device, free, gpus = here(recipe, weights.parameters)
    needed = memory.of_stage(recipe, name, weights, device, lengths)
    processes = recipe.training.devices if device.kind == "cpu" else 1  # which share one memory
    if needed.total * processes <= free:
        return _host_memory(recipe, needed, device)
    found = mend(recipe, name, weights, device, free // processes, gpus, lengths)
    advice = (
        f"{found}" if found else "no setting of this stage alone would do; take a smaller model or a larger machine"
    )
    is_sure = device.kind == "cuda" and weights.known_by != "name" and not recipe.training.accelerate
    if is_sure and needed.state > device.size:
        raise RecipeError(
            f"{name}: weights, gradients and optimizer alone take {_gb(needed.state)} of a GPU's {_gb(device.size)}; "
            f"{advice}."
        )
    where = "a GPU" if device.kind == "cuda" else f"each of {processes} processes" if processes > 1 else "of memory"
    parts = sorted(needed.parts.items(), key=lambda part: -part[1])
    most = ", ".join(f"{part} {_gb(size)}" for part, size in parts if size >= needed.total / 20)
    return {
        "memory": f"may take {_gb(needed.total)} {where} by estimate, where {_gb(free // processes)} are free "
        f"({needed.moment}: {most}); {advice}"
    }


def mend(
    recipe: Recipe,
    name: str,
    weights: Weights,
    device: Device,
    free: int,
    gpus: int,
    lengths: Lengths | None = None,
    learns: bool = True,
) -> Mend | None:
    """The mildest change of settings with which a stage fits into so many bytes of each device; None for none.

    On at most so many `gpus`, and with `learns` also by changing what is learnt.
    """
    own = lengths or memory.lengths_of(recipe, name)
    for settings in changes(recipe, name, gpus, learns):
        other = changed(recipe, settings)
        if not divides(other, name):
            continue
        cap = memory.lengths_of(other, name, own.prompt).longest
        needed = memory.of_stage(other, name, weights, device, Lengths(own.prompt, min(own.longest, cap)))
        if needed.total <= free:
            return Mend(settings, needed)
    return None


def divides(recipe: Recipe, name: str) -> bool:
    """Whether a stage's batches can be cut into micro-batches on the recipe's devices."""
    try:
        if name == "rl":
            updates_per_step(recipe.rl, recipe.rl.prompts_per_step, recipe.training.devices)
        else:
            sft_batch(recipe.sft, recipe.sft.batch_size, recipe.training.devices)
    except RecipeError:
        return False
    return True


def changes(recipe: Recipe, name: str, gpus: int, learns: bool) -> Iterator[dict[str, Any]]:
    """Settings to try, from the mildest: first what changes nothing but speed, then more GPUs, then what is learnt."""
    section, system = recipe.sft if name == "sft" else recipe.rl, recipe.training
    cap, most = (
        ("traces.max_tokens", recipe.traces.max_tokens) if name == "sft" else ("rl.max_tokens", recipe.rl.max_tokens)
    )
    micro = [n for n in range(section.micro_batch, 0, -1) if section.micro_batch % n == 0]
    batch = recipe.machine.batch_size
    batches = [batch, *(batch >> i for i in range(1, 16) if batch >> i >= FEWEST)]
    vllm = [recipe.rl.vllm]
    if name == "rl" and recipe.rl.engine == "vllm_colocate":
        vllm.append({**recipe.rl.vllm, "vllm_enable_sleep_mode": True})
    saving = sorted({section.gradient_checkpointing, True})
    speed = [
        {f"{name}.micro_batch": rows, f"{name}.gradient_checkpointing": saves, "machine.batch_size": at_once}
        | {"rl.vllm": options}
        for saves, rows, at_once, options in product(saving, micro, batches, vllm)
    ]
    more = [{"training.devices": system.devices, "training.shard": system.shard}]
    more += [{"training.devices": n, "training.shard": "fsdp2"} for n in (2, 4, 8, 16) if system.devices <= n <= gpus]
    learnt = [
        {f"{name}.lora.rank": rank, cap: tokens}
        for tokens, rank in product(
            (most, most // 2, most // 4), dict.fromkeys((section.lora.rank, section.lora.rank or RANK))
        )
    ]
    now = speed[0] | more[0] | learnt[0]
    speed.sort(key=lambda settings: sum(settings[key] != now[key] for key in settings))  # stable: the milder before
    for last, devices, first in product(learnt if learns else learnt[:1], more, speed):
        settings = first | devices | last
        if different := {key: value for key, value in settings.items() if value != now[key]}:
            yield different


def attention_of(recipe: Recipe, parameters: int, kind: str) -> str:
    """The attention code that engines/models.py takes."""
    small = parameters < SMALL_MODEL and kind == "cpu"
    return ("grouped" if small else "sdpa") if recipe.machine.attention == "auto" else recipe.machine.attention


def here(recipe: Recipe, parameters: int) -> tuple[Device, int, int]:
    """The device that this process trains on, its free bytes, and the GPUs of this machine."""
    import torch

    if pick_device(recipe.machine.device) == "cuda":
        free, size = torch.cuda.mem_get_info()
        attention = attention_of(recipe, parameters, "cuda")
        return Device("cuda", size, torch.cuda.is_bf16_supported(), attention), free, torch.cuda.device_count()
    half = bool(torch.cpu._is_avx512_bf16_supported())
    free, size = main_memory()
    return Device("cpu", size, half, attention_of(recipe, parameters, "cpu")), free, 1


def main_memory() -> tuple[int, int]:
    """Free and all bytes of main memory, as far as the control groups of this process let it use them."""
    import psutil  # type: ignore[import-untyped]

    found = psutil.virtual_memory()
    free, size = int(found.available), int(found.total)
    for limit, used in _limits():
        free, size = min(free, max(limit - used, 0)), min(size, limit)
    return free, size


def _limits(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[tuple[int, int]]:
    """Limit and use of memory, in bytes, of each control group that this process is in (version 2), or of version 1."""
    paths = [line.partition("::")[2].strip("/") for line in _read(own).splitlines() if line.startswith("0::")]
    folders = {
        folder
        for path in paths
        for folder in (root / path, *(root / path).parents)
        if root in (folder, *folder.parents)
    }
    for folder in folders:
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            yield int(limit), int(used) - _cached(folder, "inactive_file")
    limit, used = (_read(root / "memory" / f"memory.{key}_in_bytes").strip() for key in ("limit", "usage"))
    if limit.isdigit() and used.isdigit():
        yield int(limit), int(used) - _cached(root / "memory", "total_inactive_file")


def _cached(folder: Path, key: str) -> int:
    """Bytes of files in memory that would be given up."""
    lines = (line.split() for line in _read(folder / "memory.stat").splitlines())
    return next((int(value) for name, value in lines if name == key), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _host_memory(recipe: Recipe, needed: Memory, device: Device) -> dict[str, str]:
    """Main memory beside GPUs: every process loads the whole model there."""
    if device.kind != "cuda" or recipe.training.devices == 1:
        return {}
    free, _ = main_memory()
    if needed.host <= free:
        return {}
    return {
        "main_memory": f"loading and saving may take {_gb(needed.host)} of main memory, since each of "
        f"{recipe.training.devices} processes loads the whole model, where {_gb(free)} are free; lower "
        "training.devices, or train by verl"
    }


def shown(value: Any) -> str:
    """As the command line takes it."""
    if isinstance(value, dict):
        return "'{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}'"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gb(size: int) -> str:
    value = size / 1e9
    return f"{value:,.0f} GB" if value >= 10 else f"{value:.1f} GB" if value >= 0.1 else f"{size / 1e6:.0f} MB"
