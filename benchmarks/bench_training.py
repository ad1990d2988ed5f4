"""Seconds a GRPO step and where they go, ours beside TRL's defaults; and a bare training step by attention code.

Ours is the stage `rl` as the pipeline runs it. TRL's is its GRPOTrainer with its defaults, but for the numbers of what
is trained on: steps, prompts, group, longest rollout, learning rate. Both sample rollouts of the same law of lengths,
whatever the model has learnt, and pay for the same grading, whose result is then replaced by a coin: so all groups have
signal.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sizes import Grpo, folder_of, size_of
from stopwatch import Stopwatch, watching

from skillfactory import pipeline
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.models import ChatTokenizer, load_model, locate
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.records import Question
from skillfactory.store import load_run

Figures = dict[str, Any]
TRL_MICRO = 8  # its default


def grpo_ours(model: str, quick: bool, updates: int) -> Figures:
    """A step as the stage `rl` makes it, of so many optimizer updates."""
    size = size_of(model, quick).grpo
    recipe = recipe_of(model, size, updates)
    watch = Stopwatch(updates)
    end = ChatTokenizer.load(recipe).tokenizer.eos_token_id
    with tempfile.TemporaryDirectory() as folder, ending(end, size.mean), watching(watch, coin):
        pipeline.run(recipe, Path(folder) / "run", "rl")
    return watch.figures() | counts(size, recipe)


def grpo_trl(model: str, quick: bool, updates: int, threads: int) -> Figures:
    """A step by TRL; `threads` 0 is torch's choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    size = size_of(model, quick).grpo
    recipe = recipe_of(model, size, updates)
    chat = ChatTokenizer.load(recipe)
    watch = Stopwatch(updates)
    with tempfile.TemporaryDirectory() as folder, ending(chat.tokenizer.eos_token_id, size.mean):
        pipeline.run(recipe, Path(folder) / "run", "questions")
        trainer = trl_trainer(recipe, chat, rl_questions(Path(folder) / "run"), folder, updates)
        with watching(watch, coin):
            trainer.train()
    return watch.figures() | counts(size, recipe)


def trl_trainer(
    recipe: Recipe, chat: ChatTokenizer, questions: Mapping[str, Question], folder: str, updates: int, **settings: Any
) -> Any:
    """TRL's GRPOTrainer of the recipe's model with TRL's defaults, but for the numbers of what is trained on.

    `settings` are of its configuration, and win.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from skillfactory.training.reward import make_reward

    rl, prompts = recipe.rl, prompts_of(recipe.attempts)
    rollouts = rl.prompts_per_step * rl.group_size
    chosen: dict[str, Any] = {
        "output_dir": folder, "max_steps": rl.steps * updates, "num_generations": rl.group_size,
        "max_completion_length": rl.max_tokens, "learning_rate": rl.learning_rate,
        "gradient_accumulation_steps": rollouts // updates // TRL_MICRO,
        "steps_per_generation": rollouts // TRL_MICRO,
        "use_cpu": True, "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    return GRPOTrainer(
        model=locate(recipe),
        args=GRPOConfig(**chosen | settings),
        reward_funcs=make_reward(questions, recipe.questions.task),
        processing_class=chat.tokenizer,
        train_dataset=Dataset.from_list(
            [{"prompt": prompts.train(q.text), "question_id": q.id} for q in questions.values()]
        ),
    )


def rl_questions(run: Path) -> dict[str, Question]:
    """The questions of a run that RL trains on, by id."""
    return {q.id: q for q in load_run(run).rows("questions", Question) if q.split == "rl"}


def recipe_of(model: str, size: Grpo, updates: int) -> Recipe:
    """The demo's recipe with this model and these numbers, without SFT."""
    small = {} if model == "tiny" else {"machine.threads": 0}
    settings = {
        "model": folder_of(model), "method": "rl_only", "machine.device": "cpu", "rl.steps": size.steps,
        "rl.prompts_per_step": size.prompts, "rl.mini_batch": size.prompts // updates, "rl.group_size": size.group,
        "rl.max_tokens": size.longest, "rl.micro_batch": size.micro, "rl.keep_every": 0, "rl.save_every": 1000,
        "questions.rl": size.prompts * size.steps, "questions.sft": 0, "questions.dev": 0,
        "machine.batch_size": size.prompts * size.group, **small,
    }  # fmt: skip
    return load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])


def coin(rewards: Any, completion_ids: list[list[int]]) -> Any:
    """1 for a completion with an odd number of tokens, else 0: a reward that gives every group signal."""
    return rewards.new_tensor([[float(len(ids) % 2)] for ids in completion_ids]).expand(rewards.shape)


@contextmanager
def ending(end: int, mean: float) -> Iterator[None]:
    """Models that are loaded meanwhile end a turn at every token with chance 1 / `mean`, whatever came before.

    Only where they sample, which is where they fill a cache: training is left alone.
    """
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__

    def loaded(cls: Any, *args: Any, **options: Any) -> Any:
        model = load(cls, *args, **options)
        model.register_forward_hook(_end_rows(end, mean))
        return model

    PreTrainedModel.from_pretrained = classmethod(loaded)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = classmethod(load)


def _end_rows(end: int, mean: float) -> Any:
    import torch

    def hook(_: Any, __: Any, output: Any) -> Any:
        if getattr(output, "past_key_values", None) is not None and not torch.is_grad_enabled():
            logits = output.logits
            logits[..., end] = float("-inf")
            logits[..., end] = logits.float().logsumexp(-1).to(logits.dtype) - torch.tensor(mean - 1).log()
        return output

    return hook


def counts(size: Grpo, recipe: Recipe) -> Figures:
    """What a step holds."""
    return {"rollouts": size.prompts * size.group, "prompts": size.prompts, "threads": recipe.machine.threads or "all"}


def step(model: str, quick: bool, attention: str, threads: int) -> Figures:
    """Milliseconds of forward, backward and update on rows of each length, in bfloat16 over float32 weights."""
    import torch

    size = size_of(model, quick).bare
    overrides = [
        f"model={folder_of(model)}", "machine.device=cpu", f"machine.attention={attention}",
        f"machine.threads={threads}",
    ]  # fmt: skip
    trained = load_model(load_recipe("demo", overrides), training=True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5)
    figures = {}
    for length in size.lengths:
        ids = torch.randint(5, trained.config.vocab_size, (size.rows, length))

        def one(ids: Any = ids) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = trained(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        one()
        start = time.perf_counter()
        for _ in range(size.repeats):
            one()
        figures[f"ms at {length} tokens"] = (time.perf_counter() - start) / size.repeats * 1000
    return figures
