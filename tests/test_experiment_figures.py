"""Figures of an experiment by themselves: verdicts, time and cost, informedness."""

from pathlib import Path
from typing import Any

import pytest
from reported import make_run, recipe_of

from skillfactory import files
from skillfactory.report import claims, shares
from skillfactory.report.experiment_rows import Cell, Measured, judgement, merged


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        (None, "not measured"),
        ({"mean": 0.1, "low": None, "high": None}, "undecided"),
        ({"mean": 0.1, "low": 0.01, "high": 0.2}, "holds"),
        ({"mean": 0.1, "low": 0.0, "high": 0.2}, "undecided"),
        ({"mean": -0.1, "low": -0.2, "high": -0.01}, "does not hold"),
        ({"mean": -0.1, "low": -0.2, "high": 0.01}, "undecided"),
    ],
)
def test_verdict(cell: dict[str, Any] | None, verdict: str) -> None:
    assert claims.verdict_of(cell) == verdict


def test_a_claim_holds_where_all_that_it_rests_on_does() -> None:
    up, across_0, down = ({"mean": m, "low": m - 1, "high": m + 1} for m in (2, 0, -2))
    parts = {key: claims.Part("x", cell, share=False) for key, cell in (("up", up), ("mid", across_0), ("down", down))}
    beside = claims.Part("x", down, counts=False)
    assert claims.Claim("C", "", [parts["up"], beside]).verdict == "holds"
    assert claims.Claim("C", "", [parts["up"], parts["mid"]]).verdict == "undecided"
    assert claims.Claim("C", "", [parts["up"], parts["down"]]).verdict == "does not hold"
    assert claims.Claim("C", "", [beside, claims.Part("x", None)]).verdict == "not measured"


# --- cost and time


def test_busy_time_and_idle_slots() -> None:
    start = lambda t, cell: {"time": t, "event": "start", "cell": cell, "jobs": 2}  # noqa: E731
    end = lambda t, cell: {"time": t, "event": "end", "cell": cell, "code": 0}  # noqa: E731
    log = [start(0, "a"), start(0, "b"), end(10, "a"), end(14, "b")]
    assert shares.busy(log) == ({"a": 10.0, "b": 14.0}, 4.0)
    killed = [start(0, "a"), start(0, "b"), end(10, "a"), start(10, "c"), start(500, "b"), start(501, "c"),
              end(505, "b"), end(507, "c")]  # fmt: skip
    ran, idle = shares.busy(killed)
    assert ran == {"a": 10.0, "b": 5.0, "c": 6.0}, "nobody knows when the runner was killed"
    assert idle == 1 + 2
    assert shares.busy([]) == ({}, 0.0)
    assert shares.busy([{"event": "start"}, {"time": "x"}, {"time": 1.0, "event": "end", "cell": "?"}]) == ({}, 0.0)


def test_what_was_lent_is_not_paid_again_and_earlier_rounds_count(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of())
    manifest = {"finished": True, "seconds": 50.0, "counts": {"tokens": 1000}}
    for stage, more in (
        ("attempts-1", {}),
        ("attempts", {"lent_from": "other-0", "lent": {"seconds": 50.0, "tokens": 1000}}),
        ("reflections", {"lent_from": "other-0", "lent": {"seconds": 20.0, "tokens": 400}}),
        ("traces", {"lent_from": "other-0"}),
    ):
        (loaded.path / stage).mkdir()
        files.write_json(loaded.path / stage / "manifest.json", manifest | more)
    cost = shares.cost_of(Measured("x", "skillfactory", {0: Cell(loaded, {}, {})}, {}))
    assert list(cost)[:3] == ["questions", "attempts-1", "attempts"]
    paid = {stage: (facts["seconds"], facts["seconds_paid"], facts["tokens_paid"]) for stage, facts in cost.items()}
    assert paid["attempts-1"] == (50.0, 50.0, 1000)
    assert paid["attempts"] == (50.0, 0.0, 0.0)
    assert paid["reflections"] == (50.0, 30.0, 600), "what was drawn on top of the loan was paid here"
    assert paid["traces"] == (50.0, 0.0, None)


# --- figures


def test_informedness_knows_who_does_not_look() -> None:
    keys = (
        "correct_called_correct",
        "correct_called_incorrect",
        "incorrect_called_incorrect",
        "incorrect_called_correct",
    )
    always = judgement(dict(zip(keys, (0, 10, 90, 0), strict=True)))
    assert always["informedness"] == 0
    assert always["prevalence"] == 0.9
    assert always["f1_if_always"] == pytest.approx(2 * 90 / (2 * 90 + 10))
    assert judgement(dict(zip(keys, (10, 0, 90, 0), strict=True)))["informedness"] == 1
    assert judgement(dict(zip(keys, (0, 0, 9, 1), strict=True)))["informedness"] is None
    assert judgement({}) == {"informedness": None, "prevalence": None, "f1_if_always": None}


def test_merged_figures() -> None:
    one, two = (
        {"n": 2, "in": {"a": 1.0, "b": None}, "sum": {"x": 1}},
        {"n": 4, "in": {"a": 3.0}, "sum": {"x": 2, "y": 5}},
    )
    assert merged([one, two], summed=("sum",)) == {"n": 3, "in": {"a": 2, "b": None}, "sum": {"x": 3, "y": 5}}
    assert merged([]) == {}
