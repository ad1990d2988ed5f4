"""What a recipe is to run on, as far as a first recipe cares."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from skillfactory.engines.chat_api import is_address
from skillfactory.errors import RecipeError

Kind = Literal["cpu", "gpu", "gpus", "server"]
KINDS: dict[str, str] = {
    "cpu": "a laptop or another machine without a GPU",
    "gpu": "one GPU",
    "gpus": "several GPUs of one machine",
    "server": "a server with the OpenAI API makes the attempts and reflections; training is here",
}
ADDRESS = "http://localhost:8000/v1"


@dataclass(frozen=True)
class Machine:
    """`devices` is the number of GPUs that train, 0 for none; `engine` samples here.

    `address` is a server's, and `served` what it calls the model.
    """

    kind: Kind
    devices: int
    engine: str = "transformers"
    address: str = ""
    served: str = ""


def known_address(text: str) -> str:
    """An address. Raises RecipeError for what is none."""
    if not is_address(text):
        raise RecipeError(f"`{text}` is no address; give one like {ADDRESS}.")
    return text


def gpus_here() -> int:
    """GPUs of this machine that torch can use; without torch, none."""
    if find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def guessed() -> Kind:
    """What this machine is."""
    gpus = gpus_here()
    return "gpus" if gpus > 1 else "gpu" if gpus else "cpu"


def local_engine(devices: int) -> str:
    """What samples on this machine: vLLM where there is a GPU and it is installed."""
    return "vllm" if devices and find_spec("vllm") is not None else "transformers"
