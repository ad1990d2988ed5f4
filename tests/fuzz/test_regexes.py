"""Every regular expression that reads what a stranger wrote takes time in proportion to the text, as it is used."""

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import skillfactory

ROOT = Path(skillfactory.__file__).parent
READ = [*sorted((ROOT / "tasks").glob("*.py")), ROOT / "tags.py", *sorted((ROOT / "curation").glob("*.py")),
        ROOT / "evaluation" / "markers.py", ROOT / "training" / "reward.py"]  # fmt: skip
LENGTH = 8_000  # characters
SECONDS = 0.01  # of the processor; a text that takes more is tried again, four times as long
LONGER = 4
BOUNDED = {  # quadratic, or so by their looks, and never given a long text
    "tasks/texts.py: _DECIMAL": "at most 400 characters (arithmetic.LONGEST)",
}
METHODS = ("search", "match", "fullmatch", "findall", "finditer", "sub", "split")


def _module(path: Path) -> Any:
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "reasoning_gym":
            raise
        return None  # nothing to try


def _used(path: Path) -> dict[str, set[str]]:
    """The names of a module's own patterns, and the methods that are called on each."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
            found.setdefault(node.value.id, set()).add(node.attr)
    return found


def patterns() -> Iterator[tuple[str, re.Pattern[Any], set[str]]]:
    """Where a pattern stands, the pattern, and how it is used; a name that is handed on is used in every way."""
    for path in READ:
        where = path.relative_to(ROOT).as_posix()
        used = _used(path)
        named = {name: value for name, value in vars(_module(path) or object).items() if isinstance(value, re.Pattern)}
        for name, pattern in named.items():
            yield f"{where}: {name}", pattern, used.get(name, {"finditer"})
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            constant = node.args[0]
            inline = ast.unparse(node.func).startswith("re.") and node.func.attr in METHODS
            if inline and isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield f"{where}: line {node.lineno}", re.compile(constant.value), {node.func.attr}


def pieces(pattern: str) -> list[str]:
    """What a text that leads a pattern astray may be made of: its own letters and words, and others."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[dDwWsSbB]", " ", pattern))
    letters = [each for each in "<>/\\{}()[]$^_=.,;:+-*'\"°×|~!?#% \n019aAxX" if each in pattern or each in " 1a"]
    return list(dict.fromkeys([*letters, *words, "1 ", "a ", " ,", "\\text{", "<answer>", "é", "\u0301"]))


def attacks(pattern: str) -> Iterator[Callable[[int], str]]:
    """Texts of any length."""
    found = pieces(pattern)
    for piece in found:
        yield lambda n, piece=piece: piece * (n // len(piece))
        yield lambda n, piece=piece: found[0] + piece * (n // len(piece)) + "\0"
        for other in found[::2]:
            yield lambda n, both=piece + other: both * (n // len(both)) + "\0"
            yield lambda n, one=piece, two=other: one * (n // 2 // len(one)) + two * (n // 2 // len(two)) + "\0"


def _spent(pattern: re.Pattern[Any], method: str, text: str) -> float:
    """Seconds of the processor, in the best of three times."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        _apply(pattern, method, text)
        found.append(time.thread_time() - began)
        if not SECONDS < found[-1] < 50 * SECONDS:  # clear enough
            break
    return min(found)


def _apply(pattern: re.Pattern[Any], method: str, text: str) -> None:
    if method == "finditer":
        for _ in pattern.finditer(text):
            pass
    elif method == "sub":
        pattern.sub("", text)
    else:
        getattr(pattern, method)(text)


ALL = list(patterns())


@pytest.mark.parametrize(("where", "pattern", "methods"), ALL, ids=[where for where, _, _ in ALL])
def test_no_pattern_backtracks_without_end(where: str, pattern: re.Pattern[Any], methods: set[str]) -> None:
    if where in BOUNDED or not isinstance(pattern.pattern, str):
        return
    for attack in attacks(pattern.pattern):
        for method in methods:
            first = _spent(pattern, method, attack(LENGTH))
            if first > SECONDS:
                again = _spent(pattern, method, attack(LONGER * LENGTH))
                assert again < 2 * LONGER * first, (method, first, again, attack(40))


def test_the_test_finds_a_bad_one() -> None:
    for bad in (r"\s+$", r"[0-9]+="):
        with pytest.raises(AssertionError):
            test_no_pattern_backtracks_without_end("", re.compile(bad), {"search"})
    assert len(ALL) > 60
