"""How far a stage is: a bar on a terminal, plain lines elsewhere, and a small file for `skillfactory status`."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillfactory import files

FILE = "progress.json"
LINE_EVERY = 10.0  # seconds between lines where there is no terminal
FILE_EVERY = 1.0  # seconds between writes of the file


@contextmanager
def track(
    folder: Path, total: int, what: str, done: int, seconds: Callable[[], float]
) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, **figures)`: `n` more are done, `figures` are the latest numbers to show.

    `seconds()` is the time that the stage has taken so far; it is kept in the file, so a kill does not lose it.
    """
    start, first, figures = time.monotonic(), done, dict[str, Any]()
    last_file = last_line = start
    show = _bar(total, f"{folder.name}: {what}", done) if sys.stderr.isatty() else None

    def state() -> dict[str, Any]:
        elapsed = time.monotonic() - start
        rate = (done - first) / elapsed if elapsed > 0 else 0.0
        return {
            "what": what, "done": done, "total": total, "rate": rate, "eta": (total - done) / rate if rate else None,
            "figures": figures, "stage_seconds": seconds(), "pid": os.getpid(), "time": time.time(),
        }  # fmt: skip

    def advance(n: int = 1, **latest: Any) -> None:
        nonlocal done, last_file, last_line
        done += n
        figures.update(latest)
        now = time.monotonic()
        if show:
            show(n, figures)
        elif now - last_line >= LINE_EVERY:
            last_line = now
            print(describe(folder.name, state()), file=sys.stderr, flush=True)
        if now - last_file >= FILE_EVERY:
            last_file = now
            files.write_json(folder / FILE, state())

    files.write_json(folder / FILE, state())
    try:
        yield advance
        if not show:
            print(describe(folder.name, state()), file=sys.stderr, flush=True)
    finally:
        if show:
            show(0, None)
        (folder / FILE).unlink(missing_ok=True)


def say(sentence: str) -> None:
    """A sentence that stays, above a bar or between lines."""
    print(sentence, file=sys.stderr, flush=True)


def seconds_until_now(state: dict[str, Any]) -> float:
    """Time that a running stage has taken. Its file says so only up to its last step, which may be minutes ago."""
    return float(state["stage_seconds"]) + max(0.0, time.time() - float(state["time"]))


def describe(stage: str, state: dict[str, Any]) -> str:
    """One line: `attempts: 320 / 1,024 attempts, 41.3/s, 17 s left, correct 0.31`."""
    done, total = state["done"], state["total"]
    count = f"{done:,} / {total:,}" if done <= total else f"{done:,} ({total:,} and more)"
    parts = [f"{stage}: {count} {state['what']}"]
    if state["rate"]:
        parts.append(f"{state['rate']:.3g}/s" if state["rate"] >= 1 else f"{1 / state['rate']:.3g} s each")
    if state["eta"] and done < total:
        parts.append(f"{duration(state['eta'])} left")
    return ", ".join(parts + [f"{name} {number(value)}" for name, value in state["figures"].items()])


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `17 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def number(value: object) -> str:
    """A figure in at most four digits where it is a float, with separators where it is whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _bar(total: int, title: str, done: int) -> Callable[[int, dict[str, Any] | None], None]:
    """A rich progress bar; call with None as figures to close it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[figures]}"), console=Console(stderr=True),
    )  # fmt: skip
    task = bar.add_task(escape(title), total=total, completed=done, figures="")
    bar.start()

    def show(n: int, figures: dict[str, Any] | None) -> None:
        if figures is None:
            bar.stop()
            return
        rate = bar.tasks[0].speed
        shown = [f"{rate:.3g}/s"] if rate else []
        shown += [f"{name} {number(value)}" for name, value in figures.items()]
        bar.update(task, advance=n, figures=escape(", ".join(shown)))

    return show
