"""Whether two mathematical answers are equal, by math-verify. Imported in worker processes alone: it loads sympy.

What is parsed is text from strangers: it may take forever or all memory, so call it through tasks.deadline.
"""

import contextlib
import logging
import re
import resource
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import math_verify

from skillfactory.tasks.mathematics import ABOUT, unboxed
from skillfactory.tasks.texts import FULL_WIDTH

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that no timeout of its own is set
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
MEMORY = 100 * 2**20  # bytes that one comparison may take beyond what is loaded
_OWN_MATH = re.compile(r"\\boxed|\\begin\{(?:equation|align|displaymath|math)")
_MARK = re.compile(r"\$|(?<!\\)\\[()\[\]]")


def equal(reference: str, answer: str) -> bool:
    """Whether the answer equals the reference; both are LaTeX or plain. False where one of them cannot be read."""
    with _limited_memory():
        wanted = _parsed(reference)
        if "=" not in reference and not _agree(wanted, answer):
            return False
        return _verified(wanted, _parsed(answer)) and not _differ(reference, answer)


def _parsed(text: str) -> list[Any]:
    # Its timeouts are signals, which work in the main thread alone and not while C code runs: the deadline is ours.
    return list(math_verify.parse(_marked(text), [math_verify.LatexExtractionConfig()], parsing_timeout=None))


def _verified(wanted: list[Any], given: list[Any]) -> bool:
    return bool(math_verify.verify(wanted, given, timeout_seconds=None))


def _agree(wanted: list[Any], answer: str) -> bool:
    r"""Whether the sides of an equation say one thing, of which only one would be looked at.

    Sides that are numbers, as in `\sqrt{36} = 6`, are equal or round to each other; sides in the letters of the
    reference equal it. Others, such as `f(2)` or `\pi r^2`, may be anything.
    """
    same = ABOUT.sub("=", answer)
    if "=" not in same:
        return True
    slack = 0.01 if "." in answer or same != answer else 1e-9
    letters: set[Any] = getattr(wanted[0], "free_symbols", set()) if wanted else set()
    values = []
    for side in same.split("="):
        found = [] if _NAME.fullmatch(side.strip(" $")) else _parsed(side)
        if found and letters and letters >= getattr(found[0], "free_symbols", {None}) and not _verified(wanted, found):
            return False
        if found and getattr(found[0], "is_number", False):
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                values.append(complex(found[0]))
    return all(abs(value - values[0]) <= slack * max(abs(value), abs(values[0])) for value in values)


_NAME = re.compile(r"(?!\\pi$|π$|pi$)\\?[^\W\d_]*")  # `e = 5` names a number e


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Where the system tells how much there is."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


# What math-verify overlooks: it takes letters of either case for the same, and leaves out the base of a number.
_SETTING = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|(?<=[0-9])[eE](?=[-+]?[0-9])")
_LETTER = re.compile(r"\\[A-Za-z]+|[^\W\d_]")
_GREEK = re.compile(
    r"\\(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi"
    r"|psi|omega)",
    re.IGNORECASE,
)
_BASE = re.compile(r"[0-9]\s*_\s*\{?\s*([0-9]+)")


def _differ(reference: str, answer: str) -> bool:
    """Whether a letter of both is written in another case, or a number of both has another base."""
    if ("=" in reference) != ("=" in answer):  # the name before it may be anything: `S = s^2`
        reference, answer = reference.rpartition("=")[2], answer.rpartition("=")[2]
    reference, answer = _marked(reference), _marked(answer)
    wanted, given = _letters(reference), _letters(answer)
    if any(wanted[letter] != given[letter] for letter in wanted.keys() & given.keys()):
        return True
    bases, others = _BASE.findall(reference), _BASE.findall(answer)
    return bool(bases and others and bases != others)


def _letters(text: str) -> dict[str, set[str]]:
    """The letters of a text, and commands such as \\Delta, by their lower case: {x: {x, X}}."""
    found: dict[str, set[str]] = {}
    for name in _LETTER.findall(_SETTING.sub(" ", text)):
        if name[0] != "\\" or _GREEK.fullmatch(name):
            found.setdefault(name.lower(), set()).add(name)
    return found


def _as_digits(text: str) -> str:
    """Raised or lowered digits, or a fraction of one character, in plain ones."""
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _fraction(found: re.Match[str]) -> str:
    above, _, below = _as_digits(found[0]).partition("⁄")
    return rf"\frac{{{above}}}{{{below}}}"


# What people write without LaTeX, and math-verify reads as letters or not at all.
_PLAIN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\\$"), ""),  # a sum of money
    (re.compile(r"(?<![\\a-z])(?:sqrt|√)\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*([0-9]+|[a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"π|(?<![\\a-zA-Z])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile("∞"), r"\\infty "),
    (re.compile("≤"), r"\\le "),
    (re.compile("≥"), r"\\ge "),
    (re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), lambda found: f"^{{{_as_digits(found[0])}}}"),
    (re.compile("[₀₁₂₃₄₅₆₇₈₉]+"), lambda found: f"_{{{_as_digits(found[0])}}}"),
    (re.compile("[¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"), _fraction),
)


def _marked(text: str) -> str:
    """The text as one formula: it would read those between marks such as dollars, and nothing around them."""
    text = " ".join(text.translate(FULL_WIDTH).split())  # what stands on another line would be overlooked
    for written, latex in _PLAIN:
        text = written.sub(latex, text)
    text = unboxed(text) or text
    return text if _OWN_MATH.search(text) else f"${_MARK.sub(' ', text).strip().removesuffix('.')}$"
