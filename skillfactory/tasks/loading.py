"""How a published data set is read: by `datasets`, from the hub or from files, and what it says when that fails."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillfactory import seeds
from skillfactory.errors import QuestionError, SkillFactoryError
from skillfactory.reading import BrokenFileError, check_rows
from skillfactory.tasks.published import DataSet, HubParams

KINDS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
LARGE = 2 << 30  # bytes of local files: beyond this they are not read as a whole
_SHUFFLED_AT_ONCE = 1000  # rows in memory while a stream is read in a seeded order
_COMMIT = re.compile(r"[0-9a-f]{40}")

Rows = Iterator[dict[str, Any]]


def open_rows(about: DataSet, params: HubParams, source: str, seed: int | None) -> tuple[Rows, str]:
    """The rows, in their order or one of the seed's, and the commit on the hub ("" of a local copy).

    Every error, while opening or reading, is a QuestionError that names the `source`.
    """
    with _told(source, params):
        rows, commit = _local(about, params, seed) if params.path else _hub(about, params, source, seed)
    return _read(rows, source, params), commit


def _read(rows: Any, source: str, params: HubParams) -> Rows:
    with _told(source, params):
        for row in rows:
            if "__index_level_0__" in row:  # what pandas makes of a csv file with cells beyond its header
                raise QuestionError(
                    f"{source} has more cells in a row than its header has columns; quote cells that hold commas."
                )
            yield row


def _local(about: DataSet, params: HubParams, seed: int | None) -> tuple[Any, str]:
    """Streamed, so that nothing is copied into a cache."""
    import datasets

    path, files = Path(params.path).expanduser(), local_files(params.path)
    for file in files:
        if KINDS[file.suffix] == "json":
            check_rows(file)
    options = dict(about.reader or {}) if all(file.suffix == ".csv" for file in files) else {}
    if path.is_dir():
        folder = str(path.resolve())
        names = datasets.get_dataset_config_names(folder)
        if names == ["default"] and (path / params.config).is_dir():  # a copy without the README that says so
            folder = str((path / params.config).resolve())
        config = names[0] if len(names) == 1 else params.config
        stream = datasets.load_dataset(folder, config, split=params.split, streaming=True, **options)
    else:
        only = {params.split: str(path)}
        stream = datasets.load_dataset(
            KINDS[path.suffix], data_files=only, split=params.split, streaming=True, **options
        )
    return (stream if seed is None else _stream_shuffled(stream, seed, about.name)), ""


def _hub(about: DataSet, params: HubParams, source: str, seed: int | None) -> tuple[Any, str]:
    """Large sets are streamed where their settings say so; the others are kept in the cache of `datasets`."""
    import datasets

    options = dict(about.reader or {}) if params.hub_id == about.default("hub_id") else {}
    asked = revision(about, params)
    # The prefix keeps `datasets` from taking a local folder of the same name.
    builder = datasets.load_dataset_builder(
        f"hf://datasets/{params.hub_id}", params.config or None, revision=asked, **options
    )
    commit = str(builder.hash or "")
    if _COMMIT.fullmatch(asked) and _COMMIT.fullmatch(commit) and asked != commit:
        # Without a network `datasets` takes whatever revision it kept.
        raise QuestionError(
            f"{source}: revision {asked} is wanted but the copy kept on this machine is {commit}; "
            "fetch it where there is a network, or name that revision."
        )
    if getattr(params, "stream", False):
        stream = builder.as_streaming_dataset(split=params.split)
        return (stream if seed is None else _stream_shuffled(stream, seed, about.name)), commit
    builder.download_and_prepare()
    table = builder.as_dataset(split=params.split)
    return (table if seed is None else _table_shuffled(table, seed, about.name)), commit


def revision(about: DataSet, params: HubParams) -> str:
    """The revision to ask for: the pinned commit is of the set's usual place, another place has its own."""
    elsewhere = params.hub_id != about.default("hub_id")
    return "main" if elsewhere and "revision" not in params.model_fields_set else params.revision


def _stream_shuffled(stream: Any, seed: int, name: str) -> Any:
    """The files in a seeded order, one after the other, and their rows as far as fits into memory."""
    return stream.shuffle(
        seed=seeds.derive(seed, name) % 2**32, buffer_size=_SHUFFLED_AT_ONCE, max_buffer_input_shards=1
    )


