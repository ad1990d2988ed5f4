"""Signs that a training goes wrong: seen where they are, and not in courses of runs that went well; when RL ends."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe
from hypothesis import given
from hypothesis import strategies as st
from test_training_runs import metrics_of, small_rl

from skillfactory import pipeline
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Rl
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training import common, signs
from skillfactory.training.metrics import MetricsFile
from skillfactory.training.signs import Line, Sign
from skillfactory.training.watching import Patience, SignsTold

RL = Rl(prompts_per_step=32, max_tokens=600, patience=4)
# The demo's two runs as measured: reward, length, entropy, groups without signal, cut off, gradient.
SKILLFACTORY = [
    (0.223, 285.0, 0.331, 0.0938, 0.176, 0.0324), (0.193, 270.0, 0.337, 0.0625, 0.123, 0.0421),
    (0.285, 264.0, 0.347, 0.0312, 0.133, 0.049), (0.229, 248.0, 0.332, 0.0625, 0.0938, 0.0485),
    (0.262, 277.0, 0.326, 0.0312, 0.139, 0.0371), (0.258, 284.0, 0.32, 0.0938, 0.148, 0.0504),
    (0.217, 274.0, 0.323, 0.0938, 0.152, 0.0417), (0.275, 284.0, 0.326, 0.0625, 0.148, 0.0407),
    (0.242, 291.0, 0.322, 0.0938, 0.184, 0.0752), (0.332, 292.0, 0.317, 0.0625, 0.15, 0.0439),
    (0.268, 271.0, 0.323, 0.0312, 0.133, 0.0424), (0.305, 261.0, 0.319, 0.0, 0.141, 0.0503),
]  # fmt: skip
RL_ONLY = [
    (0.113, 14.0, 0.304, 0.125, 0.0, 0.121), (0.109, 14.0, 0.305, 0.188, 0.0, 0.105),
    (0.16, 14.0, 0.299, 0.0625, 0.0, 0.065), (0.129, 14.0, 0.296, 0.0938, 0.0, 0.0554),
    (0.127, 14.0, 0.295, 0.0938, 0.0, 0.104), (0.141, 14.0, 0.296, 0.156, 0.0, 0.0534),
    (0.135, 14.0, 0.297, 0.125, 0.0, 0.0764), (0.154, 14.0, 0.294, 0.0625, 0.0, 0.111),
    (0.156, 14.0, 0.284, 0.156, 0.0, 0.0431), (0.141, 14.0, 0.268, 0.219, 0.0, 0.243),
    (0.121, 14.0, 0.266, 0.25, 0.0, 0.124), (0.117, 14.0, 0.271, 0.281, 0.0, 0.0491),
]  # fmt: skip
NAMES = ("reward", "length", "entropy", "no_signal", "truncated", "grad_norm")


def lines_of(course: Sequence[tuple[float, ...]]) -> list[Line]:
    return [{"step": i + 1, "loss": 0.01, **dict(zip(NAMES, row, strict=True))} for i, row in enumerate(course)]


HEALTHY = lines_of(SKILLFACTORY)


def with_last(n: int, **figures: Any) -> list[Line]:
    return [*HEALTHY[:-n], *({**line, **figures} for line in HEALTHY[-n:])]


def names(found: Sequence[Sign]) -> list[str]:
    return [sign.name for sign in found]


@pytest.mark.parametrize("course", [SKILLFACTORY, RL_ONLY], ids=["skillfactory", "rl_only"])
def test_runs_that_went_well_are_not_warned_of(course: list[tuple[float, ...]]) -> None:
    lines = lines_of(course)
    assert [signs.of_rl(lines[: n + 1], RL) for n in range(len(lines))] == [[]] * len(lines)
    assert not any(signs.end_of(lines[: n + 1], RL) for n in range(len(lines)))


CASES: dict[str, tuple[list[Line], str]] = {
    "nothing_right": ([{**line, "reward": 0.0, "no_signal": 1.0} for line in HEALTHY[:3]], "first 3 steps of 512"),
    "no_signal": (with_last(3, no_signal=1.0, reward=0.4), "all right or all wrong (40% right in all); raise rl.group"),
    "entropy": (with_last(3, entropy=0.02), "from 0.338 to 0.02 nats"),
    "length": (with_last(3, length=580.0, reward=0.2), "from 273 to 580 tokens, and are not more often right"),
    "truncated": (with_last(3, truncated=0.5), "50% of the rollouts of the last 3 steps are cut off at rl.max_tokens"),
    "checks_broken": (with_last(1, reward=None, no_signal=0.0), "no check came back in step 12"),
    "not_finite": (with_last(1, grad_norm=None), "grad_norm of step 12 is no number"),
    "grad_norm": (with_last(3, grad_norm=4.1), "97 times what is usual here; lower rl.learning_rate"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_sign_is_seen_with_its_figure_and_the_setting_to_change(name: str) -> None:
    lines, said = CASES[name]
    (sign,) = signs.of_rl(lines, RL)
    assert sign.name == name
    assert said in sign.text
    assert "rl." in sign.text or "task's grading" in sign.text
    assert "\n" not in sign.text
    assert not sign.text.endswith("."), "more is said around it"


def test_how_the_signal_was_lost_is_told_apart() -> None:
    def told(reward: float) -> str:
        (sign,) = signs.of_rl(with_last(3, no_signal=1.0, reward=reward), RL)
        return sign.text

    assert "nearly all rollouts are right; train on harder questions" in told(1.0)
    assert "nearly all rollouts are wrong; lower rl.learning_rate" in told(0.0)


def test_one_bad_step_is_no_sign() -> None:
    for name in ("no_signal", "entropy", "length", "truncated", "grad_norm"):
        lines = CASES[name][0]
        assert signs.of_rl([*HEALTHY[:-1], lines[-1]], RL) == [], name


def test_checks_that_break_now_and_then_are_counted() -> None:
    assert signs.of_rl(with_last(3, broken=0.01), RL) == []
    (sign,) = signs.of_rl(with_last(3, broken=0.1), RL)
    assert "checks broke on 10% of the rollouts" in sign.text


def test_longer_and_better_is_thinking() -> None:
    assert signs.of_rl(with_last(3, length=580.0, reward=0.5), RL) == []


FIGURE = st.none() | st.floats(0, 1e6)


@given(st.lists(st.dictionaries(st.sampled_from([*NAMES, "loss", "broken"]), FIGURE), max_size=12))
def test_whatever_is_missing_nothing_breaks(rows: list[dict[str, Any]]) -> None:
    lines = [{"step": i + 1, **row} for i, row in enumerate(rows)]
    assert len(names(signs.of_rl(lines, RL))) == len(set(names(signs.of_rl(lines, RL))))
    signs.of_sft(lines, ended=True)
    signs.end_of(lines, RL)


# --- SFT


def losses(*values: float | None) -> list[Line]:
    return [{"step": i + 1, "loss": value} for i, value in enumerate(values)]


def noisy(start: float, end: float, n: int = 100) -> list[Line]:
    """A course with a spread of a fifth, as of batches of four traces."""
    rng = random.Random(3)
    return losses(*(start + (end - start) * i / n + rng.gauss(0, start / 5) for i in range(n)))


def test_a_loss_that_falls_a_little_is_fine_and_one_that_does_not_is_told() -> None:
    assert signs.of_sft(noisy(2.5, 0.3), ended=True) == []
    assert signs.of_sft(noisy(0.5, 0.4), ended=True) == [], "as at the paper's learning rate"
    (sign,) = signs.of_sft(noisy(0.5, 0.5), ended=True)
    assert sign.name == "loss_does_not_fall"
    assert "raise sft.learning_rate" in sign.text
    assert signs.of_sft(noisy(0.5, 0.6)) == [], "it may still fall"
    assert signs.of_sft(noisy(0.5, 0.6, n=20), ended=True) == [], "too few to say so"


def test_sft_on_nothing_is_told() -> None:
    assert names(signs.of_sft(losses(0.0, 0.0, 0.0))) == ["nothing_to_learn"]
    assert names(signs.of_sft(losses(1.0), learned_tokens=0)) == ["nothing_to_learn"]
    assert signs.of_sft(losses(1.0, 0.0, 0.0)) == []
    assert names(signs.of_sft(losses(1.0, None))) == ["not_finite"]


# --- the end of RL


def dead(reward: float | None, n: int = 4) -> list[Line]:
    return [{"step": i + 1, "reward": reward, "no_signal": 1.0} for i in range(n)]


ENDS: list[tuple[list[Line], signs.End | None]] = [
    ([*HEALTHY, *dead(1.0)], "solved"),
    (dead(1.0), "solved"),
    (dead(0.0), "never_right"),
    (dead(None), "never_right"),
    ([*HEALTHY, *dead(0.0)], "no_signal"),
    ([*HEALTHY, *dead(0.5)], "no_signal"),
    ([*HEALTHY, *dead(1.0, 3), *dead(0.9, 1)], "no_signal"),
    ([*HEALTHY, *dead(1.0, 3)], None),
    ([*dead(1.0, 3), *HEALTHY[:1]], None),
    ([], None),
    (dead(0.0, 3), None),
    ([{**line, "no_signal": 0.5} for line in dead(0.0)], None),  # shaping gives signal where nothing is right
]


@pytest.mark.parametrize(("lines", "end"), ENDS)
def test_rl_ends_where_nothing_is_left_to_learn(lines: list[Line], end: signs.End | None) -> None:
    assert signs.end_of(lines, RL) == end


# --- told while it runs


class Control:
    should_training_stop = False


class State:
    global_step = 0


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., tuple[Run, SignsTold, Patience, MetricsFile]]:
    """A stage `rl` of an open run, as rl.py watches it: two updates a step."""

    def begin(start: int = 0) -> tuple[Run, SignsTold, Patience, MetricsFile]:
        opened = Run.open(tmp_path / "run", make_recipe())
        stage = opened.begin("rl", {}, {})
        metrics = MetricsFile(stage.path, lambda logs: logs.get("figures"), lambda *_, **__: None, start)
        told = SignsTold(opened, stage, metrics, lambda lines: signs.of_rl(lines, RL))
        return opened, told, Patience(RL, metrics, 2, told), metrics

    return begin


def log(figures: Line, state: Any, control: Any, *callbacks: Any) -> None:
    """The logs of a step's two updates."""
    for logs in ({"loss": 0.1, "figures": {k: v for k, v in figures.items() if k != "step"}}, {"loss": 0.1}):
        state.global_step += 1
        for each in callbacks:
            each.on_log(None, state, control, logs=logs)


