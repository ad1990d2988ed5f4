"""Reading a file of questions: row number and columns of each row, from JSONL, CSV or Parquet.

A number of a file arrives as text, as it was written where the format keeps that (JSONL, CSV); NaN as null.
"""

import codecs
import csv
import datetime
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from skillfactory.errors import QuestionError
from skillfactory.reading import BrokenFileError, lines, opened, parse_json
from skillfactory.reading import parquet as read_parquet

Rows = Iterator[tuple[int, dict[str, Any]]]
_NEEDED = ("question", "answer")
_OURS = (*_NEEDED, "level", "id", "choices")
_LONGEST_CELL = 2**27  # bytes


def jsonl(path: str) -> Rows:
    """Row number (from 1, blank lines counted) and JSON object of every line that is not blank."""
    for row, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            # Numbers stay text, so that an answer 1.50 or 1e400 arrives as it was written.
            data = parse_json(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_constant)
        except UnicodeDecodeError as error:
            raise QuestionError(f"{path}, row {row}: not UTF-8 text.") from error
        except ValueError as error:
            raise QuestionError(f"{path}, row {row}: not JSON ({error}); give one object a line.") from error
        if not isinstance(data, dict):
            raise QuestionError(f"{path}, row {row}: not a JSON object but {kind(data)}; give `question` and `answer`.")
        yield row, data


def table(path: str, needed: Sequence[str] = _NEEDED) -> Rows:
    """Row number (the header is row 1, as a spreadsheet shows it) and cells of a CSV file; an empty cell is None.

    Raises QuestionError where a column that is `needed` is not there.
    """
    csv.field_size_limit(max(_LONGEST_CELL, csv.field_size_limit()))
    cells = csv.reader(_text_lines(path), strict=True)
    header: list[str] = []
    row = 0
    while True:
        row += 1
        try:
            line = next(cells, None)
        except csv.Error as error:
            raise QuestionError(
                f"{path}, row {row}: not CSV ({str(error).partition(' - ')[0]}); {_mend(error)}."
            ) from error
        if line is None:
            return
        if not header:
            header = [name.strip() for name in line]
            if line:
                _check_columns(
                    path, header, needed, "separate the cells by commas and name the columns in the first row"
                )
        elif line and len(line) != len(header):
            raise QuestionError(
                f"{path}, row {row}: {len(line)} cells, but the first row names {len(header)} columns; "
                "quote cells that hold commas."
            )
        elif line:
            yield row, {name: cell or None for name, cell in zip(header, line, strict=True)}


def parquet(path: str, needed: Sequence[str] = _NEEDED) -> Rows:
    """Row number (from 1) and values of a Parquet file, which is read a thousand rows at a time.

    Raises QuestionError where a column that is `needed` is not there.
    """

    def check(names: list[str]) -> None:
        _check_columns(path, names, needed, "rename the columns of the file")

    _opened(path).close()
    row = 0
    try:
        for schema, some in read_parquet(Path(path), 1000, check):
            narrow = [field for field in schema if "float" in str(field.type)]  # 16 or 32 bits, or in a list
            for data in some:
                row += 1
                for field in narrow:
                    data[field.name] = _shortest(data[field.name], field.type)
                try:
                    yield row, columns(data)
                except QuestionError as error:
                    raise QuestionError(f"{path}, row {row}: {error}") from error
    except BrokenFileError as error:
        raise QuestionError(f"{path} is not a Parquet file that can be read ({error}); write it again.") from error


READERS: dict[str, Callable[[str], Rows]] = {"jsonl": jsonl, "csv": table, "parquet": parquet}


def kind(value: object) -> str:
    """What a value is, in a user's words."""
    words = {bool: "true or false", list: "a list", dict: "an object", str: "text", bytes: "bytes", type(None): "null"}
    return words.get(type(value), f"a value of type {type(value).__name__}")


def columns(data: Mapping[str, Any]) -> dict[str, Any]:
    """A row's columns as JSON can hold them; those of bytes only where they are ours, which then is an error.

    Raises QuestionError naming the column that cannot be written.
    """
    found = {}
    for name, value in data.items():
        if isinstance(value, bytes) and name not in _OURS:
            continue
        try:
            found[name] = value if isinstance(value, bytes) else written(value)
        except ValueError as error:
            raise QuestionError(f"column `{name}` holds {error}; write it as text, or leave the column out.") from error
    return found


def written(value: Any) -> Any:
    """A value as JSON can hold it: numbers, dates and times as text, at any depth; NaN as None; bytes left out.

    A whole number loses the point that a column with gaps gives it. Raises ValueError saying what cannot be written.
    """
    if type(value).__module__ == "numpy":
        value = float(str(value)) if type(value).__name__ in ("float16", "float32") else value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict):
        return {str(key): written(inner) for key, inner in value.items() if not isinstance(inner, bytes)}
    if isinstance(value, list | tuple):
        return [written(inner) for inner in value if not isinstance(inner, bytes)]
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise ValueError("an infinite number")
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | datetime.timedelta | uuid.UUID):
        return str(value)
    raise ValueError(kind(value))


def _shortest(value: Any, type_: Any) -> Any:
    """The float that a number of fewer bits is written as (0.1, not 0.10000000149011612), also within lists."""
    import numpy as np

    if value is None or str(type_) == "double":
        return value
    if str(type_) in ("float", "halffloat"):
        return float(str((np.float32 if str(type_) == "float" else np.float16)(value)))
    if isinstance(value, dict):
        return {name: _shortest(inner, type_.field(name).type) for name, inner in value.items()}
    if isinstance(value, list) and hasattr(type_, "value_type"):
        return [_shortest(inner, type_.value_type) for inner in value]
    return value


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no number")


def _mend(error: csv.Error) -> str:
    if "new-line" in str(error):
        return "save it with the line ends of Unix or Windows"
    if "field limit" in str(error):
        return f"a cell may have {_LONGEST_CELL:,} letters; is a closing quote missing?"
    return "quote cells that hold commas or quotes"


def _check_columns(path: str, columns: list[str], needed: Sequence[str], mend: str) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise QuestionError(f"{path} has two columns named `{twice}`; rename one.")
    for name in needed:
        if name not in columns:
            raise QuestionError(f"{path} has no column `{name}` (it has: {', '.join(columns)}); {mend}.")


def _opened(path: str) -> Any:
    try:
        return opened(Path(path))
    except IsADirectoryError as error:
        raise QuestionError(f"Question file {path} cannot be read: it is a folder; name a file in it.") from error
    except OSError as error:
        raise QuestionError(
            f"Question file {path} cannot be read: {error.strerror}; mend the task's `path`."
        ) from error


def _lines(path: str) -> Iterator[bytes]:
    with _opened(path) as file:
        try:
            for number, line in enumerate(lines(file)):
                yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        except BrokenFileError as error:
            raise QuestionError(f"{path}: {error}; are the ends of lines missing?") from error


def _text_lines(path: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise QuestionError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8.") from error
