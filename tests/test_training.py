"""What SFT learns from, GRPO with rollouts sorted by length against TRL's own, rewards, skills, checkpoints."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers import TASK, make_recipe
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import RecipeError
from skillfactory.planning.steps import sft_batch, updates_per_step
from skillfactory.recipe import Recipe, Rl, Sft, TaskSpec, changed
from skillfactory.records import Step, Trace
from skillfactory.stage import Stage
from skillfactory.tasks.multiplication import Multiplication
from skillfactory.training import common, rl, sft
from skillfactory.training.grpo import LengthSortedGRPOTrainer, by_length
from skillfactory.training.metrics import METRICS, MetricsFile
from skillfactory.training.policy import SamplingCopy
from skillfactory.training.reward import make_reward
from skillfactory.training.skills import skill_use

# --- micro-batches


def batches_of(lengths: list[int], advantages: list[float], size: int) -> list[dict[str, Any]]:
    """Micro-batches as TRL keeps them: prompts padded on the left, completions on the right, row numbers as tokens."""
    width, count = max(lengths), len(lengths)
    prompts = [1 + i % 3 for i in range(count)]
    rows = {
        "prompt_ids": torch.tensor([[0] * (3 - p) + [i + 1] * p for i, p in enumerate(prompts)]),
        "prompt_mask": torch.tensor([[0] * (3 - p) + [1] * p for p in prompts]),
        "completion_ids": torch.tensor([[i + 1] * n + [0] * (width - n) for i, n in enumerate(lengths)]),
        "completion_mask": torch.tensor([[1] * n + [0] * (width - n) for n in lengths]),
        "old_per_token_logps": torch.arange(count * width).view(count, width).float(),
        "advantages": torch.tensor(advantages),
    }
    whole = {"num_items_in_batch": torch.tensor(sum(lengths))}
    return [{k: v[i : i + size] for k, v in rows.items()} | whole for i in range(0, count, size)]


@given(
    st.integers(1, 4).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.integers(1, 5).flatmap(
                lambda n: st.lists(
                    st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.0, 1.5, -0.5])),
                    min_size=n * size,
                    max_size=n * size,
                )
            ),
        )
    )
)
def test_sorting_keeps_every_row_whole(drawn: tuple[int, list[tuple[int, float]]]) -> None:
    size, rows = drawn
    before = batches_of([length for length, _ in rows], [advantage for _, advantage in rows], size)
    after = by_length(before)
    assert [len(batch["advantages"]) for batch in after] == [size] * len(before)

    def contents(batches: list[dict[str, Any]]) -> list[Any]:
        found = []
        for batch in batches:
            for i in range(size):
                asked, said = batch["prompt_mask"][i].bool(), batch["completion_mask"][i].bool()
                found.append(
                    (
                        batch["prompt_ids"][i][asked].tolist(), batch["completion_ids"][i][said].tolist(),
                        batch["old_per_token_logps"][i][said].tolist(), float(batch["advantages"][i]),
                    )
                )  # fmt: skip
        return found

    assert sorted(contents(before)) == sorted(contents(after))
    order = [(row[3] == 0, len(row[1])) for row in contents(after)]
    assert order == sorted(order), "those with signal first, each from short to long"
    for batch in after:
        for part in ("prompt", "completion"):
            mask = batch[f"{part}_mask"]
            assert mask.shape == batch[f"{part}_ids"].shape
            assert int(mask.sum(1).max()) == mask.shape[1], "no column of padding is left"
        assert batch["old_per_token_logps"].shape == batch["completion_ids"].shape
        assert int(batch["num_items_in_batch"]) == sum(length for length, _ in rows)


def rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Fixed completions of very different lengths, some of them right."""
    generator = torch.Generator().manual_seed(len(prompts))
    encode = trainer.processing_class
    asked = [
        encode(encode.apply_chat_template(p, tokenize=False, add_generation_prompt=True))["input_ids"] for p in prompts
    ]
    said = []
    for i in range(len(prompts)):
        filler = torch.randint(5, 300, (1 + (i * 7) % 23,), generator=generator).tolist()
        said.append([*filler, *encode(f"<answer>{12 if i % 3 == 0 else 13}</answer>")["input_ids"], 1])
    return {"prompt_ids": asked, "completion_ids": said, "logprobs": None}


