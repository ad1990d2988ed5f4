"""One answer extraction for every task (docs/verifiers.md has the table of decided cases)."""

import re

from skillfactory import tags

_OURS = re.compile(r"</?(?:sample|reflect|think)>", re.IGNORECASE)
_OPEN, _CLOSE = "<answer>", "</answer>"
_LANGUAGE = re.compile(r"[A-Za-z]*\s*")
# What may stand around a whole answer without changing it.
_AROUND = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_BOXES = ("\\boxed{", "\\fbox{")
_DEEPEST = 8  # wrappings inside each other
_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"  # characters of no width: no spaces to Python, but none to a reader either
LONGEST_ANSWER = 2000


def extract_answer(text: str) -> str | None:
    """The final answer of a completion, or None.

    Where the text thinks, only what follows the last `</think>` counts, and a text cut inside its thinking has none.
    There the last complete `<answer>…</answer>` is taken, and what is wrapped around its whole text is stripped; see
    `unwrap`. Takes time in proportion to the text's length.
    """
    if "<think>" in text or "</think>" in text:
        _, closed, text = text.rpartition("</think>")
        if not closed or "<think>" in text:
            return None
    # The last opening tag that is ever closed has no other opening tag before its closing one: the innermost pair.
    start = text.rfind(_OPEN, 0, max(0, text.rfind(_CLOSE)))
    if start < 0:
        return None
    start += len(_OPEN)
    answer = text[start : text.find(_CLOSE, start)].strip()
    if len(answer) > LONGEST_ANSWER:
        return None
    return unwrap(answer) or None


def unwrap(text: str) -> str:
    r"""Text without blanks, a code fence, back-ticks, bold stars, dollars, `\(…\)`, `\[…\]` or `\boxed{…}` around it.

    They are stripped where they enclose the whole of it: `$a$ and $b$` stays as it is.
    """
    for _ in range(_DEEPEST):
        text = text.strip()
        if not text.isascii():
            text = text.strip(_UNSEEN).strip()
        if not text or text[0] not in "$\\*`":
            break
        inner = _inside(text)
        if inner is None:
            break
        text = inner
    return text


def _inside(text: str) -> str | None:
    """What is inside the wrapping of the whole text, or None where there is none."""
    if text.startswith("```"):
        inner = text[3:-3]
        if len(text) < 6 or not text.endswith("```") or "```" in inner:
            return None
        first, line_break, rest = inner.partition("\n")
        return rest if line_break and _LANGUAGE.fullmatch(first) else inner
    for opening, closing in _AROUND:
        if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening + closing):
            inner = text[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                return inner
    for box in _BOXES:
        if text.startswith(box) and text.endswith("}") and _is_balanced(text[len(box) : -1]):
            return text[len(box) : -1]
    return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def has_trace_tags(text: str) -> bool:
    """Whether a text holds tags that only traces may hold (or is longer than any): such a piece is malformed."""
    return len(text) > tags.LONGEST or _OURS.search(text) is not None
