"""What the sampling stages share: which attempts can be used, and saving completions as they stream in."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from skillfactory.records import Attempt, Reflection

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion
    from skillfactory.store import Stage

SHARD_ROWS = 1000
SHARD_SECONDS = 120.0  # a slow model must not lose an hour's work for want of a thousand rows

Row = TypeVar("Row", Attempt, Reflection)


def usable(attempt: Attempt) -> bool:
    """Whether an attempt can be part of a trace: it came to an end by itself, has an answer and none of our tags."""
    return attempt.finish_reason == "stop" and attempt.outcome != "no_answer" and attempt.reason != "malformed"


def collect(
    stage: "Stage",
    completions: Iterable["Completion"],
    row_of: Callable[["Completion"], Row],
    figures: Callable[[Row], dict[str, Any]],
    advance: Callable[..., None],
) -> list[Row]:
    """Turn completions into rows and append them in shards; all of them also when interrupted half-way.

    `figures` gives what the progress line shows after each row.
    """
    rows: list[Row] = []
    saved = 0
    last = time.monotonic()
    try:
        for completion in completions:
            row = row_of(completion)
            rows.append(row)
            advance(1, **figures(row))
            if len(rows) - saved >= SHARD_ROWS or time.monotonic() - last > SHARD_SECONDS:
                shard, saved, last = rows[saved:], len(rows), time.monotonic()
                stage.append(shard)
    finally:
        stage.append(rows[saved:])
    return rows
