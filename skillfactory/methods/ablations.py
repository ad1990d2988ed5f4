"""The paper's ablations (§5): SkillFactory with one ingredient left out.

`random_order`: the pairs of each trace in any order, so that it may end on a wrong one (its answer is still right).
`no_reflections`: attempts alone. `one_prompt`: as many attempts, of one prompt variant. `instruction_prompt`: no SFT;
a prompt that asks for the tags, with an example, in RL and evaluation.
"""

from typing import Any

from skillfactory.methods.base import CURATED, TRAINED, Method, one_variant
from skillfactory.recipe import Recipe


def _without_order(recipe: Recipe) -> dict[str, Any]:
    return {"traces.order": "random"}


def _without_reflections(recipe: Recipe) -> dict[str, Any]:
    return {"traces.reflect": False}


def _instructed(recipe: Recipe) -> dict[str, Any]:
    return {"attempts.instruct": True}


RANDOM_ORDER = Method("SkillFactory with the pairs of a trace in any order", CURATED, _without_order)
NO_REFLECTIONS = Method("SkillFactory without reflections", CURATED, _without_reflections)
ONE_PROMPT = Method("SkillFactory with attempts of one prompt variant", CURATED, one_variant)
INSTRUCTION_PROMPT = Method("no SFT; a prompt that asks for attempts and reflections, GRPO", TRAINED, _instructed)
