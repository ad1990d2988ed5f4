"""BOLT (Pang et al. 2025; paper §5): long traces written after worked examples, the right ones kept, SFT, then GRPO.

The writer is the recipe's model unless `bolt.writer` names another; the examples are a file (`bolt.examples`), by hand
or by `skillfactory examples`. Deviation: BOLT's DPO stage, which the paper does not use either, is left out.
"""

from typing import Any

from skillfactory.errors import RecipeError
from skillfactory.methods.base import CURATED, Method, one_variant
from skillfactory.recipe import Recipe

VARIANT = "bolt"


def settings(recipe: Recipe) -> dict[str, Any]:
    """Attempts are whole responses after the examples."""
    return {
        **one_variant(recipe),
        "attempts.variants": [VARIANT],
        "attempts.examples": recipe.bolt.examples,
        "attempts.model": recipe.bolt.writer,
        "attempts.engine": recipe.bolt.engine,
        "attempts.hints": "never",
        "attempts.max_tokens": recipe.rl.max_tokens,  # a whole response may be as long as a rollout
        "attempts.whole": True,
        "traces.pattern": "solution",
    }


def check(recipe: Recipe) -> None:
    """Raises RecipeError without examples."""
    if not recipe.bolt.examples:
        raise RecipeError(
            "method bolt: bolt.examples is not set; name a file of worked examples, or have some written: "
            "skillfactory examples RECIPE OUT.yaml."
        )


METHOD = Method("long traces written after worked examples, SFT, GRPO", CURATED, settings, check=check)
