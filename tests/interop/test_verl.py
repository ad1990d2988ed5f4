"""verl's own SFT data set on what is exported for it. Wants an environment of its own (requirements-*.txt)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from traces_run import TINY, dialogue

from skillfactory.records import Trace

pytest.importorskip("verl", reason="verl is not installed")


@pytest.mark.parametrize("pad_mode", ["no_padding", "right"])
def test_its_data_set_learns_the_completions(
    exported: Callable[[str], Path], traces: list[Trace], pad_mode: str
) -> None:
    from hydra import compose, initialize_config_module
    from transformers import AutoTokenizer
    from verl.trainer.sft_trainer import create_sft_dataset

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    file = str(exported("verl") / "train.parquet")
    given = [f"data.train_files={file}", "data.max_length=512", f"data.pad_mode={pad_mode}"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("sft_trainer_engine", overrides=given)  # its own settings, the rest as it ships
    data = create_sft_dataset(config.data.train_files, config.data, tokenizer, None)
    assert type(data).__name__ == "MultiTurnSFTDataset"
    assert len(data) == len(traces)
    for row, trace in zip((data[i] for i in range(len(data))), traces, strict=True):
        learnt = tokenizer.decode(row["input_ids"][row["loss_mask"] == 1])
        assert learnt == trace.completion + tokenizer.eos_token
        real = row["input_ids"][row["attention_mask"] == 1] if pad_mode == "right" else row["input_ids"]
        assert tokenizer.decode(real) == tokenizer.apply_chat_template(dialogue(trace), tokenize=False)
