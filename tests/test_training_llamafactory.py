"""SFT by LLaMA-Factory: what is written for it, what is refused, and a run with a program that plays it.

tests/interop/test_llamafactory.py trains with LLaMA-Factory itself.
"""

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import make_recipe
from traces_run import make_trace

from skillfactory import pipeline
from skillfactory.engines.models import load_model
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.store import Run, load_run
from skillfactory.training.elsewhere import llamafactory, programs
from skillfactory.training.elsewhere.llamafactory_settings import deepspeed, settings, total_steps

SFT = {"epochs": 2, "batch_size": 2, "micro_batch": 2, "save_every": 2}


class Trained:
    """A run up to SFT, and a command that plays LLaMA-Factory's."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.command, self.play_file = folder / "bin" / "llamafactory-cli", folder / "play.json"
        self.command.parent.mkdir()
        fake = Path(__file__).with_name("fake_llamafactory.py")
        self.command.write_text(f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
        self.command.chmod(self.command.stat().st_mode | stat.S_IXUSR)
        self.recipe = self.make()
        self.play(model=str(model), steps=6)

    def make(self, **sft: Any) -> Recipe:
        system = {"sft": "llamafactory", "llamafactory": {"command": str(self.command)}}
        return make_recipe(model=str(self.model), sft=SFT | sft, training=system)

    def play(self, **how: Any) -> None:
        old = json.loads(self.play_file.read_text()) if self.play_file.exists() else {}
        self.play_file.write_text(json.dumps(old | how))

    def train(self, suffix: str = "") -> None:
        with Run.open(self.folder / "run", self.recipe) as run:
            stage = run.begin(f"traces{suffix}", {}, {})
            if not stage.is_finished():
                stage.append([make_trace(i, system=i % 2 == 0) for i in range(6)])
                stage.finish()
            run.begin(f"sft{suffix}", {}, {})
            llamafactory.run(self.recipe, run.of_round(suffix))

    @property
    def sft(self) -> Path:
        return self.folder / "run" / "sft"

    def steps(self) -> list[int]:
        return [json.loads(line)["step"] for line in (self.sft / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def trained(tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    monkeypatch.setattr(programs, "POLL", 0.05)
    made = Trained(tmp_path, random_model)
    monkeypatch.setenv("SKILLFACTORY_FAKE", str(made.play_file))
    llamafactory._said_of_version.cache_clear()
    yield made
    llamafactory._said_of_version.cache_clear()


def with_it(command: str = "llamafactory-cli", **sections: Any) -> Recipe:
    system = {"sft": "llamafactory", "llamafactory": {"command": command}} | sections.pop("training", {})
    return make_recipe(**{"sft": SFT | sections.pop("sft", {}), "training": system} | sections)


def test_the_papers_settings(tmp_path: Path) -> None:
    found = settings(make_recipe(), Stage(tmp_path / "sft"), traces=1000, longest=900)
    wanted = {
        "stage": "sft", "finetuning_type": "full", "learning_rate": 1e-6, "lr_scheduler_type": "cosine",
        "num_train_epochs": 2.0, "adam_beta2": 0.95, "weight_decay": 1e-4, "max_grad_norm": 1.0, "warmup_steps": 25,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "output_dir": "../checkpoints",
        "use_cpu": True, "bf16": False, "disable_gradient_checkpointing": True, "report_to": "none",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert found["cutoff_len"] > 900
    assert Path(found["model_name_or_path"], "config.json").is_file()
    assert not {"template", "trust_remote_code", "deepspeed", "fsdp", "lora_rank"} & set(found)


def test_other_settings(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "sft")
    recipe = with_it(sft={"lora": {"rank": 8, "targets": ["q_proj", "v_proj"]}, "batch_size": 16, "micro_batch": 3},
                     training={"devices": 2, "shard": "zero3", "llamafactory": {"options": {"template": "qwen"}}},
                     model="org/model", revision="abc")  # fmt: skip
    found = settings(recipe, stage, traces=40, longest=10)
    wanted = {
        "finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.0,
        "lora_target": "q_proj,v_proj", "gradient_accumulation_steps": 4, "template": "qwen",
        "deepspeed": "deepspeed.json", "model_name_or_path": "org/model", "model_revision": "abc",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert total_steps(found, 40, 2) == 6  # 10 batches of 2 x 2 an epoch, 4 a step
    assert deepspeed(recipe)["zero_optimization"]["stage"] == 3
    assert settings(with_it(training={"devices": 2, "shard": "fsdp2"}), stage, 40, 10)["fsdp_config"]["version"] == 2


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sft": {"dev_every": 5}}, "cannot measure dev questions; set sft.dev_every to 0"),
        ({"command": "/none/such"}, "training.llamafactory.command: there is no command /none/such; give its path"),
        ({"command": "false"}, "training.llamafactory.command: `false` says: (nothing)"),
        ({"command": "echo"}, "training.llamafactory.command: echo is no LLaMA-Factory 0.9"),
    ],
)
def test_refusals(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        pipeline.check(with_it(**sections))
    assert message in str(error.value)


def test_a_training(trained: Trained) -> None:
    trained.train()
    lines = [json.loads(line) for line in (trained.sft / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"], line["learning_rate"]) for line in lines] == [
        (step, 1 / step, 1e-6) for step in range(1, 7)
    ]
    manifest = load_run(trained.folder / "run").manifest("sft")
    assert manifest["finished"]
    assert manifest["counts"]["steps"] == manifest["counts"]["traces"] == 6
    assert 0 < manifest["counts"]["learned_tokens"] < manifest["counts"]["tokens"]
    wanted, found = (
        dict(load_model(trained.recipe, m).named_parameters()) for m in (trained.model, trained.sft / "model")
    )
    assert all((wanted[name] == found[name]).all() for name in wanted)
    assert not (trained.sft / "checkpoints").exists()
    written = yaml.safe_load((trained.sft / "llamafactory" / "train.yaml").read_text())
    about = json.loads((trained.sft / "llamafactory" / "data" / "dataset_info.json").read_text())
    assert list(about) == [written["dataset"]]


def test_failing_and_going_on(trained: Trained) -> None:
    trained.play(fail_at=4)
    with pytest.raises(
        SkillFactoryError, match=r"(?s)LLaMA-Factory failed with exit code 1\..*something is wrong\nMend"
    ):
        trained.train()
    assert trained.steps() == [1, 2, 3]
    (trained.sft / "checkpoints" / "checkpoint-3").mkdir()  # half a checkpoint
    trained.play(fail_at=0)
    trained.train()
    assert trained.steps() == [1, 2, 3, 4, 5, 6]
    log = (trained.sft / "llamafactory" / "log.txt").read_text().splitlines()
    assert [line for line in log if line.startswith("begins")] == [
        "begins after step 0; 1 devices", "begins after step 2; 1 devices",
    ]  # fmt: skip


def test_adapters_are_added_by_its_export(trained: Trained) -> None:
    trained.recipe = trained.make(lora={"rank": 4})
    trained.train()
    load_model(trained.recipe, trained.sft / "model")
    written = yaml.safe_load((trained.sft / "llamafactory" / "export.yaml").read_text())
    assert written["finetuning_type"] == "lora"
    assert not list((trained.sft / "llamafactory").glob(".tmp-*"))


def test_a_round_trains_on_its_own_traces(trained: Trained) -> None:
    trained.train("-1")
    assert (trained.folder / "run" / "sft-1" / "model").is_dir()
    assert not trained.sft.exists()
