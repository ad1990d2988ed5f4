"""What is known to be wrong with a recipe's settings of training before anything is made. Imports no torch."""

from collections.abc import Collection

from skillfactory import methods
from skillfactory.errors import RecipeError
from skillfactory.planning.memory import vllm_share
from skillfactory.planning.steps import sft_batch
from skillfactory.recipe import Recipe
from skillfactory.rounds import stage_of
from skillfactory.training import launch, loggers, processes
from skillfactory.training.elsewhere import llamafactory, llamafactory_settings, verl, verl_settings

TRAINED = ("sft", "rl")  # sections of `recipe.Training`


def check(recipe: Recipe) -> None:
    """Raises RecipeError for settings of the stages that the recipe's method runs which cannot all hold."""
    stages = {stage_of(name) for name in methods.stages(recipe)}
    for name in TRAINED:
        if name in stages:
            _check_development(name, recipe)
    if "rl" in stages:
        _check_shaping(recipe)
        _check_bounds(recipe)
        vllm_share(recipe)
        if recipe.training.backend == "verl":
            verl_settings.check(recipe)
    if "sft" in stages:
        sft_batch(recipe.sft, recipe.sft.batch_size, recipe.training.devices)
        if recipe.training.sft == "llamafactory":
            llamafactory_settings.check(recipe)
    if _here(recipe, stages):
        launch.check(recipe)


def check_installed(recipe: Recipe, stages: Collection[str]) -> None:
    """Raises RecipeError where a program or package is missing that one of these stages is trained by."""
    if not set(stages) & set(TRAINED):
        return
    processes.check()
    loggers.check(recipe)
    if "sft" in stages and recipe.training.sft == "llamafactory":
        llamafactory.check(recipe)
    if "rl" in stages and recipe.training.backend == "verl":
        verl.check(recipe)
    launch.check_installed(recipe, _here(recipe, stages))


def _here(recipe: Recipe, stages: Collection[str]) -> set[str]:
    """Those of the stages that TRL trains, in this environment."""
    elsewhere = {
        "sft": recipe.training.sft == "llamafactory",
        "rl": recipe.training.backend == "verl",
    }
    return {name for name in TRAINED if name in stages and not elsewhere[name]}


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
