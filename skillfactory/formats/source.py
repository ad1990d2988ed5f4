"""Rows of other people's data, a few at a time: Parquet, JSON lines, a JSON list, a folder of these, or the hub.

All is strict: what is not as expected is said, never guessed. Not more than some rows are in memory.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from skillfactory.errors import QuestionError
from skillfactory.formats.hub import told
from skillfactory.reading import BrokenFileError, lines, opened, parquet, parse_json, unique

KINDS = (".parquet", ".jsonl", ".json")
_AT_ONCE = 256  # rows in memory; each may hold many long texts
_LONGEST = 1 << 26  # characters of one row of a JSON list
_READ = 1 << 20  # characters of a JSON list read at once
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANK = re.compile(r"[ \t\r\n]*")

Row = dict[str, Any]
Batch = tuple[str, int, list[Row]]  # where, number of the first row there (from 1), one or more rows
Choose = Callable[[str, list[str]], list[str]]  # the columns to read, by a file's name and all that it has


def batches(source: str, revision: str, choose: Choose) -> Iterator[Batch]:
    """The rows of a source in order. `choose` is asked of Parquet alone. Raises QuestionError naming file and row."""
    path = Path(source).expanduser()
    if not path.exists() and is_hub_id(source):
        yield from _from_hub(source, revision)
        return
    for file in data_files(path):
        found = False
        for batch in _from_parquet(file, choose) if file.suffix == ".parquet" else _from_json(file):
            found = True
            yield batch
        if not found:
            raise QuestionError(f"{file} holds no rows; leave it out, or write it again.")


def is_hub_id(source: str) -> bool:
    """Whether a source that is no path here may be a data set on the hub."""
    return bool(_HUB_ID.fullmatch(source)) and not source.startswith(".") and Path(source).suffix not in KINDS


def data_files(path: Path) -> list[Path]:
    """The data files, in the order of their names; hidden ones are none."""
    if not path.exists():
        raise QuestionError(f"Raw data {path} is not there; give a file, a folder or OWNER/NAME on the hub.")
    if path.is_file():
        if path.suffix not in KINDS:
            raise QuestionError(f"{path} is of no known kind; give one of {', '.join(KINDS)}.")
        return [path]
    below = (file for file in path.rglob("*") if file.suffix in KINDS and file.is_file())
    files = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    files = [file for file in files if file.name != "dataset_info.json"]  # LLaMA-Factory's, which only describes
    if not files:
        raise QuestionError(f"{path} has no file of a known kind; give one of {', '.join(KINDS)}.")
    return sorted(files)


def kind_of(value: object) -> str:
    """What a value is, in words."""
    words = {bool: "true or false", list: "a list", dict: "an object", str: "text", bytes: "bytes", type(None): "null"}
    if value == "" or (isinstance(value, str) and not value.strip()):
        return "empty"
    return words.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _from_parquet(file: Path, choose: Choose) -> Iterator[Batch]:
    def wanted(names: list[str]) -> list[str]:
        found = choose(str(file), names)
        if twice := next((name for name in found if names.count(name) > 1), None):
            raise QuestionError(f"{file} has two columns `{twice}`; leave one out.")
        return found

    first = 1
    try:
        for _, rows in parquet(file, _AT_ONCE, wanted):
            yield str(file), first, rows
            first += len(rows)
    except (OSError, BrokenFileError) as error:
        raise QuestionError(
            f"{file} is not a Parquet file that can be read ({line_of(error)}); write it again."
        ) from error


def _from_json(file: Path) -> Iterator[Batch]:
    """JSON lines, or one list of objects."""
    try:
        with opened(file) as content:
            start = content.read(4096).removeprefix(_BOM).lstrip()
            content.seek(0)
            # A list, and not a line that wrongly is one: the first object is in it, or on the next line.
            if file.suffix == ".json" and start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]", b""):
                yield from _grouped(file, _list_rows(file))
            else:
                yield from _from_lines(file, content)
    except OSError as error:
        raise QuestionError(f"{file} cannot be read ({error.strerror}); mend its rights or its place.") from error
    except BrokenFileError as error:
        raise QuestionError(f"{file}, {error}; are the ends of lines missing?") from error


def _from_lines(file: Path, content: IO[bytes]) -> Iterator[Batch]:
    """Blank lines count as rows, so that a row's number is that of its line; a batch ends at one."""
    rows: list[Row] = []
    number = 0
    for number, line in enumerate(lines(content), start=1):
        text = line.removeprefix(_BOM if number == 1 else b"").strip()
        if text:
            rows.append(_parsed(file, number, text))
        if rows and (not text or len(rows) == _AT_ONCE):
            yield str(file), number - len(rows) + bool(text), rows
            rows = []
    if rows:
        yield str(file), number - len(rows) + 1, rows


