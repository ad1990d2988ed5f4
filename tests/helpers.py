"""What several test files make."""

from typing import Any

from skillfactory.recipe import Recipe

TASK = {"name": "multiplication", "params": {"digits": 2, "digits_b": 1}}
SIGNS = {
    "name": "countdown",
    "params": {"count": 3, "high": 19, "target_high": 40, "operators": "+-", "in_order": True},
}
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


def almost_nothing() -> dict[str, Any]:
    """Sections for a run of all stages on the tiny model: few questions, one step of RL, two questions to evaluate."""
    plain = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": 64}
    return {
        "questions": {"task": SIGNS, "sft": 24, "rl": 8, "dev": 2},
        "attempts": {**plain, "variants": ["original", "rephrase"], "per_variant": 4},
        "reflections": {**plain, "per_attempt": 1},
        "traces": {"pattern": "fail_first", "max_pairs": 4, "per_question": 1},
        "sft": {"learning_rate": 1e-3, "epochs": 1},
        "rl": {"steps": 1, "prompts_per_step": 4, "group_size": 4, "mini_batch": 0, "max_tokens": 100},
        "evaluation": {**plain, "samples": 1, "sets": {"same": {"task": TASK, "n": 2}}},
    }
