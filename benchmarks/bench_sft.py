"""SFT tokens a second on the same silver traces: the stage `sft` as the pipeline runs it, and TRL's SFTTrainer.

The traces are written here, to the form and about the lengths of the demo's, from questions and sums: so nothing has
to be sampled before. TRL's has its defaults (it applies the chat template itself, takes the traces in their order,
keeps gradient checkpoints) but for the number of passes; its longest text is set to hold all traces, since its default
of 1,024 tokens cuts. Both have TRL's default of 8 traces a step. The first step is not counted.
"""

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sizes import Sft, folder_of, size_of

from skillfactory.engines.models import ChatTokenizer, locate
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.records import Trace
from skillfactory.store import Run
from skillfactory.tasks.questions import task_of

Figures = dict[str, Any]


def ours(model: str, quick: bool) -> Figures:
    """The stage `sft`."""
    from skillfactory.training import sft

    recipe, traces = _setting(model, size_of(model, quick).sft)
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "run", recipe) as run:
        stage = run.begin("traces", {}, {})
        stage.append(traces)
        stage.finish()
        run.begin("sft", {}, {})
        with counting() as logs:
            sft.run(recipe, run)
    return figures(logs) | {"lengths": [trace.tokens for trace in traces], "threads": recipe.machine.threads or "all"}


def trl(model: str, quick: bool) -> Figures:
    """SFTTrainer with its defaults."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    recipe, traces = _setting(model, size_of(model, quick).sft)
    chat = ChatTokenizer.load(recipe)
    rows = [
        {"prompt": trace.prompt, "completion": [{"role": "assistant", "content": trace.completion}]} for trace in traces
    ]
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder, num_train_epochs=recipe.sft.epochs, max_length=2048, use_cpu=True, logging_steps=1,
            report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        with counting() as logs:
            SFTTrainer(
                model=locate(recipe), args=args, train_dataset=Dataset.from_list(rows), processing_class=chat.tokenizer
            ).train()
    return figures(logs) | {"lengths": [trace.tokens for trace in traces]}


def figures(logs: list[tuple[float, float]]) -> Figures:
    """From (second, tokens so far) at the end of each step. Raises RuntimeError where no step was seen."""
    if len(logs) < 2:
        raise RuntimeError("fewer than two steps were seen: training does not go through TRL's trainer in this process")
    (began, before), (ended, after) = logs[0], logs[-1]
    return {"tokens a second": (after - before) / (ended - began), "tokens": after, "steps": len(logs)}


@contextmanager
def counting() -> Iterator[list[tuple[float, float]]]:
    """Second and tokens so far at the end of each step of trainers that run meanwhile, padding not counted."""
    from transformers import Trainer

    found: list[tuple[float, float]] = []
    log = Trainer.log

    def counted(self: Any, logs: dict[str, Any], *more: Any, **options: Any) -> None:
        log(self, logs, *more, **options)
        if "loss" in logs:
            found.append((time.perf_counter(), logs["num_tokens"]))

    Trainer.log = counted
    try:
        yield found
    finally:
        Trainer.log = log


def traces_of(recipe: Recipe, chat: ChatTokenizer, size: Sft) -> list[Trace]:
    """Traces of several attempts at a question, each with a reflection, of geometric numbers."""
    rng = random.Random(0)
    found = []
    for i, question in enumerate(task_of(recipe.questions.task).generate(size.traces, 0, "sft")):
        pairs = 1
        while pairs < size.most and rng.random() > 1 / size.pairs:
            pairs += 1
        blocks = "".join(_pair(rng, question.answer if last else "", last) for last in [*[False] * (pairs - 1), True])
        completion = f"<think>\n{blocks}</think>\n\nThis one is right.\n\n<answer>\n{question.answer}\n</answer>"
        prompt = [{"role": "user", "content": question.text}]
        tokens = chat.count_tokens(prompt, completion)
        found.append(Trace(f"t{i}", question.id, "fail_first", [], prompt, completion, tokens))
    return found


def _pair(rng: random.Random, answer: str, right: bool) -> str:
    numbers = [rng.randrange(1, 20) for _ in range(5)]
    answer = answer or " ".join(f"{number} {rng.choice('+-')}" for number in numbers)[:-2]
    checked = " ".join(f"{number} = {rng.randrange(60)}" for number in numbers)
    said = "Correct" if right else "Incorrect"
    return (
        f"<sample>\nIn other words: {answer}.\n<answer>{answer}</answer>\n</sample>\n"
        f"<reflect>\nLet me check: {checked}.\n<verdict>{said}</verdict>\n</reflect>\n"
    )


def _setting(model: str, size: Sft) -> tuple[Recipe, list[Trace]]:
    small = {} if model == "tiny" else {"machine.threads": 0}
    settings = {
        "model": folder_of(model), "machine.device": "cpu", "sft.epochs": 1, "sft.batch_size": size.batch,
        "sft.save_every": 1000, **small,
    }  # fmt: skip
    recipe = load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])
    return recipe, traces_of(recipe, ChatTokenizer.load(recipe), size)
