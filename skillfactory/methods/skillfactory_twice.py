"""SkillFactory twice (not in the paper): after RL, curate again from the improved model, SFT and RL on top of it.

A model that retries and reflects by itself gives several attempts and judgements in one response. So in the second
round these are taken out of its responses, graded one by one, and arranged anew.
"""

from typing import Any

from skillfactory.methods.base import CURATED, Method
from skillfactory.recipe import Recipe


def _from_responses(recipe: Recipe) -> dict[str, Any]:
    sampling = {f"attempts.{name}": getattr(recipe.rl, name) for name in ("temperature", "max_tokens")}
    return {"attempts.split": True, **sampling}


METHOD = Method(
    "SkillFactory, and once more from the model that came of it", CURATED,
    rounds=lambda recipe: 2, repeats="rl", restarts=False, again=_from_responses,
)  # fmt: skip
