"""The authors' raw data sets (`SkillFactory/RAW_DATA-…`): attempts with their grades and reflections, from anywhere.

A row of theirs holds lists of responses, of whether each is right and of the answer found in each, and the reflections:
a list of texts where there is one response, a list of lists where there are several. Their README and their code name
the columns differently, so both names are taken. All else is strict: what is not as expected is said, never guessed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillfactory.errors import QuestionError
from skillfactory.formats.hub import told

KINDS = (".parquet", ".jsonl", ".json")
_AT_ONCE = 256  # rows in memory; each may hold many long texts
_BUFFER = 1 << 20  # bytes read of a column at once: without it, all of a row group's
_PREFIX = r"model_responses_+(?:mutated_prompts|example_annotation)"
_COLUMNS = {  # what a column may be called, and how it is called in messages
    "question": ("question", "question"),
    "answer": ("answer", "answer"),
    "variant": ("prompt_variant|prompt_type", "prompt_variant"),
    "texts": (_PREFIX, "model_responses__mutated_prompts"),
    "correct": (_PREFIX + "_+eval_is_correct", "model_responses__mutated_prompts__eval_is_correct"),
    "extracted": (_PREFIX + "_+eval_extracted_answers", "model_responses__mutated_prompts__eval_extracted_answers"),
    "reflections": (_PREFIX + "_+reflection", "model_responses__mutated_prompts_reflection"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One response of a raw data set. `row` counts the rows of all files, from 1; several responses may share it."""

    question: str
    answer: str
    variant: str
    text: str
    correct: bool
    extracted: str
    reflections: list[str]
    row: int


def read_raw(source: str, revision: str = "") -> Iterator[RawRow]:
    """The responses in a Parquet file, a file of JSON lines, a folder of either, or a data set on the hub, in order.

    The revision is of the hub. A null among extracted answers is "". Raises QuestionError naming file, row and column.
    """
    number, known, names = 0, "", {}
    for place, first, rows in _batches(source, revision):
        if place != known:
            known, names = place, _names(place, rows[0])
        for offset, row in enumerate(rows):
            number += 1
            try:
                yield from _responses(row, names, number)
            except _RowError as wrong:
                raise QuestionError(f"{place}, row {first + offset}: {wrong}.") from None
    if not number:
        raise QuestionError(f"{source} holds no rows.")


def split_revision(given: str) -> tuple[str, str]:
    """A source as a recipe names it, and the revision after its `@`, which only a hub id has."""
    source, at, revision = given.rpartition("@")
    return (source, revision) if at and _is_hub_id(source) else (given, "")


def raw_digest(source: str) -> str:
    """What the local file or folder holds, as 32 hex digits, whatever its place; "" for a data set on the hub."""
    path = Path(source).expanduser()
    if not path.exists() and _is_hub_id(source):
        return ""
    hashed = hashlib.blake2b(digest_size=16)
    for file in _files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.suffix
        with file.open("rb") as opened:
            hashed.update(f"{name}\0{hashlib.file_digest(opened, 'blake2b').hexdigest()}\n".encode())
    return hashed.hexdigest()


class _RowError(Exception):
    """What is wrong with a row; whoever knows where it stands adds that."""


Batch = tuple[str, int, list[dict[str, Any]]]  # where, number of the first row there (from 1), one or more rows


def _batches(source: str, revision: str) -> Iterator[Batch]:
    path = Path(source).expanduser()
    if not path.exists() and _is_hub_id(source):
        yield from _from_hub(source, revision)
        return
    for file in _files(path):
        found = False
        for batch in _from_parquet(file) if file.suffix == ".parquet" else _from_lines(file):
            found = True
            yield batch
        if not found:
            raise QuestionError(f"{file} holds no rows; leave it out, or write it again.")


def _is_hub_id(source: str) -> bool:
    return bool(_HUB_ID.fullmatch(source)) and not source.startswith(".") and Path(source).suffix not in KINDS


def _files(path: Path) -> list[Path]:
    """The data files, in the order of their names; hidden ones are none."""
    if not path.exists():
        raise QuestionError(f"Raw data {path} is not there; give a file, a folder or OWNER/NAME on the hub.")
    if path.is_file():
        if path.suffix not in KINDS:
            raise QuestionError(f"{path} is of no known kind; give one of {', '.join(KINDS)}.")
        return [path]
    below = (file for file in path.rglob("*") if file.suffix in KINDS and file.is_file())
    files = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise QuestionError(f"{path} has no file of a known kind; give one of {', '.join(KINDS)}.")
    return sorted(files)


def _from_parquet(file: Path) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as opened:
            names = opened.schema_arrow.names
            wanted = list(_names(str(file), names).values())
            if twice := next((name for name in wanted if names.count(name) > 1), None):
                raise QuestionError(f"{file} has two columns `{twice}`; leave one out.")
            for batch in opened.iter_batches(batch_size=_AT_ONCE, columns=wanted):
                if batch.num_rows:
                    yield str(file), first, batch.to_pylist()
                    first += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise QuestionError(
            f"{file} is not a Parquet file that can be read ({_line(error)}); write it again."
        ) from error


