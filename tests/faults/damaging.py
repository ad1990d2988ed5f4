"""Ways in which a file gets damaged."""

from pathlib import Path


def flip(file: Path) -> None:
    """Another bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    """Only the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    """A file of no bytes."""
    file.write_bytes(b"")


def lose(file: Path) -> None:
    """No file."""
    file.unlink()


def twice(file: Path) -> None:
    """A copy beside a shard, under a shard's name."""
    file.with_name("part-00077.parquet").write_bytes(file.read_bytes())
