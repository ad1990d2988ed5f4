"""Runs as processes of their own, several at once: started, looked at, and stopped so that they keep their work."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skillfactory import progress, store
from skillfactory.errors import SkillFactoryError
from skillfactory.progress import duration
from skillfactory.rounds import stage_of

LAST_LINES = 15  # of the log of a process that failed
GRACE = 20.0  # seconds that a process gets to stop
STEPS = 3  # steps of training that it gets beside: the one that it is in, its checkpoint, a measurement on `dev`
FIRST_STEP = 600.0  # seconds, where no step has ended yet


class Job(Protocol):
    """What runs somewhere, as far as it has to be known of: `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Its exit code (less than 0: the signal that ended it); None while it runs."""

    def terminate(self) -> None:
        """Ask it to stop, which takes a while."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(frozen=True, eq=False)
class Child:
    """One run's process, its run directory and its log."""

    name: str
    run: Path
    log: Path
    process: Job


def command(arguments: Sequence[str], run: Path) -> list[str]:
    """`skillfactory run` with these arguments, in this Python."""
    return [sys.executable, "-m", "skillfactory", "run", *arguments, "--run", str(run)]


def start(name: str, run: Path, log: Path, arguments: Sequence[str]) -> Child:
    """Start `skillfactory run` on one torch thread; what it prints is added to `log`."""
    with log.open("ab") as file:
        # A session of its own: a key press reaches it only through us, once.
        process = subprocess.Popen(
            command(arguments, run),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    return Child(name, run, log, process)


def environment() -> dict[str, str]:
    """Ours, with one thread a process, so that none waits for another."""
    return os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "TERM": "dumb"}


def stop(children: Iterable[Child], say: Callable[[str], None] = progress.say) -> None:
    """End what still runs: politely, so that it keeps its work; after a while for good, or at once if interrupted.

    One that trains ends the step that it is in. Who is waited for longer than GRACE is told by `say`.
    """
    running = [child for child in children if child.process.poll() is None]
    for child in running:
        child.process.terminate()
    began, told = time.monotonic(), False
    try:
        graces = {child: grace_of(child) for child in running}
        while late := [child for child in running if child.process.poll() is None]:
            waited = time.monotonic() - began
            if all(waited >= graces[child] for child in late):
                break
            if waited >= GRACE and not told:
                told = True
                names = ", ".join(child.name for child in late)
                most = duration(max(graces[child] for child in late) - waited)
                say(f"{names}: ending a step of training, for {most} at most; Ctrl-C stops at once, and loses the step")
            time.sleep(0.1)
    finally:
        for child in running:
            if child.process.poll() is None:
                child.process.kill()
        while any(child.process.poll() is None for child in running):
            time.sleep(0.1)


def grace_of(child: Child) -> float:
    """Seconds that a child gets to stop: GRACE, and as long as a few steps take where it trains."""
    try:
        run, stage = loaded(child), str(store.writer(child.run).get("stage", ""))
    except SkillFactoryError:  # its folder was damaged meanwhile
        return GRACE
    if run is None or stage_of(stage) not in ("sft", "rl"):
        return GRACE
    rate = run.progress(stage).get("rate")
    return GRACE + (STEPS / rate if rate else FIRST_STEP)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    return f"was killed by signal {-code} (out of memory?)" if code < 0 else f"failed with exit code {code}"


def last_lines(log: Path) -> list[str]:
    """The end of a log; nothing where there is none."""
    with contextlib.suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return []


def loaded(child: Child) -> store.LoadedRun | None:
    """The child's run so far; None before it has begun."""
    return store.load_run(child.run) if (child.run / store.RECIPE).exists() else None
