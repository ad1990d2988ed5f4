"""Seconds a GRPO step beside TRL's defaults, and a bare training step by attention code and threads."""

import tempfile
import time
from pathlib import Path
from typing import Any

from bench_sampling import end_rows

from skillfactory.engines.models import ChatTokenizer, load_model, locate
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.records import Question
from skillfactory.tasks.questions import task_of

GRPO_STEPS, PROMPTS, GROUP = 3, 8, 16  # steps, of which the first is not counted; 128 rollouts a step
MEAN, LONGEST = 100, 300  # tokens of a rollout: geometric, cut at the longest
ROWS, LENGTHS, REPEATS = 32, (64, 400), 5


def coin(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that gives every group signal: whether a completion has an odd number of tokens."""
    return [float(len(ids) % 2) for ids in completion_ids]


def grpo_ours(model: str) -> dict[str, float]:
    """A step as the stage `rl` makes it."""
    from skillfactory.training.rl import LengthSortedGRPOTrainer, _Rollouts, configure

    recipe, chat, questions = _setting(model)
    behaviour, trained = load_model(recipe), load_model(recipe, training=True)
    end_rows(behaviour, chat.tokenizer.eos_token_id, MEAN)
    with tempfile.TemporaryDirectory() as folder:
        args = configure(recipe, Path(folder), len(questions), on_cpu=True)
        args.save_strategy = "no"
        rollouts = _Rollouts(recipe, chat, behaviour)
        return _steps(LengthSortedGRPOTrainer, trained, args, chat, questions, rollout_func=rollouts)


def grpo_trl(model: str, threads: int) -> dict[str, float]:
    """A step by TRL with its defaults, but for the numbers of what is trained on; `threads` 0 is torch's choice."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    if threads:
        torch.set_num_threads(threads)
    recipe, chat, questions = _setting(model)
    trained = AutoModelForCausalLM.from_pretrained(locate(recipe), dtype="float32")
    end_rows(trained, chat.tokenizer.eos_token_id, MEAN)
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder, max_steps=GRPO_STEPS, num_generations=GROUP, max_completion_length=LONGEST,
            gradient_accumulation_steps=PROMPTS * GROUP // 8, learning_rate=recipe.rl.learning_rate, use_cpu=True,
            logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        return _steps(GRPOTrainer, trained, args, chat, questions)


def _setting(model: str) -> tuple[Recipe, ChatTokenizer, list[Question]]:
    settings = {
        "model": model, "machine.device": "cpu", "rl.steps": GRPO_STEPS, "rl.prompts_per_step": PROMPTS,
        "rl.group_size": GROUP, "rl.max_tokens": LONGEST, "rl.loss_type": "dapo", "machine.threads": 1,
    }  # fmt: skip
    recipe = load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])
    return recipe, ChatTokenizer.load(recipe), task_of(recipe.questions.task).generate(PROMPTS * GRPO_STEPS, 0, "dev")


def _steps(
    trainer_class: Any, model: Any, args: Any, chat: ChatTokenizer, questions: list[Question], **more: Any
) -> dict[str, float]:
    from datasets import Dataset
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer = trainer_class(
        model=model, args=args, reward_funcs=coin, processing_class=chat.tokenizer, callbacks=[Clock()],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": q.text}]} for q in questions]), **more,
    )  # fmt: skip
    trainer.train()
    lengths = [log["completions/mean_length"] for log in trainer.state.log_history if "completions/mean_length" in log]
    return {
        "seconds a step": (ends[-1] - ends[0]) / (len(ends) - 1),
        "rollouts": PROMPTS * GROUP,
        "mean tokens": sum(lengths[1:]) / len(lengths[1:]),
    }


def step(model: str, attention: str, threads: int) -> dict[str, float]:
    """Milliseconds of forward, backward and update on rows of each length, in bfloat16 over float32 weights."""
    import torch

    overrides = [f"model={model}", "machine.device=cpu", f"machine.attention={attention}", f"machine.threads={threads}"]
    trained = load_model(load_recipe("demo", overrides), training=True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5)
    figures = {}
    for length in LENGTHS:
        ids = torch.randint(5, trained.config.vocab_size, (ROWS, length))

        def one(ids: Any = ids) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = trained(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        one()
        start = time.perf_counter()
        for _ in range(REPEATS):
            one()
        figures[f"ms at {length} tokens"] = (time.perf_counter() - start) / REPEATS * 1000
    return figures
