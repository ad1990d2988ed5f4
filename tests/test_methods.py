"""Methods: their stages and rounds, what they share, what they decide of a recipe, and what they refuse."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from curated import Known
from helpers import make_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import methods, pipeline, recipes
from skillfactory.curation import splitting
from skillfactory.curation.patterns import PATTERNS, arrange, patterns_of
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.base import Completion
from skillfactory.errors import RecipeError
from skillfactory.evaluation.summary import models_in
from skillfactory.recipe import Recipe, Traces, changed
from skillfactory.records import Attempt, Reflection
from skillfactory.report.tables import model_name
from skillfactory.rounds import recipe_of
from skillfactory.tasks import get

NEEDS = {"bolt": {"bolt": {"examples": "examples.yaml"}}, "distill": {"distill": {"teacher": "tiny"}}}


def of(method: str, **sections: Any) -> Recipe:
    return methods.applied(make_recipe(method=method, **{**NEEDS.get(method, {}), **sections}))


@pytest.mark.parametrize("method", list(methods.METHODS))
def test_every_method_is_settled_once_applied(method: str) -> None:
    recipe = of(method)
    assert methods.applied(recipe) == recipe
    stages = methods.stages(recipe)
    assert len(set(stages)) == len(stages)
    assert stages[0] == "questions"
    assert stages[-2:] == ("evaluation", "report")
    found = pipeline.identities(recipe)
    assert list(found) == list(stages)
    assert len({each.digest for each in found.values()}) == len(stages)
    for name in stages:  # whatever a stage reads comes before it
        before = stages[: stages.index(name)]
        assert set(pipeline.inputs_of(name, recipe).values()) <= set(before)


def test_rounds_have_names_and_models_of_their_own(tmp_path: Path) -> None:
    star = of("star", star={"rounds": 3})
    assert [name for name in methods.stages(star) if name.startswith("sft")] == ["sft-1", "sft-2", "sft"]
    assert recipe_of("traces-1", star, tmp_path) == star
    second = recipe_of("traces-2", star, tmp_path)
    assert (second.model, recipe_of("sft-2", star, tmp_path).model) == (str(tmp_path / "sft-1" / "model"), "tiny")
    assert second.seed != recipe_of("traces", star, tmp_path).seed != star.seed
    assert recipe_of("evaluation", star, tmp_path) == star
    twice = of("skillfactory_twice")
    assert recipe_of("sft", twice, tmp_path).model == str(tmp_path / "rl-1" / "model")
    assert recipe_of("traces", twice, tmp_path).attempts.split
    assert not recipe_of("traces-1", twice, tmp_path).attempts.split
    assert pipeline.dependents("rl-1", twice)[:3] == ["rl-1", "attempts", "reflections"]


def test_what_methods_share_has_one_digest() -> None:
    plain = pipeline.identities(of("skillfactory"))
    twice = pipeline.identities(of("skillfactory_twice"))
    for stage in ("attempts", "reflections", "traces", "sft", "rl"):
        assert plain[stage].digest == twice[f"{stage}-1"].digest != twice[stage].digest
    ordered = pipeline.identities(of("random_order"))
    assert ordered["attempts"].digest == plain["attempts"].digest
    assert ordered["reflections"].digest == plain["reflections"].digest
    assert ordered["traces"].digest != plain["traces"].digest
    assert pipeline.identities(of("rl_only"))["questions"].digest == plain["questions"].digest
    assert pipeline.identities(of("rl_only"))["rl"].digest != plain["rl"].digest
    rounds = [pipeline.identities(of("star", star={"rounds": n})) for n in (2, 3)]
    assert rounds[0]["sft-1"].digest == rounds[1]["sft-1"].digest
    assert rounds[0]["sft"].digest == rounds[1]["sft-2"].digest


def test_a_teacher_counts_by_its_content(tmp_path: Path) -> None:
    def found(size: bytes) -> str:
        (tmp_path / "config.json").write_bytes(b"{}")
        (tmp_path / "model.safetensors").write_bytes(size)
        return pipeline.identities(of("distill", distill={"teacher": str(tmp_path)}))["attempts"].digest

    assert found(b"one") != found(b"another")


@pytest.mark.parametrize(
    ("method", "sections", "says"),
    [
        ("bolt", {"bolt": {}}, "bolt.examples is not set"),
        ("distill", {"distill": {}}, "set either distill.teacher"),
        ("distill", {"distill": {"teacher": "tiny", "traces": "x.jsonl"}}, "set either distill.teacher"),
        ("skilfactory", {}, "did you mean `skillfactory`"),
    ],
)
def test_a_method_without_what_it_needs_is_refused(method: str, sections: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        methods.applied(make_recipe(method=method, **sections))


def test_the_command_line_applies_the_method() -> None:
    recipe = recipes.load_recipe("demo", ["method=one_prompt"])
    assert (recipe.attempts.variants, recipe.attempts.per_variant) == (["original"], 24)
    assert recipes.load_recipe("demo", ["method=random_order"]).traces.order == "random"
    with pytest.raises(RecipeError, match=r"bolt\.examples"):
        recipes.load_recipe("demo", ["method=bolt"])


@pytest.mark.parametrize("method", ["bolt", "distill"])
def test_whole_responses_have_the_room_of_rollouts(method: str) -> None:
    assert of(method, rl={"max_tokens": 777}).attempts.max_tokens == 777


def test_changed_names_what_is_not_there() -> None:
    with pytest.raises(KeyError, match="epoch"):
        changed(make_recipe(), {"sft.epoch": 1})


@dataclass
class Varied(Known):
    """Known samples, some of prompt variants that show the answer."""

    names: list[str] = field(default_factory=list)

    def variant(self, slot: int) -> str:
        return self.names[slot]


def samples(outcomes: list[bool | None], variants: list[str]) -> Varied:
    return Varied(outcomes, [0] * len(outcomes), answers=[str(n) for n in range(len(outcomes))], names=variants)


@settings(max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 10**6), st.booleans())
def test_solutions_prefer_attempts_that_saw_no_answer(outcomes: list[bool], seed: int, hinted: bool) -> None:
    variants = ["original+hint" if hinted and slot % 2 else "original" for slot in range(len(outcomes))]
    found = arrange(samples(list(outcomes), variants), {"solution": (PATTERNS["solution"], 1.0)}, Traces(), seed)
    used = [pairs[0].slot for _, pairs, _ in found.traces]
    own = {slot for slot, right in enumerate(outcomes) if right and not variants[slot].endswith("+hint")}
    shown = {slot for slot, right in enumerate(outcomes) if right} - own
    if own:
        assert set(used) == own
    else:
        assert len(used) == min(1, len(shown))
        assert set(used) <= shown
    everything = arrange(
        samples(list(outcomes), variants), {"any_solution": (PATTERNS["any_solution"], 1.0)}, Traces(), seed
    )
    assert sorted(pairs[0].slot for _, pairs, _ in everything.traces) == list(range(len(outcomes)))


def test_order_and_reflections_can_be_taken_out_of_any_pattern() -> None:
    known = samples([False] * 6 + [True] * 2, ["original"] * 8)
    given = Traces(pattern="fail_first", stop_chance=0.2, max_pairs=8)
    plain = [pairs for seed in range(30) for _, pairs, _ in arrange(known, patterns_of(given), given, seed).traces]
    mixed = given.model_copy(update={"order": "random"})
    found = [pairs for seed in range(30) for _, pairs, _ in arrange(known, patterns_of(mixed), mixed, seed).traces]
    assert all(pairs[-1].correct for pairs in plain)
    assert not all(pairs[-1].correct for pairs in found)
    assert [{p.slot for p in pairs} for pairs in found] == [{p.slot for p in pairs} for pairs in plain]
    bare = patterns_of(given.model_copy(update={"reflect": False}))
    assert not any(pattern.reflect for pattern, _ in bare.values())


def test_the_instruction_takes_the_place_of_the_training_prompt() -> None:
    plain, instructed = (prompts_of(make_recipe(attempts={"instruct": on}).attempts) for on in (False, True))
    before, after = plain.train("1 + 1?"), instructed.train("1 + 1?")
    assert "<sample>" not in "".join(turn["content"] for turn in before)
    assert "<sample>" in after[0]["content"]
    assert "<reflect>" in after[2]["content"]
    assert "1 + 1?" in after[-1]["content"]
    example = after[1]["content"], after[2]["content"]
    task = get("countdown", count=3)
    question = task.make(numbers=[8, 3, 5], target=19)
    assert question.text.split("\n")[0] in example[0]
    assert task.grade(question, example[1]).outcome == "correct"


def completion(text: str) -> Completion:
    return Completion("id", text, "stop", 10)


def test_a_tagged_response_is_split_into_its_attempts() -> None:
    task = get("multiplication", digits=2, digits_b=1)
    question = task.make(a=12, b=3)
    text = (
        "<think>\n<sample>\n<answer>35</answer>\n</sample>\n<reflect>\nNo. <verdict>Incorrect</verdict>\n</reflect>\n"
        "Again.\n<sample>\n<answer>36</answer>\n</sample>\n<reflect>\nOdd. <verdict>Incorrect</verdict>\n</reflect>\n"
        "<sample>\n<answer>36</answer>\n</sample>\n</think>\n<answer>36</answer>"
    )
    rows = splitting.read(completion(text), question, 2, task)
    attempts = [row for row in rows if isinstance(row, Attempt)]
    reflections = [row for row in rows if isinstance(row, Reflection)]
    assert [(a.index, a.outcome, a.answer) for a in attempts] == [
        (2 * splitting.MOST, "wrong", "35"), (2 * splitting.MOST + 1, "correct", "36"),
        (2 * splitting.MOST + 2, "correct", "36"),
    ]  # fmt: skip
    assert [(r.verdict, r.agrees) for r in reflections] == [("incorrect", True), ("incorrect", False)]
    assert [r.attempt_id for r in reflections] == [attempts[0].id, attempts[1].id]
    (lonely,) = splitting.read(completion("<answer>36</answer>"), question, 0, task)
    assert isinstance(lonely, Attempt)
    assert (lonely.reason, lonely.outcome) == ("malformed", "no_answer")


_PARTS = st.sampled_from(
    ["<think>", "</think>", "<sample>", "</sample>", "<reflect>", "</reflect>", "<answer>36</answer>", "words ",
     "<verdict>Correct</verdict>", "<answer>1</answer>", "\n"],
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(_PARTS, max_size=120), st.integers(0, 5))
def test_splitting_takes_any_text(parts: list[str], number: int) -> None:
    task = get("multiplication", digits=2, digits_b=1)
    rows = splitting.read(completion("".join(parts)), task.make(a=12, b=3), number, task)
    attempts = [row for row in rows if isinstance(row, Attempt)]
    assert 1 <= len(attempts) <= splitting.MOST
    assert {row.index // splitting.MOST for row in attempts} == {number}
    assert len({row.id for row in rows}) == len(rows)
    ids = {row.id for row in attempts}
    assert all(row.attempt_id in ids for row in rows if isinstance(row, Reflection))
    assert all("<sample>" not in row.text for row in attempts if row.reason != "malformed")


def test_models_of_rounds_stand_between_the_base_and_the_last() -> None:
    names = ["rl", "sft", "rl@50", "rl-1", "sft-1", "base", "sft-2", "other"]
    ordered = models_in(
        make_recipe(evaluation={**make_recipe().evaluation.model_dump(), "models": {"other": "x"}}), names
    )
    assert ordered == ["base", "sft-1", "rl-1", "sft-2", "sft", "rl@50", "rl", "other"]
    assert model_name("sft-2") == "SFT of round 2"
