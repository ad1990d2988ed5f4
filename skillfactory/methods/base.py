"""What a method is: the stages that it runs, and what it decides of the recipe. The rest is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from skillfactory.recipe import Recipe

TRAINED = ("questions", "rl", "evaluation", "report")
CURATED = ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation", "report")


def _nothing(recipe: Recipe) -> dict[str, Any]:
    return {}


def _fine(recipe: Recipe) -> None:
    return


@dataclass(frozen=True)
class Method:
    """A way to train.

    `settings` are those of the recipe that the method decides, whatever the recipe says, by dotted name. A method of
    several `rounds` repeats its stages up to `repeats`; the model that comes of them makes the next round's attempts.
    With `restarts` each round trains the recipe's model anew, else it goes on from the model of the round before.
    `again` are settings from the second round on. `check` raises RecipeError for a recipe that lacks what it needs.
    """

    about: str
    stages: tuple[str, ...]
    settings: Callable[[Recipe], dict[str, Any]] = _nothing
    rounds: Callable[[Recipe], int] = lambda recipe: 1
    repeats: Literal["sft", "rl"] = "sft"
    restarts: bool = True
    again: Callable[[Recipe], dict[str, Any]] = _nothing
    check: Callable[[Recipe], None] = _fine


def one_variant(recipe: Recipe) -> dict[str, Any]:
    """Settings for as many attempts as the recipe has, all of one prompt variant: the first."""
    attempts = recipe.attempts
    return {
        "attempts.variants": attempts.variants[:1],
        "attempts.per_variant": attempts.per_variant * len(attempts.variants),
    }
