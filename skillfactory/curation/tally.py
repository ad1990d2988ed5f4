"""What became of the samples, counted shard by shard: attempts by variant and outcome, verdicts against the truth."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skillfactory.curation.samples import CORRECT, Chunk
from skillfactory.curation.sampling import NOT_CHECKED, UNUSABLE
from skillfactory.records import BROKEN

if TYPE_CHECKING:
    import pyarrow

PERCENTILES = (5, 50, 90, 99, 100)
_ATTEMPT = ("variant", "outcome", "reason", "finish_reason", "empty")
_REFLECTION = ("variant", "right", "verdict", "agrees", "finish_reason", "first")


@dataclass
class Tally:
    """Counts of rows (`n`) and of their tokens by what they are; add chunks as they pass by."""

    attempts: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    reflections: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    attempt_lengths: Counter[int] = field(default_factory=Counter)  # completions by their number of tokens
    reflection_lengths: Counter[int] = field(default_factory=Counter)
    questions: int = 0  # with attempts
    solved: int = 0  # with a usable correct attempt
    paired: int = 0  # with a true reflection on one

    def counted(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The same chunks, counted as they pass."""
        for chunk in chunks:
            self.add(chunk)
            yield chunk

    def add(self, chunk: Chunk) -> None:
        """Count the rows of some questions."""
        import pyarrow
        import pyarrow.compute

        attempts, reflections = chunk.attempts, chunk.reflections
        if attempts.num_rows:
            empty = pyarrow.compute.equal(pyarrow.compute.binary_length(attempts["text"]), 0)
            self.attempts += _counted(attempts.append_column("empty", empty), _ATTEMPT)
            self.attempt_lengths += _values(attempts["tokens"])
        if reflections.num_rows and attempts.num_rows:
            on = pyarrow.array(chunk.reflected_row, mask=chunk.reflected_row < 0)
            columns = {
                "variant": attempts["variant"].take(on),
                "right": pyarrow.compute.equal(attempts["outcome"].take(on), "correct"),
                "first": pyarrow.compute.equal(reflections["index"], 0),
            }
            for name, column in columns.items():
                reflections = reflections.append_column(name, column)
            self.reflections += _counted(reflections, _REFLECTION)
            self.reflection_lengths += _values(reflections["tokens"])
        right = chunk.state == CORRECT
        self.questions += int(np.any(chunk.attempt_row >= 0, axis=1).sum())
        self.solved += int(np.any(right, axis=1).sum())
        self.paired += int(np.any(right & (chunk.agree > 0), axis=1).sum())

    def attempt_counts(self) -> dict[str, Any]:
        """For the manifest: what became of the attempts, in all and of each variant."""
        rows = [(dict(zip(_ATTEMPT, key, strict=True)), n) for key, n in self.attempts.items()]
        variants = sorted({row["variant"] for row, _ in rows})
        return {
            **_attempt_counts(rows),
            **{reason: sum(n for row, n in rows if row["reason"] == reason) for reason in sorted(BROKEN)},
            "empty": sum(n for row, n in rows if row["empty"] and row["finish_reason"] != "failed"),
            "usable_correct": sum(n for row, n in rows if _usable(row) and row["outcome"] == "correct"),
            "questions": self.questions,
            "questions_solved": self.solved,
            "tokens": _sum(self.attempt_lengths),
            "tokens_percentiles": percentiles(self.attempt_lengths),
            "by_variant": {v: _attempt_counts([(row, n) for row, n in rows if row["variant"] == v]) for v in variants},
        }

    def reflection_counts(self) -> dict[str, Any]:
        """For the manifest: reflections, and what the first one on each attempt said against what was true.

        Further reflections are drawn only where the first ones were false, so they would make the verdicts look worse
        than they are.
        """
        rows = [(dict(zip(_REFLECTION, key, strict=True)), n) for key, n in self.reflections.items()]
        first = [(row, n) for row, n in rows if row["first"]]
        variants = sorted({str(row["variant"]) for row, _ in rows if row["variant"] is not None})
        return {
            "reflections": sum(n for _, n in rows),
            "agree": sum(n for row, n in rows if row["agrees"]),
            "no_verdict": sum(n for row, n in rows if not row["verdict"]),
            "truncated": sum(n for row, n in rows if row["finish_reason"] == "length"),
            "engine_failed": sum(n for row, n in rows if row["finish_reason"] == "failed"),
            "on_correct": sum(n for row, n in rows if row["right"]),
            "agree_on_correct": sum(n for row, n in rows if row["right"] and row["agrees"]),
            "on_wrong": sum(n for row, n in rows if not row["right"]),
            "agree_on_wrong": sum(n for row, n in rows if not row["right"] and row["agrees"]),
            "tokens": _sum(self.reflection_lengths),
            "tokens_percentiles": percentiles(self.reflection_lengths),
            "first_verdicts": verdicts(first),
            "first_verdicts_by_variant": {
                v: verdicts([(r, n) for r, n in first if r["variant"] == v]) for v in variants
            },
        }


