"""Reading a file of questions: row number and columns of each row, from JSONL, CSV or Parquet.

A number of a file arrives as text, as it was written where the format keeps that (JSONL, CSV).
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from skillfactory.errors import QuestionError

Rows = Iterator[tuple[int, dict[str, Any]]]
_NEEDED = ("question", "answer")


def jsonl(path: str) -> Rows:
    """Row number (from 1, blank lines counted) and JSON object of every line that is not blank."""
    for row, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            # Numbers stay text, so that an answer 1.50 or 1e400 arrives as it was written.
            data = json.loads(line.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=str)
        except UnicodeDecodeError as error:
            raise QuestionError(f"{path}, row {row}: not UTF-8 text.") from error
        except (ValueError, RecursionError) as error:
            raise QuestionError(f"{path}, row {row}: not JSON ({error}); give one object a line.") from error
        if not isinstance(data, dict):
            raise QuestionError(f"{path}, row {row}: not a JSON object but {kind(data)}; give `question` and `answer`.")
        yield row, data


def table(path: str) -> Rows:
    """Row number (the header is row 1, as a spreadsheet shows it) and cells of a CSV file; an empty cell is None."""
    cells = csv.reader(_text_lines(path), strict=True)
    header: list[str] = []
    row = 0
    while True:
        row += 1
        try:
            line = next(cells, None)
        except csv.Error as error:
            raise QuestionError(
                f"{path}, row {row}: not CSV ({error}); quote cells that hold commas or quotes."
            ) from error
        if line is None:
            return
        if not header:
            header = [name.strip() for name in line]
            if line:
                _check_columns(path, header, "separate the cells by commas and name the columns in the first row")
        elif line and len(line) != len(header):
            raise QuestionError(
                f"{path}, row {row}: {len(line)} cells, but the first row names {len(header)} columns; "
                "quote cells that hold commas."
            )
        elif line:
            yield row, {name: cell or None for name, cell in zip(header, line, strict=True)}


def parquet(path: str) -> Rows:
    """Row number (from 1) and values of a Parquet file, which is read a thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _opened(path) as source:
        try:
            file = pq.ParquetFile(source)
            if file.metadata.num_rows:
                _check_columns(path, file.schema_arrow.names, "rename the columns of the file")
            row = 0
            for batch in file.iter_batches(batch_size=1000):
                for data in batch.to_pylist():
                    row += 1
                    yield row, {name: _written(value) for name, value in data.items()}
        except (pa.ArrowException, OSError) as error:
            told = str(error).partition("\n")[0].rstrip(".")
            raise QuestionError(f"{path} is not a Parquet file that can be read ({told}); write it again.") from error


READERS: dict[str, Callable[[str], Rows]] = {"jsonl": jsonl, "csv": table, "parquet": parquet}


def kind(value: object) -> str:
    """What a value is, in a user's words."""
    return {bool: "true or false", list: "a list", dict: "an object", str: "text", type(None): "null"}.get(
        type(value), f"a value of type {type(value).__name__}"
    )


def _check_columns(path: str, columns: list[str], mend: str) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise QuestionError(f"{path} has two columns named `{twice}`; rename one.")
    for name in _NEEDED:
        if name not in columns:
            raise QuestionError(f"{path} has no column `{name}` (it has: {', '.join(columns)}); {mend}.")


def _opened(path: str) -> Any:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise QuestionError(f"Question file {path} cannot be read: {error.strerror}.") from error


def _lines(path: str) -> Iterator[bytes]:
    with _opened(path) as file:
        for number, line in enumerate(file):
            yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line


def _text_lines(path: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise QuestionError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8.") from error


def _written(value: Any) -> Any:
    """A number as text; a whole one without the point that a column with gaps gives it."""
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value
