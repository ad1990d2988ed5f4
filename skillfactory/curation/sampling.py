"""What the sampling stages share: which attempts can be used, and saving rows as they stream in."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from skillfactory.records import Attempt

if TYPE_CHECKING:
    from skillfactory.stage import Stage

SHARD_ROWS = 1000
SHARD_SECONDS = 15.0  # what a kill costs at most, however slow the model
NOT_CHECKED = "not_checked"  # reason of a teacher's response that nothing says is right or wrong
UNUSABLE = ("malformed", "leaked")  # reasons for which a graded attempt is never part of a trace


def usable(attempt: Attempt) -> bool:
    """Whether an attempt can be part of a trace: it came to an end by itself, has an answer and none of our tags."""
    return attempt.finish_reason == "stop" and attempt.outcome != "no_answer" and attempt.reason not in UNUSABLE


def save(made: Iterable[Any], stages: "dict[type, Stage]", saved: Callable[[], None] = lambda: None) -> Iterable[Any]:
    """Pass rows on while appending them in shards to the stage of their kind; also what has come when interrupted.

    `saved` is called after rows were written. Rows of an earlier kind in `stages` are written first.
    """
    waiting: dict[type, list[Any]] = {kind: [] for kind in stages}
    last = time.monotonic()

    def write() -> None:
        nonlocal last
        for kind, stage in stages.items():
            stage.append(waiting[kind])
            waiting[kind] = []
        last = time.monotonic()
        saved()

    try:
        for row in made:
            if type(row) in waiting:
                waiting[type(row)].append(row)
                if sum(map(len, waiting.values())) >= SHARD_ROWS or time.monotonic() - last > SHARD_SECONDS:
                    write()
            yield row
    finally:
        write()
