"""`datasets` loads what the format of its name writes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from traces_run import dialogue

from skillfactory.records import Trace

datasets = pytest.importorskip("datasets")


def test_a_folder_is_a_data_set(exported: Callable[[str], Path], traces: list[Trace], tmp_path: Path) -> None:
    folder = str(exported("datasets"))
    assert datasets.get_dataset_config_names(folder) == ["sft_train"]
    whole = datasets.load_dataset(folder, cache_dir=str(tmp_path))
    assert list(whole) == ["train"]
    named = datasets.load_dataset(folder, "sft_train", split="train", streaming=True)
    for row, same, trace in zip(whole["train"], named, traces, strict=True):
        assert row == same
        assert [row["id"], row["question_id"], row["pattern"]] == [trace.id, trace.question_id, trace.pattern]
        assert (row["tokens"], row["pairs"]) == (trace.tokens, len(trace.steps))
        assert row["conversations"] == row["prompt"] + row["completion"] == dialogue(trace)
