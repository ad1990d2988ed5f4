"""What is known to be wrong with a recipe's settings of training before anything is made. Imports no torch."""

from skillfactory import methods
from skillfactory.errors import RecipeError
from skillfactory.recipe import Recipe
from skillfactory.rounds import stage_of
from skillfactory.training import launch
from skillfactory.training.elsewhere import llamafactory, verl
from skillfactory.training.steps import sft_batch

MEASURED = ("sft", "rl")  # sections with `dev_every` and `keep`


def check(recipe: Recipe) -> None:
    """Raises RecipeError for settings of the stages that the recipe's method runs which cannot all hold."""
    stages = {stage_of(name) for name in methods.stages(recipe)}
    for name in MEASURED:
        if name in stages:
            _check_development(name, recipe)
    if "rl" in stages:
        _check_shaping(recipe)
        _check_bounds(recipe)
    if "sft" in stages:
        sft_batch(recipe.sft, recipe.sft.batch_size, recipe.training.devices)
    here = stages & set(MEASURED)  # those that TRL trains
    if "sft" in stages and recipe.training.sft == "llamafactory":
        llamafactory.check(recipe)
        here.discard("sft")
    if "rl" in stages and recipe.training.backend == "verl":
        verl.check(recipe)
        here.discard("rl")
    if here:
        launch.check(recipe, here)


def _check_development(name: str, recipe: Recipe) -> None:
    """The best model is the best of those that are measured, on questions that there are."""
    section = recipe.sft if name == "sft" else recipe.rl
    if section.keep == "best" and not section.dev_every:
        raise RecipeError(
            f"{name}.keep is best, but {name}.dev_every is 0, so no model is measured; set {name}.dev_every to the "
            f"steps between two measurements, or {name}.keep to last."
        )
    if section.dev_every and not recipe.questions.dev:
        raise RecipeError(
            f"{name}.dev_every is {section.dev_every}, but questions.dev is 0, so there is nothing to measure on; "
            f"raise questions.dev, or set {name}.dev_every to 0{' and keep to last' if section.keep == 'best' else ''}."
        )


def _check_shaping(recipe: Recipe) -> None:
    rl = recipe.rl
    if rl.shaping.overlong > rl.max_tokens:
        raise RecipeError(
            f"rl.shaping.overlong is {rl.shaping.overlong}, more than rl.max_tokens ({rl.max_tokens}): every rollout "
            "would lose reward for its length; lower it (DAPO: a fifth of the tokens)."
        )


def _check_bounds(recipe: Recipe) -> None:
    rl = recipe.rl
    if rl.loss_type == "cispo" and rl.epsilon_high <= 1:
        raise RecipeError(
            f"rl.epsilon_high is {rl.epsilon_high:g}, but with rl.loss_type: cispo it bounds the ratio itself, which "
            "starts at 1; set it to 5, say."
        )
