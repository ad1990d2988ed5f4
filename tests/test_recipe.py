"""Recipes: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import recipes
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.recipes import load_recipe, read_recipe

GOOD = """\
# A comment.
name: t
questions:
  task: {name: countdown, params: {count: 3}}
  sft: 20
evaluation:
  sets:
    easy:
      task: {name: countdown, params: {count: 3}}
      n: 10
rl:
  learning_rate: 1e-6
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD)
    return path


def test_overrides_reach_every_depth_and_are_read_as_yaml(good: Path) -> None:
    recipe = load_recipe(
        good,
        [
            "evaluation.sets.easy.n=50", "questions.task.params.count=4", "attempts.variants=[original, rephrase]",
            "method=rl_only", "sft.learning_rate=2e-5", "attempts.prompts=", "evaluation.greedy=true",
            "evaluation.sets.hard={task: {name: multiplication}, kind: other}", "questions.sft=7", "questions.sft=8",
        ],
    )  # fmt: skip
    assert recipe.evaluation.sets["easy"].n == 50
    assert recipe.questions.task.params == {"count": 4}
    assert recipe.attempts.variants == ["original", "rephrase"]
    assert recipe.method == "rl_only"
    assert (recipe.rl.learning_rate, recipe.sft.learning_rate) == (1e-6, 2e-5)
    assert recipe.attempts.prompts == ""
    assert recipe.evaluation.greedy is True
    assert recipe.evaluation.sets["hard"].kind == "other"
    assert recipe.questions.sft == 8


@given(st.recursive(st.none() | st.booleans() | st.integers(1 - 2**63, 2**63 - 1) | st.text(), st.lists, max_leaves=5))
def test_an_override_means_what_its_yaml_means(value: object) -> None:
    data: dict[str, object] = {}
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=False)
    recipes._override(data, f"a.b={text}")
    assert data == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sft: 20", "stf: 20", ["line 5", "unknown key `questions.stf`", "did you mean `sft`"]),
        ("rl:\n", "temperature: 1\nrl:\n", ["line 11", "unknown key `temperature`", "there is `attempts.temperature`"]),
        ("rl:\n", "zzz: 1\nrl:\n", ["unknown key `zzz`", "allowed here: name, seed, method"]),
        ("      n: 10", "      m: 10", ["unknown key `evaluation.sets.easy.m`", "allowed here: task, n, samples"]),
        ("sft: 20", "sft: many", ["line 5", "`questions.sft` is 'many'", "integer"]),
        ("sft: 20", "sft: -1", ["line 5", "`questions.sft` is -1", "greater than or equal to 0"]),
        ("sft: 20", "sft: 20\n  sft: 30", ["line 6", "`sft` is there twice"]),
        ("sft: 20", "sft: [20", ["not valid YAML"]),
        ("sft: 20", "sft: 20\n  \tx: 1", ["line 6", "not valid YAML"]),
        ("name: t\n", "", ["`name` is missing", "Names the run"]),
        ("name: t", "name: ../t", ["line 2", "`name` is '../t'"]),
        ("questions:\n", "questions: 5\nx:\n", ["line 3", "`questions` must be a mapping with the keys task, sft"]),
        ("rl:\n", "rl:\n  loss_type: grp\n", ["line 12", "`rl.loss_type` is 'grp'", "did you mean `grpo`"]),
        ("name: t", "name: t\nmethod: skilfactory", ["Unknown method", "did you mean `skillfactory`"]),
        ("{name: countdown, params: {count: 3}}\n  sft", "{name: countdwn}\n  sft", ["questions.task", "`countdown`"]),
        ("params: {count: 3}}\n      n", "params: {cuont: 3}}\n      n", ["evaluation.sets.easy.task", "`count`"]),
        ("{name: countdown, params: {count: 3}}\n  sft", "{name: jsonl}\n  sft", ["questions.task", "path"]),
        (GOOD, "- a\n- b\n", ["a recipe is a mapping"]),
        (GOOD, "", ["a recipe is a mapping"]),
        (GOOD, "a: !!python/object/apply:os.system [ls]", ["not valid YAML"]),
    ],
)  # fmt: skip
def test_a_wrong_recipe_names_line_key_and_mend(good: Path, old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    good.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SkillFactoryError) as caught:
        load_recipe(good)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rl.stepz=3", ["command line", "unknown key `rl.stepz`", "did you mean `steps`"]),
        ("rl.steps", ["not of the form section.key=value"]),
        ("rl..steps=3", ["not of the form"]),
        ("name.x=3", ["`name` is a single value"]),
        ("rl.steps=[", ["`[` is not valid YAML"]),
        ("evaluation.sets.hard.n=5", ["`evaluation.sets.hard.task` is missing"]),
        ("questions.task=countdown", ["`questions.task` must be a mapping", "'countdown'"]),
    ],
)
def test_a_wrong_override_says_so(good: Path, override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [override])
    for word in words:
        assert word in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="neither such a file nor a shipped recipe"):
        load_recipe(tmp_path / "no.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_the_nearest_shipped_recipe_is_named(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    monkeypatch.setattr(recipes, "shipped", lambda kind: {"countdown-big": good})
    with pytest.raises(RecipeError, match="did you mean `countdown-big`"):
        load_recipe("countdown-bgi")
    assert load_recipe("countdown-big").name == "t"


def test_recipes_are_shipped() -> None:
    assert {"demo", "smollm2-smoke", "countdown-qwen2.5-1.5b"} <= set(recipes.shipped())


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_every_shipped_recipe_is_whole_and_survives_its_own_run_directory(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert read_recipe(copy) == recipe
