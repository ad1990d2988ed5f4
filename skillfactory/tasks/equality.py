"""Whether two mathematical answers are equal, by math-verify. Imported in worker processes alone: it loads sympy.

What is parsed is text from strangers: it may take forever or all memory, so call it through tasks.deadline.
"""

import logging
import re

import math_verify

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that no timeout of its own is set
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
_OWN_MATH = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin\{(?:equation|align|displaymath|math)")


def equal(reference: str, answer: str) -> bool:
    """Whether the answer equals the reference; both are LaTeX or plain. False where one of them cannot be read."""
    # Its timeouts are signals, which work in the main thread alone and not while C code runs: the deadline is ours.
    wanted = math_verify.parse(_marked(reference), [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    given = math_verify.parse(_marked(answer), [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    return bool(math_verify.verify(wanted, given, timeout_seconds=None))


# What people write without LaTeX, and math-verify reads as letters or not at all.
_PLAIN = (
    (re.compile(r"\\\$"), ""),  # a sum of money
    (re.compile(r"(?<![\\a-z])(?:sqrt|√)\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*([0-9]+|[a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"π|(?<![\\a-zA-Z])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile("∞"), r"\\infty "),
    (re.compile("≤"), r"\\le "),
    (re.compile("≥"), r"\\ge "),
)


def _marked(text: str) -> str:
    """The text as mathematics: it looks for LaTeX only between marks such as dollars."""
    text = " ".join(text.split())  # what stands on another line would be overlooked
    for written, latex in _PLAIN:
        text = written.sub(latex, text)
    return text if _OWN_MATH.search(text) else f"${text}$"
