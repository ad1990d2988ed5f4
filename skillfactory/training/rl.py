"""GRPO by TRL from the SFT model, or from the base for methods without SFT (paper §3): binary reward, no KL.

Deviations from TRL, for speed alone (benchmarks/):

1. Rollouts come from our sampler (`rollout_func`), from a copy of the policy in the sampling type.
2. Rollouts of like length share a micro-batch, cut to its longest.
3. Micro-batches in which no group has signal are not computed.
4. Log-probabilities under the old policy are computed only for what is learnt from after the policy has changed, and on
   a CPU by plain torch (grpo.py).

And one more, so that a resumed run goes on with the same questions:

5. Their order is ours (order.py).
"""

import heapq
import math
import time
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from skillfactory import seeds
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.base import SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.engines.sampler import sample
from skillfactory.engines.transformers import stop_ids
from skillfactory.planning.memory import Lengths
from skillfactory.planning.steps import goes_on, updates_per_step
from skillfactory.recipe import Recipe, Rl
from skillfactory.records import Question
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training import common, launch, loggers, processes, signs
from skillfactory.training.callbacks import BudgetSpent, KeptSteps
from skillfactory.training.development import DevAccuracy, dev_questions
from skillfactory.training.elsewhere import verl
from skillfactory.training.grpo import LengthSortedGRPOTrainer
from skillfactory.training.metrics import MetricsFile
from skillfactory.training.order import PromptOrder
from skillfactory.training.policy import SamplingCopy
from skillfactory.training.reward import accuracy_in, is_shaped, make_rewards
from skillfactory.training.skills import SKILLS
from skillfactory.training.watching import Patience, SignsTold

MOST_STEPS = 100_000  # of RL that goes on until a budget is spent


def run(recipe: Recipe, run: Run) -> None:
    """Train by GRPO into `rl/model`, and keep the steps in between that the recipe asks for in `rl/steps`."""
    if recipe.training.backend == "verl":
        verl.run(recipe, run)
        return
    launch.finish(recipe, run, "rl", train)


