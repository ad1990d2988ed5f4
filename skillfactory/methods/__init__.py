"""Ways to train, to be compared: a file each, which says where the data of SFT come from. All else stays the same."""

from difflib import get_close_matches

from skillfactory.errors import RecipeError
from skillfactory.methods import ablations, bolt, distill, evaluate, rl_only, skillfactory, skillfactory_twice, star
from skillfactory.methods.base import Method
from skillfactory.recipe import Recipe, changed

METHODS: dict[str, Method] = {
    "skillfactory": skillfactory.METHOD,
    "rl_only": rl_only.METHOD,
    "star": star.METHOD,
    "bolt": bolt.METHOD,
    "distill": distill.METHOD,
    "random_order": ablations.RANDOM_ORDER,
    "no_reflections": ablations.NO_REFLECTIONS,
    "one_prompt": ablations.ONE_PROMPT,
    "instruction_prompt": ablations.INSTRUCTION_PROMPT,
    "skillfactory_twice": skillfactory_twice.METHOD,
    "evaluate": evaluate.METHOD,
}


def get(name: str) -> Method:
    """A method by its name. Raises RecipeError for an unknown one."""
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(METHODS)}."
        raise RecipeError(f"Unknown method `{name}`; {hint}")
    return METHODS[name]


def applied(recipe: Recipe) -> Recipe:
    """The recipe with what its method decides; applied again it stays the same.

    Raises RecipeError where the method lacks what it needs.
    """
    method = get(recipe.method)
    method.check(recipe)
    return changed(recipe, method.settings(recipe))


def stages(recipe: Recipe) -> tuple[str, ...]:
    """The stages of the recipe's method, in order.

    Of several rounds the last has the plain names, and the earlier ones a number: `sft-1`, `sft-2`, `sft`. So `sft` and
    `rl` are always what comes of it all.
    """
    method = get(recipe.method)
    until = method.stages.index(method.repeats) + 1 if method.repeats in method.stages else 0
    earlier = [f"{name}-{n}" for n in range(1, method.rounds(recipe)) for name in method.stages[1:until]]
    return (*method.stages[:1], *earlier, *method.stages[1:])