def _grouped(file: Path, rows: Iterable[Row]) -> Iterator[Batch]:
    group: list[Row] = []
    first = 1
    for row in rows:
        group.append(row)
        if len(group) == _AT_ONCE:
            yield str(file), first, group
            first, group = first + len(group), []
    if group:
        yield str(file), first, group


def _list_rows(file: Path) -> Iterator[Row]:
    """The objects of a JSON list, one after the other, however long the list is."""
    number = 0
    with file.open(encoding="utf-8-sig") as content:
        text = _Text(content)
        while True:
            try:
                mark = text.next()
                if number or mark == "[":
                    text.place += 1
                if mark == "]" or (not number and text.next() == "]"):
                    break
                if number and mark != ",":
                    raise ValueError("`,` or `]` is expected after it")
                number += 1
                row, written = text.value()
            except UnicodeDecodeError as error:
                raise QuestionError(f"{file}, row {number + 1}: not UTF-8 text; save the file as UTF-8.") from error
            except (ValueError, RecursionError) as error:
                why = getattr(error, "msg", "") or line_of(error)
                raise QuestionError(
                    f"{file}, row {max(number, 1)}: not JSON ({why}); give a list of objects."
                ) from error
            yield _checked(file, number, row, written)


class _Text:
    """JSON text of a file, read as far as is needed."""

    def __init__(self, content: IO[str]) -> None:
        self.content, self.text, self.place = content, "", 0
        self.decoder = json.JSONDecoder(object_pairs_hook=unique)

    def next(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            blank = _BLANK.match(self.text, self.place)
            self.place = blank.end() if blank else self.place
            if self.place < len(self.text) or not self._more(_READ):
                return self.text[self.place : self.place + 1]

    def value(self) -> tuple[Any, str]:
        """The next value, and how it is written. Raises ValueError."""
        size = _READ
        self.next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
            except ValueError:
                if len(self.text) - self.place > _LONGEST or not self._more(size):
                    raise
                size *= 2
            else:
                written, self.place = self.text[self.place : end], end
                return value, written

    def _more(self, size: int) -> bool:
        read = self.content.read(size)
        self.text, self.place = self.text[self.place :] + read, 0
        return bool(read)


def _parsed(file: Path, number: int, line: bytes) -> Row:
    try:
        written = line.decode("utf-8")
        row = parse_json(written)
    except UnicodeDecodeError as error:
        raise QuestionError(f"{file}, row {number}: not UTF-8 text; save the file as UTF-8.") from error
    except ValueError as error:
        raise QuestionError(f"{file}, row {number}: not JSON ({line_of(error)}); give one object a line.") from error
    return _checked(file, number, row, written)


def _checked(file: Path, number: int, row: Any, written: str) -> Row:
    if not isinstance(row, dict):
        raise QuestionError(f"{file}, row {number}: {kind_of(row)}, not a JSON object; give one object a line.")
    if _SURROGATE.search(written):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise QuestionError(
                f"{file}, row {number}: half a surrogate pair, which is no text; write the letter itself."
            ) from error
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


def line_of(error: BaseException) -> str:
    """The first line of what a library says."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:300] or type(error).__name__
