"""Files that appear whole or not at all, and the errors of a disk in the user's words."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillfactory.characters import one_line
from skillfactory.errors import RecipeError, SkillFactoryError, StoreError

TEMPORARY = ".tmp-"  # start of the name of every file that is still being written
_HALVES = "backslashreplace"  # of surrogate pairs, as in names of files: `\udc80`, as JSON spells them
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}

_SLICES, _SLICE = 64, 65536  # of large weights, in bytes


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn a full or read-only disk into a StoreError that names `what` was being written; other errors pass.

    Libraries often wrap the system's error, so its causes are looked through as well.
    """
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number in _FULL:
            raise StoreError(
                f"Disk full while writing {what}; free some space and run the same command again, "
                "finished work is kept."
            ) from error
        if number in _DENIED:
            raise StoreError(f"No permission to write {what}; choose another folder or change its rights.") from error
        raise


@contextmanager
def named() -> Iterator[None]:
    """Turn a file of the recipe's that cannot be read into a RecipeError that names it. Also a decorator."""
    try:
        yield
    except OSError as error:
        if error.filename is None or isinstance(error, SkillFactoryError):
            raise
        name = one_line(str(error.filename), 100)
        raise RecipeError(f"`{name}`, which the recipe names, cannot be read: {error.strerror}.") from error


def _errno(error: BaseException | None) -> int | None:
    """The system's error number behind an exception, or None. Compiled libraries keep it only in their text."""
    for _ in range(10):
        if error is None:
            return None
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        text = str(error)
        for number in _FULL:
            if os.strerror(number) in text or f"os error {number})" in text:
                return number
        error = error.__cause__ or error.__context__
    return None


def write_atomic(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the folder: a kill at any moment leaves the old file or the whole new one."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with told(str(path)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, data: object) -> None:
    """Indented UTF-8 JSON, written atomically."""
    write_atomic(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8", _HALVES))


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises StoreError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing; run the stage that writes it.") from error
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged ({error}); `skillfactory doctor RUN --repair`, of its run, mends what it can."
        ) from error


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def digest_of(*parts: object) -> str:
    """32 hex digits that are equal for equal JSON content, whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", _HALVES), digest_size=16).hexdigest()


def model_fingerprint(folder: Path) -> str:
    """Identity of a model folder's content, whatever its dates.

    Every file whole; of large weights the size, the header and slices. Training changes all weights, so slices tell two
    checkpoints apart, and reading tens of GB at each start would take minutes.
    """
    found: list[tuple[str, int, str]] = []
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in {".json", ".jinja", ".model", ".safetensors", ".bin"}
    ):
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= 100_000_000:
                content = file.read()
            else:  # a safetensors file starts with the length of its header: 8 bytes, little-endian
                content = file.read(8)
                content += file.read(min(int.from_bytes(content, "little"), 50_000_000))
                for number in range(_SLICES):
                    file.seek(size * number // _SLICES)
                    content += file.read(_SLICE)
        found.append((path.name, size, sha256(content)))
    return digest_of(found)