def one_step(
    trainer_class: type[GRPOTrainer], folder: Path, model_folder: Path, loss_type: str, updates: int = 1
) -> tuple[Any, ...]:
    """Gradients of the last update and weights after one GRPO step, and what TRL logged at the first."""
    recipe = make_recipe(model=str(model_folder))
    chat = ChatTokenizer.load(recipe)
    model = load_model(recipe, training=True)
    questions = {q.id: q for q in (Multiplication().make(a=a, b=b) for a, b in [(3, 4), (2, 6), (12, 1), (5, 5)])}
    args = GRPOConfig(
        output_dir=str(folder), max_steps=updates, num_generations=6, per_device_train_batch_size=4,
        gradient_accumulation_steps=6 // updates, steps_per_generation=6, max_completion_length=64,
        loss_type=loss_type, beta=0.0, learning_rate=1e-2,
        lr_scheduler_type="constant", max_grad_norm=1e9, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True, seed=1, remove_unused_columns=False, gradient_checkpointing=False,
    )  # fmt: skip
    gradients: dict[str, torch.Tensor] = {}

    class Keep(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})

    trainer = trainer_class(
        model=model, args=args, reward_funcs=make_reward(questions, TaskSpec(**TASK)), processing_class=chat.tokenizer,
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": q.text}], "question_id": q.id} for q in questions.values()]
        ),
        rollout_func=rollouts, callbacks=[Keep()],
    )  # fmt: skip
    trainer.train()
    return gradients, {name: p.detach() for name, p in model.named_parameters()}, trainer.state.log_history[0]


@pytest.mark.parametrize(("loss_type", "updates"), [("grpo", 1), ("dapo", 1), ("dr_grpo", 1), ("dapo", 2), ("dapo", 3)])
def test_sorted_rollouts_give_trls_gradient(loss_type: str, updates: int, random_model: Path, tmp_path: Path) -> None:
    plain, weights, log = one_step(GRPOTrainer, tmp_path / "a", random_model, loss_type, updates)
    ours, our_weights, our_log = one_step(LengthSortedGRPOTrainer, tmp_path / "b", random_model, loss_type, updates)
    assert max(float(gradient.abs().max()) for gradient in plain.values()) > 1e-4
    assert 0 < log["reward"] < 1
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(our_weights[name], weights[name], rtol=1e-3, atol=1e-4)
    for key in ("reward", "loss", "grad_norm", "completions/mean_length", "frac_reward_zero_std"):
        assert math.isclose(our_log[key], log[key], rel_tol=1e-3, abs_tol=1e-6), key


def test_groups_without_signal_cost_no_forward_pass(random_model: Path) -> None:
    class Counting(LengthSortedGRPOTrainer):
        def __init__(self) -> None:  # nothing but what _compute_loss looks at
            pass

    model = load_model(make_recipe(model=str(random_model)), training=True)
    model.forward = None  # a pass would fail
    loss = Counting()._compute_loss(model, {"advantages": torch.zeros(4), "live": False})
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, it went on to compute
        Counting()._compute_loss(model, {"advantages": torch.tensor([0.0, 1.0]), "live": True})


@pytest.mark.parametrize(
    ("signal", "deepspeed", "live"),
    [([1, 0, 1, 1], False, [1, 0, 1, 1]), ([1, 1, 0, 0], False, [1, 1, 1, 0]), ([0, 0, 0, 0], True, [1, 1, 1, 1])],
)
def test_an_update_without_signal_is_still_one(signal: list[int], deepspeed: bool, live: list[int]) -> None:
    """Two updates of two micro-batches: the optimizer moves on by what it remembers, as in TRL."""

    class Bare(LengthSortedGRPOTrainer):
        def __init__(self) -> None:
            self.beta, self.is_deepspeed_enabled = 0.0, deepspeed
            self.accelerator = SimpleNamespace(num_processes=1)

    batches = [{"advantages": torch.tensor([0.0, float(each)])} for each in signal]
    assert Bare()._live(batches, 2) == [bool(each) for each in live]


