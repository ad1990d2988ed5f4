"""What the figures of a dry run rest on: assumptions, the model's size, and the memory of the GPUs that train it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skillfactory import methods
from skillfactory.planning import memory, room
from skillfactory.planning.passes import Device
from skillfactory.planning.sizes import Weights, weights_of
from skillfactory.recipe import Recipe, changed
from skillfactory.rounds import stage_of

if TYPE_CHECKING:
    from skillfactory.planning.probe import Estimate

MOST_CARDS = 1024


def basis_of(recipe: Recipe, probed: "Estimate | None" = None) -> dict[str, Any]:
    """What the figures rest on: the assumptions, what was measured in their place, the model's size, memory."""
    weights = weights_of(recipe)
    trained = [name for name in ("sft", "rl") if name in map(stage_of, methods.stages(recipe))]
    return {
        "assumed": recipe.estimate.model_dump(),
        "measured": {} if probed is None else {"questions": probed.probed, "right": probed.share_correct},
        "parameters": weights.parameters,
        "parameters_known_by": weights.known_by,
        "shape_known": weights.known_shape is not None,
        "memory": _memory(recipe, weights, trained),
        "trains": bool(trained),
    }


def _memory(recipe: Recipe, weights: Weights, trained: Sequence[str]) -> dict[str, Any] | None:
    """Bytes on each GPU by stage and part, and with how many GPUs all stages fit; None where the size is not known."""
    if not weights.parameters or not weights.bytes:
        return None
    device = Device("cuda", round(recipe.estimate.memory_gb * 1e9), attention=_attention(recipe))
    found = {name: memory.of_stage(recipe, name, weights, device) for name in trained}
    stages = {
        name: {"moment": each.moment, "parts": each.parts, "bytes": each.total, "fits": each.total <= device.size}
        for name, each in found.items()
    }
    system = recipe.training
    cards, settings = _cards(recipe, weights, device, trained)
    return {
        "device_bytes": device.size,
        "copy_bytes": weights.bytes,
        "state_bytes": max((each.state for each in found.values()), default=0),
        "host_bytes": max((each.host for each in found.values()), default=0),
        "devices": system.devices * (system.verl.nodes if system.backend == "verl" else 1),
        "shard": "fsdp2" if system.backend == "verl" else system.shard,
        "stages": stages,
        "cards": cards,
        "cards_settings": settings,
    }


def _cards(
    recipe: Recipe, weights: Weights, device: Device, trained: Sequence[str]
) -> tuple[int | None, dict[str, Any]]:
    """The fewest GPUs, a power of two, on which all stages fit, and the settings of speed that it takes.

    Split by FSDP2 unless the recipe splits otherwise. None where no number does, since something is whole on each. A
    model that is not trained is split by vLLM.
    """
    if not trained:
        return math.ceil((weights.bytes or 0) / device.size), {}
    shard = recipe.training.shard if recipe.training.shard != "none" else "fsdp2"
    cards = 1
    while cards <= MOST_CARDS:
        settings = {"training.devices": cards, "training.shard": shard} if cards > 1 else {}
        other = changed(recipe, {"training.devices": 1, "training.shard": "none", "training.verl.nodes": 1} | settings)
        mends = [_mended(other, name, weights, device) for name in trained]
        if all(mend is not None for mend in mends):
            return cards, settings | {key: value for mend in mends for key, value in (mend or {}).items()}
        cards *= 2
    return None, {}


def _mended(recipe: Recipe, name: str, weights: Weights, device: Device) -> dict[str, Any] | None:
    """Settings of speed with which a stage fits as many GPUs as the recipe has; None where it does not."""
    if not room.divides(recipe, name):
        return None
    if memory.of_stage(recipe, name, weights, device).total <= device.size:
        return {}
    found = room.mend(recipe, name, weights, device, device.size, gpus=1, learns=False)
    return found.settings if found else None


def _attention(recipe: Recipe) -> str:
    return "sdpa" if recipe.machine.attention in ("auto", "grouped") else recipe.machine.attention
