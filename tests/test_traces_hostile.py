"""Samples that hold our tags in odd orders: none becomes a trace that reads otherwise than it was built."""

import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from curated import TASK
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory.console import trace_text
from skillfactory.curation.attempts import attempt_of
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.curation.reflections import reflection_of
from skillfactory.curation.sampling import UNUSABLE
from skillfactory.curation.traces import Piece, write_trace
from skillfactory.engines.base import Completion
from skillfactory.report.pieces import parts_of, pieces_of
from skillfactory.tags import blocks, missing_tags, plain_answers, unfinished, verdict_of
from skillfactory.tasks.answers import extract_answer

QUESTION = TASK.make(a=12, b=34)
NAMES = ("think", "sample", "reflect", "answer", "verdict")
TAGS = st.sampled_from(
    [f"<{end}{name}{rest}>" for name in NAMES for end in ("", "/") for rest in ("", " ", "\n")]
    + [f"<{end}{name.upper()}>" for name in NAMES for end in ("", "/")]
    + ["<sample", "sample>", "</", "<<answer>>", "<answer/>", "&lt;sample&gt;", "<s\u200bample>", "<\0sample>"]
)
WORDS = st.sampled_from(
    ["408", "407", "Correct", "Incorrect", "correct ", " x ", "\n", "<", ">", "`", "$", "\0", "\u202e"]
)
PIECES = st.lists(TAGS | WORDS, max_size=14).map("".join)


def attempt(text: str, index: int) -> Any:
    return attempt_of(Completion(f"a{index}", text, 5, "stop"), QUESTION, "original", index, TASK, load_prompts())


def reflection(text: str, on: Any) -> Any:
    return reflection_of(Completion(f"r{on.index}", text, 5, "stop"), on, 0)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PIECES, PIECES, st.booleans(), st.booleans()), min_size=1, max_size=4), st.integers(0, 9))
def test_a_trace_reads_as_it_was_built(given: list[tuple[str, str, bool, bool]], seed: int) -> None:
    """Whatever texts attempts and reflections have: those that are taken make exactly their blocks and the answer."""
    pieces = []
    for index, (text, said, answered, judged) in enumerate(given):
        made = attempt(text + "\n<answer>408</answer>" * answered, index)
        right = "Correct" if made.outcome == "correct" else "Incorrect"
        judge = reflection(said + f"\n<verdict>{right}</verdict>" * judged, made)
        if made.outcome != "no_answer" and made.reason not in UNUSABLE and judge.agrees:
            pieces.append(Piece(made.id, made.text, made.answer, made.outcome == "correct", judge.id, judge.text))
    if not any(piece.correct for piece in pieces):
        return
    completion, steps = write_trace(pieces, load_phrases(), "closing", Random(seed))
    found, stray = blocks(completion)
    assert stray == missing_tags(completion, cut=False) == 0
    assert [block.kind for block in found] == ["sample", "reflect"] * len(pieces)
    assert [block.text.strip() for block in found[::2]] == [piece.attempt.strip() for piece in pieces]
    for block, piece in zip(found[1::2], pieces, strict=True):
        assert verdict_of(block.text) == ("correct" if piece.correct else "incorrect")
    assert len(steps) == len(pieces)
    answer = next(piece.answer for piece in reversed(pieces) if piece.correct)
    assert extract_answer(completion) == answer
    assert TASK.grade(QUESTION, completion).outcome == "correct"
    assert "".join(part.text for part in parts_of(completion)) == completion


SIZE = 300_000
LARGE = [
    "<sample>" * (SIZE // 8), "</sample>" * (SIZE // 9), "<sample></sample>" * (SIZE // 17), "<" * SIZE,
    "<answer>" * (SIZE // 8), "<verdict>" * (SIZE // 9), "<verdict>Correct" * (SIZE // 16), "a" * SIZE,
    "<verdict>" + " " * SIZE, "<verdict>Correct</verdict>" * (SIZE // 26), "<think></think>" * (SIZE // 15),
    "<think>" * (SIZE // 7), "</think>" * (SIZE // 8), "<answer></answer>" * (SIZE // 17), "\n" * SIZE,
    "<reflect><sample></reflect></sample>" * (SIZE // 36), "<answer><sample>" * (SIZE // 16), "\0" * SIZE,
    "\u202e" * SIZE, "<answer>" + "(" * SIZE + "</answer>",
    "<reflect><verdict>Correct</verdict>" * (SIZE // 35),
    "<think>" * (SIZE // 14) + "</sample>" * (SIZE // 18), "<think><sample></think>" * (SIZE // 23),
]  # fmt: skip


@pytest.mark.parametrize(
    "read",
    [blocks, plain_answers, verdict_of, unfinished, parts_of, pieces_of, trace_text, extract_answer,
     lambda text: attempt(text, 0), lambda text: reflection(text, attempt("<answer>408</answer>", 0))],
)  # fmt: skip
def test_long_texts_are_read_in_time(read: Callable[[str], Any]) -> None:
    for text in LARGE:
        start = time.process_time()
        read(text)
        assert time.process_time() - start < 5, text[:40]
