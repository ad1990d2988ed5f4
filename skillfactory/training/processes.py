"""Training in several processes at once, one a device: which one this is, and what all of them must agree on.

Each process runs the same code. The main one alone writes files and shows progress.
"""

import os

from skillfactory.errors import RecipeError

MAIN = 0


def check() -> None:
    """Raises RecipeError where the environment says that this is one process of several, which none of ours is yet.

    Torch and accelerate would believe it, and wait for the others for ever.
    """
    said = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    if said.get("RANK", "0") != "0" or said.get("WORLD_SIZE", "1") != "1":
        words = " and ".join(f"{name}={value}" for name, value in said.items())
        raise RecipeError(
            f"The environment has {words}, as torchrun sets for one of several processes, but training starts its own, "
            "as many as training.devices says; run this without torchrun, or `unset RANK WORLD_SIZE LOCAL_RANK` first."
        )


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", MAIN))


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == MAIN


def any_of(flag: bool) -> bool:
    """Whether `flag` is set in one process at least. All have to ask, or those that do wait forever."""
    if count() == 1:
        return flag
    import torch
    from accelerate import PartialState

    said = torch.tensor(int(flag), device=PartialState().device)
    torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
    return bool(said.item())
