"""SFT: full fine-tuning on the silver traces, by TRL, with the loss on the completion alone (paper §2)."""

import math
from typing import Any

from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import NothingLeftError
from skillfactory.planning.memory import Lengths
from skillfactory.recipe import Recipe
from skillfactory.records import Trace
from skillfactory.stage import Stage
from skillfactory.store import Run


def run(recipe: Recipe, run: Run) -> None:
    """Fine-tune the base model on the run's traces into `sft/model`."""
    from skillfactory.training import launch
    from skillfactory.training.elsewhere import llamafactory

    if recipe.training.sft == "llamafactory":
        llamafactory.run(recipe, run)
        return
    launch.finish(recipe, run, "sft", train)


def train(recipe: Recipe, run: Run) -> dict[str, Any]:
    """What each process of the training does. Gives the counts of the stage's manifest."""
    from datasets import Dataset
    from trl import SFTTrainer

    from skillfactory.training import common, loggers, signs
    from skillfactory.training.development import DevAccuracy, dev_questions
    from skillfactory.training.metrics import MetricsFile
    from skillfactory.training.order import trace_order
    from skillfactory.training.policy import SamplingCopy
    from skillfactory.training.watching import SignsTold

    stage = run.stage("sft")
    traces = traces_of(run)
    chat = ChatTokenizer.load(recipe)
    examples = [tokenize(chat, trace) for trace in traces]
    args, steps = configure(recipe, stage, len(examples))
    at_once = args.per_device_train_batch_size * recipe.training.devices
    order = trace_order([len(e["input_ids"]) for e in examples], recipe.sft.epochs, at_once, recipe.seed)
    learned = sum(sum(e["completion_mask"]) for e in examples)
    copy = SamplingCopy(lambda: load_model(recipe))
    checkpoint, done = common.last_checkpoint(stage.path)
    with (
        loggers.started(recipe, stage, done) as logging,
        common.progress(stage, steps, "SFT steps", done) as advance,
    ):
        metrics = MetricsFile(stage.path, _line, advance, done)
        told = SignsTold(run, stage, metrics, signs.of_sft, every=10)
        dev = DevAccuracy(recipe, recipe.sft, stage, chat, copy, dev_questions(run, recipe.sft), 1, metrics)
        told.memory(recipe, "sft", _longest(examples))
        trainer = SFTTrainer(
            model=load_model(recipe, training=True),
            args=args,
            train_dataset=Dataset.from_list(examples).select(order),
            processing_class=chat.tokenizer,
            peft_config=common.lora_of(recipe.sft),
        )
        policy = common.fit(trainer, [metrics, told, dev, *logging], stage, 1, steps, checkpoint)
        told.tell(signs.of_sft(metrics.lines(), ended=True, learned_tokens=learned))
        dev.end(policy, metrics.step)
    if not dev.promote():
        common.save_model(policy, copy, chat.tokenizer, stage.path)
    return {
        "traces": len(traces),
        "steps": metrics.step,
        "tokens": sum(len(e["input_ids"]) for e in examples),
        "learned_tokens": learned,
        **dev.facts(),
    }


def traces_of(run: Run) -> list[Trace]:
    """What is learnt from. Raises NothingLeftError where there are none."""
    traces = run.stage("traces").rows(Trace)
    if not traces:
        raise NothingLeftError(
            "There are no traces to fine-tune on; look at `skillfactory show` for where they were lost."
        )
    return traces


def configure(recipe: Recipe, stage: Stage, traces: int) -> tuple[Any, int]:
    """The recipe's SFT section as TRL's SFTConfig, and the number of optimizer steps; all passes are one epoch."""
    from trl import SFTConfig

    from skillfactory.planning.steps import sft_batch
    from skillfactory.training import common

    micro, accumulated = sft_batch(recipe.sft, traces, recipe.training.devices)
    args = SFTConfig(
        **{**common.trainer_settings(recipe, recipe.sft, stage), "per_device_train_batch_size": micro},
        num_train_epochs=1,
        gradient_accumulation_steps=accumulated,
        train_sampling_strategy="sequential",
        max_length=None,  # traces were measured before: nothing is cut here
    )
    at_once = micro * recipe.training.devices
    steps = math.ceil(math.ceil(math.ceil(traces * recipe.sft.epochs) / at_once) / accumulated)
    return common.one_device(args), steps


def tokenize(chat: ChatTokenizer, trace: Trace) -> dict[str, list[int]]:
    """A trace as TRL takes tokenized prompt/completion data; written just as it will be sampled later.

    (Letting TRL apply the chat template to the whole dialogue would lose thoughts with templates that strip them.)
    """
    prompt = chat.encode(trace.prompt)
    completion = [*chat.tokenizer(trace.completion, add_special_tokens=False)["input_ids"], chat.tokenizer.eos_token_id]
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


def _longest(examples: list[dict[str, list[int]]]) -> Lengths:
    """Of the shortest prompt, beside which most is learnt."""
    return Lengths(min(e["completion_mask"].count(0) for e in examples), max(len(e["input_ids"]) for e in examples))


def _line(logs: dict[str, Any]) -> dict[str, Any] | None:
    if "loss" not in logs:
        return None
    known = ("loss", "grad_norm", "learning_rate")
    figures: dict[str, Any] = {name: float(logs[name]) for name in known if name in logs}
    return figures