def verdicts(rows: list[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """The confusion matrix of verdicts, and F1 of calling correct attempts correct and incorrect ones incorrect."""

    def n(right: bool, *said: str) -> int:
        return sum(count for row, count in rows if bool(row["right"]) == right and row["verdict"] in said)

    matrix = {
        "correct_called_correct": n(True, "correct"), "correct_called_incorrect": n(True, "incorrect"),
        "correct_no_verdict": n(True, ""), "incorrect_called_correct": n(False, "correct"),
        "incorrect_called_incorrect": n(False, "incorrect"), "incorrect_no_verdict": n(False, ""),
    }  # fmt: skip
    return matrix | {
        "f1_correct": _f1(
            matrix["correct_called_correct"], matrix["incorrect_called_correct"],
            matrix["correct_called_incorrect"] + matrix["correct_no_verdict"],
        ),
        "f1_incorrect": _f1(
            matrix["incorrect_called_incorrect"], matrix["correct_called_incorrect"],
            matrix["incorrect_called_correct"] + matrix["incorrect_no_verdict"],
        ),
    }  # fmt: skip


def _f1(hits: int, false: int, missed: int) -> float | None:
    total = 2 * hits + false + missed
    return 2 * hits / total if total else None


def _attempt_counts(rows: list[tuple[dict[str, Any], int]]) -> dict[str, int]:
    def n(key: str, value: str) -> int:
        return sum(count for row, count in rows if row[key] == value)

    unknown = n("reason", NOT_CHECKED)  # a teacher's responses without a reference
    return {
        "attempts": sum(count for _, count in rows),
        "correct": n("outcome", "correct"),
        "wrong": n("outcome", "wrong") - unknown,
        "no_answer": n("outcome", "no_answer"),
        **({NOT_CHECKED: unknown} if unknown else {}),
        "usable": sum(count for row, count in rows if _usable(row)),
        "truncated": n("finish_reason", "length"),
        "malformed": n("reason", "malformed"),
        "leaked": n("reason", "leaked"),
    }


def _usable(row: dict[str, Any]) -> bool:
    """See sampling.usable."""
    return row["finish_reason"] == "stop" and row["outcome"] != "no_answer" and row["reason"] not in UNUSABLE


def _counted(table: "pyarrow.Table", keys: tuple[str, ...]) -> Counter[tuple[Any, ...]]:
    grouped = table.select(list(keys)).group_by(list(keys)).aggregate([([], "count_all")]).to_pydict()
    return Counter(dict(zip(zip(*(grouped[key] for key in keys), strict=True), grouped["count_all"], strict=True)))


def _values(column: "pyarrow.ChunkedArray") -> Counter[int]:
    import pyarrow.compute

    return Counter({each["values"]: each["counts"] for each in pyarrow.compute.value_counts(column).to_pylist()})


def _sum(lengths: Counter[int]) -> int:
    return sum(length * n for length, n in lengths.items())


def percentiles(lengths: Mapping[int, int]) -> dict[str, int]:
    """Nearest-rank percentiles of lengths with their counts, keyed by "5", "50", …; empty for no lengths."""
    total, found = sum(lengths.values()), dict[str, int]()
    ordered = sorted(lengths.items())
    for percentile in PERCENTILES if total else ():
        rank, seen = max(1, -(-total * percentile // 100)), 0
        for length, n in ordered:
            seen += n
            if seen >= rank:
                found[str(percentile)] = length
                break
    return found
