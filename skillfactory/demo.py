"""The demonstration: one recipe, two methods at once, then their comparison.

Each method is a process of its own with one torch thread, so that neither waits for the other.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from skillfactory.children import Child, how_it_ended, last_lines, start, stop
from skillfactory.errors import SkillFactoryError
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe

RECIPE = "demo"
METHODS = ("skillfactory", "rl_only")


class DemoError(SkillFactoryError, RuntimeError):
    """One of the demo's processes failed."""


def reduced(recipe: Recipe) -> list[str]:
    """Overrides that shrink the demo to a test that every stage works; nothing is learnt in it."""
    questions, rl = recipe.questions, recipe.rl
    changes: dict[str, int] = {
        "questions.sft": min(40, questions.sft),
        "questions.rl": min(32, questions.rl),
        "questions.dev": min(8, questions.dev),
        "rl.steps": min(3, rl.steps),
        "rl.prompts_per_step": min(16, rl.prompts_per_step),
        "rl.mini_batch": 0,
        "evaluation.samples": 1,
    }
    changes |= {f"evaluation.sets.{name}.n": min(16, each.n) for name, each in recipe.evaluation.sets.items()}
    return [f"{key}={value}" for key, value in changes.items()]


def run_demo(
    out: Path, small: bool, watch: Callable[[Sequence[Child]], None], overrides: Sequence[str] = ()
) -> list[Path]:
    """Run both methods until they are done; returns their run directories. Raises DemoError where one fails.

    `watch(children)` is called about once a second. Signals to stop end both processes, which keep their work.
    """
    if small:
        overrides = [*reduced(load_recipe(RECIPE)), *overrides]
    load_recipe(RECIPE, overrides)  # a mistake shows here, before any process starts
    out.mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    try:
        for method in METHODS:
            arguments = [RECIPE, *overrides, f"method={method}"]
            children.append(start(method, out / method, out / f"{method}.log", arguments))
        while any(child.process.poll() is None for child in children):
            watch(children)
            _raise_failed(children)
            time.sleep(1)
        watch(children)
        _raise_failed(children)
    finally:
        stop(children)
    return [child.run for child in children]


def _raise_failed(children: Sequence[Child]) -> None:
    for child in children:
        if code := child.process.poll():
            raise DemoError(
                f"The demo's {child.name} run {how_it_ended(code)}; the same command goes on from there. "
                f"Last lines of {child.log}:\n" + "\n".join(f"  {line}" for line in last_lines(child.log))
            )
