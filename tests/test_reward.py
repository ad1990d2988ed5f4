"""Rewards of GRPO: accuracy by itself, what shaping adds to it, and how that can be had for nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers import make_recipe
from reported import trace
from trl import GRPOConfig, GRPOTrainer

from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import RecipeError
from skillfactory.recipe import Recipe
from skillfactory.tasks.multiplication import Multiplication
from skillfactory.training import checks
from skillfactory.training.reward import accuracy_in, is_shaped, make_rewards, well_formed

QUESTION = Multiplication().make(a=3, b=4)
RIGHT, WRONG = trace("12"), trace("13")
BARE = "<think>\n<sample>\n<answer>12</answer>\n</sample>\n</think>\n<answer>12</answer>"
SHAPED = {"form": 0.2, "overlong": 10}


def recipe_of(**shaping: Any) -> Recipe:
    return make_recipe(rl={"max_tokens": 40, "shaping": shaping})


def rewards(recipe: Recipe, texts: Sequence[str], lengths: Sequence[int] = ()) -> dict[str, list[float | None]]:
    """What each function says of the texts, and their sum as TRL takes it."""
    functions, weights = make_rewards({QUESTION.id: QUESTION}, recipe)
    given: dict[str, Any] = {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[5] * n for n in lengths or [1] * len(texts)],
        "question_id": [QUESTION.id] * len(texts),
        "log_metric": lambda *_: None,
    }
    found = {each.__name__: each(**given) for each in functions}
    rows = zip(*found.values(), strict=True)
    known = [[(w, v) for w, v in zip(weights, row, strict=True) if v is not None] for row in rows]
    return found | {"sum": [sum(w * v for w, v in row) if row else None for row in known]}


def test_without_shaping_there_is_accuracy_alone() -> None:
    recipe = recipe_of()
    assert not is_shaped(recipe.rl.shaping)
    assert rewards(recipe, [RIGHT, WRONG], [40, 40]) == {"accuracy": [1.0, 0.0], "sum": [1.0, 0.0]}


def test_parts_are_told_apart_and_added_up() -> None:
    recipe = recipe_of(**SHAPED)
    assert is_shaped(recipe.rl.shaping)
    found = rewards(recipe, [RIGHT, WRONG, "<answer>12</answer>", RIGHT, RIGHT], [30, 35, 31, 40, 1])
    assert found["accuracy"] == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert found["form"] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert found["overlong"] == [0.0, -0.5, -0.1, -1.0, 0.0]
    assert found["sum"] == pytest.approx([1.2, -0.3, 0.9, 0.2, 1.2])


def test_a_check_that_breaks_leaves_the_rollout_out_whatever_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Multiplication, "grade", lambda *_: 1 / 0)
    logged: dict[str, float] = {}
    functions, _ = make_rewards({QUESTION.id: QUESTION}, recipe_of(**SHAPED))
    said = [[{"role": "assistant", "content": RIGHT}]]
    for each in functions:
        given = {"completions": said, "completion_ids": [[1]], "question_id": [QUESTION.id]}
        assert each(**given, log_metric=logged.__setitem__) == [None], each.__name__
    assert logged["broken"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<answer>12</answer>", id="no tags"),
        pytest.param("", id="nothing"),
        pytest.param("<think>\n</think>\n<answer>12</answer>", id="empty thinking"),
        pytest.param(RIGHT.partition("</think>")[0], id="cut in its thinking"),
        pytest.param(RIGHT.replace("</think>", ""), id="thinking never ends"),
        pytest.param(RIGHT.replace("<think>", ""), id="thinking never begins"),
        pytest.param("12! " + RIGHT, id="something before"),
        pytest.param(RIGHT + RIGHT, id="twice the same, to look busy"),
        pytest.param(RIGHT.replace("</sample>", "", 1), id="an attempt is not closed"),
        pytest.param(RIGHT.replace("<reflect>", "", 1), id="a reflection is not opened"),
        pytest.param(RIGHT.replace("<verdict>Incorrect</verdict>", "hm"), id="a reflection without a verdict"),
        pytest.param(RIGHT.replace("<answer>1</answer>", "one"), id="an attempt without an answer"),
        pytest.param(BARE, id="no reflection"),
        pytest.param(RIGHT.rpartition("<answer>")[0], id="no answer"),
        pytest.param(RIGHT + "<sample>\n<answer>12</answer>\n</sample>", id="goes on after the answer"),
    ],
)  # fmt: skip
def test_what_is_no_form(text: str) -> None:
    assert not well_formed(text)


def test_form_is_that_of_the_traces() -> None:
    assert well_formed(RIGHT)
    assert well_formed(WRONG)
    assert well_formed(BARE, reflect=False)
    recipe = recipe_of(form=1.0).model_copy(update={"traces": make_recipe(traces={"reflect": False}).traces})
    assert rewards(recipe, [BARE])["form"] == [1.0]


def test_what_form_cannot_tell() -> None:
    """docs/training.md names these: a form is paid for that holds nothing, and that says what is not true."""
    answer = "<answer>0</answer>"
    stamp = f"<think><sample>{answer}</sample><reflect><verdict>Correct</verdict></reflect></think>{answer}"
    lie = trace("13").replace("Incorrect", "Correct")
    more = RIGHT.replace("</think>", "<sample><answer>1</answer></sample>" * 50 + "</think>")
    found = rewards(recipe_of(form=0.2), [stamp, lie, more, RIGHT])
    assert found["form"] == [1.0] * 4, "and no more for more of it"
    assert found["sum"] == pytest.approx([0.2, 0.2, 1.2, 1.2])


def test_what_overlong_cannot_tell() -> None:
    """To give up at once costs nothing, while a right answer that took all the room is worth no more than none."""
    found = rewards(recipe_of(overlong=10), ["", RIGHT, WRONG], [1, 40, 40])
    assert found["sum"] == [0.0, 0.0, -1.0]


def test_more_overlong_than_tokens_is_refused() -> None:
    checks.check(recipe_of(overlong=40))
    with pytest.raises(RecipeError, match=r"rl\.shaping\.overlong is 41, more than rl\.max_tokens \(40\)"):
        checks.check(recipe_of(overlong=41))
    checks.check(recipe_of(overlong=41).model_copy(update={"method": "evaluate"}))


@pytest.mark.parametrize("shaping", [{}, SHAPED], ids=["plain", "shaped"])
def test_trl_logs_accuracy_by_itself(shaping: dict[str, Any], random_model: Path, tmp_path: Path) -> None:
    recipe = make_recipe(model=str(random_model), rl={"max_tokens": 400, "shaping": shaping})
    chat = ChatTokenizer.load(recipe)
    said = [RIGHT, "<answer>12</answer>", WRONG, "no idea"]
    functions, weights = make_rewards({QUESTION.id: QUESTION}, recipe)

    def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        ids = [[*chat.tokenizer(text)["input_ids"], 1] for text in said]
        return {"prompt_ids": [chat.encode(p) for p in prompts], "completion_ids": ids, "logprobs": None}

    args = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=4, report_to="none",
        max_completion_length=400, use_cpu=True, logging_steps=1, reward_weights=weights, save_strategy="no",
        disable_tqdm=True, bf16=False,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = GRPOTrainer(
        model=load_model(recipe, training=True), args=args, reward_funcs=functions, processing_class=chat.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}], "question_id": QUESTION.id}]),
        rollout_func=rollouts,
    )  # fmt: skip
    trainer.train()
    logs = next(line for line in trainer.state.log_history if "reward" in line)
    assert accuracy_in(logs) == 0.5
    assert logs["reward"] == pytest.approx(0.6 if shaping else 0.5)
    json.dumps({name: value for name, value in logs.items() if "reward" in name}, allow_nan=False)
