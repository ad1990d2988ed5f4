"""Calls of functions that may hang, crash or take all memory, in worker processes that are killed at a deadline.

Workers are bare interpreters, each with a socket of its own. Unlike the processes of a spawned pool they do not import
the caller's script again (which may load torch, or have no `__main__` guard), they share no lock that a kill could
leave locked, and what a function takes to import does not count against its deadline.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from skillfactory.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = max(4, min(16, cores()))  # more than a small machine has cores: some may be hung
LOADING = 60.0  # seconds that the import of a function may take, on a busy machine
MEMORY = 4 * 2**30  # bytes of address space of a worker
_AHEAD = 256  # items that `ahead` looks ahead, at most
_CALLS = 20_000  # after which a worker is replaced: libraries keep caches
_LOAD = "skillfactory.tasks.deadline:load"
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from skillfactory.tasks.deadline import serve; serve(int(sys.argv[2]))"
)


class DeadlineError(Exception):
    """A call took longer than its deadline, or (DiedError) its process died."""


class DiedError(DeadlineError):
    """The process of a call died: it ended itself, was killed, or ran out of memory."""


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        with there:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(there.fileno())],
                pass_fds=[there.fileno()],
                env={**os.environ, "PYTHONHASHSEED": "0"},  # the order of sets is the same in every worker
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a function may print at every check
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the caller; and a kill reaches the function's own processes
            )
        self.channel = Connection(here.detach())
        self.loaded = {_LOAD}
        self.calls = 0

    def ask(self, function: str, args: tuple[Any, ...], seconds: float) -> tuple[bool, Any]:
        """Whether the function returned, and its value or exception."""
        try:
            self.channel.send((function, args, os.getcwd(), seconds))
            if not self.channel.poll(seconds):
                raise DeadlineError(f"{function} took more than {seconds:g} s.")
            answer: tuple[bool, Any] = self.channel.recv()
        except (EOFError, OSError) as error:
            raise DiedError(f"The process that ran {function} died.") from error
        self.calls += 1
        return answer

    def kill(self) -> None:
        """End the process, and those that its functions have started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.channel.close()


_idle: list[_Worker] = []
_lock = threading.Lock()
_slots = threading.BoundedSemaphore(WORKERS)


def call(function: str, *args: Any, seconds: float, loads: Sequence[str] = ()) -> Any:
    """The value of the function with this dotted path, `package.module:name`, for picklable arguments.

    From any thread; at most WORKERS calls run at once, more wait for their turn, which does not count as their time.
    Nor does importing it, and what `loads` names in the same way, which may take LOADING seconds each.
    Raises DeadlineError where it took more than `seconds`, DiedError where its process died; and what the function
    raises, where that is an exception of Python's own or of this package, otherwise a RuntimeError that names it.
    """
    with _slots:
        worker = _take()
        try:
            returned, value = True, None
            for path in (*loads, function):
                if returned and path not in worker.loaded:
                    returned, value = worker.ask(_LOAD, (path,), LOADING)
                    worker.loaded.update([path] if returned else [])
            if returned:
                returned, value = worker.ask(function, args, seconds)
        except BaseException:  # of the caller too: the worker is still at it
            worker.kill()
            raise
        if worker.calls >= _CALLS or isinstance(value, MemoryError):
            worker.kill()
        else:
            with _lock:
                _idle.append(worker)
    if isinstance(value, BaseException) and not returned:
        raise value
    return value


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], slow: Callable[[Item], bool]
) -> Generator[Result, None, None]:
    """`function(item)` of every item, in order; those that are slow in threads, while the next items are made.

    What is under way when `items` raises an Exception is given before that is raised. What `function` raises comes at
    its turn; then, or when this iterator is closed, nothing more is begun.
    """
    threads = ThreadPoolExecutor(WORKERS)
    waiting: deque[Future[Result]] = deque()
    stream = iter(items)
    ended: Exception | None = None
    try:
        while waiting or ended is None:
            if ended is None and (not waiting or (not waiting[0].done() and len(waiting) <= _AHEAD)):
                try:
                    item = next(stream)
                except Exception as error:  # StopIteration as well
                    ended = error
                    continue
                waiting.append(threads.submit(function, item) if slow(item) else _done(function, item))
            else:
                yield waiting.popleft().result()
        if ended is not None and not isinstance(ended, StopIteration):
            raise ended
    finally:
        threads.shutdown(cancel_futures=True)


def _done(function: Callable[[Item], Result], item: Item) -> "Future[Result]":
    future: Future[Result] = Future()
    try:
        future.set_result(function(item))
    except Exception as error:
        future.set_exception(error)
    return future


def _take() -> _Worker:
    """An idle worker that lives, or a new one."""
    while True:
        with _lock:
            worker = _idle.pop() if _idle else None
        if worker is None:
            return _Worker()
        if worker.process.poll() is None:
            return worker
        worker.kill()


def close() -> None:
    """End all idle workers. The next call starts new ones."""
    with _lock:
        while _idle:
            _idle.pop().kill()


def _forget() -> None:
    """In a forked child: the workers are its parent's."""
    global _idle, _lock, _slots
    _idle, _lock, _slots = [], threading.Lock(), threading.BoundedSemaphore(WORKERS)


atexit.register(close)
os.register_at_fork(after_in_child=_forget)


# --- in the worker


def load(function: str) -> None:
    """Import the function with this dotted path. Raises ImportError or AttributeError where there is none."""
    _resolve(function)


def _resolve(function: str) -> Any:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def serve(descriptor: int) -> None:
    """Answer calls that come over a socket until it is closed; a worker does nothing else."""
    with contextlib.suppress(OSError, ValueError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    channel = Connection(descriptor)
    path = list(sys.path)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, args, folder, seconds = channel.recv()
            sys.path[:] = [*path, folder]  # functions of the user's may stand in the working directory
            _leash(seconds + 1)
            answer = _answer(function, args, folder)
            _leash(0)
            channel.send(answer)


def _watch(caller: int) -> None:
    """End this process and its children soon after the caller is gone; `_leash` does it where C code is in the way."""
    while os.getppid() == caller:
        time.sleep(0.25)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _leash(seconds: float) -> None:
    """Let the system end this process after so many seconds, also if the caller is gone, whatever Python is at."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(function: str, args: tuple[Any, ...], folder: str) -> tuple[bool, Any]:
    try:
        os.chdir(folder)
        return True, _resolve(function)(*args)
    except BaseException as error:  # sys.exit() and the like as well
        known = type(error).__module__.partition(".")[0] in ("builtins", "skillfactory")
        if known and isinstance(error, Exception) and all(isinstance(part, str | int) for part in error.args):
            return False, type(error)(*error.args)  # without its traceback, which cannot be sent
        return False, RuntimeError(f"{type(error).__name__}: {error}")
