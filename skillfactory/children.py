"""Runs as processes of their own, several at once: started, looked at, and stopped so that they keep their work."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skillfactory import store

LAST_LINES = 15  # of the log of a process that failed
GRACE = 20.0  # seconds that a process gets to stop


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


def stop(children: Iterable[Child]) -> None:
    """End what still runs: politely, so that it keeps its work; after a while for good."""
    running = [child.process for child in children if child.process.poll() is None]
    for job in running:
        job.terminate()
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(job.poll() is None for job in running):
        time.sleep(0.1)
    for job in running:
        if job.poll() is None:
            job.kill()
    while any(job.poll() is None for job in running):
        time.sleep(0.1)


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
