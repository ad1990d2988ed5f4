"""What changes under a run: a second run in its directory, its recipe, its models, the checkpoints it goes on from."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import same
import small
from damaging import cut, empty, flip, lose

from skillfactory.checkup import repair
from skillfactory.contents import model_folder
from skillfactory.recipes import load_recipe

Copied = Callable[..., Path]
TRAINED = ("sft", "rl", "evaluation", "report", "report.html", "report.md", "metrics.json", "tables")


def wait_for(file: Path, process: "subprocess.Popen[bytes]", seconds: float = 240) -> None:
    """Until there is such a file, or one that the pattern in its name finds."""
    end = time.monotonic() + seconds
    while not any(file.parent.glob(file.name)):
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_several_runs_begun_at_once_in_one_directory_one_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "disturbed"
    several = [small.start(small.words(run, "--until", "questions"), tmp_path / f"said{i}") for i in range(3)]
    codes = sorted(process.wait() for process in several)
    assert codes[0] == 0
    assert set(codes) <= {0, 2}
    said = [(tmp_path / f"said{i}").read_text() for i in range(3)]
    assert not any("Traceback" in each for each in said)
    for each in said:
        assert "questions finished" in each or "is in use: " in each
    assert repair.examine(run) == []


@pytest.mark.slow
def test_a_second_run_is_refused_and_the_first_is_none_the_worse(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "disturbed"
    first = small.start(small.words(run), tmp_path / "said")
    for file in ("questions", "traces/manifest.json", "sft/checkpoints", "evaluation/manifest.json"):
        wait_for(run / file, first)
        said = small.said(*small.words(run), code=2)
        assert f"is in use: process {first.pid} is writing this run" in said
        said = small.skillfactory("doctor", str(run), "--repair", code=2)
        assert "is in use" in said
    assert first.wait() == 0
    assert same.differences(run, whole) == []


def test_a_recipe_edited_half_way_is_refused_where_work_was_made_from_it_and_heeded_where_not(copied: Copied) -> None:
    run = copied(*TRAINED)
    said = small.said(*small.words(run, "traces.max_pairs=3", "--until", "traces"), code=2)
    assert "holds work of other settings: traces.max_pairs was 14, now 3" in said
    assert "--fresh traces" in said
    said = small.said(*small.words(run, "seed=1"), code=2)
    assert "seed was 0, now 1" in said
    small.said(*small.words(run, "sft.epochs=2", "--until", "traces"))
    assert "epochs: 2" in (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text("method: [skillfactory\n")
    said = small.said(*small.words(run), code=2)
    assert "recipe is damaged" in said
    assert f"skillfactory doctor {run}" in said
    assert "recipe.yaml" in small.skillfactory("status", str(run), code=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of one's own with the tiny model."""
    folder = model_folder(load_recipe("demo"))
    assert folder
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.mark.slow
def test_a_model_that_is_changed_under_a_run_stops_it(model: Path, tmp_path: Path) -> None:
    run, own = tmp_path / "disturbed", f"model={model}"
    weights, said = (model / "model.safetensors").read_bytes(), tmp_path / "said"
    process = small.start(small.words(run, own, "--until", "sft"), said)
    wait_for(run / "attempts/part-*", process)  # it has been sampled from
    flip(model / "model.safetensors")
    assert process.wait() == 2
    text = said.read_text()
    assert f"sft: what model names ({model}) has changed since this command began; put back" in text
    assert "Traceback" not in text
    refused = small.said(*small.words(run, own, "--until", "sft"), code=2)
    assert "holds work of other settings: model (content) was" in refused
    (model / "model.safetensors").write_bytes(weights)
    small.said(*small.words(run, own, "--until", "sft"))


def test_a_trained_model_that_was_changed_or_cut_is_not_trained_on(copied: Copied, whole: Path) -> None:
    run = copied(*TRAINED[1:])
    trained = run / "sft/model/model.safetensors"
    flip(trained)
    said = small.said(*small.words(run), code=2)
    assert "sft/model has changed since its stage wrote it; put it back, or `skillfactory doctor" in said
    shutil.copy(whole / "sft/model/model.safetensors", trained)
    assert repair.examine(run) == []
    cut(trained)
    (found,) = repair.examine(run)
    assert "its header tells of" in found.problem
    assert "trained again" in found.redo


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "rl"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
@pytest.mark.parametrize("how", [cut, empty, lose])
def test_a_damaged_checkpoint_is_left_out(
    stage: str, file: str, how: Callable[[Path], None], copied: Copied, whole: Path, tmp_path: Path
) -> None:
    run = copied(*TRAINED[stage == "rl" :])
    process = small.start(small.words(run), tmp_path / "said")
    wait_for(run / stage / "checkpoints/checkpoint-2", process)
    wait_for(run / stage / "checkpoints/checkpoint-2/trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (checkpoint,) = sorted(run.glob(f"{stage}/checkpoints/checkpoint-*"))[-1:]
    how(checkpoint / file)
    assert [finding.stage for finding in repair.examine(run)] == [stage]
    said = small.said(*small.words(run))
    told = "and is left out; training goes on from the checkpoint before it" in said
    assert told != (how is lose and file == "trainer_state.json"), "that one is how a kill leaves them"
    assert same.differences(run, whole) == []
    lines = [json.loads(line)["step"] for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines))
