"""verl's checkpoints as Hugging Face folders: by its own merger, then read and written as models are here."""

import shutil
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.training import common
from skillfactory.training.elsewhere import programs, verl_log
from skillfactory.training.elsewhere.verl_settings import CHECKPOINTS, ROLLOUTS
from skillfactory.training.policy import SamplingCopy

_MERGED, _WORK = f"{files.TEMPORARY}merged", "merge"


def take_over(
    recipe: Recipe, stage: Stage, folder: Path, chat: ChatTokenizer, start: Path | None, kept_step: int | None
) -> None:
    """Write `rl/model`, of step `kept_step` or the last, and with `rl.keep_every` the models of earlier steps.

    Raises ModelError for weights that are no numbers any more.
    """
    every, steps = recipe.rl.keep_every, verl_log.checkpoints(folder)
    for step in steps[:-1]:
        if every and step % every == 0 and not (stage.path / common.STEPS / str(step)).is_dir():
            common.keep_model(merged(recipe, folder, step), chat.tokenizer, stage.path, step)
    # Step 0: none was better than the model that RL began with. No steps: there was nothing to learn from the first on.
    is_start = kept_step == 0 or not steps
    model = load_model(recipe, start) if is_start else merged(recipe, folder, kept_step or steps[-1])
    common.save_model(model, SamplingCopy(lambda: model), chat.tokenizer, stage.path)


def merged(recipe: Recipe, folder: Path, step: int) -> Any:
    """The model of a checkpoint, loaded. verl's merger leaves adapters beside the base: they are added to it."""
    out, work = folder / _MERGED, folder / _WORK
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(exist_ok=True)
    python = [str(Path(recipe.training.verl.python).expanduser().absolute()), "-m"]
    source = verl_log.checkpoint(folder, step) / "actor"
    words = [*python, "verl.model_merger", "merge", "--backend", "fsdp"]
    words += ["--local_dir", str(source), "--target_dir", str(out)]
    programs.run(programs.Program("verl.model_merger", words, work))
    if (out / "lora_adapter").is_dir():
        programs.run(programs.Program("peft", [*python, "skillfactory.training.elsewhere.adapters", str(out)], work))
    return load_model(recipe, out)


def drop(folder: Path) -> None:
    """Delete what is large, once the stage is finished: checkpoints, rollouts, merged models."""
    for name in (CHECKPOINTS, ROLLOUTS, "hydra", _MERGED, _WORK):
        shutil.rmtree(folder / name, ignore_errors=True)
