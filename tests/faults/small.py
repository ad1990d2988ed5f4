"""The small run that faults are put to: every stage, in well under a minute, and the same each time on one machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("questions", "traces", "sft", "rl", "evaluation", "report")  # attempts and reflections are drawn by traces
SETS = ("trained", "one_solution", "six_numbers", "countdown3", "multiplication", "letter_countdown", "acronym")
ENDED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}

# float32: in bfloat16 a row's text may change by rounding with the batch that a resumed stage puts it in.
RECIPE = [
    "demo", "machine.dtype=float32", "machine.threads=1", "machine.batch_size=64", "questions.sft=20", "questions.rl=8",
    "questions.dev=4", "attempts.per_variant=4", "traces.limit=0", "sft.batch_size=8", "sft.save_every=1",
    "sft.dev_every=2", "rl.steps=4", "rl.prompts_per_step=4", "rl.group_size=8", "rl.mini_batch=2", "rl.micro_batch=8",
    "rl.save_every=1", "rl.max_tokens=100", "rl.keep_every=2", "rl.dev_every=2", "rl.keep=best", "evaluation.samples=1",
    "evaluation.max_tokens=80", "evaluation.forcing.budgets=[120]", "evaluation.forcing.answer_tokens=30",
    *(f"evaluation.sets.{name}.n=6" for name in SETS),
]  # fmt: skip


def words(run: Path, *more: str) -> list[str]:
    """The command that makes the small run in the directory `run`, or goes on with it."""
    return [sys.executable, "-m", "skillfactory", "run", *RECIPE, *more, "--run", str(run)]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with one thread and this checkout's package."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    plain = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    return os.environ | plain | dict(more or {})


def start(command: Sequence[str], output: Path, more: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """A process in a group of its own, as a shell makes them; what it says is appended to the file `output`."""
    with output.open("ab") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(more), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def said(*command: str, code: int = 0, more: Mapping[str, str] | None = None, timeout: float = 280) -> str:
    """What a command says, which has to end with `code` and without a traceback."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == code, f"it ended with {done.returncode}:\n{done.stdout}"
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def skillfactory(*command: str, code: int = 0, more: Mapping[str, str] | None = None, timeout: float = 280) -> str:
    """`said` of a command of ours."""
    return said(sys.executable, "-m", "skillfactory", *command, code=code, more=more, timeout=timeout)
