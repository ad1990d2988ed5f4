"""Make the embedded tiny base from nothing: tokenizer, pretraining on its world, bf16 folder.

    python -m skillfactory.tiny.pretrain OUT

Seeded, and resumable: run the same command again after a kill. First numbers alone, then all tasks; each time first
short rows at a constant rate, then long ones, with unrelated notes between question and answer, while the rate falls to
nothing. The embedded weights were made in two goes, which docs/reproduction.md tells.
"""

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from skillfactory import seeds
from skillfactory.records import Message
from skillfactory.tiny import tokenizer as tiny_tokenizer
from skillfactory.tiny.world import ALL, NUMBERS, World, notes

SEED = 20251203
IGNORED = -100  # label of tokens that are read, not learned


@dataclass(frozen=True)
class Stage:
    """One stretch of pretraining: rows of `length` tokens, `rows` of them a step, of these kinds of dialogue."""

    name: str
    kinds: Mapping[str, float]
    length: int
    rows: int
    steps: int
    share_with_notes: float
    learning_rate: float
    schedule: str
    warmup: float


STAGES = [
    Stage("numbers", NUMBERS, 160, 96, 1600, 0.0, 2.5e-3, "constant_with_warmup", 0.05),
    Stage("numbers-long", NUMBERS, 640, 24, 400, 0.3, 2.5e-3, "linear", 0.0),
    Stage("all", ALL, 160, 96, 400, 0.0, 1.2e-3, "constant_with_warmup", 0.05),
    Stage("all-long", ALL, 640, 24, 160, 0.3, 1.2e-3, "linear", 0.0),
]


BANKS = ("generic", "after_correct", "after_incorrect", "closing")  # the others are spelt out


def make_tokenizer() -> Any:
    """The tokenizer over the world's sentences and those phrase banks that most patterns use."""
    from skillfactory.curation.phrases import load_phrases

    world = World(seeds.rng(SEED, "tokenizer"))
    texts = [message["content"] for _ in range(6000) for message in world.dialogue()]
    banks = load_phrases()
    phrases = [phrase for name, bank in banks if name in BANKS for phrase in bank]
    return tiny_tokenizer.build(texts, phrases, size=768)


def make_model() -> Any:
    """A Llama of 1.7 M parameters with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(SEED)
    config = LlamaConfig(
        vocab_size=768,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        initializer_range=0.04,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


class Rows:
    """Rows of dialogues one after another, each made from its index alone, so that a resumed run sees the same data."""

    def __init__(self, tokenizer: Any, stage: Stage, count: int) -> None:
        self.tokenizer, self.stage, self.count = tokenizer, stage, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        rng = seeds.rng(SEED, "row", self.stage.name, int(index))
        world = World(rng, self.stage.kinds)
        ids: list[int] = []
        labels: list[int] = []
        while len(ids) < self.stage.length:
            prompt, completion = encode(self.tokenizer, self._dialogue(world, rng))
            ids += prompt + completion
            labels += [IGNORED] * len(prompt) + completion
        return {"input_ids": ids[: self.stage.length], "labels": labels[: self.stage.length]}

    def _dialogue(self, world: World, rng: random.Random) -> list[Message]:
        dialogue = world.dialogue()
        if rng.random() < self.stage.share_with_notes:
            asked = dialogue[-2]
            asked["content"] += "\n\n" + notes(rng, rng.randint(1, 40))
        return dialogue


def encode(tokenizer: Any, dialogue: list[Message]) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue up to its answer, and of the answer."""
    prompt = tokenizer.apply_chat_template(dialogue[:-1], add_generation_prompt=True, tokenize=False)
    completion = dialogue[-1]["content"] + tiny_tokenizer.END
    return tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"]


def train(model: Any, tokenizer: Any, stage: Stage, out: Path, scale: float) -> None:
    """Train `model` in place through one stage, from its last checkpoint where there is one."""
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator
    from transformers.trainer_utils import get_last_checkpoint

    steps = max(1, round(stage.steps * scale))
    args = TrainingArguments(
        output_dir=str(out / stage.name),
        max_steps=steps,
        per_device_train_batch_size=stage.rows,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=stage.warmup,
        adam_beta2=0.95,
        weight_decay=0.01,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        save_steps=200,
        save_total_limit=1,
        logging_steps=20,
        seed=SEED,
        report_to="none",
        dataloader_num_workers=0,
    )
    rows = Rows(tokenizer, stage, steps * stage.rows)
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=default_data_collator)
    trainer.train(
        resume_from_checkpoint=get_last_checkpoint(str(out / stage.name)) if (out / stage.name).exists() else None
    )


def main(
    out: Path,
    scale: float = typer.Option(1.0, help="Share of the full number of steps, for trials."),
    threads: int = typer.Option(2, help="Torch threads; two are faster only where nothing else runs."),
) -> None:
    """Pretrain the tiny base into OUT/model."""
    import torch

    from skillfactory.engines.attention import register

    torch.set_num_threads(threads)
    tokenizer = make_tokenizer()
    model = make_model()
    model.config._attn_implementation = register()
    for stage in STAGES:
        train(model, tokenizer, stage, out, scale)
    shutil.rmtree(out / "model", ignore_errors=True)
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


if __name__ == "__main__":
    typer.run(main)
