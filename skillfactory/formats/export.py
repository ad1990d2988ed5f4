"""A run's traces as the files that other trainers read, and as a data set for the Hugging Face hub.

Traces are read and written a few at a time. All is written into a folder of another name beside the wanted one, which
then is renamed: a kill leaves the wanted folder as it was.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import files
from skillfactory.errors import StoreError
from skillfactory.formats import card

if TYPE_CHECKING:
    import pyarrow

    from skillfactory.store import LoadedRun

Row = dict[str, Any]
CONFIG = "sft_train"  # the authors' name on the hub
_AT_ONCE = 1000  # traces in memory, and in a row group
_COLUMNS = ("id", "question_id", "pattern", "steps", "prompt", "completion", "tokens")
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
# The authors' names of the patterns; {n} is the number of pairs. Others keep our name.
_THEIRS = {
    "single": "0C",
    "ends_correct": "{n}C",
    "ladder": "{n}C",
    "backtrack": "*C*IC",
    "confirm": "*CC",
    "random_order": "random",
    "no_reflections": "no_reflection",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the files and how many traces are in them."""

    files: tuple[Path, ...]
    traces: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a format has to write: the traces of a run, as rows, into a folder. `seen` counts them as they pass."""

    run: "LoadedRun"
    folder: Path
    rows: Iterator[Row]
    seen: card.Seen
    license: str
    language: str


@dataclass(frozen=True, slots=True)
class Format:
    """A format and who reads it."""

    about: str
    write: Callable[[Job], None]


def export(run: "LoadedRun", format: str, out: Path, license: str = "other", language: str = "en") -> Exported:
    """Write the run's traces in one of FORMATS into the folder `out`, which must be empty or not there yet.

    License and language are for the data card of `datasets`, in the hub's codes (`apache-2.0`, `en`). Raises StoreError
    where the format is not known, `out` is in use, or the run's traces are not finished.
    """
    if format not in FORMATS:
        raise StoreError(f"There is no format {format!r}; there are: {', '.join(FORMATS)}.")
    if run.state("traces") != "finished":
        raise StoreError(f"{run.path} has no finished traces to export; run it as far as its stage `traces` first.")
    out = Path(out).expanduser().resolve()
    _check_free(out)
    seen = card.Seen()
    with files.told(str(out)), _appearing(out) as folder:
        FORMATS[format].write(Job(run, folder, _counted(_rows(run), seen), seen, license, language))
        if not seen.traces:
            raise StoreError(f"{run.path} has no traces to export; `skillfactory show` says where they were lost.")
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return Exported(tuple(out / name for name in names), seen.traces)


def _rows(run: "LoadedRun") -> Iterator[Row]:
    for table in run.stage("traces").tables(_COLUMNS):
        for batch in table.to_batches(max_chunksize=_AT_ONCE):
            yield from batch.to_pylist()


def _counted(rows: Iterable[Row], seen: card.Seen) -> Iterator[Row]:
    for row in rows:
        seen.add(row)
        yield row


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; name a folder that is empty or not there yet.")
    if out.is_dir() and any(out.iterdir()):
        raise StoreError(f"{out} is not empty; name a folder that is empty or not there yet.")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end; deleted where that is not reached."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for leftover in out.parent.glob(f"{files.TEMPORARY}*-{out.name}"):  # of exports that were killed
        owner = leftover.name.removeprefix(files.TEMPORARY).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = out.parent / f"{files.TEMPORARY}{os.getpid()}-{out.name}"
    folder.mkdir()
    try:
        yield folder
        for path in [*folder.rglob("*"), folder]:
            _flush(path)
        _check_free(out)
        folder.rename(out)
        _flush(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _completion(row: Row) -> list[Row]:
    return [{"role": "assistant", "content": row["completion"]}]


def _prompt_completion(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": _completion(row)}


def _messages(row: Row) -> Row:
    return {"messages": [*row["prompt"], *_completion(row)]}


def _conversations(row: Row) -> Row:
    pattern: str = row["pattern"]
    name = _THEIRS.get(pattern, pattern).replace("{n}", str(len(row["steps"])))
    return {"conversations": _messages(row)["messages"], "sft_template_type_idx": name}


def _published(row: Row) -> Row:
    kept = {name: row[name] for name in ("id", "question_id", "pattern", "tokens")}
    return {**kept, "pairs": len(row["steps"]), **_prompt_completion(row), **_conversations(row)}


def _schema(columns: Iterable[str]) -> "pyarrow.Schema":
    import pyarrow as pa

    chat = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = {
        **dict.fromkeys(("prompt", "completion", "messages", "conversations"), chat),
        **dict.fromkeys(("tokens", "pairs"), pa.int64()),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])


def _parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for group in _groups(rows):
            schema = _schema(group[0])
            writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    finally:
        if writer:
            writer.close()


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == _AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _train_parquet(shape: Callable[[Row], Row]) -> Callable[[Job], None]:
    return lambda job: _parquet(job.folder / "train.parquet", map(shape, job.rows))


def _llama_factory(shape: Callable[[Row], Row], column: str) -> Callable[[Job], None]:
    def write(job: Job) -> None:
        with (job.folder / "train.jsonl").open("w", encoding="utf-8") as file:
            for row in job.rows:
                file.write(json.dumps(shape(row), ensure_ascii=False) + "\n")
        about = {
            "file_name": "train.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": column},
            "tags": _TAGS,  # in full: what is left out becomes None there, not a default
        }
        files.write_json(job.folder / "dataset_info.json", {job.run.recipe.name: about})

    return write


def _datasets(job: Job) -> None:
    (job.folder / CONFIG).mkdir()
    _parquet(job.folder / CONFIG / "train-00000-of-00001.parquet", map(_published, job.rows))
    if job.seen.traces:
        text = card.render(job.run, job.seen, CONFIG, job.license, job.language)
        files.write_atomic(job.folder / "README.md", text.encode())


FORMATS: dict[str, Format] = {
    "trl": Format("TRL: `prompt` and `completion` as messages, so that loss is on the completion; Parquet.",
                  _train_parquet(_prompt_completion)),
    "trl-messages": Format("TRL: one column `messages`; Parquet.", _train_parquet(_messages)),
    "llamafactory": Format("LLaMA-Factory: `messages` as JSON lines, and dataset_info.json.",
                           _llama_factory(_messages, "messages")),
    "llamafactory-conversations": Format(
        "LLaMA-Factory, in the authors' columns `conversations` and `sft_template_type_idx`.",
        _llama_factory(_conversations, "conversations"),
    ),
    "verl": Format("verl's SFT trainer: `messages`; Parquet.", _train_parquet(_messages)),
    "datasets": Format("A data set for the Hugging Face hub, with a data card.", _datasets),
}  # fmt: skip
