"""A model's text in pieces for the report: attempts, reflections, the final answer, and what stands between them.

Each text is cut into stretches that join to the text again, so nothing that a model wrote is left out. What the pieces
are worth is not said here; see chosen.py.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from skillfactory.characters import clean
from skillfactory.evaluation.forcing import THINK, reopened
from skillfactory.recipe import Forcing
from skillfactory.records import Response
from skillfactory.tags import blocks

PartKind = Literal["plain", "sample", "reflect", "broken", "final", "trigger", "cut"]

_PIECE = re.compile(r"(<verdict>\s*\w{1,20}\s*</verdict>|<answer>[^<]{0,500}</answer>)")
_OPEN, _CLOSE = "<answer>", "</answer>"

Trigger = tuple[int, str]  # where it stands, and its text


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a response, tags included; `inner` is what a block holds.

    A "trigger" or "cut" marks a place: its text is "". What the trigger is, is its `inner`.
    """

    kind: PartKind
    text: str
    inner: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a trace; `kind` is a class of the style sheet: sample, reflect, verdict-…, answer or plain."""

    kind: str
    text: str


def shown(text: str) -> str:
    """Text of the same length that can be printed, encoded and put into JSON: control characters and halves of
    characters are replaced."""
    return clean(text)


def parts_of(text: str, triggers: Sequence[Trigger] = (), cut: int = 0, whole: bool = True) -> list[Part]:
    """A response in parts. Time in proportion to its length.

    `triggers`: what budget forcing put where; `cut`: where a budget cut the text off, 0 for nowhere. The final
    answer is only looked for in a text that is `whole`.
    """
    marks = [(place, Part("trigger", "", trigger)) for place, trigger in triggers if place <= len(text)]
    if 0 < cut <= len(text):
        marks.append((cut, Part("cut", "")))
    marks.sort(key=lambda mark: mark[0])
    found: list[Part] = []
    position = 0
    for start, end, kind, inner in _spans(text, whole):
        while marks and marks[0][0] <= start:
            place, mark = marks.pop(0)
            found += [*_plain(text[position:place]), mark]
            position = max(position, place)
        found += [*_plain(text[position:start]), Part(kind, text[start:end], inner)]
        position = end
    for place, mark in marks:
        found += [*_plain(text[position:place]), mark]
        position = max(position, place)
    return found + _plain(text[position:])


def _spans(text: str, whole: bool) -> Iterator[tuple[int, int, PartKind, str]]:
    """Blocks and the final answer, in reading order: start, end, kind, and what a block holds."""
    end = 0
    for block in blocks(text)[0]:
        yield block.start, block.end, block.kind, block.text
        end = block.end
    final = _final(text) if whole else None
    if final and final[0] >= end:
        yield *final, "final", ""


def _final(text: str) -> tuple[int, int] | None:
    """Where the final answer stands, with its tags, as tasks.answers.extract_answer finds it."""
    thought = text.rfind("</think>")
    if text.rfind("<think>") > thought:  # cut inside its thinking
        return None
    start = text.rfind(_OPEN, 0, max(0, text.rfind(_CLOSE)))
    return (start, text.find(_CLOSE, start) + len(_CLOSE)) if start > thought else None


def _plain(text: str) -> list[Part]:
    return [Part("plain", text)] if text else []


def triggers_of(line: Sequence[Response], forcing: Forcing) -> tuple[Trigger, ...]:
    """The triggers that budget forcing put into the last of a sample's responses; the others it goes on from.

    No row says so, but each of them, cut back as forcing does it, is how the last begins.
    """
    text = line[-1].text
    found = []
    for before in line[:-1]:
        for kept in dict.fromkeys((before.text, before.text[: before.cut or None])):
            start = reopened(kept, forcing)
            if text.startswith(start):
                trigger = forcing.trigger if THINK in kept else forcing.plain_trigger
                found.append((start.rindex(trigger), trigger))
                break
    return tuple(found)


def pieces_of(text: str) -> list[Piece]:
    """A trace in pieces, whose texts joined are the trace (control characters replaced); verdicts and answers apart."""
    pieces: list[Piece] = []
    for part in parts_of(text):
        kind = part.kind if part.kind in ("sample", "reflect") else "plain"
        for stretch in _PIECE.split(shown(part.text)):
            if stretch:
                pieces.append(Piece(_kind(stretch, kind), stretch))
    return pieces


def _kind(stretch: str, around: str) -> str:
    if not _PIECE.fullmatch(stretch):
        return around
    if stretch.startswith(_OPEN):
        return "answer"
    said = stretch[len("<verdict>") : -len("</verdict>")].strip().lower()
    return f"verdict-{said}" if said in ("correct", "incorrect") else around
