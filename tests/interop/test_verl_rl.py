"""What training/elsewhere/verl.py writes and reads, held against verl itself: all of its RL that runs without a GPU.

Wants an environment of its own (requirements-verl.txt).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe
from traces_run import TINY
from verl_jobs import RL, composed, job_of, recipe_of

pytest.importorskip("verl", reason="verl is not installed")

import numpy as np
import torch
from verl import DataProto

from skillfactory.engines.models import ChatTokenizer
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.records import Question
from skillfactory.store import Run
from skillfactory.tasks.questions import make_questions
from skillfactory.training.elsewhere import verl, verl_data, verl_log, verl_model, verl_reward, verl_settings

# --- settings


@pytest.mark.parametrize(
    "rl",
    [
        {}, {"loss_type": "dapo", "epsilon_high": 0.28}, {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"loss_type": "cispo", "epsilon_high": 5.0}, {"loss_type": "sapo"}, {"importance": "sequence"},
        {"beta": 0.01}, {"lora": {"rank": 8}}, {"lora": {"rank": 8, "targets": ["q_proj", "v_proj"]}},
        {"shaping": {"form": 0.1, "overlong": 8}}, {"schedule": "cosine", "warmup": 0.1, "iterations": 2},
        {"keep": "best", "dev_every": 1},
    ],
)  # fmt: skip
def test_its_checks_pass(tmp_path: Path, rl: dict[str, Any]) -> None:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    recipe = recipe_of(**rl)
    verl_settings.check(recipe)
    config = composed(recipe, job_of(tmp_path))
    assert not need_critic(config)
    assert need_reference_policy(config) == bool(recipe.rl.beta)
    validate_config(config, need_reference_policy(config), need_critic(config))
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.strategy == actor.engine.strategy == "fsdp2"
    assert actor.optim.betas == [0.9, 0.95]
    assert actor.optim.lr == recipe.rl.learning_rate
    get_policy_loss_fn(actor.policy_loss.loss_mode)
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)  # loads the tokenizer and the model's config
    assert model.lora_rank == recipe.rl.lora.rank
    assert model.tokenizer.chat_template


def test_any_folder_can_be_named(tmp_path: Path) -> None:
    folder = tmp_path / 'a b\'c\\d,{e}="f"$g ${h}'
    config = composed(recipe_of(), job_of(folder))
    assert config.data.train_files == str(folder / "train.parquet")
    assert config.trainer.default_local_dir == str(folder / "checkpoints")
    assert config.hydra.run.dir == str(folder / "hydra")
    assert str(folder / "figures.jsonl") == config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH


def test_unknown_options_are_refused_by_verl(tmp_path: Path) -> None:
    from hydra.errors import ConfigCompositionException

    system = {"backend": "verl", "verl": {"python": sys.executable, "options": {"trainer.nosuch": 1}}}
    with pytest.raises(ConfigCompositionException, match=r"trainer\.nosuch"):
        composed(make_recipe(rl=RL, training=system), job_of(tmp_path))


def test_its_trainer_is_there() -> None:
    """What the command starts can be imported; only vLLM is missing here, and that is told."""
    import verl.trainer.main_ppo as entry
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert callable(entry.main)
    assert get_trainer_cls("sync").__name__ == "PPOTrainerSync"
    with pytest.raises(RecipeError, match="has no vllm"):
        verl.check(recipe_of())


@pytest.mark.timeout(900)
def test_its_trainer_starts_with_our_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command: Hydra, Ray, the queue, the tokenizer, the data; up to where it looks for GPUs."""
    if torch.cuda.is_available():
        pytest.skip("there are GPUs, so it would go on")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other processes' memory is not our business
    few_cores = {"ray_kwargs.ray_init.num_cpus": 16, "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1}
    system = {"backend": "verl", "verl": {"python": sys.executable, "options": few_cores}}
    recipe = make_recipe(model=str(TINY), machine={}, rl=RL, training=system)
    with Run.open(tmp_path / "run", recipe) as run:
        made = make_questions(recipe)
        stage = run.begin("questions", {}, {})
        stage.append(made.rows)
        stage.write_json("sets.json", made.sets)
        stage.finish()
        run.begin("rl", {}, {})
        with pytest.raises(SkillFactoryError, match="Total available GPUs 0 is less than total desired GPUs 1"):
            verl.run(recipe, run)
    log = (tmp_path / "run" / "rl" / "verl" / "log.txt").read_text()
    assert "All configuration checks passed" in log
    assert "dataset len: 12" in log


# --- data


def test_its_data_set_reads_the_questions_in_our_order(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader
    from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    recipe = recipe_of()
    rows = make_questions(recipe).rows
    questions, dev = ([row for row in rows if row.split == split] for split in ("rl", "dev"))
    chat = ChatTokenizer.load(recipe)
    longest = verl_data.write(tmp_path, recipe, questions, dev, chat)
    config = composed(recipe, job_of(tmp_path, prompt_tokens=longest))
    data = create_rl_dataset(config.data.train_files, config.data, chat.tokenizer, None)
    assert len(data) == 3 * 4
    assert len(create_rl_dataset(config.data.val_files, config.data, chat.tokenizer, None, is_train=False)) == len(dev)
    by_id = {question.id: question for question in questions}
    sampler = create_rl_sampler(config.data, data)
    lengths, asked = [], []
    for batch in DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collate_fn):
        for prompt, extra, model in zip(batch["raw_prompt"], batch["extra_info"], batch["reward_model"], strict=True):
            question = by_id[extra["question_id"]]
            assert question.text in prompt[-1]["content"]
            assert model["ground_truth"] == question.answer
            text = chat.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids == chat.encode(prompt)
            lengths.append(len(ids))
            asked.append(question.id)
    assert max(lengths) <= longest <= max(len(chat.encode([{"role": "user", "content": q.text}])) for q in rows) + 64
    assert set(asked[:8]) == set(by_id), "a pass asks each question once"


# --- reward


def rollouts(tokenizer: Any, question: Question, texts: list[str]) -> Any:
    """Rollouts of a question as verl hands them to its reward managers: padded on the right."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    width = max(map(len, ids)) + 2
    responses = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1, 1] + [1] * len(row) + [0] * (width - len(row)) for row in ids])
    prompts = torch.full((len(texts), 2), 7)
    info = [{"split": "train", "index": 0, "question_id": question.id} for _ in texts]
    return DataProto.from_dict(
        tensors={"prompts": prompts, "responses": responses, "attention_mask": mask},
        non_tensors={
            "data_source": np.array(["t"] * len(texts), dtype=object),
            "reward_model": np.array([{"style": "rule", "ground_truth": question.answer}] * len(texts), dtype=object),
            "extra_info": np.array(info, dtype=object),
        },
    )


@pytest.mark.parametrize("overlong", [0, 8])
def test_its_reward_managers_give_our_rewards(tmp_path: Path, overlong: int) -> None:
    from verl.trainer.ppo.reward import load_reward_manager

    question = make_questions(recipe_of()).rows[0]
    tokenizer = ChatTokenizer.load(recipe_of()).tokenizer
    right = f"<answer>{question.answer}</answer>"
    whole = f"<think><sample>\n{right}\n</sample>\n<reflect>\n<verdict>Correct</verdict>\n</reflect></think>\n{right}"
    texts = [right, "<answer>1</answer>", "1" * 60, whole]
    tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    recipe = recipe_of(shaping={"form": 0.25, "overlong": overlong}, max_tokens=max(tokens))
    verl_reward.write(tmp_path, recipe, [question])
    manager = load_reward_manager(composed(recipe, job_of(tmp_path)), tokenizer)
    batch = rollouts(tokenizer, question, texts)

    async def ask() -> list[dict[str, Any]]:
        return [await manager.run_single(batch[i : i + 1]) for i in range(len(texts))]

    found = manager.loop.run_until_complete(ask())
    penalty = [-max(0, n - (max(tokens) - overlong)) / overlong if overlong else 0.0 for n in tokens]
    assert [each["reward_score"] for each in found] == pytest.approx(
        [score + taken for score, taken in zip([1.0, 0.0, 0.0, 1.25], penalty, strict=True)]
    )
    assert [each["reward_extra_info"]["acc"] for each in found] == [1.0, 0.0, 0.0, 1.0]
    assert min(penalty) == (-1.0 if overlong else 0.0)


def test_it_grades_in_rays_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mathematical answers, whose library scores 0 in threads if left to itself, by verl's own workers."""
    pytest.importorskip("math_verify")
    import ray
    from verl.experimental.reward_loop import RewardLoopManager

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2])]))
    (tmp_path / "q.jsonl").write_text('{"question": "Half?", "answer": "1/2"}\n')
    task = {"name": "jsonl", "params": {"path": str(tmp_path / "q.jsonl"), "grade": "math"}}
    system = {"backend": "verl", "verl": {"python": sys.executable, "options": {"reward.num_workers": 2}}}
    recipe = make_recipe(
        model=str(TINY), machine={}, rl=RL, training=system, questions={"task": task, "sft": 0, "rl": 1, "dev": 0}
    )
    question = Question("q", "jsonl", "", "Half?", "1/2", "{}")
    verl_reward.write(tmp_path, recipe, [question])
    assert verl_reward.try_out(tmp_path) == ""
    tokenizer = ChatTokenizer.load(recipe).tokenizer
    texts = ["<answer>0.5</answer>", "<answer>2/4</answer>", "<answer>1/3</answer>", "no"] * 4
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        manager = RewardLoopManager(composed(recipe, job_of(tmp_path)))
        scores = manager.compute_rm_score(rollouts(tokenizer, question, texts))
    finally:
        ray.shutdown()
    assert scores.batch["rm_scores"].sum(-1).tolist() == [1.0, 1.0, 0.0, 0.0] * 4
    assert verl_reward.broken(tmp_path) == 0


