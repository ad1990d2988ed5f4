"""Other people's data files: opened so that they end, in lines that fit into memory, as JSON that says a thing once."""

import errno
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from skillfactory.characters import one_line
from skillfactory.errors import SkillFactoryError

if TYPE_CHECKING:
    import pyarrow

LONGEST_LINE = 2**27  # bytes
_LARGEST_GROUP = 2**30  # bytes of one row group, beyond which it must be plausible
_BEST_PACKED = 500  # times; text comes to 10 or less
_BUFFER = 2**20  # bytes read of a column at once: without it, all of a row group's


class BrokenFileError(ValueError):
    """What is wrong with a file, in words; whoever knows what the file is for adds that."""


def opened(path: Path) -> IO[bytes]:
    """The file, to read. Raises OSError, also for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    return path.open("rb")


def lines(file: IO[bytes]) -> Iterator[bytes]:
    """Its lines, with their ends. Raises BrokenFileError at one that is longer than any text."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
        if len(line) == LONGEST_LINE:
            raise BrokenFileError(f"row {number} is longer than {LONGEST_LINE:,} bytes")
        yield line


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where it has two values of one name: readers differ in which they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"`{one_line(twice)}` is there twice")
    return found


def parse_json(text: str, **options: Any) -> Any:
    """The value of a JSON text. Raises ValueError in words of one line."""
    try:
        return json.loads(text, object_pairs_hook=unique, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def check_rows(path: Path) -> None:
    """Raises BrokenFileError for JSON lines of which one is null: pyarrow's reader dies of them, and Python with it."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            start = line.removeprefix(b"\xef\xbb\xbf").lstrip()[:4]
            if start == b"null":
                raise BrokenFileError(f"row {number} is null; give one object a line")
            if path.suffix == ".json" and start[:1] == b"[":
                return  # one list, which is read otherwise


def parquet(
    path: Path, rows: int, choose: Callable[[list[str]], list[str] | None]
) -> "Iterator[tuple[pyarrow.Schema, list[dict[str, Any]]]]":
    """Some rows at a time of a Parquet file, and their schema; of the columns that `choose` takes of all, None for all.

    Raises OSError where it cannot be opened, BrokenFileError where it cannot be read, and what `choose` raises.
    """
    import pyarrow.parquet as pq

    opened(path).close()
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            if file.metadata.num_rows:
                wanted = choose(file.schema_arrow.names)
                _check_sizes(file.metadata, path.stat().st_size)
                for batch in file.iter_batches(batch_size=rows, columns=wanted):
                    if batch.num_rows:
                        yield batch.schema, batch.to_pylist()
    except (SkillFactoryError, BrokenFileError):
        raise
    except MemoryError as error:
        raise BrokenFileError("unpacking it takes more memory than there is") from error
    except Exception as error:  # ArrowException, OSError, and what a value that Python cannot hold raises
        raise BrokenFileError(one_line(str(error).strip().partition("\n")[0]) or type(error).__name__) from error


def _check_sizes(metadata: Any, packed: int) -> None:
    """Raises BrokenFileError for a file of `packed` bytes that would unpack to far more than any text does.

    Columns are not asked: pyarrow ends the process on one whose statistics are damaged.
    """
    for group in range(metadata.num_row_groups):
        unpacked = metadata.row_group(group).total_byte_size
        if unpacked > max(_LARGEST_GROUP, _BEST_PACKED * packed):
            raise BrokenFileError(f"its rows unpack from {packed:,} to {unpacked:,} bytes, which no text does")
