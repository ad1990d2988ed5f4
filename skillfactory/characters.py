"""Characters of other people's texts that are never passed on: a terminal would obey them, a file cannot hold them."""

import re

# Control characters can move the cursor or change the title; bidirectional ones can turn text around; halves of
# characters and non-characters cannot be encoded, or not stand in XML.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_HALF = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean(text: str) -> str:
    """Text that is safe to print: control characters except newline and tab, and what is no character, are replaced."""
    return _CONTROL.sub(_REPLACEMENT, text)


def whole(text: str) -> str:
    """Text that can be encoded: halves of surrogate pairs, which JSON can spell (`\\ud800`), are replaced."""
    return _HALF.sub(_REPLACEMENT, text)


def one_line(text: str, longest: int = 200) -> str:
    """At most so many characters of a stranger's text, on one line, safe to print, and without a full stop."""
    return " ".join(clean(text[: 10 * longest]).split())[:longest].rstrip(". ")
