"""Records as Parquet rows: the schema follows from the dataclass, nested lists and records included."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from skillfactory.errors import StoreError

if TYPE_CHECKING:
    import pyarrow

R = TypeVar("R")


@cache
def schema_of(kind: type) -> "pyarrow.Schema":
    """The Arrow schema of a record: one column a field, in the order of the fields."""
    import pyarrow

    hints = get_type_hints(kind)
    return pyarrow.schema([(field.name, _arrow(hints[field.name])) for field in dataclasses.fields(kind)])


def _arrow(hint: Any) -> "pyarrow.DataType":
    import pyarrow

    plain = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    if hint in plain:
        return plain[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return pyarrow.string()
    if origin is list:
        return pyarrow.list_(_arrow(args[0]))
    if origin in (Union, UnionType):
        return _arrow(next(arg for arg in args if arg is not NoneType))
    if dataclasses.is_dataclass(hint) or is_typeddict(hint):
        return pyarrow.struct([(name, _arrow(part)) for name, part in get_type_hints(hint).items()])
    raise TypeError(f"no column type for {hint!r}")


def to_parquet(rows: Sequence[Any]) -> bytes:
    """One or more records of one kind as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    kind: type = type(rows[0])
    hints = get_type_hints(kind)
    columns = {name: _plain([getattr(row, name) for row in rows], hint) for name, hint in hints.items()}
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table(columns, schema_of(kind))
    pyarrow.parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _plain(values: list[Any], hint: Any) -> list[Any]:
    """A column as Arrow takes it: lists of records become lists of mappings."""
    inner = get_args(hint)[0] if get_origin(hint) is list else None
    if not (isinstance(inner, type) and dataclasses.is_dataclass(inner)):
        return values
    names = [field.name for field in dataclasses.fields(inner)]
    return [[{name: getattr(each, name) for name in names} for each in value] for value in values]


def count(data: bytes) -> int:
    """The number of rows of a Parquet file, from its footer."""
    import pyarrow
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(pyarrow.BufferReader(data)).num_rows)


def from_parquet(data: bytes | Path, columns: Sequence[str] | None = None) -> "pyarrow.Table":
    """The table of a Parquet file, or some of its columns. Raises ArrowInvalid (a ValueError) where it is damaged."""
    import pyarrow
    import pyarrow.parquet

    source = pyarrow.BufferReader(data) if isinstance(data, bytes) else data
    with pyarrow.parquet.ParquetFile(source, page_checksum_verification=True) as file:
        return file.read(columns=None if columns is None else list(columns))


def to_records(table: "pyarrow.Table", kind: type[R], where: str) -> list[R]:
    """Rows as records; columns that `kind` does not know are left out. Raises StoreError where one is missing."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    known = [field.name for field in fields if field.name in table.column_names]
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in known]:
        raise StoreError(f"{where} has no column `{missing[0]}`; it was written by another version.")
    restore = {name: make for name, hint in get_type_hints(kind).items() if (make := _restorer(hint)) is not None}
    rows = table.select(known).to_pylist()
    if restore:
        for row in rows:
            row.update({name: make(row[name]) for name, make in restore.items() if name in row})
    return [kind(**row) for row in rows]


def _restorer(hint: Any) -> Callable[[Any], Any] | None:
    """What turns a column's plain value back into `hint`; None where it already is."""
    if get_origin(hint) is list:
        inner = _restorer(get_args(hint)[0])
        return None if inner is None else lambda values: [inner(value) for value in values]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return lambda value: hint(**value)
    return None
