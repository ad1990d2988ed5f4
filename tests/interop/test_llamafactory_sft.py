"""LLaMA-Factory trains on CPU by what training/elsewhere/llamafactory.py writes. Wants an environment of its own."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import make_recipe
from traces_run import TINY, make_trace

from skillfactory.errors import SkillFactoryError
from skillfactory.recipe import Recipe
from skillfactory.store import Run, load_run
from skillfactory.training.elsewhere import llamafactory

try:
    version("llamafactory")
except PackageNotFoundError:
    pytest.skip("llamafactory is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)  # it takes its time to start

# It imports torchaudio, whose wheel does not load beside a CPU torch; no sound is needed here.
NO_SOUND = """\
import importlib.machinery, sys, types
sound = types.ModuleType("torchaudio")
sound.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = sound
"""


@pytest.fixture
def _without_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_SOUND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def recipe_of(devices: int = 1, **sft: Any) -> Recipe:
    command = str(Path(sys.executable).with_name("llamafactory-cli"))
    given = {"epochs": 2, "batch_size": 2, "micro_batch": 2, "save_every": 2, "learning_rate": 1e-3}
    system = {"sft": "llamafactory", "devices": devices, "llamafactory": {"command": command}}
    return make_recipe(model=str(TINY), sft=given | sft, training=system)


def train(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    with Run.open(folder, recipe) as run:
        stage = run.begin("traces", {}, {})
        if not stage.is_finished():
            stage.append([make_trace(i, system=i % 2 == 0) for i in range(6)])
            stage.finish()
        run.begin("sft", {}, {})
        llamafactory.run(recipe, run)
    return [json.loads(line) for line in (folder / "sft" / "metrics.jsonl").read_text().splitlines()]


def loss(model: Path) -> float:
    """Of the tiny base's tokenizer's view of a trace, by our own loader."""
    import torch

    from skillfactory.engines.models import ChatTokenizer, load_model
    from skillfactory.training.sft import tokenize

    recipe = make_recipe(model=str(TINY))
    example = tokenize(ChatTokenizer.load(recipe, model), make_trace(1))
    ids = torch.tensor([example["input_ids"]])
    with torch.no_grad():
        return float(load_model(recipe, model)(input_ids=ids, labels=ids).loss)


@pytest.mark.usefixtures("_without_sound")
@pytest.mark.parametrize(("devices", "lora"), [(1, {}), (2, {}), (1, {"rank": 8})])
def test_it_trains(tmp_path: Path, devices: int, lora: dict[str, Any]) -> None:
    lines = train(tmp_path / "run", recipe_of(devices, lora=lora))
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["learning_rate"] == 0  # of six steps one warms up
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    counts = load_run(tmp_path / "run").manifest("sft")["counts"]
    assert counts["traces"] == counts["steps"] == 6
    assert loss(tmp_path / "run" / "sft" / "model") < loss(TINY) - 0.1


@pytest.mark.usefixtures("_without_sound")
def test_it_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of()
    whole = train(tmp_path / "whole", recipe)

    class Stopped(llamafactory._Log):
        def new(self) -> list[dict[str, Any]]:
            if (self.path.parent / "checkpoint-4" / "trainer_state.json").exists():
                raise SkillFactoryError("stopped")
            return super().new()

    with monkeypatch.context() as patched:
        patched.setattr(llamafactory, "_Log", Stopped)
        patched.setattr(llamafactory.programs, "POLL", 0.01)
        with pytest.raises(SkillFactoryError, match="stopped"):
            train(tmp_path / "run", recipe)
    lines = train(tmp_path / "run", recipe)
    assert [line["step"] for line in lines][-2:] == [5, 6]
    assert "checkpoint-4" in (tmp_path / "run" / "sft" / "llamafactory" / "log.txt").read_text()
    for line, other in zip(lines[-2:], whole[-2:], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize("shard", ["none", "fsdp2"])
def test_its_parser_takes_the_settings(tmp_path: Path, shard: str) -> None:
    from llamafactory.hparams import get_train_args

    from skillfactory.stage import Stage
    from skillfactory.training.elsewhere.llamafactory_settings import settings

    recipe = recipe_of(devices=2)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"shard": shard})})
    written = yaml.safe_load(yaml.safe_dump(settings(recipe, Stage(tmp_path / "sft"), 6, 100)))
    model, data, training, tuning, _ = get_train_args(written | {"output_dir": str(tmp_path / "out")})
    assert tuning.finetuning_type == "full"
    assert data.cutoff_len > 100
    assert training.learning_rate == 1e-3
    assert training.save_total_limit == 1
    assert model.disable_gradient_checkpointing
    if shard == "fsdp2":
        assert training.fsdp_config["version"] == 2