def _from_lines(file: Path) -> Iterator[Batch]:
    """Blank lines count as rows, so that a row's number is that of its line; a batch ends at one."""
    try:
        with file.open("rb") as lines:
            rows: list[dict[str, Any]] = []
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip()
                if text:
                    rows.append(_parsed(file, number, text))
                if rows and (not text or len(rows) == _AT_ONCE):
                    yield str(file), number - len(rows) + bool(text), rows
                    rows = []
            if rows:
                yield str(file), number - len(rows) + 1, rows
    except OSError as error:
        raise QuestionError(f"{file} cannot be read ({error.strerror}); mend its rights or its place.") from error


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise QuestionError(f"{file}, row {number}: not UTF-8 text; save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{file}, row {number}: not JSON ({_line(error)}); give one object a line.") from error
    if not isinstance(row, dict):
        raise QuestionError(f"{file}, row {number}: {_kind(row)}, not a JSON object; give one object a line.")
    return row


def _from_hub(source: str, revision: str) -> Iterator[Batch]:
    """Streamed: nothing is kept on disk. A set of one split may call it what it likes, else `train` is read."""
    import datasets

    first = 1
    with told(f"{source} cannot be read from the Hugging Face hub", QuestionError):
        # The prefix keeps `datasets` from taking a local folder of the same name.
        splits = datasets.load_dataset(f"hf://datasets/{source}", revision=revision or None, streaming=True)
        if len(splits) > 1 and "train" not in splits:
            raise QuestionError(f"{source} has no split `train` but {', '.join(splits)}; name a set that has.")
        stream = splits["train"] if "train" in splits else next(iter(splits.values()))
        for table in stream.with_format("arrow").iter(batch_size=_AT_ONCE):
            yield source, first, table.to_pylist()
            first += table.num_rows


def _names(place: str, given: Iterable[str]) -> dict[str, str]:
    """What each of our columns is called there. Raises QuestionError where one is missing or there twice."""
    given = list(given)
    names = {}
    for ours, (pattern, usual) in _COLUMNS.items():
        found = list(dict.fromkeys(name for name in given if re.fullmatch(pattern, name)))
        if len(found) > 1:
            raise QuestionError(f"{place} has both `{found[0]}` and `{found[1]}`; leave out one of them.")
        if not found:
            raise QuestionError(f"{place} has no column `{usual}` (it has: {', '.join(given) or 'none'}).")
        names[ours] = found[0]
    return names


def _responses(row: dict[str, Any], names: dict[str, str], number: int) -> Iterator[RawRow]:
    """Raises _RowError naming the column and what is expected there."""
    if missing := next((name for name in names.values() if name not in row), None):
        raise _RowError(f"no column `{missing}`, which the rows before have")
    question = _text(row[names["question"]], names["question"])
    variant = _text(row[names["variant"]], names["variant"])
    answer = _answer(row[names["answer"]], names["answer"])
    texts = row[names["texts"]]
    if isinstance(texts, str):  # as the authors' README describes it
        texts = [texts]
    texts = _list(texts, str, names["texts"], "texts")
    if not texts:
        raise _RowError(f"no response in `{names['texts']}`; leave the row out")
    correct = _list(row[names["correct"]], bool, names["correct"], "true or false")
    extracted = _list(row[names["extracted"]], str, names["extracted"], "texts", null="")
    reflections = _reflections(row[names["reflections"]], len(texts), names)
    for name, values in ((names["correct"], correct), (names["extracted"], extracted)):
        if len(values) != len(texts):
            raise _RowError(f"{len(values)} in `{name}` but {len(texts)} in `{names['texts']}`; give one a response")
    for text, right, found, judged in zip(texts, correct, extracted, reflections, strict=True):
        yield RawRow(question, answer, variant, text, right, found, judged, number)


def _reflections(given: Any, responses: int, names: dict[str, str]) -> list[list[str]]:
    """The reflections on each response."""
    name = names["reflections"]
    flat = isinstance(given, list) and (not given or isinstance(given[0], str))
    if responses == 1 and flat:
        return [_list(given, str, name, "texts")]
    lists: list[list[str]] = [_list(each, str, name, "texts") for each in _list(given, list, name, "lists of texts")]
    if len(lists) != responses:
        raise _RowError(f"{len(lists)} in `{name}` but {responses} in `{names['texts']}`; give one list a response")
    return lists


def _list(values: Any, kind: type, name: str, expected: str, null: Any = None) -> list[Any]:
    if not isinstance(values, list):
        raise _RowError(f"`{name}` is {_kind(values)}; it must be a list of {expected}")
    for place, value in enumerate(values, start=1):
        if type(value) is not kind:
            if value is None and null is not None:
                return _list([null if each is None else each for each in values], kind, name, expected)
            raise _RowError(f"number {place} in `{name}` is {_kind(value)}; it must be a list of {expected}")
    return values


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _RowError(f"`{name}` is {_kind(value)}; it must be text")
    return value


def _answer(value: Any, name: str) -> str:
    """Numbers are taken as they are written, a whole one without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) in (int, float) and value == value else _text(value, name)


def _kind(value: object) -> str:
    words = {bool: "true or false", list: "a list", dict: "an object", str: "text", bytes: "bytes", type(None): "null"}
    if value == "" or (isinstance(value, str) and not value.strip()):
        return "empty"
    return words.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")[:300] or type(error).__name__
