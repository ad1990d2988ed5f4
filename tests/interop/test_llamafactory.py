"""LLaMA-Factory's own data loader on what is exported for it. Wants an environment of its own (requirements-*.txt)."""

import importlib.machinery
import sys
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from traces_run import TINY, dialogue

from skillfactory.records import Trace

try:
    VERSION = version("llamafactory")
except PackageNotFoundError:
    pytest.skip("llamafactory is not installed", allow_module_level=True)

# Its data loader imports torchaudio, whose wheel does not load beside a CPU torch; no sound is needed here.
torchaudio = types.ModuleType("torchaudio")
torchaudio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules.setdefault("torchaudio", torchaudio)


def loaded(folder: Path, tmp_path: Path, template: str | None) -> tuple[Any, Any]:
    """The rows that it would train on, and its tokenizer, by its own arguments, templates and loader."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    given = {
        "model_name_or_path": str(TINY), "stage": "sft", "do_train": True, "finetuning_type": "full",
        "dataset": "test", "dataset_dir": str(folder), "cutoff_len": 4096, "output_dir": str(tmp_path / "out"),
        "use_cpu": True, "overwrite_cache": True, "preprocessing_num_workers": 1, "report_to": "none",
        "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    model_args, data_args, training_args, _, _ = get_train_args(given | ({"template": template} if template else {}))
    module = load_tokenizer(model_args)
    chat = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    return get_dataset(chat, model_args, data_args, training_args, stage="sft", **module)["train_dataset"], module[
        "tokenizer"
    ]


@pytest.mark.parametrize("format", ["llamafactory", "llamafactory-conversations"])
@pytest.mark.parametrize("template", [None, "qwen"])
def test_its_loader_learns_the_completions(
    exported: Callable[[str], Path], traces: list[Trace], tmp_path: Path, format: str, template: str | None
) -> None:
    rows, tokenizer = loaded(exported(format), tmp_path, template)
    assert len(rows) == len(traces)
    for row, trace in zip(rows, traces, strict=True):
        learnt = tokenizer.decode([label for label in row["labels"] if label != -100])
        end = "<|im_end|>\n" if template else "<|end|>"
        assert learnt == trace.completion + end
        text = tokenizer.decode(row["input_ids"])
        assert text.endswith(learnt)
        if template is None:  # the tokenizer's own
            assert text == tokenizer.apply_chat_template(dialogue(trace), tokenize=False)
        for message in trace.prompt:
            assert message["content"] in text
