"""The weights of a policy in training, whole and under their own names, and the copy of them that is sampled and saved.

In training they may be float32, split over devices (FSDP2, DeepSpeed ZeRO-3), or held in adapters beside the base's.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
_PARTS = ("_orig_mod.", "_checkpoint_wrapped_module.")


class SamplingCopy:
    """The policy in the type that it is sampled from and saved in; loaded when it is first needed."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The copy as a Hugging Face model, in evaluation mode."""
        if self._model is None:
            self._model = self._load().eval()
        return self._model

    def follow(self, policy: Any, here: bool = True) -> None:
        """Make it what the policy is now. All processes have to call this; only those with `here` keep a copy."""
        mine = dict(self.model.named_parameters()) if here else {}
        with torch.no_grad():
            for name, weight in whole_weights(policy):
                if here:
                    mine[name].copy_(weight)


def whole_weights(policy: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and whole weight of every parameter, as the model has them without adapters and wrappers; tied ones once."""
    layers = dict(policy.named_modules())
    for name, parameter in policy.named_parameters():
        owner, _, kind = name.rpartition(".")
        if "lora_" in name:
            continue
        layer = layers[owner.removesuffix(".base_layer")] if owner.endswith(".base_layer") else None
        adapters = [p for part, p in layer.named_parameters() if "lora_" in part] if layer is not None else []
        with _gathered([parameter, *adapters]):
            weight = parameter
            if layer is not None and kind == "weight":
                for adapter in layer.active_adapters:
                    weight = weight + layer.get_delta_weight(adapter)
            yield _plain(name), weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def _gathered(parameters: list[Any]) -> AbstractContextManager[Any]:
    """DeepSpeed ZeRO-3 leaves an empty parameter on each device, and brings it together for a moment."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    import deepspeed

    together: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
    return together


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    for part in _PARTS:
        name = name.replace(part, "")
    return name.replace(".base_layer.", ".")
