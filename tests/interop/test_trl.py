"""TRL prepares what is exported for it: labels cover the completion and nothing else, and say the same text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traces_run import TINY, dialogue

from skillfactory.records import Trace

pytest.importorskip("trl", minversion="1.16", reason="TRL 1.16 is not installed")
Exported = Callable[[str], Path]


def prepared(path: Path, tmp_path: Path, **options: Any) -> tuple[Any, Any]:
    """The training data as SFTTrainer makes it, and the tokenizer."""
    import datasets
    import torch
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    if path.is_dir():
        data = datasets.load_dataset(str(path), split="train", cache_dir=str(tmp_path))
    else:
        data = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path))
    args = SFTConfig(output_dir=str(tmp_path / "model"), use_cpu=True, max_length=None, report_to="none", bf16=False,
                     max_steps=1, per_device_train_batch_size=2, **options)  # fmt: skip
    trainer = SFTTrainer(model=str(TINY), args=args, train_dataset=data)
    return trainer, trainer.processing_class


@pytest.mark.parametrize("format", ["trl", "datasets"])
def test_loss_is_on_the_completion(exported: Exported, traces: list[Trace], tmp_path: Path, format: str) -> None:
    folder = exported(format)
    trainer, tokenizer = prepared(folder if format == "datasets" else folder / "train.parquet", tmp_path)
    for row, trace in zip(trainer.train_dataset, traces, strict=True):
        learnt = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(learnt) == trace.completion + tokenizer.eos_token
        assert row["labels"][-len(learnt) :] == learnt == row["input_ids"][-len(learnt) :]
        whole = tokenizer.apply_chat_template(dialogue(trace), tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == whole
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] != -100).any()
    assert trainer.train().training_loss > 0  # and a step can be taken


def test_messages_are_learnt_whole(exported: Exported, traces: list[Trace], tmp_path: Path) -> None:
    trainer, tokenizer = prepared(exported("trl-messages") / "train.parquet", tmp_path)
    for row, trace in zip(trainer.train_dataset, traces, strict=True):
        assert row["labels"] == row["input_ids"]
        assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(dialogue(trace), tokenize=False)