def test_signs_are_told_once_a_stage_everywhere(
    running: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, told, _, metrics = running()
    state, control = State(), Control()
    for line in with_last(4, truncated=0.7):
        log(line, state, control, metrics, told)
    opened.close()
    opened, told, _, metrics = running(start=8)  # taken up again
    log(HEALTHY[-1] | {"truncated": 0.7}, state, control, metrics, told)
    log(HEALTHY[-1] | {"truncated": 0.7}, state, control, metrics, told)
    opened.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rl: warning: 70% of the rollouts of the last 3 steps are cut off")
    (kept,) = told.stage.manifest["warnings"]
    assert (kept["name"], f"rl: warning: {kept['text']}") == ("truncated", line)
    events = [json.loads(text) for text in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["name"]) for e in events if e["event"] == "warning"] == [("rl", "truncated")]


def test_rl_that_is_solved_ends_at_the_end_of_a_step(
    running: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    opened, told, patience, metrics = running()
    state, control = State(), Control()
    for line in dead(1.0, 3):
        log(line, state, control, metrics, patience)
    state.global_step += 1
    for each in (metrics, patience):
        each.on_log(None, state, control, logs={"loss": 0.1, "figures": {"reward": 1.0, "no_signal": 1.0}})
    assert not control.should_training_stop, "the step has another update"
    state.global_step += 1
    patience.on_log(None, state, control, logs={"loss": 0.1})
    opened.close()
    assert control.should_training_stop
    said = "ended at step 4: solved, every rollout was right in the last 4 steps (rl.patience)"
    assert patience.facts == {"ended_early": said}
    assert capsys.readouterr().err == f"rl: {said}\n"
    assert "warnings" not in told.stage.manifest, "that is good news"


def test_rl_that_has_lost_its_signal_ends_with_a_warning(running: Callable[..., Any]) -> None:
    opened, told, patience, metrics = running()
    state, control = State(), Control()
    for line in [*HEALTHY, *dead(0.4, 4)]:
        assert not control.should_training_stop
        log(line, state, control, metrics, patience)
    opened.close()
    assert control.should_training_stop
    assert [each["name"] for each in told.stage.manifest["warnings"]] == ["ended_early"]
    assert patience.facts["ended_early"].startswith("ended at step 16: no group had signal in the last 4 steps")


def test_rl_in_which_nothing_was_ever_right_fails(running: Callable[..., Any]) -> None:
    opened, _, patience, metrics = running()
    state, control = State(), Control()
    for line in dead(0.0, 3):
        log(line, state, control, metrics, patience)
    with pytest.raises(NothingLeftError, match=r"GRPO: no rollout was right in 4 steps of 512, .*easier questions"):
        log(dead(0.0)[0], state, control, metrics, patience)
    opened.close()


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_whose_rollouts_are_all_alike_ends_early_and_keeps_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is killed after its last step, which a checkpoint of its own keeps: no step is added to it."""
    recipe = small_rl(rl={"steps": 9, "patience": 2, "temperature": 1e-3, "keep_every": 0, "save_every": 50})
    with monkeypatch.context() as patch:
        patch.setattr(common, "save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe, tmp_path / "run", "rl")
    assert [path.name for path in (tmp_path / "run/rl/checkpoints").glob("*-*")] == ["checkpoint-4"]
    pipeline.run(recipe, tmp_path / "run", "rl")
    manifest = Stage(tmp_path / "run" / "rl").manifest
    assert manifest["counts"]["steps"] == len(metrics_of(tmp_path / "run")) == 2
    assert manifest["counts"]["ended_early"].startswith("ended at step 2: no group had signal in the last 2 steps")
    assert [each["name"] for each in manifest["warnings"]] == ["ended_early"]
    assert (tmp_path / "run" / "rl" / "model" / "model.safetensors").exists()
