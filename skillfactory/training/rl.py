"""GRPO by TRL from the SFT model, or from the base for methods without SFT (paper §3): binary reward, no KL.

Deviations from TRL's defaults, for speed alone (benchmarks/): rollouts come from our sampler (`rollout_func`), rollouts
of like length share a micro-batch, and micro-batches in which no group has signal are not computed.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from skillfactory import seeds
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.base import SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.engines.sampler import sample
from skillfactory.engines.transformers import stop_ids
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Recipe, Rl
from skillfactory.records import Question
from skillfactory.store import Run, Stage
from skillfactory.training import common, loggers
from skillfactory.training.reward import make_reward
from skillfactory.training.skills import SKILLS
from skillfactory.training.steps import goes_on, updates_per_step

MOST_STEPS = 100_000  # of RL that goes on until a budget is spent
PATIENCE = 10  # steps without a single right rollout after which RL gives up


def run(recipe: Recipe, run: Run) -> None:
    """Train by GRPO into `rl/model`, and keep the steps in between that the recipe asks for in `rl/steps`."""
    stage = run.stage("rl")
    start: Path | None = run.stage("sft").path / "model"
    if start is None or not start.is_dir():
        start = None
    questions = {q.id: q for q in run.stage("questions").rows(Question) if q.split == "rl"}
    prompts = prompts_of(recipe.attempts)
    chat = ChatTokenizer.load(recipe, start)
    behaviour = load_model(recipe, start)  # a copy in the sampling type, refreshed before each step's rollouts
    model = load_model(recipe, start, training=True)
    rollouts = _Rollouts(recipe, chat, behaviour)
    args = configure(recipe, stage, len(questions), behaviour.device.type == "cpu")

    checkpoint, updates = common.last_checkpoint(stage.path)
    per_step = updates_per_step(recipe.rl, len(questions))
    done = updates // per_step
    common.drop_kept(stage.path, after=done)
    with (
        loggers.started(recipe, stage, updates) as logging,
        stage.track(recipe.rl.steps, "GRPO steps", done=done) as advance,
    ):
        metrics = common.MetricsFile(stage.path, lambda logs: _line(logs, rollouts, recipe.rl), advance, done)
        trainer = LengthSortedGRPOTrainer(
            model=model,
            args=args,
            reward_funcs=make_reward(questions, recipe.questions.task),
            train_dataset=Dataset.from_list(
                [{"prompt": prompts.train(q.text), "question_id": q.id} for q in questions.values()]
            ),
            processing_class=chat.tokenizer,
            rollout_func=rollouts,
            callbacks=[
                metrics,
                KeptSteps(rollouts, stage.path, recipe.rl, per_step),
                BudgetSpent(recipe.rl, metrics, per_step),
                *logging,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=checkpoint)
    common.save_model(model, chat.tokenizer, behaviour.dtype, stage.path)
    rollouts_per_step = recipe.rl.prompts_per_step * recipe.rl.group_size
    lengths = [line["length"] for line in metrics.lines()]  # of all steps, also those before a kill
    stage.finish(
        questions=len(questions),
        steps=metrics.step,
        rollouts=metrics.step * rollouts_per_step,
        tokens=round(sum(lengths) * rollouts_per_step),
    )


def configure(recipe: Recipe, stage: Stage, questions: int, on_cpu: bool) -> GRPOConfig:
    """The recipe's RL section in TRL's terms, in which a step is one optimizer update."""
    rl = recipe.rl
    per_step = updates_per_step(rl, questions)
    rollouts = rl.prompts_per_step * rl.group_size
    settings = common.trainer_settings(recipe, rl, stage, on_cpu)
    warmup = math.ceil(rl.warmup * rl.steps * per_step)  # of the steps that are sure
    return GRPOConfig(
        **{**settings, "save_steps": rl.save_every * per_step, "warmup_steps": warmup},
        max_steps=(MOST_STEPS if goes_on(rl) else rl.steps) * per_step,
        num_generations=rl.group_size,
        gradient_accumulation_steps=rollouts // per_step // rl.micro_batch,
        steps_per_generation=rollouts // rl.micro_batch,
        max_completion_length=rl.max_tokens,
        temperature=rl.temperature,
        loss_type=rl.loss_type,
        epsilon=rl.epsilon,
        beta=rl.beta,
        shuffle_dataset=True,
        remove_unused_columns=False,
    )


class _Rollouts:
    """TRL's `rollout_func`: samples a completion for each prompt of a step from the current policy."""

    def __init__(self, recipe: Recipe, chat: ChatTokenizer, behaviour: Any) -> None:
        self.recipe, self.chat, self.behaviour = recipe, chat, behaviour.eval()
        self.stops = stop_ids(behaviour, chat.tokenizer)
        self.params = SamplingParams(recipe.rl.temperature, 1.0, 0, 1.0, recipe.rl.max_tokens)
        self.dry = 0
        self.seconds = 0.0

    def __call__(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        began = time.monotonic()
        self.follow(trainer.accelerator.unwrap_model(trainer.model))
        ids = [self.chat.encode(prompt) for prompt in prompts]
        step = trainer.state.global_step
        streams = [seeds.derive(self.recipe.seed, "rollout", step, i) for i in range(len(ids))]
        completions: list[list[int]] = [[] for _ in ids]
        for done in sample(self.behaviour, ids, streams, self.params, self.stops, self.recipe.machine.batch_size):
            completions[done.index] = done.ids
        self.seconds = time.monotonic() - began
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    def follow(self, policy: Any) -> None:
        """Make the sampling copy what the policy is now."""
        with torch.no_grad():
            for behind, ahead in zip(self.behaviour.parameters(), policy.parameters(), strict=True):
                behind.copy_(ahead)


class BudgetSpent(TrainerCallback):
    """Ends RL that goes on after its steps once both `rl.more_tokens` and `rl.more_seconds` are spent.

    Both count from the end of step `rl.steps`, over all resumptions, as metrics.jsonl has them.
    """

    def __init__(self, rl: Rl, metrics: common.MetricsFile, per_step: int) -> None:
        self.rl, self.metrics, self.per_step = rl, metrics, per_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if goes_on(self.rl) and state.global_step % self.per_step == 0 and self._is_spent(state):
            control.should_training_stop = True

    def _is_spent(self, state: Any) -> bool:
        # The step that ends now is logged after this.
        if state.global_step // self.per_step < self.rl.steps:
            return False
        extra = self.metrics.lines()[self.rl.steps :]
        rollouts = self.rl.prompts_per_step * self.rl.group_size
        tokens, seconds = (sum(line[name] for line in extra) for name in ("length", "seconds"))
        return bool(tokens * rollouts >= self.rl.more_tokens and seconds >= self.rl.more_seconds)


class KeptSteps(TrainerCallback):
    """Keeps the policy as `folder`/steps/STEP every `rl.keep_every` steps (0: never) before the last.

    What is kept is the sampling copy, so it costs no memory, and is in the type that the last one is saved in.
    A step is kept before its checkpoint is written: so what a checkpoint is past is there.
    """

    def __init__(self, rollouts: _Rollouts, folder: Path, rl: Rl, per_step: int) -> None:
        self.rollouts, self.folder, self.per_step = rollouts, folder, per_step
        self.every, self.steps = rl.keep_every * per_step, rl.steps

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        last = self.steps * self.per_step  # the whole training's, unless it goes on to spend a budget
        if self.every and state.global_step % self.every == 0 and state.global_step < last:
            self.rollouts.follow(model)
            step = state.global_step // self.per_step
            common.keep_model(self.rollouts.behaviour, self.rollouts.chat.tokenizer, self.folder, step)


class LengthSortedGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose micro-batches hold rollouts of like length, cut to their own longest."""

    _buffered_inputs: Any

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is before:
            return inputs
        size = self.args.gradient_accumulation_steps  # sorted within each update, so that updates stay random
        batches = self._buffered_inputs
        self._buffered_inputs = [b for i in range(0, len(batches), size) for b in by_length(batches[i : i + size])]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.beta == 0 and not inputs["advantages"].any():  # such rollouts have no gradient
            nothing: torch.Tensor = next(model.parameters()).sum() * 0.0
            return nothing
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss


def by_length(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many micro-batches of the same rows: those with an advantage first, from short to long, padding cut off."""
    count = len(batches)
    whole = {
        key: torch.cat([batch[key] for batch in batches]) if torch.is_tensor(first) and first.dim() else first
        for key, first in batches[0].items()
    }
    lengths = whole["completion_mask"].sum(1)
    order = (lengths + (whole["advantages"] == 0) * (lengths.max() + 1)).argsort()
    sorted_batches = []
    for rows in order.chunk(count):
        batch = {k: v[rows] if torch.is_tensor(v) and v.dim() else v for k, v in whole.items()}
        prompt, completion = (int(batch[f"{part}_mask"].sum(1).max()) for part in ("prompt", "completion"))
        for key, value in batch.items():
            if torch.is_tensor(value) and value.dim() == 2:
                batch[key] = value[:, -prompt:] if key.startswith("prompt") else value[:, :completion]
        sorted_batches.append(batch)
    return sorted_batches


def _line(logs: dict[str, Any], rollouts: _Rollouts, rl: Rl) -> dict[str, Any] | None:
    """A line of metrics.jsonl from TRL's log; None for a log without new rollouts. Raises NothingLeftError."""
    if "reward" not in logs:
        return None
    right = logs["reward"]  # NaN where all checks broke
    rollouts.dry = 0 if right and math.isfinite(right) else rollouts.dry + 1
    if rollouts.dry >= PATIENCE:
        raise NothingLeftError(
            f"GRPO: no rollout was right in {PATIENCE} steps of {rl.prompts_per_step * rl.group_size}, so there is "
            "nothing to learn from; train on easier questions, raise rl.max_tokens, or start from a better model."
        )
    return {
        "reward": right,
        "length": logs["completions/mean_length"],
        "entropy": logs.get("entropy"),
        "no_signal": logs["frac_reward_zero_std"],
        "truncated": logs["completions/clipped_ratio"],
        **{name: logs.get(f"skills/{name}") for name in SKILLS},
        "loss": logs.get("loss"),
        "grad_norm": logs.get("grad_norm"),
        "learning_rate": logs.get("learning_rate"),
        "rollout_seconds": round(rollouts.seconds, 3),
    }
