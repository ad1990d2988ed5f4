"""SFT: full fine-tuning on the silver traces, by TRL, with the loss on the completion alone (paper §2)."""

import math
from typing import Any

from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Recipe
from skillfactory.records import Trace
from skillfactory.store import Run


def run(recipe: Recipe, run: Run) -> None:
    """Fine-tune the base model on the run's traces into `sft/model`."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from skillfactory.training import common, loggers

    stage = run.stage("sft")
    traces = run.stage("traces").rows(Trace)
    if not traces:
        raise NothingLeftError(
            "There are no traces to fine-tune on; look at `skillfactory show` for where they were lost."
        )
    chat = ChatTokenizer.load(recipe)
    base = load_model(recipe)  # loaded once more in float32 below; its type is what the result is saved in
    dtype, on_cpu = base.dtype, base.device.type == "cpu"
    del base
    model = load_model(recipe, training=True)

    examples = [tokenize(chat, trace) for trace in traces]
    batch = min(recipe.sft.batch_size, len(examples))
    micro = min(recipe.sft.micro_batch, batch)
    settings = common.trainer_settings(recipe, recipe.sft, stage, on_cpu)
    args = SFTConfig(
        **{**settings, "per_device_train_batch_size": micro},
        num_train_epochs=recipe.sft.epochs,
        gradient_accumulation_steps=math.ceil(batch / micro),
        train_sampling_strategy="group_by_length",
        max_length=None,  # traces were measured before: nothing is cut here
    )
    per_epoch = math.ceil(math.ceil(len(examples) / micro) / args.gradient_accumulation_steps)
    steps = math.ceil(recipe.sft.epochs * per_epoch)
    checkpoint, done = common.last_checkpoint(stage.path)
    with loggers.started(recipe, stage, done) as logging, stage.track(steps, "SFT steps", done=done) as advance:
        metrics = common.MetricsFile(stage.path, _line, advance, done)
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(examples),
            processing_class=chat.tokenizer,
            callbacks=[metrics, *logging],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=checkpoint)
    common.save_model(model, chat.tokenizer, dtype, stage.path)
    stage.finish(
        traces=len(traces),
        steps=metrics.step,
        tokens=sum(len(e["input_ids"]) for e in examples),
        learned_tokens=sum(sum(e["completion_mask"]) for e in examples),
    )


def tokenize(chat: ChatTokenizer, trace: Trace) -> dict[str, list[int]]:
    """A trace as TRL takes tokenized prompt/completion data; written just as it will be sampled later.

    (Letting TRL apply the chat template to the whole dialogue would lose thoughts with templates that strip them.)
    """
    prompt = chat.encode(trace.prompt)
    completion = [*chat.tokenizer(trace.completion, add_special_tokens=False)["input_ids"], chat.tokenizer.eos_token_id]
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


def _line(logs: dict[str, Any]) -> dict[str, Any] | None:
    if "loss" not in logs:
        return None
    return {"loss": float(logs["loss"]), "learning_rate": float(logs["learning_rate"])}
