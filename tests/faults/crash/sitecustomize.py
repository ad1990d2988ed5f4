"""Imported by a Python that is started with this folder on its path: ends it at a certain file operation, or turns back
its clock.

FAULT_RUN is the folder whose files count, FAULT_AT the number of the operation before which SIGKILL comes (0: never),
FAULT_COUNT a file that gets the number of operations at the end.
FAULT_CLOCK is after how many seconds the clock goes back by a day, each time.
"""

import atexit
import builtins
import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_run, _at, _pid = os.environ.get("FAULT_RUN", ""), int(os.environ.get("FAULT_AT", "0")), os.getpid()
_done = 0


def _is_ours(target: Any) -> bool:
    try:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.path.abspath(target)
    except (OSError, TypeError):
        return False
    return str(path).startswith(_run + "/") and not str(path).endswith(".lock")


def _counted(plain: Callable[..., Any], writes: bool = False) -> Callable[..., Any]:
    def operation(*args: Any, **kwargs: Any) -> Any:
        global _done
        mode = (args[1] if len(args) > 1 else kwargs.get("mode", "r")) if writes else "w"
        if args and set("wax+") & set(str(mode)) and os.getpid() == _pid and _is_ours(args[0]):
            _done += 1
            if _done == _at:
                os.kill(_pid, signal.SIGKILL)
        return plain(*args, **kwargs)

    return operation


if _run:
    for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync", "link"):
        setattr(os, name, _counted(getattr(os, name)))
    io.open = builtins.open = _counted(open, writes=True)
    if _counted_in := os.environ.get("FAULT_COUNT", ""):
        atexit.register(lambda: Path(_counted_in).write_text(str(_done)))

if every := float(os.environ.get("FAULT_CLOCK", "0")):
    _start, _time, _strftime = time.monotonic(), time.time, time.strftime

    def _turned_back() -> float:
        return _time() - 86400 * ((time.monotonic() - _start) // every)

    def _shown(form: str, when: Any = None) -> str:
        return _strftime(form, time.localtime(_turned_back()) if when is None else when)

    time.time, time.strftime = _turned_back, _shown
