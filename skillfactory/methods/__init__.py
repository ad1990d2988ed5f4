"""Ways to train, to be compared. Each says only which stages it runs; all that it shares with others stays the same."""

from difflib import get_close_matches

from skillfactory.errors import RecipeError
from skillfactory.methods import evaluate, rl_only, skillfactory

METHODS: dict[str, tuple[str, ...]] = {
    "skillfactory": skillfactory.STAGES,
    "rl_only": rl_only.STAGES,
    "evaluate": evaluate.STAGES,
}


def get(name: str) -> tuple[str, ...]:
    """The stages of a method, in order. Raises RecipeError for an unknown name."""
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(METHODS)}."
        raise RecipeError(f"Unknown method `{name}`; {hint}")
    return METHODS[name]
