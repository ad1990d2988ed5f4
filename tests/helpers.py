"""What several test files make."""

from typing import Any

from skillfactory.recipe import Recipe

TASK = {"name": "multiplication", "params": {"digits": 2, "digits_b": 1}}
RECIPE_YAML = """\
name: r
questions: {task: {name: multiplication, params: {digits: 2, digits_b: 1}}, sft: 6, rl: 4, dev: 2}
evaluation: {sets: {easy: {task: {name: multiplication, params: {digits: 2, digits_b: 1}}, n: 3}}}
"""


def make_recipe(**sections: Any) -> Recipe:
    """A recipe of small multiplications, in float32 on one thread."""
    given = {
        "name": "test",
        "questions": {"task": TASK, "sft": 4, "rl": 8, "dev": 2},
        "evaluation": {"sets": {"same": {"task": TASK, "n": 2}}},
        "machine": {"device": "cpu", "dtype": "float32", "threads": 1},
    }
    return Recipe.model_validate(given | sections)