def _table_shuffled(table: Any, seed: int, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a table on disk in a seeded order, each read when it is needed."""
    order = list(range(len(table)))
    seeds.rng(seed, name).shuffle(order)
    return (table[i] for i in order)


def local_files(given: str) -> list[Path]:
    """The data files of a local copy, a file or a folder. Raises QuestionError where there are none."""
    path = Path(given).expanduser()
    if not path.exists():
        raise QuestionError(f"Data set {path} is not there; give `path` a file or a folder.")
    files = sorted(file for file in path.rglob("*") if file.suffix in KINDS) if path.is_dir() else [path]
    if path.is_dir():
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    files = [file for file in files if file.is_file()]  # no pipes or devices, which may never end
    if not files or files[0].suffix not in KINDS:
        raise QuestionError(f"{path} has no file of a known kind; give {', '.join(KINDS)}.")
    if empty := next((file for file in files if not file.stat().st_size), None):
        raise QuestionError(f"{empty} is empty.")
    return files


def digest(given: str) -> str:
    """What a local copy holds, as 16 hex digits; of very large ones only names and sizes count.

    All files of a folder but hidden ones: README.md says what belongs to which split, and `datasets` reads more kinds.
    Raises QuestionError where there are no data files.
    """
    local_files(given)
    path = Path(given).expanduser()
    below = [file.relative_to(path) for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
    names = sorted(file for file in below if not any(part.startswith(".") for part in file.parts))
    files = {name.as_posix(): path / name for name in names} or {path.name: path}
    size = sum(file.stat().st_size for file in files.values())
    parts: list[str | int] = []
    for name, file in files.items():
        parts += [name, file.stat().st_size]
        if size <= LARGE:
            with file.open("rb") as opened:
                parts.append(hashlib.file_digest(opened, "blake2b").hexdigest())
    return seeds.content_id(*parts)


@contextmanager
def _told(source: str, params: HubParams) -> Iterator[None]:
    """Turn what `datasets` raises into one sentence that names the set or file and the mend."""
    import datasets  # noqa: F401 - importing it sets the levels of the loggers

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what they log is in the error
    try:
        yield
    except SkillFactoryError:
        raise
    except Exception as error:
        raise QuestionError(_sentence(source, params, error)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what led to it."""
    causes: list[BaseException] = []
    while error is not None and len(causes) < 10:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _sentence(source: str, params: HubParams, error: Exception) -> str:
    message, causes = str(error), _causes(error)
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    there = re.search(r"(?:Available(?: splits)?: |Should be one of )(\[.*?\])", message)
    choices = "; there are: " + ", ".join(re.findall(r"[\w./-]+", there[1])) + "." if there else "."
    if "BuilderConfig" in message:
        return f"{source} has no configuration {params.config!r}{choices}"
    if re.match(r"Bad split|Unknown split", message):
        return f"{source} has no split {params.split!r}{choices}"
    if isinstance(error, BrokenFileError):
        return f"{source}: {error}."
    if params.path:
        return _broken_copy(source, message, local_files(params.path), causes)
    if "GatedRepoError" in kinds or "gated" in message:
        return (
            f"{source} is open only to those who accepted its terms: accept them at "
            f"https://huggingface.co/datasets/{params.hub_id}, then set HF_TOKEN to a token of yours."
        )
    if "RevisionNotFoundError" in kinds or message.startswith("Revision"):
        return f"{source} has no such revision on the hub; leave `revision` out or mend it."
    lost = {"ConnectionError", "TransportError", "LocalEntryNotFoundError"}
    if kinds & lost or "LocalEntryNotFoundError" in message:
        return (
            f"{source} cannot be fetched: the Hugging Face hub cannot be reached; "
            "run it once where there is a network, or give `path` a local copy."
        )
    if kinds & {"FileNotFoundError", "RepositoryNotFoundError", "HFValidationError"}:
        return (
            f"{source}: the hub has no such data set, or not for you; mend `hub_id`, or set HF_TOKEN if it is private."
        )
    return f"{source} cannot be read: {_first_line(causes[0])}."


def _broken_copy(source: str, message: str, files: list[Path], causes: list[BaseException]) -> str:
    if "save_to_disk" in message:
        return f"{source} was written by `save_to_disk`; write it with `to_parquet` or `to_json` and name that file."
    if cells := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
        return (
            f"{source}, line {cells[2]}: {cells[3]} cells, but there are {cells[1]} columns; "
            "quote cells that hold commas."
        )
    return _broken_row(files) or f"{source} cannot be read: {_first_line(causes[-1])}."


def _broken_row(files: list[Path]) -> str:
    """A sentence on the first row that is no text or no JSON, or on the first damaged file; "" where all is well."""
    import pyarrow.parquet as pq

    for file in files:
        if file.suffix == ".parquet":
            try:
                pq.read_metadata(file)
            except Exception as error:  # OSError, ArrowException, UnicodeDecodeError of a name
                return f"{file} is no whole parquet file: {_first_line(error)}."
            continue
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    line.decode("utf-8-sig")
                    if file.suffix == ".jsonl" and line.strip():
                        json.dumps(json.loads(line.decode("utf-8-sig")), ensure_ascii=False).encode()
                except UnicodeDecodeError:
                    return f"{file}, row {number}: not UTF-8 text."
                except UnicodeEncodeError:
                    return f"{file}, row {number}: half a surrogate pair, which is no text; write the letter itself."
                except (ValueError, RecursionError) as error:
                    return f"{file}, row {number}: not JSON ({_first_line(error)})."
    return ""


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return line[:300] or type(error).__name__
