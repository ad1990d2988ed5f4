"""Whether two run directories of one recipe hold the same, apart from times and paths."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

ROWS = ("questions", "attempts", "reflections", "traces", "evaluation")
ORDERED = ("questions", "traces")  # stages whose shards are written in one order, whatever was drawn first
# What may differ between two runs of one recipe: when they ran, how long they took, and in how much memory.
TIMES = re.compile(r"seconds|finished_at|^models$|peak_memory|_per_second|tokens_per_s|^(run|path|seconds_ratio)$")
SHARDED = ("attempts", "reflections", "evaluation")  # whose shards are as the kills left them


def differences(ours: Path, theirs: Path, stages: tuple[str, ...] | None = None) -> list[str]:
    """What `ours` has that `theirs` has not, or the other way round: a sentence each, none where they are the same.

    With `stages` only their folders are compared. The directories need names that are no words of a report.
    """
    found = list(_files(ours, theirs, stages))
    for stage in ROWS:
        if stages is None or stage in stages:
            found += _rows(ours / stage, theirs / stage)
    for place in sorted(theirs.rglob("*")):
        name = place.relative_to(theirs)
        if place.is_dir() or not (ours / name).is_file() or (stages is not None and name.parts[0] not in stages):
            continue
        found += _content(ours / name, place, name, ours, theirs)
    return found


def _names(run: Path, stages: tuple[str, ...] | None) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    names = {name for name in names if stages is None or name.split("/")[0] in stages}
    return {re.sub(r"part-\d+", "part", name) if name.startswith(SHARDED) else name for name in names}


def _files(ours: Path, theirs: Path, stages: tuple[str, ...] | None) -> Iterator[str]:
    mine, wanted = _names(ours, stages), _names(theirs, stages)
    yield from (f"{name} is left over" for name in sorted(mine - wanted))
    yield from (f"{name} is missing" for name in sorted(wanted - mine))


def _rows(ours: Path, theirs: Path) -> Iterator[str]:
    mine, wanted = (
        Counter(
            repr(row)
            for path in sorted(folder.glob("part-*.parquet"))
            for row in pyarrow.parquet.read_table(path).to_pylist()
        )
        for folder in (ours, theirs)
    )
    if doubled := {row: n for row, n in mine.items() if n > max(1, wanted[row])}:
        yield f"{ours.name}: {len(doubled)} rows are doubled, such as {next(iter(doubled))[:200]}"
    if lost := wanted - mine:
        yield f"{ours.name}: {sum(lost.values())} rows are lost or changed, such as {next(iter(lost))[:200]}"
    if new := mine - wanted:
        yield f"{ours.name}: {sum(new.values())} rows are new or changed, such as {next(iter(new))[:200]}"


def _content(mine: Path, wanted: Path, name: Path, ours: Path, theirs: Path) -> Iterator[str]:
    if name.name in (".lock", "log.jsonl"):
        if bad := [line for line in mine.read_text().splitlines() if not _is_json(line)]:
            yield f"{name}: {bad[0][:80]} is no line of JSON"
    elif name.suffix == ".parquet" and name.parts[0] in SHARDED:
        return  # compared by rows
    elif name.suffix in (".json", ".jsonl", ".csv", ".html", ".md"):
        first, second = (plain(file, run) for file, run in ((mine, ours), (wanted, theirs)))
        if first != second:
            yield f"{name} differs: {_where(first, second)}"
    elif mine.read_bytes() != wanted.read_bytes():
        yield f"{name} differs in its bytes"


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def plain(file: Path, run: Path) -> Any:
    """The content of a file without times, memory and the name of its run."""
    text = re.sub(rf"\b{run.name}\b", "RUN", file.read_text(encoding="utf-8").replace(str(run), "RUN"))
    if file.suffix == ".json":
        shards = file.name == "manifest.json" and file.parent.name in SHARDED
        return _without_times(json.loads(text), {"shards"} if shards else set())
    if file.suffix == ".jsonl":
        return [_without_times(json.loads(line), set()) for line in text.splitlines()]
    if file.suffix == ".csv":
        rows = [row for row in csv.DictReader(io.StringIO(text)) if "seconds" not in str(row.values())]
        return [{key: value for key, value in row.items() if not TIMES.search(key)} for row in rows]
    return [line for line in _shown(text).splitlines() if "seconds" not in line]


def _shown(text: str) -> str:
    """A page without the times that it shows: of tables that have a column of seconds nothing."""
    text = re.sub(r"<table>.*?</table>", lambda table: "" if ">seconds<" in table[0] else table[0], text, flags=re.S)
    text = re.sub(r"^\|[^\n]*\| seconds \|[^\n]*\n(\|[^\n]*\n)*", "", text, flags=re.M)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([+-]\d{4})?", "WHEN", text)
    return re.sub(r"\d[\d.,]*( h \d\d min| min \d\d s| s| min| MB| GB|/s)\b", "MUCH", text)


def _without_times(data: Any, left_out: set[str]) -> Any:
    if isinstance(data, dict):
        kept = {key: value for key, value in data.items() if not TIMES.search(key) and key not in left_out}
        return {key: _without_times(value, left_out) for key, value in kept.items()}
    return [_without_times(each, left_out) for each in data] if isinstance(data, list) else data


def _where(mine: Any, wanted: Any) -> str:
    if isinstance(mine, list) and isinstance(wanted, list) and len(mine) == len(wanted):
        place = next(i for i, (a, b) in enumerate(zip(mine, wanted, strict=True)) if a != b)
        return f"[{place}] {_where(mine[place], wanted[place])}"
    if isinstance(mine, dict) and isinstance(wanted, dict):
        key = next(key for key in [*mine, *wanted] if key not in mine or key not in wanted or mine[key] != wanted[key])
        return f"{key} {_where(mine.get(key), wanted.get(key))}"
    if isinstance(mine, str) and isinstance(wanted, str):
        at = next((i for i, (a, b) in enumerate(zip(mine, wanted, strict=False)) if a != b), 0)
        mine, wanted = mine[max(0, at - 40) : at + 80], wanted[max(0, at - 40) : at + 80]
    return f"{str(mine)[:160]} is not {str(wanted)[:160]}"