# --- settings


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 8))
def test_an_update_of_sft_holds_the_recipes_traces(share: int, micro: int, traces: int, devices: int) -> None:
    sft = Sft(batch_size=share * devices, micro_batch=micro)
    at_once, accumulated = sft_batch(sft, traces, devices)
    assert 1 <= at_once <= micro
    assert at_once * accumulated * devices == max(devices, min(share * devices, traces) // devices * devices)
    if devices > 1:
        with pytest.raises(RecipeError, match=r"must be a multiple of training.devices"):
            sft_batch(Sft(batch_size=share * devices + 1, micro_batch=micro), traces, devices)


def test_updates_a_step_follow_from_the_mini_batch() -> None:
    assert updates_per_step(Rl(prompts_per_step=256, mini_batch=32), 1000) == 8
    assert updates_per_step(Rl(prompts_per_step=64, mini_batch=0), 64) == 1
    with pytest.raises(RecipeError, match=r"prompts_per_step is 64, but there are only 63 questions"):
        updates_per_step(Rl(prompts_per_step=64), 63)
    with pytest.raises(RecipeError, match=r"rl.mini_batch \(48\) must divide rl.prompts_per_step \(64\)"):
        updates_per_step(Rl(prompts_per_step=64, mini_batch=48), 100)
    with pytest.raises(RecipeError, match=r"rl.micro_batch \(7\) .* \(8 prompts x 16 = 128\)"):
        updates_per_step(Rl(prompts_per_step=64, mini_batch=8, micro_batch=7), 100)


@pytest.mark.parametrize("changes", [{}, {"mini_batch": 8}, {"micro_batch": 16, "group_size": 4, "mini_batch": 4}])
def test_trl_is_told_the_recipes_numbers(changes: dict[str, int], tmp_path: Path) -> None:
    section = {"steps": 3, "prompts_per_step": 16, "group_size": 8, "micro_batch": 8, "mini_batch": 0, "save_every": 2}
    recipe = make_recipe(rl=section | changes)
    args = rl.configure(recipe, Stage(tmp_path), questions=20, steps=recipe.rl.steps)
    settings = recipe.rl
    mini = settings.mini_batch or 16
    assert args.generation_batch_size == 16 * settings.group_size, "rollouts of a step"
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == mini * settings.group_size
    assert args.max_steps == 3 * 16 // mini
    assert args.save_steps == 2 * 16 // mini
    assert (args.beta, args.loss_type, args.scale_rewards, args.num_iterations) == (0.0, "grpo", "group", 1)
    assert args.report_to == [], "nothing is sent anywhere unless the recipe says so"
    assert not Stage(tmp_path).manifest


def test_rewards_are_the_verifiers_and_nothing_else() -> None:
    task = Multiplication()
    question = task.make(a=3, b=4)
    reward = make_reward({question.id: question}, TaskSpec(**TASK))
    texts = ["<answer>12</answer>", "<answer>13</answer>", "12", "<think>12", "<think>13</think><answer>12</answer>"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    logged: dict[str, float] = {}
    rewards = reward(
        completions=completions, question_id=[question.id] * 5, prompts=None, log_metric=logged.__setitem__
    )
    assert rewards == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert logged == {f"skills/{name}": figure for name, figure in skill_use(texts).items()}


def test_a_check_that_breaks_is_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Multiplication().make(a=3, b=4)
    monkeypatch.setattr(Multiplication, "grade", lambda *_: 1 / 0)
    reward = make_reward({question.id: question}, TaskSpec(**TASK))
    said = [[{"role": "assistant", "content": ""}]]
    assert reward(completions=said, question_id=[question.id], log_metric=lambda *_: None) == [None]


# --- SFT


def test_sft_learns_the_completion_and_its_end_alone(random_model: Path) -> None:
    chat = ChatTokenizer.load(make_recipe(model=str(random_model)))
    completion = "<think>\n<sample>\n3 * 4 = 12.\n</sample>\n</think>\n\n<answer>\n12\n</answer>"
    prompt: Any = [{"role": "system", "content": "Be careful."}, {"role": "user", "content": "What is 3 * 4 ?"}]
    tokens = chat.count_tokens(prompt, completion)
    trace = Trace("t", "q", "algorithm1", [Step("a", "r", "")], prompt, completion, tokens)
    example = sft.tokenize(chat, trace)
    assert len(example["input_ids"]) == len(example["completion_mask"]) == tokens
    learned = [i for i, mask in zip(example["input_ids"], example["completion_mask"], strict=True) if mask]
    read = [i for i, mask in zip(example["input_ids"], example["completion_mask"], strict=True) if not mask]
    assert chat.tokenizer.decode(learned) == completion + "<|end|>"
    assert read == chat.encode(prompt)
    assert example["completion_mask"] == sorted(example["completion_mask"])


# --- checkpoints and metrics


def checkpoint(folder: Path, step: int, state: str | None = None, optimizer: bool = True) -> Path:
    path = folder / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if optimizer:
        torch.save({}, path / "optimizer.pt")
    torch.save({}, path / "rng_state.pth")
    save_file({"weight": torch.zeros(1)}, path / "model.safetensors")
    text = json.dumps({"global_step": step}) if state is None else state
    if text:
        (path / "trainer_state.json").write_text(text)
    return path


def test_the_newest_whole_checkpoint_is_taken_and_broken_ones_go(tmp_path: Path) -> None:
    assert common.last_checkpoint(tmp_path) == (None, 0)
    whole = checkpoint(tmp_path, 20)
    broken = [
        checkpoint(tmp_path, 30, optimizer=False),
        checkpoint(tmp_path, 40, state=""),
        checkpoint(tmp_path, 100, state="{"),
    ]  # fmt: skip
    assert common.last_checkpoint(tmp_path) == (str(whole), 20)
    assert not any(path.exists() for path in broken)
    checkpoint(tmp_path, 110)
    assert common.last_checkpoint(tmp_path)[1] == 110


def test_metrics_of_steps_that_a_kill_undid_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / METRICS
    file.write_text(
        "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3, 4)) + '{"step": 5, "lo'
    )
    advanced: list[dict[str, Any]] = []
    metrics = MetricsFile(tmp_path, sft._line, lambda n, **figures: advanced.append(figures), 2)
    for loss in (0.5, 0.25):
        metrics.on_log(None, None, None, {"loss": loss, "learning_rate": 1e-3})
        metrics.on_log(None, None, None, {"train_runtime": 3.0})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.25)]
    assert all(line["seconds"] >= 0 for line in lines[2:])
    assert advanced == [{"loss": 0.5}, {"loss": 0.25}]
    assert metrics.lines() == lines
    metrics.on_log(None, None, None, {"loss": math.nan, "learning_rate": 1e-3})
    assert "NaN" not in file.read_text()
    assert (metrics.lines()[-1]["loss"], advanced[-1]) == (None, {})


def typed(recipe: Recipe, dtype: str) -> Recipe:
    return changed(recipe, {"machine.dtype": dtype})


def test_a_saved_model_is_whole_and_checkpoints_go_last(random_model: Path, tmp_path: Path) -> None:
    recipe = make_recipe(model=str(random_model))
    checkpoint(tmp_path, 3)
    (tmp_path / ".tmp-model").mkdir()
    (tmp_path / ".tmp-model" / "half").write_text("")
    policy, copy = load_model(recipe, training=True), SamplingCopy(lambda: load_model(typed(recipe, "bfloat16")))
    with torch.no_grad():
        policy.lm_head.weight[5] = 0.25
    common.save_model(policy, copy, ChatTokenizer.load(recipe).tokenizer, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model"]
    common.drop_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "half").exists()
    saved = load_model(typed(recipe, "auto"), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    assert bool((saved.lm_head.weight[5] == 0.25).all())
