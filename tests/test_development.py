"""Accuracy on `dev` while a model trains, and the best model kept; SFT that is stopped and goes on."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_recipe
from reported import trace
from test_training_runs import COUNTDOWN, same, small_rl

from skillfactory import pipeline
from skillfactory.engines.base import Completion
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.errors import RecipeError, StoppedError
from skillfactory.recipe import Recipe, changed
from skillfactory.records import Grade, Trace
from skillfactory.store import Run
from skillfactory.tasks.questions import make_questions
from skillfactory.training import checks, common, sft
from skillfactory.training.development import FILE, NOTE, DevAccuracy, dev_questions, summary
from skillfactory.training.metrics import METRICS, MetricsFile
from skillfactory.training.policy import SamplingCopy


def recipe_of(**rl: Any) -> Recipe:
    recipe = small_rl(rl={"dev_every": 2, "keep": "best", "keep_every": 0} | rl)
    return changed(recipe, {"questions.dev": 12, "evaluation.max_tokens": 40, "machine.batch_size": 64})


Begin = Callable[..., DevAccuracy]


@pytest.fixture(scope="module")
def base() -> Any:
    return load_model(small_rl(), training=True)


@pytest.fixture
def bad(base: Any) -> Any:
    """A policy that only ever says one thing."""
    worse = load_model(small_rl(), training=True)
    with torch.no_grad():
        for parameter in worse.parameters():
            parameter.zero_()
    return worse


@pytest.fixture
def begin(tmp_path: Path) -> Any:
    """Measurements in stage `rl` of a run, as rl.py begins them; `done` steps are behind it."""
    opened: list[Run] = []

    def begin(done: int = 0, recipe: Recipe | None = None) -> DevAccuracy:
        recipe = recipe or recipe_of()
        run = opened[0] if opened else Run.open(tmp_path / "run", recipe)
        opened[:] = [run]
        stage = run.begin("rl", {}, {})
        questions = [q for q in make_questions(recipe).rows if q.split == "dev"]
        metrics = MetricsFile(stage.path, lambda logs: None, lambda *_, **__: None, done)
        copy = SamplingCopy(lambda: load_model(recipe))
        return DevAccuracy(recipe, recipe.rl, stage, ChatTokenizer.load(recipe), copy, questions, 2, metrics)

    yield begin
    for run in opened:
        run.close()


class State:
    def __init__(self, global_step: int) -> None:
        self.global_step = global_step


def lines_of(dev: DevAccuracy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dev.folder / FILE).read_text().splitlines()]


def test_the_best_model_is_kept_and_becomes_the_model(begin: Begin, base: Any, bad: Any) -> None:
    dev = begin()
    dev.on_train_begin(None, State(0), None, model=bad)
    for update in range(1, 9):  # four steps of two updates
        dev.on_step_end(None, State(update), None, model=base if update < 8 else bad)
    dev.end(bad, 4)  # measured already
    lines = lines_of(dev)
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert lines[0]["accuracy"] == lines[2]["accuracy"] == 0
    assert lines[0]["truncated"] == 1
    assert 0 < lines[1]["accuracy"] <= 1
    assert 0 < lines[1]["se"] < 0.2
    assert 0 < lines[1]["answered"] <= 1
    assert 0 < lines[1]["tokens"] < 40
    assert (lines[1]["questions"], set(lines[1])) == (12, {
        "step", "accuracy", "se", "answered", "truncated", "tokens", "questions", "seconds",
    })  # fmt: skip
    assert dev.best() == lines[1]
    (dev.folder / "checkpoints").mkdir()
    assert dev.promote()
    assert (dev.folder / common.BEST).exists(), "a kill before the stage is finished costs nothing"
    common.drop_checkpoints(dev.folder)
    assert sorted(path.name for path in dev.folder.iterdir()) == [FILE, "manifest.json", "model"]
    model = load_model(recipe_of(), dev.folder / "model")
    for (name, ours), theirs in zip(model.named_parameters(), base.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype)), name
    assert dev.facts() == {"kept_step": 2, "dev_accuracy": lines[1]["accuracy"], "last_dev_accuracy": 0.0}


def test_steps_differ_by_nothing_but_the_model_and_ties_keep_the_earlier(begin: Begin, base: Any) -> None:
    state, last = torch.get_rng_state(), 0.0
    dev = begin()
    dev.metrics.last = last
    for step in (0, 1, 2):
        dev.measure(base, step)
    first, *others = lines_of(dev)
    for other in others:
        assert other | {"step": 0, "seconds": 0} == first | {"seconds": 0}
    assert dev.best() == first
    assert torch.equal(torch.get_rng_state(), state), "training goes on as if nothing had been measured"
    assert dev.metrics.last - last >= sum(line["seconds"] for line in lines_of(dev)), "no time of the steps'"


def test_what_a_kill_threw_away_is_measured_again(begin: Begin, base: Any, bad: Any) -> None:
    dev = begin()
    for step, policy in ((0, bad), (2, bad), (4, base)):
        dev.measure(policy, step)
    best = dev.best()
    with (dev.folder / FILE).open("a") as file:
        file.write('{"step": 6, "accu')
    dev = begin(done=2)
    assert [line.step for line in dev.lines] == [0, 2]
    dev.on_train_begin(None, State(4), None, model=bad)
    assert [line["step"] for line in lines_of(dev)] == [0, 2]
    dev.on_step_end(None, State(8), None, model=base)
    assert dev.best() == best, "the same model is as good, and the earlier stays"
    assert [line["step"] for line in lines_of(dev)] == [0, 2, 4]
    dev.promote()
    dev = begin(done=4)  # a kill came before the stage was finished
    assert dev.best() == best
    assert dev.promote()
    assert (dev.folder / "model" / NOTE).exists()


def test_from_the_beginning_again_the_first_model_is_measured_again(begin: Begin, base: Any) -> None:
    dev = begin()
    dev.on_train_begin(None, State(0), None, model=base)
    (dev.folder / common.BEST).rename(dev.folder / "lost")
    dev = begin()
    dev.on_train_begin(None, State(0), None, model=base)
    assert dev.best() is not None


def test_the_last_is_kept_where_the_recipe_says_so(begin: Begin, base: Any) -> None:
    dev = begin(recipe=recipe_of(keep="last"))
    dev.end(base, 3)
    assert dev.best() is None
    assert not dev.promote()
    assert dev.facts() == {"dev_accuracy": lines_of(dev)[0]["accuracy"]}


def test_nothing_is_measured_unless_the_recipe_says_so(begin: Begin) -> None:
    dev = begin(recipe=recipe_of(dev_every=0, keep="last"))
    dev.on_train_begin(None, State(0), None, model=None)
    dev.on_step_end(None, State(4), None, model=None)
    dev.end(None, 2)
    assert not (dev.folder / FILE).exists()
    assert dev.facts() == {}


def test_what_could_not_be_graded_is_left_out() -> None:
    right, cut = Completion("0", "", 10, "stop"), Completion("1", "", 40, "length")
    broken = Completion("2", "", 0, "failed", "prompt_too_long")
    found = [
        (right, Grade("correct", "1")), (cut, Grade("no_answer")), (right, Grade("wrong", "2")),
        (broken, Grade("no_answer", reason="prompt_too_long")), (right, Grade("no_answer", "3", "check_timed_out")),
    ]  # fmt: skip
    line = summary(7, found, 1.23456)
    assert (line.step, line.questions, line.seconds) == (7, 3, 1.235)
    assert (line.accuracy, line.answered, line.truncated, line.tokens) == pytest.approx((1 / 3, 2 / 3, 1 / 3, 20))
    assert line.se == pytest.approx(1 / 3)
    assert summary(7, found[3:], 1.0).accuracy is None


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        ("rl_only", {"rl.keep": "best"}, r"rl\.keep is best, but rl\.dev_every is 0"),
        ("rl_only", {"rl.dev_every": 5, "questions.dev": 0}, r"rl\.dev_every is 5, but questions\.dev is 0"),
        ("skillfactory", {"sft.keep": "best"}, r"sft\.keep is best, but sft\.dev_every is 0"),
        ("skillfactory", {"sft.keep": "best", "sft.dev_every": 1, "questions.dev": 0}, "or set .* keep to last"),
    ],
)  # fmt: skip
def test_settings_that_cannot_all_hold(method: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        checks.check(changed(make_recipe(method=method), changes))
    checks.check(changed(make_recipe(method="evaluate"), changes))


def test_what_a_method_does_not_run_is_not_checked() -> None:
    checks.check(changed(make_recipe(method="rl_only"), {"sft.keep": "best"}))


def test_a_wrong_setting_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rl\.keep is best"):
        pipeline.run(small_rl(rl={"keep": "best"}), tmp_path / "run", "rl")
    assert not (tmp_path / "run").exists()


# --- SFT


def sft_run(folder: Path, recipe: Recipe) -> Run:
    """An open run at stage `sft`, with traces of multiplications to learn."""
    run = Run.open(folder, recipe)
    pipeline_questions = make_questions(recipe)
    stage = run.begin("questions", {}, {})
    stage.append(pipeline_questions.rows)
    stage.write_json("sets.json", pipeline_questions.sets)
    stage = run.begin("traces", {}, {})
    asked = [q for q in pipeline_questions.rows if q.split == "sft"]
    stage.append(
        [Trace(q.id, q.id, "single", [], [{"role": "user", "content": q.text}], trace(q.answer), 99) for q in asked]
    )
    run.begin("sft", {}, {})
    return run


def test_sft_goes_on_where_sigterm_stopped_it(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3, "save_every": 1000, "dev_every": 3, "keep": "best"}
    recipe = make_recipe(model=str(random_model), sft=section, evaluation={
        "max_tokens": 8, "sets": {"same": {"task": COUNTDOWN, "n": 2}},
    })  # fmt: skip
    recipe = changed(recipe, {"questions.sft": 5})
    with sft_run(tmp_path / "whole", recipe) as run:
        assert [q.split for q in dev_questions(run, recipe.sft)] == ["dev", "dev"]
        counts = sft.train(recipe, run)
    assert counts["steps"] == 5
    add = MetricsFile.on_log

    def signalled(self: MetricsFile, *args: Any, **given: Any) -> None:
        add(self, *args, **given)
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with sft_run(tmp_path / "stopped", recipe) as run:
        monkeypatch.setattr(MetricsFile, "on_log", signalled)
        with pytest.raises(StoppedError, match="sft: stopped at step 3 of 5 by SIGTERM"):
            sft.train(recipe, run)
        monkeypatch.setattr(MetricsFile, "on_log", add)
        assert common.last_checkpoint(run.stage("sft").path)[1] == 3
        assert sft.train(recipe, run) == counts
    one, other = (
        [json.loads(line) for line in (tmp_path / name / "sft" / METRICS).read_text().splitlines()]
        for name in ("whole", "stopped")
    )
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in other])
    assert same(tmp_path / "whole" / "sft" / "model", tmp_path / "stopped" / "sft" / "model")
    measured = [json.loads(line) for line in (tmp_path / "stopped" / "sft" / FILE).read_text().splitlines()]
    assert [line["step"] for line in measured] == [0, 3, 5]
    assert counts["kept_step"] == 0, "a random model gets nothing right, and the earliest of equals is kept"
