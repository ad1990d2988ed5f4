"""What the sampling stages share: which attempts can be used, and saving rows as they stream in."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from skillfactory.records import Attempt, Reflection

if TYPE_CHECKING:
    from skillfactory.store import Stage

SHARD_ROWS = 1000
SHARD_SECONDS = 120.0  # a slow model must not lose an hour's work for want of a thousand rows

Row = TypeVar("Row", Attempt, Reflection)


def usable(attempt: Attempt) -> bool:
    """Whether an attempt can be part of a trace: it came to an end by itself, has an answer and none of our tags."""
    return attempt.finish_reason == "stop" and attempt.outcome != "no_answer" and attempt.reason != "malformed"


def collect(
    stage: "Stage",
    made: Iterable[Row],
    figures: Callable[[Row], dict[str, Any]],
    advance: Callable[..., None],
) -> list[Row]:
    """Append rows in shards as they are made, and what has come also when interrupted. Returns them all.

    `figures` gives what the progress line shows after each row.
    """
    rows: list[Row] = []
    saved = 0
    last = time.monotonic()
    try:
        for row in made:
            rows.append(row)
            advance(1, **figures(row))
            if len(rows) - saved >= SHARD_ROWS or time.monotonic() - last > SHARD_SECONDS:
                shard, saved, last = rows[saved:], len(rows), time.monotonic()
                stage.append(shard)
    finally:
        stage.append(rows[saved:])
    return rows
