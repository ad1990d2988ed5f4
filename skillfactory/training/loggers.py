"""TRL's loggers, chosen by the recipe's `report_to`: TensorBoard, Trackio, Weights & Biases. Nothing goes to any other.

They show what TRL logs at each optimizer update, beside our own metrics.jsonl. A stage that is taken up again goes on
where it was: it keeps its name in its manifest, so that `--fresh` begins a new one.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from skillfactory.engines.models import first_line
from skillfactory.errors import RecipeError
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.training import processes

PROJECT = "skillfactory"


def check(recipe: Recipe) -> None:
    """Raises RecipeError where a package is missing, or wandb does not know where to log to. Imports no torch."""
    for name in recipe.report_to:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder that wandb left behind looks like a package, but has no file
            raise RecipeError(
                f"report_to names {name}, which is not installed; `pip install {name}`, or take it out of report_to."
            )
    if "wandb" in recipe.report_to:
        import wandb

        try:
            wandb.login()  # asks for the key on a terminal: now, not after hours of sampling
        except wandb.Error as error:
            raise _no_wandb(error) from error


def settings(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Keyword arguments for TRL's configurations. Notes the name to log under in the stage's manifest."""
    logs = bool(recipe.report_to) and processes.is_main()
    return {
        # TensorBoard's callback is ours, below.
        "report_to": [name for name in recipe.report_to if name != "tensorboard" and logs],
        "run_name": _name(recipe, stage) if logs else None,
        "project": os.environ.get("TRACKIO_PROJECT", PROJECT),
    }


@contextmanager
def started(recipe: Recipe, stage: Stage, updates: int) -> Iterator[list[Any]]:
    """Start what has to be started for a stage that has done `updates` optimizer updates; yields callbacks for TRL.

    Only the main process logs.
    """
    if not processes.is_main():
        yield []
        return
    callbacks: list[Any] = []
    if "tensorboard" in recipe.report_to:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        # Left to itself, transformers writes into the checkpoints, and shows twice what a resumed run does again.
        writer = SummaryWriter(str(stage.path / "tensorboard"), purge_step=updates + 1)
        callbacks.append(TensorBoardCallback(writer))
    if "wandb" not in recipe.report_to:
        yield callbacks
        return
    import wandb

    name = _name(recipe, stage)
    try:
        # Left to itself, transformers would log RL into the run of SFT, and a resumed stage into a new one.
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=name, name=name, resume="allow",
            dir=os.environ.get("WANDB_DIR", str(stage.path)),
        )  # fmt: skip
    except wandb.Error as error:
        raise _no_wandb(error) from error
    with run:  # ends it, as failed where something is raised
        yield callbacks


def _name(recipe: Recipe, stage: Stage) -> str:
    """What the stage is called in every logger, e.g. `demo-rl_only-rl-3f2a91`: its own, however often it is stopped.

    Two runs of one recipe differ by the random end; Trackio would draw them as one.
    """
    name = stage.manifest.get("logged_as")
    if not name:
        name = f"{recipe.name}-{recipe.method}-{stage.path.name}-{secrets.token_hex(3)}"
        stage.note(logged_as=name)
    return str(name)


def _no_wandb(error: Exception) -> RecipeError:
    return RecipeError(
        f"report_to names wandb, which cannot log ({first_line(error)}); `wandb login`, set WANDB_MODE=offline, "
        "or take it out of report_to."
    )
