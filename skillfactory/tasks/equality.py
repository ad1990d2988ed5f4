"""Whether two mathematical answers are equal, by math-verify. Imported in worker processes alone: it loads sympy.

What is parsed is text from strangers: it may take forever or all memory, so call it through tasks.deadline.
"""

import logging
import re
import unicodedata
from collections.abc import Callable

import math_verify

from skillfactory.tasks.grading import FULL_WIDTH

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that no timeout of its own is set
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
_OWN_MATH = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin\{(?:equation|align|displaymath|math)")


def equal(reference: str, answer: str) -> bool:
    """Whether the answer equals the reference; both are LaTeX or plain. False where one of them cannot be read."""
    # Its timeouts are signals, which work in the main thread alone and not while C code runs: the deadline is ours.
    wanted = math_verify.parse(_marked(reference), [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    given = math_verify.parse(_marked(answer), [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    return bool(math_verify.verify(wanted, given, timeout_seconds=None)) and not _differ(reference, answer)


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
    """The text as mathematics: it looks for LaTeX only between marks such as dollars."""
    text = " ".join(text.translate(FULL_WIDTH).split())  # what stands on another line would be overlooked
    for written, latex in _PLAIN:
        text = written.sub(latex, text)
    return text if _OWN_MATH.search(text) else f"${text}$"
