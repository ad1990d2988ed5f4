"""How SFT and RL are cut into steps and updates: known from the recipe alone."""

from skillfactory.errors import RecipeError
from skillfactory.recipe import Rl, Sft


def updates_per_step(rl: Rl, questions: int, devices: int = 1) -> int:
    """Optimizer updates a step: `rl.iterations`, times the mini-batches of prompts in a step.

    Raises RecipeError where numbers do not divide.
    """
    if rl.prompts_per_step > questions:
        raise RecipeError(
            f"rl.prompts_per_step is {rl.prompts_per_step}, but there are only {questions} questions for RL; "
            "lower it or raise questions.rl."
        )
    mini = rl.mini_batch or rl.prompts_per_step
    if rl.prompts_per_step % mini:
        raise RecipeError(f"rl.mini_batch ({mini}) must divide rl.prompts_per_step ({rl.prompts_per_step}).")
    rollouts, at_once = mini * rl.group_size, rl.micro_batch * devices
    if rollouts % at_once:
        each = f"rl.micro_batch ({rl.micro_batch})" + (f" x training.devices ({devices})" if devices > 1 else "")
        raise RecipeError(
            f"{each} must divide the rollouts of an update ({mini} prompts x {rl.group_size} = {rollouts})."
        )
    return rl.prompts_per_step // mini * rl.iterations


def sft_batch(sft: Sft, traces: int, devices: int = 1) -> tuple[int, int]:
    """Traces of a micro-batch on each device, and how many micro-batches make an update.

    Together `sft.batch_size`, or as many as there are. Raises RecipeError where devices cannot share it.
    """
    if sft.batch_size % devices:
        raise RecipeError(
            f"sft.batch_size ({sft.batch_size}) must be a multiple of training.devices ({devices}): each takes its "
            "part of an update."
        )
    each = max(1, min(sft.batch_size, traces) // devices)
    micro = max(n for n in range(1, min(sft.micro_batch, each) + 1) if each % n == 0)
    return micro, each // micro


def goes_on(rl: Rl) -> bool:
    """Whether RL goes on after its steps. Raises RecipeError where its learning rate would not."""
    more = rl.more_tokens > 0 or rl.more_seconds > 0
    if more and rl.schedule not in ("constant", "constant_with_warmup"):
        raise RecipeError(
            f"rl.more_tokens and rl.more_seconds go on for a number of steps that is not known before, so rl.schedule "
            f"must be constant, not {rl.schedule}."
        )
    return more
