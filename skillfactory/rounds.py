"""Rounds of a method that trains several times: which round a stage belongs to, and what a stage of it is given."""

from pathlib import Path

from skillfactory import methods, seeds
from skillfactory.recipe import REPEATED, Recipe, changed

SAMPLED = ("attempts", "reflections", "traces")


def stage_of(name: str) -> str:
    """`sft` of `sft-1`: the stage as the pipeline knows it."""
    return name.partition("-")[0]


def suffix_of(name: str) -> str:
    """`-1` of `sft-1`: what the names of this round's stages end on; "" in the last round."""
    return name[len(stage_of(name)) :]


def number_of(name: str, recipe: Recipe) -> int:
    """The round that a stage belongs to, from 1; 1 also for stages that are not repeated."""
    if stage_of(name) not in REPEATED:
        return 1
    return int(suffix_of(name)[1:] or methods.get(recipe.method).rounds(recipe))


def starts_from(name: str, recipe: Recipe) -> str:
    """The stage whose model takes the place of the recipe's in this stage; "" for the recipe's own."""
    method, number = methods.get(recipe.method), number_of(name, recipe)
    if number == 1 or (method.restarts and stage_of(name) not in SAMPLED):
        return ""
    return f"{method.repeats}-{number - 1}"


def recipe_of(name: str, recipe: Recipe, run: Path) -> Recipe:
    """The recipe as a stage of a run is to see it: from the second round on with another model and another seed."""
    number, source = number_of(name, recipe), starts_from(name, recipe)
    if number == 1:
        return recipe
    model = {"model": str(run / source / "model"), "revision": ""} if source else {}
    again = methods.get(recipe.method).again(recipe)
    return changed(recipe, {**again, **model, "seed": seeds.derive(recipe.seed, "round", number)})
