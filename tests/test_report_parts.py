"""Parts of a report by themselves: names, verdicts, numbers, pieces of traces."""

import csv
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import (
    trace,
)

from skillfactory.characters import clean
from skillfactory.report import page, tables, tidy, verdict


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@SUM(A1)", "\tx", "  =1", '=cmd|"/c calc"!A1', "＝1"])
def test_no_name_becomes_a_formula(name: str) -> None:
    text = tidy.as_csv(["set", "mean"], [{"set": name, "mean": -0.5}])
    (row,) = csv.DictReader(text.splitlines())
    assert row["set"].startswith("'")
    assert row["set"][1:] == clean(name)
    assert row["mean"] == "-0.5", "numbers stay numbers"
    assert list(csv.DictReader(tidy.as_csv(["set"], [{"set": "a-b, c"}]).splitlines())) == [{"set": "a-b, c"}]


def test_clean_keeps_lines_and_letters() -> None:
    assert clean("a\tb\nç ≠ 漢") == "a\tb\nç ≠ 漢"
    assert clean("\x1b[31m\r\x9b\u202e\u061c") == "\ufffd[31m\ufffd\ufffd\ufffd\ufffd"


differences = st.fixed_dictionaries(
    {
        "mean": st.floats(-1, 1),
        "p": st.floats(0, 1),
        "p_adjusted": st.none() | st.floats(0, 1),
        "low": st.none(),
        "high": st.none(),
    }
)


@given(differences)
def test_the_verdict_is_clear_where_the_corrected_p_is(cell: dict[str, float]) -> None:
    metrics = {"sets": {"s": {"kind": "harder"}}, "differences_by_kind": {"rl": {"base": {"harder": cell}}}}
    said = verdict.of_run(metrics)
    p = cell["p"] if cell["p_adjusted"] is None else cell["p_adjusted"]
    if p >= 0.05:
        assert "no clear difference on harder questions" in said
    else:
        assert ("better on" if cell["mean"] > 0 else "worse on") in said
    assert "−0.0 " not in said


def test_a_model_alone_has_no_difference() -> None:
    cell = {"mean": 0.25, "low": 0.2, "high": 0.3}
    metrics = {
        "sets": {"s": {"kind": "harder"}}, "accuracy": {"base": {"s": {"sampled": cell}}},
        "accuracy_by_kind": {"base": {"harder": {"sampled": cell}}}, "differences_by_kind": {},
    }  # fmt: skip
    assert verdict.of_run(metrics) == (
        "Of the base model alone, which nothing is held against: right on 25.0 % [20.0, 30.0] of harder questions."
    )


def test_numbers_are_read_with_care() -> None:
    data = {"a": {"b": 1.5, "c": None, "d": "x", "e": float("nan")}}
    assert [tables.number(data, "a", key) for key in "bcdez"] == [1.5, None, None, None, None]
    assert isfinite(tables.number(data, "a", "b") or 0)
    assert tables.items(data, "a", "b") == []
    assert tables.kept_step("rl@50") == 50
    assert [tables.kept_step(name) for name in ("rl", "rl@", "rl@x", "base@5")] == [None] * 4


def test_traces_are_shown_in_pieces() -> None:
    pieces = page.pieces_of(trace("12"))
    assert "".join(piece.text for piece in pieces) == trace("12")


def test_a_set_that_moves_against_its_kind_is_named() -> None:
    def figures(mean: float, p: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "p": p, "p_adjusted": p, "n_questions": 50}

    kinds = {"a": "harder", "b": "harder", "c": "other"}
    sets = {name: {"kind": kind, "n_questions": 50} for name, kind in kinds.items()}
    by_set = {"a": figures(0.3, 0.001), "b": figures(-0.1, 0.01), "c": figures(-0.1, 0.01)}
    by_kind = {"harder": figures(0.1, 0.001), "other": figures(-0.1, 0.01)}
    metrics = {
        "run": {"name": "x", "method": "rl_only"}, "sets": sets, "accuracy": {"rl": {"a": {}}},
        "differences": {"rl": {"base": by_set}}, "differences_by_kind": {"rl": {"base": by_kind}},
    }  # fmt: skip
    said = "Unlike the other sets of its kind, the RL model is worse on b (−10.0 points)."
    assert said in verdict.uncertain([metrics])
    by_set["b"] = figures(-0.1, 0.2)
    assert not any("Unlike" in each for each in verdict.uncertain([metrics]))
