"""Recipes in verl's terms, and the configuration that verl makes of them."""

import sys
from pathlib import Path
from typing import Any

from helpers import make_recipe
from traces_run import TINY

from skillfactory.recipe import Recipe
from skillfactory.training.elsewhere import verl_reward, verl_settings
from skillfactory.training.elsewhere.verl_settings import Job

RL = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "mini_batch": 2, "micro_batch": 2, "max_tokens": 32}


def recipe_of(**rl: Any) -> Recipe:
    system = {"backend": "verl", "verl": {"python": sys.executable}}
    return make_recipe(model=str(TINY), machine={}, rl=RL | rl, training=system)


def job_of(folder: Path, **changed: Any) -> Job:
    given: dict[str, Any] = {
        "folder": folder, "reward": folder / verl_reward.FILE, "model": str(TINY), "prompt_tokens": 64, "done": 0,
        "name": "a-run", "environment": {"VERL_FILE_LOGGER_PATH": str(folder / "figures.jsonl")},
    }  # fmt: skip
    return Job(**given | changed)


def composed(recipe: Recipe, job: Job) -> Any:
    """The configuration as `python -m verl.trainer.main_ppo …` sees it."""
    from hydra import compose, initialize_config_module

    words = verl_settings.overrides(verl_settings.settings(recipe, job))
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=words, return_hydra_config=True)
