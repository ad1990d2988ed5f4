"""YAML as plain data of bounded size, as people write it for us: no bombs, no loops, no tags that run code.

Deviation from YAML 1.1: `1e-6` is a number, as everywhere else.
"""

import datetime
import errno
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from skillfactory.characters import one_line, whole
from skillfactory.reading import opened

LARGEST = 2**20  # bytes of a file
MOST = 50_000  # values of a file, with all that aliases stand for
DEEPEST = 50  # values within each other
_LONGEST_NUMBER = 400  # characters: more would take minutes, written as `1:1:1…`, which YAML counts by sixties
_TEXT = "tag:yaml.org,2002:str"
_HIGHEST = 2**63  # of whole numbers: what Parquet and JSON readers take
_WORDS = {datetime.date: "a date", datetime.datetime: "a time", bytes: "binary data", set: "a set"}

Place = tuple[str | int, ...]  # where a value stands: ("evaluation", "sets", "hard", "n")
Lines = dict[Place, int]


class NotPlainError(ValueError):
    """Why a text is no plain YAML, and in which line; 0 where that is not known."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.why, self.line = why, line

    def at(self, source: object) -> str:
        """The sentence, with the file that it is about."""
        return f"{source}{f', line {self.line}' if self.line else ''}: {self.why}."


class _Loader(yaml.SafeLoader):
    """Knows plain tags alone, and stops at what is too much before it has read all of it."""

    made = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.made, self.depth = self.made + 1, self.depth + 1
        _bound(self.made, self.depth, self.peek_event().start_mark.line + 1)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_text(path: Path) -> str:
    """The text of a small file. Raises OSError, also for a pipe, a device or a large file, and UnicodeDecodeError."""
    with opened(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST:,} bytes")
    return data.decode("utf-8")


def parse(text: str) -> tuple[Any, Lines]:
    """The data of a YAML document, and the line of every place in it. Raises NotPlainError."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = dict(_places(node))
        data = loader.construct_document(node) if node else None
    except NotPlainError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NotPlainError(f"not valid YAML: {one_line(str(error.problem or error.context))}", line) from error
    except Exception as error:  # whatever a constructor happens to raise: a KeyError for `!!bool maybe`
        raise NotPlainError(f"not valid YAML: {one_line(str(error)) or type(error).__name__}") from error
    finally:
        if loader:
            loader.dispose()
    _check(data, (), lines)
    return data, lines


def _bound(count: int, depth: int, line: int) -> None:
    """Raises NotPlainError for too many values, or too deep ones."""
    if count > MOST:
        raise NotPlainError(f"more than {MOST:,} values, with what aliases stand for", line)
    if depth > DEEPEST:
        raise NotPlainError(f"values more than {DEEPEST} deep, or an alias within what it stands for", line)


def _places(root: yaml.Node | None) -> Iterator[tuple[Place, int]]:
    """Every place in a YAML document with its line, from 1. Raises NotPlainError."""
    count = 0

    def walk(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
        nonlocal count
        count += 1
        line = node.start_mark.line + 1
        _bound(count, len(place), line)
        yield place, line
        if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and len(node.value) > _LONGEST_NUMBER:
            raise NotPlainError("a number has more digits than any may have here; put it in quotes", line)
        if isinstance(node, yaml.MappingNode):
            seen = set[str]()
            for key, value in node.value:
                start = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise NotPlainError("a key must be a word, not a list or a mapping", start)
                if key.tag != _TEXT and len(key.value) > _LONGEST_NUMBER:
                    raise NotPlainError("a key has more digits than any number may have here; quote it", start)
                name = str(key.value)
                if name in seen:
                    raise NotPlainError(f"the key `{one_line(name)}` is there twice; keep one", start)
                seen.add(name)
                yield from walk(value, (*place, name))
                yield (*place, name), start
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                yield from walk(value, (*place, index))

    if root:
        yield from walk(root, ())


def _check(value: Any, place: Place, lines: Lines) -> None:
    """Raises NotPlainError for what JSON, a file name or a later reader of the recipe could not hold."""
    problem = ""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise NotPlainError(f"the key `{one_line(str(key))}` must be text; quote it", _line(place, lines))
            _check(key, place, lines)
            _check(inner, (*place, key), lines)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check(inner, (*place, index), lines)
    elif isinstance(value, str):
        problem = "" if whole(value) == value else "holds half a surrogate pair, which is no text"
    elif isinstance(value, float):
        problem = "" if math.isfinite(value) else f"is {value}, which is no number to work with"
    elif isinstance(value, int):
        problem = "" if abs(value) < _HIGHEST else "has more digits than a whole number may have here"
    elif value is not None:
        problem = f"is {_WORDS.get(type(value), 'no plain value')}; put it in quotes"
    if problem:
        where = one_line(".".join(map(str, place)))
        raise NotPlainError(f"`{where}` {problem}" if where else f"it {problem}", _line(place, lines))


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """The texts in plain data, keys among them, with their places."""
    if isinstance(value, str):
        yield place, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from texts(each, (*place, key))
        if isinstance(key, str):
            yield (*place, key), key


def _line(place: Place, lines: Lines) -> int:
    return next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 0)
