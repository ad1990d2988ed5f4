"""The tags of traces in a text: attempts, reflections and verdicts, whoever wrote them, in whatever order.

A block runs from its opening tag to the next closing tag of its kind. Where one of the two is missing, but what the
block is for (an attempt's answer, a reflection's verdict) is complete, it is read all the same: RL, which pays for the
final answer alone, often lets a tag go and keeps the skill. Else nothing is read. One pass over the text, in time
proportional to its length. No response is as long as LONGEST or has as many tags as MOST_TAGS: what is longer has no
blocks, and what comes after so many tags is not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

BlockKind = Literal["sample", "reflect", "broken"]
LONGEST = 1_000_000  # characters
MOST_TAGS = 10_000

_THINK, _END = "<think>", "</think>"
_TAG = re.compile(r"<(/?)(sample|reflect)>")
_VERDICT = re.compile(r"<verdict>\s*(correct|incorrect)\s*</verdict>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<(/?)answer>")


@dataclass(frozen=True, slots=True)
class Block:
    """One stretch of a response: `response[start:end]` with its tags, `text` without; "broken" for nothing to read."""

    kind: BlockKind
    start: int
    end: int
    text: str


def blocks(text: str) -> tuple[list[Block], int]:
    """Samples and reflections in reading order, and how many tags are missing or fit nowhere.

    A block whose opening tag is missing begins where the one before it ended. One that the text leaves open ends with
    the thinking, or with the text; its closing tag is not counted as missing here (see `missing_tags`).
    """
    found: list[Block] = []
    stray = 0
    opened: re.Match[str] | None = None
    free = 0  # where the text begins that belongs to no block yet
    for tag in _tags(_TAG, text):
        kind: BlockKind = "sample" if tag[2] == "sample" else "reflect"
        if not tag[1]:
            if opened:
                stray += 1
                found.append(_unclosed(opened, text[opened.end() : tag.start()]))
            opened, free = tag, tag.start()
        elif opened and opened[2] == tag[2]:
            found.append(Block(kind, opened.start(), tag.end(), text[opened.end() : tag.start()]))
            opened, free = None, tag.end()
        else:
            stray += 1
            if opened is None:
                thought = text.rfind(_THINK, free, tag.start())
                start = free if thought < 0 else thought + len(_THINK)
                if _is_whole(kind, text[start : tag.start()]):
                    found.append(Block(kind, start, tag.end(), text[start : tag.start()]))
                free = tag.end()
    if opened:
        thought = text.find(_END, opened.end())
        last = _unclosed(opened, text[opened.end() : len(text) if thought < 0 else thought])
        found += [last] if last.kind != "broken" else []
    return found, stray


def _tags(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    return islice(pattern.finditer(text), MOST_TAGS if len(text) <= LONGEST else 0)


def missing_tags(text: str, cut: bool) -> int:
    """How many tags of a response are missing or fit nowhere. One that was `cut` off owes no closing tag at its end."""
    return blocks(text)[1] + (not cut and unfinished(text) < len(text))


def bare(text: str) -> str:
    """A block's text without tags of thinking: it is graded by itself, wherever thinking began or ended in it."""
    return text.replace(_THINK, "").replace(_END, "")


def _unclosed(opened: re.Match[str], inner: str) -> Block:
    """A block in which another one opens before it is closed."""
    kind: BlockKind = "sample" if opened[2] == "sample" else "reflect"
    return Block(kind if _is_whole(kind, inner) else "broken", opened.start(), opened.end() + len(inner), inner)


def _is_whole(kind: BlockKind, text: str) -> bool:
    """Whether a stretch of text holds what a block of this kind is for."""
    return bool(verdict_of(text)) if kind == "reflect" else "<answer>" in text and "</answer>" in text


def plain_answers(text: str) -> list[str]:
    """Every complete `<answer>…</answer>` of a text, each on its own; an opening tag inside one starts it anew."""
    found: list[str] = []
    start: int | None = None
    for tag in _tags(_ANSWER_TAG, text):
        if not tag[1]:
            start = tag.start()
        elif start is not None:
            found.append(text[start : tag.end()])
            start = None
    return found


def verdict_of(reflection: str) -> str:
    """The last verdict in a reflection: "correct", "incorrect", or "" for none."""
    verdict = ""
    for match in _tags(_VERDICT, reflection):
        verdict = match[1].lower()
    return verdict


def unfinished(text: str) -> int:
    """Where a block begins that is still open at the end of a text; the text's length where none is."""
    opened: re.Match[str] | None = None
    for tag in _tags(_TAG, text):
        if not tag[1]:
            opened = tag
        elif opened and opened[2] == tag[2]:
            opened = None
    return opened.start() if opened else len(text)
