"""Implicit signs of a skill in text without tags: the phrases of `markers.yaml`. A hint, apart from what tags say."""

import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("markers.yaml")
_GAP = r"(?:\W{1,9}\w+){0,3}\W{1,9}"  # what `…` stands for


@cache
def markers() -> dict[str, re.Pattern[str]]:
    """One pattern a kind: verify, retry, backtrack, subgoal. Its time is in proportion to the text's length."""
    import yaml

    phrases: dict[str, list[str]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {kind: re.compile("|".join(map(_pattern, each)), re.IGNORECASE) for kind, each in phrases.items()}


def count_markers(text: str) -> tuple[int, ...]:
    """How often each kind shows in a text, in the order of `markers`; overlapping phrases of one kind count once."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return tuple(sum(1 for _ in pattern.finditer(text)) for pattern in markers().values())


def _pattern(phrase: str) -> str:
    parts = [r"\s+".join(map(re.escape, part.split())) for part in phrase.split("…")]
    return rf"\b{_GAP.join(parts)}\b"
