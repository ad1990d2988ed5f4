"""Training programs of other people's, as child processes: started, looked at while they run, and stopped with us.

Each has a folder with its own log (`log.txt`), the command by which it can be started alone (`command.sh`), and a lock
that it holds for as long as it lives. So one that outlives a killed `skillfactory run` is noticed, and no second one is
started beside it.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from skillfactory import children, files
from skillfactory.errors import SkillFactoryError, StoreError

POLL = 1.0  # seconds between looks at a program that runs
KILLED = 5.0  # seconds that the system gets to end those that are killed
LOG, COMMAND, LOCK = "log.txt", "command.sh", ".running.lock"


@dataclass(frozen=True)
class Program:
    """A command, the folder that it runs in, and what it finds in its environment beside what we have."""

    name: str  # in messages
    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def run(program: Program, look: Callable[[bool], None] = lambda ended: None) -> None:
    """Run a program to its end; `look(ended)` is called every POLL seconds, and once more when it has ended.

    What `look` raises, Ctrl-C and SIGTERM end the program first. Raises SkillFactoryError with the end of its log where
    it fails, StoreError where an earlier one still runs in its folder.
    """
    _write_command(program)
    with _alone(program) as lock:
        process = _start(program, lock)
        try:
            while process.poll() is None:
                look(False)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
            look(True)
        finally:
            _stop(process)
    if process.returncode:
        raise SkillFactoryError(
            f"{program.name} {children.how_it_ended(process.returncode)}. Last lines of {program.folder / LOG}:\n"
            + "\n".join(f"  {line}" for line in children.last_lines(program.folder / LOG))
            + "\nMend what it says and run the same command again: it goes on from its last checkpoint. "
            f"{program.folder / COMMAND} starts it alone."
        )


def ask(words: Sequence[str], folder: Path = Path("/"), seconds: float = 300.0) -> str:
    """What a short command prints. Raises SkillFactoryError with the last line that it wrote where it fails.

    It runs in a folder where it finds no packages of the working directory: nor would its like on another machine.
    """
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SkillFactoryError(f"`{words[0]}` cannot be run: {error}.") from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["(nothing)"]
        raise SkillFactoryError(f"`{words[0]}` says: {said[-1].strip()}")
    return done.stdout


def _write_command(program: Program) -> None:
    lines = ["#!/bin/sh", "# Written by skillfactory: what it runs, to be run alone.", "set -e"]
    lines += [f"cd {shlex.quote(str(program.folder.resolve()))}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in program.environment.items()]
    lines += ["exec " + " \\\n  ".join(map(shlex.quote, program.words))]
    files.write_atomic(program.folder / COMMAND, ("\n".join(lines) + "\n").encode())


def _start(program: Program, lock: int) -> "subprocess.Popen[bytes]":
    log = program.folder / LOG
    with files.told(str(log)), log.open("ab") as output:
        try:
            return subprocess.Popen(
                program.words,
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(program.environment),
                pass_fds=[lock],
                start_new_session=True,  # a key press reaches it only through us, and so do its own children
            )
        except (FileNotFoundError, PermissionError) as error:
            raise SkillFactoryError(f"{program.name}: `{program.words[0]}` cannot be run: {error.strerror}.") from error


@contextmanager
def _alone(program: Program) -> Iterator[int]:
    """The file descriptor of a lock that is kept while a process has it open. Raises StoreError where one has."""
    descriptor = os.open(program.folder / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"{program.folder}: {program.name}, started by an earlier command that was killed, still runs; wait "
                f"until it ends, or stop it."
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End what still runs of the process and its children: politely, after a while for good.

    A launcher may end at once, while those that it has started still end theirs.
    """
    alive = _send(process, signal.SIGTERM) and not _is_gone(process, children.GRACE)
    if alive:
        _send(process, signal.SIGKILL)
        _is_gone(process, KILLED)
    process.wait()


def _is_gone(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether its group has come to its end within so many seconds."""
    deadline = time.monotonic() + seconds
    while _send(process, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
        process.poll()  # else it stays in its group
    return True


def _send(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Send a signal to the group of the process; whether there was anyone."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