def train(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What each process of the training does. Gives the counts of the stage's manifest."""
    stage = run.stage("rl")
    sft = run.stage("sft").path / "model"
    start = sft if sft.is_dir() else None
    questions = {q.id: q for q in run.stage("questions").rows(Question) if q.split == "rl"}
    chat = ChatTokenizer.load(recipe, start)
    rollouts = Rollouts(recipe, chat, SamplingCopy(lambda: load_model(recipe, start)))
    checkpoint, updates = common.last_checkpoint(stage.path)
    per_step = updates_per_step(recipe.rl, len(questions), recipe.training.devices)
    done = updates // per_step
    common.drop_kept(stage.path, after=done)
    with (
        loggers.started(recipe, stage, updates) as logging,
        common.progress(stage, recipe.rl.steps, "GRPO steps", done) as advance,
    ):
        metrics = MetricsFile(stage.path, lambda logs: _line(logs, rollouts, recipe.rl), advance, done)
        told = SignsTold(run, stage, metrics, lambda lines: signs.of_rl(lines, recipe.rl))
        patience, budget = Patience(recipe.rl, metrics, per_step, told), BudgetSpent(recipe.rl, metrics, per_step)
        asked = dev_questions(run, recipe.rl)
        dev = DevAccuracy(recipe, recipe.rl, stage, chat, rollouts.copy, asked, per_step, metrics)
        callbacks = [
            metrics,
            told,
            patience,
            KeptSteps(rollouts.copy, chat.tokenizer, stage.path, recipe.rl, per_step),
            budget,
            dev,
            *logging,
        ]
        told.memory(recipe, "rl", _longest(recipe, chat, questions))
        # A kill may have come after the last step of a training that ends early.
        steps = done if done and (patience.ends() or budget.ends(done)) else total_steps(recipe.rl)
        model = load_model(recipe, start, training=True)
        trainer = make_trainer(recipe, stage, questions, chat, model, rollouts, steps)
        policy = common.fit(trainer, callbacks, stage, per_step, recipe.rl.steps, checkpoint)
        dev.end(policy, metrics.step)
    if not dev.promote():
        common.save_model(policy, rollouts.copy, chat.tokenizer, stage.path)
    rollouts_per_step = recipe.rl.prompts_per_step * recipe.rl.group_size
    lengths = [line["length"] for line in metrics.lines()]  # of all steps, also those before a kill
    return {
        "questions": len(questions),
        "steps": metrics.step,
        "rollouts": metrics.step * rollouts_per_step,
        "tokens": round(sum(lengths) * rollouts_per_step),
        **dev.facts(),
        **patience.facts,
    }


def make_trainer(
    recipe: Recipe,
    stage: Stage,
    questions: Mapping[str, Question],
    chat: ChatTokenizer,
    model: Any,
    rollouts: "Rollouts",
    steps: int,
) -> GRPOTrainer:
    """TRL's trainer as the recipe wants it, of `model` on `questions` (by id), for so many steps."""
    rl, prompts = recipe.rl, prompts_of(recipe.attempts)
    rewards, weights = make_rewards(questions, recipe)
    args = configure(recipe, stage, len(questions), steps)
    args.reward_weights = weights
    order = PromptOrder(
        len(questions), steps, rl.prompts_per_step, rl.group_size,
        repeat=args.steps_per_generation * rl.iterations, seed=recipe.seed,
    )  # fmt: skip
    return LengthSortedGRPOTrainer(
        model=model,
        args=args,
        reward_funcs=rewards,
        train_dataset=Dataset.from_list(
            [{"prompt": prompts.train(q.text), "question_id": q.id} for q in questions.values()]
        ),
        processing_class=chat.tokenizer,
        rollout_func=rollouts if rl.engine == "sampler" else None,
        peft_config=common.lora_of(rl),
        order=order,
    )


def total_steps(rl: Rl) -> int:
    """Steps until RL ends, or until nobody knows when: then a callback ends it."""
    return MOST_STEPS if goes_on(rl) else rl.steps


def configure(recipe: Recipe, stage: Stage, questions: int, steps: int) -> GRPOConfig:
    """The recipe's RL section in TRL's terms, in which a step is one optimizer update. Raises RecipeError."""
    rl, devices = recipe.rl, recipe.training.devices
    per_step = updates_per_step(rl, questions, devices)
    rollouts = rl.prompts_per_step * rl.group_size
    settings = common.trainer_settings(recipe, rl, stage)
    warmup = math.ceil(rl.warmup * rl.steps * per_step)  # of the steps that are sure
    at_once = rl.micro_batch * devices
    vllm = {} if rl.engine == "sampler" else {"use_vllm": True, "vllm_mode": rl.engine.removeprefix("vllm_"), **rl.vllm}
    args = GRPOConfig(
        **{**settings, "save_steps": rl.save_every * per_step, "warmup_steps": warmup, **vllm},
        max_steps=steps * per_step,
        num_generations=rl.group_size,
        gradient_accumulation_steps=rollouts * rl.iterations // per_step // at_once,
        steps_per_generation=rollouts // at_once,
        num_iterations=rl.iterations,
        max_completion_length=rl.max_tokens,
        temperature=rl.temperature,
        loss_type=rl.loss_type,
        epsilon=rl.epsilon,
        epsilon_high=rl.epsilon_high or None,
        importance_sampling_level=rl.importance,
        scale_rewards=rl.scale_rewards,
        mask_truncated_completions=rl.mask_truncated,
        beta=rl.beta,
        remove_unused_columns=False,
    )
    return common.one_device(args)


class Rollouts:
    """TRL's `rollout_func`: samples a completion for each prompt of a step from the current policy.

    Of several processes each samples its part of the step's prompts, with the seeds that one process would use.
    """

    def __init__(self, recipe: Recipe, chat: ChatTokenizer, copy: SamplingCopy) -> None:
        self.recipe, self.chat, self.copy = recipe, chat, copy
        self.params = SamplingParams(recipe.rl.temperature, 1.0, 0, 1.0, recipe.rl.max_tokens)
        self.seconds = 0.0

    def __call__(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        began = time.monotonic()
        model = self.copy.model
        self.copy.follow(trainer.accelerator.unwrap_model(trainer.model))
        ids = [self.chat.encode(prompt) for prompt in prompts]
        step, first = trainer.state.global_step, processes.rank() * len(prompts)
        streams = [seeds.derive(self.recipe.seed, "rollout", step, first + i) for i in range(len(ids))]
        stops = stop_ids(model, self.chat.tokenizer)
        completions: list[list[int]] = [[] for _ in ids]
        for done in sample(model, ids, streams, self.params, stops, self.recipe.machine.batch_size):
            completions[done.index] = done.ids
        self.seconds = time.monotonic() - began
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}


def _longest(recipe: Recipe, chat: ChatTokenizer, questions: Mapping[str, Question]) -> Lengths:
    prompts, long = prompts_of(recipe.attempts), heapq.nlargest(64, questions.values(), key=lambda q: len(q.text))
    longest = max(len(chat.encode(prompts.train(q.text))) for q in long)  # in tokens, not in characters
    return Lengths(longest, longest + recipe.rl.max_tokens)


def _line(logs: dict[str, Any], rollouts: Rollouts, rl: Rl) -> dict[str, Any] | None:
    """A line of metrics.jsonl from TRL's log; None for a log without new rollouts."""
    if "reward" not in logs:
        return None
    return {
        "reward": accuracy_in(logs),
        **({"shaped": logs["reward"]} if is_shaped(rl.shaping) else {}),
        "length": logs["completions/mean_length"],
        "entropy": logs.get("entropy"),
        "no_signal": logs["frac_reward_zero_std"],
        "truncated": logs["completions/clipped_ratio"],
        **{name: logs.get(f"skills/{name}") for name in SKILLS},
        **({"broken": logs["broken"]} if "broken" in logs else {}),
        "loss": logs.get("loss"),
        "grad_norm": logs.get("grad_norm"),
        "learning_rate": logs.get("learning_rate"),
        "rollout_seconds": round(rollouts.seconds, 3) or None,  # vLLM is timed by TRL
    }
