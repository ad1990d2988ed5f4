"""STaR (Zelikman et al. 2022; paper §5): sample, keep what is right, fine-tune the base on it, and again; then GRPO.

Each round samples from the model of the round before and trains the base anew. With `star.rationalize` a question that
is not solved is also attempted with its answer shown, and a right attempt at it that does not speak of that is kept.

Deviations: several attempts a question, as the other methods have, and not one; as many of the right ones are kept as
`traces.per_question` says.
"""

from typing import Any

from skillfactory.methods.base import CURATED, Method, one_variant
from skillfactory.recipe import Recipe


def settings(recipe: Recipe) -> dict[str, Any]:
    """One prompt, answers as they are; hints where they are wanted."""
    hints = "always" if recipe.star.rationalize else "never"
    return {**one_variant(recipe), "attempts.hints": hints, "traces.pattern": "solution"}


METHOD = Method(
    "the model's own right attempts as they are, in rounds, SFT, GRPO", CURATED, settings,
    rounds=lambda recipe: recipe.star.rounds, repeats="sft",
)  # fmt: skip
