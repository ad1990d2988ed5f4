"""The one sentence that a report opens with. It says what was measured, and that it is unclear where it is."""

from typing import Any

from skillfactory.report.comparison import Comparison
from skillfactory.report.tables import KIND_NAMES, points

_QUESTIONS = {"in_domain": "in-domain questions", "harder": "harder questions", "other": "other tasks"}
CLEAR = 0.05  # p below which a difference is called one


def of_run(metrics: dict[str, Any]) -> str:
    """What RL (or the last model there is) did to the base model."""
    differences = metrics.get("differences_by_kind", {})
    pair = next((p for p in ("rl-base", "sft-base") if p in differences), None)
    if pair is None:
        return "No model has been evaluated against the base model yet."
    after = "After RL" if pair == "rl-base" else "After SFT"
    return f"{after}, against the base model: {_clauses(differences[pair])}."


def of_comparison(comparison: Comparison) -> str:
    """How the runs' RL models differ from the reference run's."""
    sentences = [
        f"RL model of {label} against that of {comparison.reference}: {_clauses(kinds)}."
        for label, kinds in comparison.differences_by_kind.get("rl", {}).items()
        if kinds
    ]
    return " ".join(sentences) or "The runs have no RL models to compare."


def _clauses(kinds: dict[str, Any]) -> str:
    """One clause a kind of question: better, worse, or no clear difference."""
    parts = []
    for kind in KIND_NAMES:
        figures = kinds.get(kind)
        if figures:
            word = "better" if figures["mean"] > 0 else "worse"
            found = word if figures["p"] < CLEAR else "no clear difference"
            parts.append(f"{found} on {_QUESTIONS[kind]} ({points(figures, ' points', ' ')})")
    return "; ".join(parts)
