"""What SFT and GRPO share: trainer settings, checkpoints that survive a kill, models to keep."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from skillfactory import files, intact, seeds
from skillfactory.errors import ModelError, RecipeError
from skillfactory.machine import pick_device
from skillfactory.progress import say
from skillfactory.recipe import Recipe, Training
from skillfactory.stage import Stage
from skillfactory.training import loggers, processes, stopping
from skillfactory.training.metrics import METRICS
from skillfactory.training.policy import SamplingCopy

BEST = "best"  # the best model so far on the questions of `dev`
STEPS = "steps"  # the folder of kept steps in that of the stage


def trainer_settings(recipe: Recipe, section: Training, stage: Stage) -> dict[str, Any]:
    """Keyword arguments that TRL's configurations of both stages take."""
    import torch

    on_cpu = pick_device(recipe.machine.device) == "cpu"
    bf16 = (
        torch.cpu._is_avx512_bf16_supported()
        if on_cpu
        else torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    return {
        "output_dir": str(stage.path / "checkpoints"),
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.schedule,
        "warmup_steps": section.warmup,
        "adam_beta2": section.adam_beta2,
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "per_device_train_batch_size": section.micro_batch,
        "gradient_checkpointing": section.gradient_checkpointing,
        "bf16": bf16,
        "use_cpu": on_cpu,
        "ddp_find_unused_parameters": False,  # every micro-batch that is computed uses all
        "seed": seeds.derive(recipe.seed, stage.path.name.partition("-")[0]) % 2**31,  # the same in every round
        "save_steps": section.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "disable_tqdm": True,
        **loggers.settings(recipe, stage),
    }


def one_device(args: Any) -> Any:
    """TRL's configuration, told that this process has one device: transformers would use all that it sees (torch's
    DataParallel), which neither TRL nor the recipe's `training.devices` knows of.
    """
    if args.n_gpu > 1:
        args._n_gpu = 1
    return args


def fit(trainer: Any, callbacks: Sequence[Any], stage: Stage, per_step: int, steps: int, checkpoint: str | None) -> Any:
    """Train from the checkpoint, where there is one, for so many steps of `per_step` updates; gives the policy.

    Raises StoppedError where SIGTERM came.
    """
    trainer.remove_callback(PrinterCallback)
    with stopping.heeded(stage.path.name, per_step, steps) as stop:
        for callback in (*callbacks, stop):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=checkpoint)
        stop.check()
    return trainer.accelerator.unwrap_model(trainer.model)


@contextmanager
def progress(stage: Stage, total: int, what: str, done: int) -> Iterator[Callable[..., None]]:
    """`Stage.track` of the main process; the others show nothing."""
    if processes.is_main():
        with stage.track(total, what, done=done) as advance:
            yield advance
    else:
        yield lambda *_, **__: None


def last_checkpoint(folder: Path) -> tuple[str | None, int]:
    """The newest whole checkpoint under `folder`/checkpoints and its optimizer step; removes those a kill cut short.

    All processes have to call this.
    """
    if not processes.is_main():
        processes.any_of(False)  # the main process removes, then all look
        return _newest(folder)
    found = _newest(folder)
    processes.any_of(False)
    return found


def _newest(folder: Path) -> tuple[str | None, int]:
    checkpoints = folder / "checkpoints"
    while checkpoints.is_dir() and (path := get_last_checkpoint(str(checkpoints))):
        state = Path(path) / "trainer_state.json"  # written last: without it a kill came while the others were
        why = intact.damage_of_checkpoint(Path(path))
        if not why:
            return path, int(json.loads(state.read_text())["global_step"])
        if state.exists():
            said = f"{folder.name}: {Path(path).name} {why} and is left out"
            say(f"{said}; training goes on from the checkpoint before it, or from its beginning")
        shutil.rmtree(path)
    return None, 0


def save_model(policy: Any, copy: SamplingCopy, tokenizer: Any, folder: Path) -> None:
    """Write the policy as `folder`/model, a Hugging Face folder in the copy's type, whole or not at all.

    Raises ModelError for weights that are no numbers any more.
    """
    copy.follow(policy, here=processes.is_main())
    if not processes.is_main():
        return
    if not all(bool(weights.isfinite().all()) for weights in copy.model.parameters()):
        raise ModelError(
            f"{folder.name}: training has diverged, its weights are no numbers any more; see `loss` and `grad_norm` in "
            f"{folder / METRICS}, lower {folder.name.partition('-')[0]}.learning_rate, and run again with --fresh "
            f"{folder.name}."
        )
    write_model(copy.model, tokenizer, folder, "model")


def drop_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished training is taken up from: once its stage is finished, not before."""
    for name in ("checkpoints", BEST):
        shutil.rmtree(folder / name, ignore_errors=True)


def lora_of(section: Training) -> Any:
    """peft's configuration of the adapters; None where all weights are trained. Raises RecipeError without peft."""
    lora = section.lora
    if not lora.rank:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise RecipeError("lora.rank wants the package peft; `pip install peft`, or set it to 0.") from error
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha or 2 * lora.rank, lora_dropout=lora.dropout, task_type="CAUSAL_LM",
        target_modules=lora.targets or "all-linear",
    )  # fmt: skip


def keep_model(model: Any, tokenizer: Any, folder: Path, step: int) -> None:
    """Write `folder`/steps/STEP as a Hugging Face folder in the model's own type, whole or not at all."""
    write_model(model, tokenizer, folder, f"{STEPS}/{step}")


def drop_kept(folder: Path, after: int) -> None:
    """Remove the kept models of steps that a kill threw away (those after the checkpoint that training resumes from).

    They are made again; unless `rl.keep_every` has changed since.
    """
    if not processes.is_main():
        return
    for kept in (folder / STEPS).glob("[0-9]*"):
        if int(kept.name) > after:
            shutil.rmtree(kept)


def write_model(model: Any, tokenizer: Any, folder: Path, name: str, notes: dict[str, Any] | None = None) -> None:
    """Write `folder`/`name`: beside its place, where `Stage.begin` clears what a kill leaves, flushed, and moved there.

    `notes` are JSON files that go with it, by name.
    """
    temporary, place = folder / f"{files.TEMPORARY}model", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    with files.told(str(place)):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for note, facts in (notes or {}).items():
            files.write_json(temporary / note, facts)
        for path in (*temporary.iterdir(), temporary):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        temporary.rename(place)
