"""The tags of traces in a text: attempts, reflections and verdicts, whoever wrote them, in whatever order.

A block runs from its opening tag to the next closing tag of its kind, unless another block opens first: then it is
broken, and nothing is read from it. One pass over the text, in time proportional to its length.
"""

import re
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["sample", "reflect", "broken"]

_TAG = re.compile(r"<(/?)(sample|reflect)>")
_VERDICT = re.compile(r"<verdict>\s*(correct|incorrect)\s*</verdict>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Block:
    """One tagged stretch of a response: `response[start:end]` with its tags, `text` without."""

    kind: BlockKind
    start: int
    end: int
    text: str


def blocks(text: str) -> tuple[list[Block], int]:
    """Samples and reflections in reading order, and how many tags fit nowhere. A block cut by the end is none."""
    found: list[Block] = []
    stray = 0
    opened: re.Match[str] | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            if opened:
                stray += 1
                found.append(Block("broken", opened.start(), tag.start(), text[opened.end() : tag.start()]))
            opened = tag
        elif opened and opened[2] == tag[2]:
            kind: BlockKind = "sample" if tag[2] == "sample" else "reflect"
            found.append(Block(kind, opened.start(), tag.end(), text[opened.end() : tag.start()]))
            opened = None
        else:
            stray += 1
    return found, stray


def verdict_of(reflection: str) -> str:
    """The last verdict in a reflection: "correct", "incorrect", or "" for none."""
    verdict = ""
    for match in _VERDICT.finditer(reflection):
        verdict = match[1].lower()
    return verdict
