"""What a report opens with: what was measured, in a sentence that says so where it is unclear, and what it rests on."""

from collections.abc import Sequence
from typing import Any

from skillfactory.report.comparison import Comparison
from skillfactory.report.results import lost_responses
from skillfactory.report.tables import (
    KIND_NAMES,
    at,
    items,
    kept_step,
    kind_of,
    kinds_of,
    model_name,
    number,
    ordered_sets,
    p_value,
    percent,
    run_label,
    signed,
)

_QUESTIONS = {"in_domain": "in-domain questions", "harder": "harder questions", "other": "other tasks"}
CLEAR = 0.05  # corrected p below which a difference is called one
FEW = 30  # questions of a kind below which an interval is hardly worth its name
CUT = 0.1  # share of responses cut at the limit from which on it is said


def of_run(metrics: dict[str, Any]) -> str:
    """What RL did to the base model; without RL what SFT did, or how all other models differ from it."""
    found = {
        after: clauses
        for after, befores in items(metrics, "differences_by_kind")
        if kept_step(after) is None and (clauses := _clauses(at(befores, "base")))
    }
    for after, said in (("rl", "After RL"), ("sft", "After SFT")):
        if after in found:
            return f"{said}, against the base model: {found[after]}."
    if found:
        return " ".join(f"Model {after} against the base model: {clauses}." for after, clauses in found.items())
    if items(metrics, "accuracy"):
        return _alone(metrics)
    return "No model has been evaluated yet."


def _alone(metrics: dict[str, Any]) -> str:
    """How right the only model is."""
    model = items(metrics, "accuracy")[0][0]
    parts = []
    for kind in kinds_of(metrics):
        cell = at(metrics, "accuracy_by_kind", model, kind, "sampled")
        if (mean := number(cell, "mean")) is not None:
            low, high = number(cell, "low"), number(cell, "high")
            known = f" [{percent(low)}, {percent(high)}]" if low is not None and high is not None else ""
            parts.append(f"{percent(mean)} %{known} of {_QUESTIONS[kind]}")
    if not parts:
        return "No model has been evaluated against another yet."
    return f"Of the {model_name(model)} model alone, which nothing is held against: right on {'; '.join(parts)}."


def of_comparison(comparison: Comparison) -> str:
    """How the runs' RL models (or the last ones that they share) differ from the reference run's."""
    for model in ("rl", "sft", *comparison.differences_by_kind):
        found = comparison.differences_by_kind.get(model, {})
        sentences = [
            f"{model_name(model)} model of {label} against that of {comparison.reference}: {clauses}."
            for label, kinds in found.items()
            if (clauses := _clauses(kinds))
        ]
        if sentences:
            return " ".join(sentences)
    return "The runs have no models to compare but the same base."


def uncertain(runs: Sequence[dict[str, Any]], comparison: Comparison | None = None) -> list[str]:
    """What the first sentence rests on, and what it cannot know."""
    said = list(comparison.notes) if comparison else []
    if not any(items(run, "accuracy") for run in runs):
        return said
    what = "kinds of question and runs" if comparison else "kinds of question"
    said.append(
        f"Better or worse: p < .05, corrected for the several {what} (Holm); else there is no clear difference. In "
        "brackets: 95 % intervals over questions."
    )
    said += _exceptions(runs[0], comparison)
    asked = dict.fromkeys(kinds_of(runs[0]), 0.0)
    for name in ordered_sets(runs[0]):
        asked[kind_of(runs[0], name)] += number(runs[0], "sets", name, "n_questions") or 0
    if few := [f"{n:.0f} {KIND_NAMES[kind]}" for kind, n in asked.items() if 0 < n < FEW]:
        said.append(f"Questions are few: {', '.join(few)}.")
    said += [sentence for run in runs if (sentence := _cut(run, len(runs) > 1))]
    if lost := lost_responses(runs):
        said.append(f"{lost:,} responses could not be made or checked and are left out.")
    if any(at(run, "accuracy", name) for run in runs for name in ("sft", "rl")):
        what = "Each run is one training" if len(runs) > 1 else "This is one training run"
        said.append(f"{what} with one seed: how another would come out is in no interval here.")
    return said


def _exceptions(run: dict[str, Any], comparison: Comparison | None) -> list[str]:
    """Sets on which a model clearly moved against the mean of their kind, which the first sentence hides."""
    if comparison:
        found = [
            (f"{model_name(model)} model of {label}", sets, comparison.differences_by_kind.get(model, {}).get(label))
            for model, labels in comparison.differences.items()
            for label, sets in labels.items()
        ]
    else:
        found = [
            (f"{model_name(after)} model", at(befores, "base"), at(run, "differences_by_kind", after, "base"))
            for after, befores in items(run, "differences")
            if kept_step(after) is None
        ]
    said = []
    for who, sets, by_kind in found:
        against = []
        for name in ordered_sets(run):
            mean, p = number(sets, name, "mean"), number(sets, name, "p_adjusted")
            whole = number(by_kind, kind_of(run, name), "mean")
            if mean is not None and p is not None and whole is not None and p < CLEAR and mean * whole < 0:
                against.append(f"{'better' if mean > 0 else 'worse'} on {name} ({signed(mean)} points)")
        if against:
            said.append(f"Unlike the other sets of its kind, the {who} is {', '.join(against)}.")
    return said


def _cut(run: dict[str, Any], several: bool) -> str:
    """Which models' responses were often cut at the length limit, so that their accuracy may be understated."""
    found = []
    for name, sets in items(run, "accuracy"):
        if kept_step(name) is None:
            cells = [at(cell, "sampled") for _, cell in items(sets)]
            all_of_them = sum(number(cell, "responses") or 0 for cell in cells)
            cut = sum((number(cell, "truncated") or 0) * (number(cell, "responses") or 0) for cell in cells)
            if all_of_them and cut / all_of_them >= CUT:
                found.append(f"{percent(cut / all_of_them, 0)} % of the {model_name(name)} model's")
    of = f" of {run_label(run)}" if several else ""
    return (
        f"Cut at the length limit: {', '.join(found)} responses{of}; more room might change their accuracy."
        if found
        else ""
    )


def _clauses(kinds: Any) -> str:
    """One clause a kind of question: better, worse, or no clear difference."""
    parts = []
    for kind in KIND_NAMES:
        mean, p = number(kinds, kind, "mean"), number(kinds, kind, "p")
        adjusted = number(kinds, kind, "p_adjusted")
        p = p if adjusted is None else adjusted
        if mean is not None and p is not None:
            found = "no clear difference" if p >= CLEAR else "better" if mean > 0 else "worse"
            low, high = number(kinds, kind, "low"), number(kinds, kind, "high")
            known = f" [{signed(low)}, {signed(high)}]" if low is not None and high is not None else ""
            parts.append(f"{found} on {_QUESTIONS[kind]} ({signed(mean)} points{known}, {p_value(p)})")
    return "; ".join(parts)
