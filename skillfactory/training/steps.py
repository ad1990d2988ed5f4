"""How RL is cut into steps and updates: known from the recipe alone."""

from skillfactory.errors import RecipeError
from skillfactory.recipe import Rl


def updates_per_step(rl: Rl, questions: int) -> int:
    """Optimizer updates a step: one, or one a mini-batch of prompts. Raises RecipeError where numbers do not divide."""
    if rl.prompts_per_step > questions:
        raise RecipeError(
            f"rl.prompts_per_step is {rl.prompts_per_step}, but there are only {questions} questions for RL; "
            "lower it or raise questions.rl."
        )
    mini = rl.mini_batch or rl.prompts_per_step
    if rl.prompts_per_step % mini:
        raise RecipeError(f"rl.mini_batch ({mini}) must divide rl.prompts_per_step ({rl.prompts_per_step}).")
    if mini * rl.group_size % rl.micro_batch:
        raise RecipeError(
            f"rl.micro_batch ({rl.micro_batch}) must divide the rollouts of an update "
            f"({mini} prompts x {rl.group_size} = {mini * rl.group_size})."
        )
    return rl.prompts_per_step // mini


def goes_on(rl: Rl) -> bool:
    """Whether RL goes on after its steps. Raises RecipeError where its learning rate would not."""
    more = rl.more_tokens > 0 or rl.more_seconds > 0
    if more and rl.schedule not in ("constant", "constant_with_warmup"):
        raise RecipeError(
            f"rl.more_tokens and rl.more_seconds go on for a number of steps that is not known before, so rl.schedule "
            f"must be constant, not {rl.schedule}."
        )
    return more
