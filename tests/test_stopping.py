"""SIGTERM in training: the step comes to its end, is saved, and the same command goes on as if nothing had happened."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_training_runs import metrics_of, same, small_rl

from skillfactory import children, load_run, progress
from skillfactory.children import Child
from skillfactory.errors import StoppedError
from skillfactory.store import Run
from skillfactory.training import common, stopping
from skillfactory.training.metrics import METRICS

# --- the callback


class Control:
    should_save = should_training_stop = False


class State:
    global_step = 0


def test_the_step_ends_and_is_saved(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    state, control = State(), Control()
    with stopping.heeded("rl", per_step=2, total=150) as stop:
        for update in (1, 2):
            state.global_step = update
            stop.on_step_end(None, state, control)
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not control.should_training_stop
        state.global_step = 3
        stop.on_step_end(None, state, control)
        assert not control.should_training_stop, "the step has another update"
        state.global_step = 4
        stop.on_step_end(None, state, control)
        assert control.should_training_stop
        assert control.should_save
        with pytest.raises(StoppedError, match=r"^rl: stopped at step 2 of 150 by SIGTERM; the same command goes on"):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "rl: SIGTERM; the step is brought to its end and saved (once more: stop at once)"


def test_one_that_comes_while_training_ends_is_not_lost() -> None:
    with stopping.heeded("sft", 1, 10) as stop:
        state = State()
        state.global_step = 10
        stop.on_train_begin(None, state, Control())  # taken up with nothing left to do
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StoppedError, match="step 10 of 10"):
            stop.check()


def test_a_second_one_stops_at_once_and_the_same_one_twice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with stopping.heeded("rl", 1, 10):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # as systemd and a parent process send it
            assert not seen
            monkeypatch.setattr(stopping, "SAME", 0.0)
            time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_one_ends_a_process_that_has_no_handler() -> None:
    code = (
        "import os, signal, time\nfrom skillfactory.training import stopping\nstopping.SAME = 0.0\n"
        "with stopping.heeded('rl', 1, 10):\n os.kill(os.getpid(), 15); time.sleep(.05); os.kill(os.getpid(), 15)\n"
        " print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), list[Any]()

    def train() -> None:
        with stopping.heeded("rl", 1, 10) as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.check()

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]


def test_handlers_are_put_back_where_training_fails() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stopping.heeded("rl", 1, 10):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


# --- a whole run


def command(folder: Path, run: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "skillfactory",
        "run",
        str(folder / "recipe.yaml"),
        "--run",
        str(run),
        "--until",
        "rl",
    ]


def test_a_run_goes_on_where_sigterm_stopped_it(tmp_path: Path) -> None:
    recipe = small_rl(rl={"steps": 4, "save_every": 1000, "keep_every": 0, "dev_every": 1, "keep": "best"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    with subprocess.Popen(command(tmp_path, run), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not (run / "rl" / METRICS).exists():  # the first step's first update is done, its second goes on
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.terminate()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 143, said
    done = len(metrics_of(run))
    assert 1 <= done < 4
    assert said.splitlines()[-1] == f"rl: stopped at step {done} of 4 by SIGTERM; the same command goes on from there."
    assert "Traceback" not in said
    assert common.last_checkpoint(run / "rl")[1] == 2 * done, "at the end of a step of two updates"
    assert load_run(run).state("rl") == "partial"
    assert subprocess.run(command(tmp_path, run), check=False).returncode == 0
    assert subprocess.run(command(tmp_path, whole), check=False).returncode == 0
    assert [line["step"] for line in metrics_of(run)] == [1, 2, 3, 4]
    for ours, theirs in zip(metrics_of(run), metrics_of(whole), strict=True):
        for name in ("reward", "length", "entropy", "loss", "grad_norm", "answers"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), (ours["step"], name)
    assert same(run / "rl" / "model", whole / "rl" / "model")
    measured, expected = ((path / "rl" / "dev.jsonl").read_text().splitlines() for path in (run, whole))
    assert len(measured) == len(expected) == 5


# --- those that are waited for


class Slow:
    """A job that takes its time to stop."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.told, self.killed = seconds, 0.0, False

    def poll(self) -> int | None:
        gone = self.killed or (self.told and time.monotonic() - self.told > self.seconds)
        return (-9 if self.killed else 143) if gone else None

    def terminate(self) -> None:
        self.told = time.monotonic()

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def training(tmp_path: Path) -> Any:
    """A run that is in the middle of RL, at a step a second."""
    with Run.open(tmp_path / "run", small_rl()) as opened:
        stage = opened.begin("rl", {}, {})
        state = {"rate": 1.0, "done": 3, "total": 9, "figures": {}, "what": "GRPO steps", "stage_seconds": 3.0}
        stage.write_json(progress.FILE, state)
        yield tmp_path / "run"


def stop(run: Path, job: Slow, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    said: list[str] = []
    monkeypatch.setattr(children, "GRACE", 0.2)
    children.stop([Child("cell", run, run / "log", job)], said.append)
    return said


def test_who_trains_gets_the_time_of_its_step(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Slow(0.6)
    (line,) = stop(training, job, monkeypatch)
    assert not job.killed
    assert re.match(r"cell: ending a step of training, for [23]\.\d s at most; Ctrl-C stops at once", line)


def test_who_does_not_train_gets_the_usual_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(tmp_path / "run", small_rl()) as opened:
        opened.begin("evaluation", {}, {})
        job = Slow(60)
        assert stop(tmp_path / "run", job, monkeypatch) == []
    assert job.killed


def test_before_a_first_step_nobody_knows_how_long_it_takes(training: Path) -> None:
    (training / "rl" / progress.FILE).unlink()
    assert children.grace_of(Child("", training, training, Slow(0))) == children.GRACE + children.FIRST_STEP
    assert children.grace_of(Child("", training.parent / "none", training, Slow(0))) == children.GRACE


def test_an_interrupt_ends_the_waiting_and_who_is_waited_for(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Slow(60)

    def interrupted(seconds: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(children.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        children.stop([Child("cell", training, training, job)])
    assert job.killed