# --- figures and checkpoints


def test_its_figures_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by verl's own logger and trainer, from a batch as it has them."""
    from verl.trainer.ppo.metric_utils import compute_data_metrics
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.tracking import Tracking

    recipe, folder = recipe_of(group_size=2, prompts_per_step=2), tmp_path / "rollouts"
    mask = (torch.arange(32)[None] < torch.tensor([32, 3, 5, 32])[:, None]).long()
    scores = torch.zeros(4, 32)
    scores[0, 31] = scores[2, 4] = scores[3, 31] = 1.0
    batch = DataProto.from_dict(
        tensors={
            "responses": mask, "prompts": torch.ones(4, 2), "attention_mask": torch.cat([torch.ones(4, 2), mask], 1),
            "response_mask": mask, "token_level_scores": scores, "token_level_rewards": scores, "advantages": scores,
            "returns": scores, "prompt_length": torch.full((4,), 2.0), "response_length": mask.sum(1).float(),
        }
    )  # fmt: skip
    figures = compute_data_metrics(batch, use_critic=False)
    measured = PPOTrainer._val_metrics_update(
        None, ["multiplication"] * 2, ["a", "b"], {"reward": [1.0, 0.0], "acc": [1.0, 0.0]}, [],
    )  # fmt: skip
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "figures.jsonl"))
    logger = Tracking("p", "e", ["file"])
    steps = verl_log.Steps(tmp_path, recipe.rl, folder, ours=True)
    logger.log(measured, step=0)
    PPOTrainer._write_generations(
        [""] * 4, ["<answer>7</answer>"] * 3 + ["no"], ["7"] * 4, scores.sum(1).tolist(),
        {"uid": ["a_0_0", "a_1_0", "b_0_0", "b_1_0"]}, str(folder), 1,
    )  # fmt: skip
    timing = {"timing_s/step": 2.0, "timing_s/gen": 1.0, "actor/grad_norm": np.float32(0.5), "actor/pg_loss": 0.25}
    logger.log(figures | timing | {"actor/lr": 1e-6, "actor/entropy": 0.1}, step=1)
    first, second = steps.new(False)
    assert (first.step, first.line, first.accuracy) == (0, None, 0.5)
    assert second.line is not None
    wanted = {"reward": 0.75, "length": 18.0, "truncated": 0.5, "no_signal": 0.5, "entropy": 0.1, "loss": 0.25,
              "grad_norm": 0.5, "learning_rate": 1e-6, "rollout_seconds": 1.0, "answers": 0.75}  # fmt: skip
    assert {name: second.line[name] for name in wanted} == pytest.approx(wanted)
    assert second.seconds == 2.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, Any]]:
    """A checkpoint by two processes with FSDP2, with adapters of a rank or none, and the logits of its model."""

    def make(rank: int) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp("verl")
        place = verl_log.checkpoint(folder, 2)
        place.mkdir(parents=True)
        script = str(Path(__file__).with_name("fsdp_checkpoint.py"))
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
        subprocess.run(
            [sys.executable, *words, str(TINY), str(place / "actor"), str(rank)],
            check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        (place.parent / "latest_checkpointed_iteration.txt").write_text("2")
        return folder, torch.load(place / "actor.logits.pt")

    return make


@pytest.mark.parametrize("rank", [0, 4])
def test_its_checkpoints_become_models(
    checkpoint: Callable[[int], tuple[Path, Any]], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsdp_checkpoint import TOKENS
    from transformers import AutoModelForCausalLM

    from skillfactory.engines.models import load_model

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    folder, logits = checkpoint(rank)
    assert verl_log.latest(folder) == 2
    model = verl_model.merged(recipe_of(), folder, 2)
    assert model.dtype == torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(TINY)
    with torch.no_grad():
        found, before = (each.float()(TOKENS).logits for each in (model, base))
    off = float((found - logits).abs().mean())
    assert off < 0.2 * float((before - logits).abs().mean()), "nearer to what was trained than to the base"
    assert off < 0.05
    verl_model.drop(folder)
    assert not (folder / "checkpoints").exists()
    assert load_model  # what merged() reads with


def test_its_last_checkpoint_is_ours(tmp_path: Path) -> None:
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    for step in (2, 4):
        (verl_log.checkpoint(tmp_path, step) / "actor").mkdir(parents=True)
        (verl_log.checkpoint(tmp_path, step) / "data.pt").touch()
    tracker = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    assert verl_log.latest(tmp_path) == 0
    for text in ("4", ""):  # whole, and torn by a kill
        tracker.write_text(text)
        assert verl_log.latest(tmp_path) == 4
        assert find_latest_ckpt_path(str(tmp_path / "checkpoints")) == str(verl_log.checkpoint(tmp_path, 4))
    assert json.loads(tracker.read_text()) == 4
