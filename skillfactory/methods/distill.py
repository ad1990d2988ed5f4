"""Distillation (paper §5): the traces of a teacher, the right ones or all, SFT, then GRPO.

The teacher answers here (`distill.teacher`, on any engine), or has answered before (`distill.traces`, a file).
"""

from typing import Any

from skillfactory.errors import RecipeError
from skillfactory.methods.base import CURATED, Method, one_variant
from skillfactory.recipe import Recipe


def settings(recipe: Recipe) -> dict[str, Any]:
    """Attempts are whole responses of the teacher's."""
    asked = one_variant(recipe) | {"attempts.model": recipe.distill.teacher, "attempts.engine": recipe.distill.engine}
    return {
        **({"attempts.given": recipe.distill.traces} if recipe.distill.traces else asked),
        "attempts.hints": "never",
        "attempts.max_tokens": recipe.rl.max_tokens,  # a whole response may be as long as a rollout
        "attempts.whole": True,
        "traces.pattern": "solution" if recipe.distill.keep == "correct" else "any_solution",
    }


def check(recipe: Recipe) -> None:
    """Raises RecipeError without a teacher, or with two."""
    if bool(recipe.distill.teacher) == bool(recipe.distill.traces):
        raise RecipeError(
            "method distill: set either distill.teacher (a folder, a hub id, or a server's name of a model) or "
            "distill.traces (a file of its responses)."
        )


METHOD = Method("a teacher's responses, SFT, GRPO", CURATED, settings, check=check)
