"""The pictures of an experiment: how right the final models are, and how RL went."""

from typing import Any

from skillfactory.report.charts import Chart, Line, Point, course, share, spoken
from skillfactory.report.figures import FEW
from skillfactory.report.tables import ALL, KIND_NAMES, at, items, kinds_of, model_name, models_of, number

Metrics = dict[str, Any]
COURSES = {"reward": ("Reward in RL", "mean reward"), "length": ("Length of rollouts", "tokens")}


def seeds_of(metrics: Metrics) -> int:
    """The most seeds that a row has."""
    return max((len(at(row, "run", "seeds") or ()) for row in trained(metrics)), default=0)


def covered(metrics: Metrics) -> str:
    """What the intervals cover."""
    seeds = [len(at(row, "run", "seeds") or ()) for row in trained(metrics)]
    if seeds_of(metrics) < 2:
        return "over questions alone: there is but one seed, so nothing is said of how another training would come out"
    if min(seeds) < 2:
        return "over seeds and questions; where there is one seed, and of the base, over questions alone"
    return "over seeds and questions; of the base over questions alone"


def trained(metrics: Metrics) -> list[Metrics]:
    """The rows without the base that they share."""
    return list(metrics["rows"][1:])


def finals(metrics: Metrics) -> list[Metrics]:
    """The rows with their final models alone, and the base: what a chart has room for."""
    kept = []
    for row in metrics["rows"]:
        models = [name for name, _ in items(row, "accuracy")]
        last = next((name for name in ("rl", "sft") if name in models), "base")
        only = {key: {last: row[key][last]} for key in ("accuracy", "accuracy_by_kind", "skill_use", "differences",
                "forcing") if last in (row.get(key) or {})}  # fmt: skip
        kept.append(row | only)
    return kept


def final_chart(metrics: Metrics) -> Chart | None:
    """Accuracy of the base and of each row's final model, by kind of question."""
    kinds = kinds_of(metrics["rows"][0])
    lines = []
    for model in models_of(finals(metrics)):
        cells = [
            (i, kind, at(model.run, "accuracy_by_kind", model.name, kind, "sampled")) for i, kind in enumerate(kinds)
        ]
        label = model.run["run"]["label"]
        label = "base" if label == ALL else label
        found = [
            share(i, mean, f"{label}, {KIND_NAMES[kind]}", number(cell, "low"), number(cell, "high"))
            for i, kind, cell in cells
            if (mean := number(cell, "mean")) is not None
        ]
        if found:
            lines.append(Line(label, model.colour, found))
    if not lines:
        return None
    title = "Accuracy of the final models"
    ticks, alt = [KIND_NAMES[kind] for kind in kinds], spoken(f"{title}, in per cent", lines)
    return Chart(title, "bars", lines, alt, "% right [95 % interval]", ticks=ticks, named=True)


def curve(metrics: Metrics, key: str) -> Chart | None:
    """A figure over the steps of RL, a line a row: mean over seeds, and a band from the least to the most."""
    title, value = COURSES[key]
    colours = {row["run"]["label"]: i + 1 for i, row in enumerate(trained(metrics))}
    lines = []
    for label, stages in items(metrics, "curves"):
        for stage, steps in items(stages):
            name = label if stage == "rl" else f"{label}, {model_name(stage)}"
            found = [_point(name, line["step"], line[key]) for line in steps if line.get(key)]
            lines.append(Line(name, colours.get(label, 0), found, dashed=stage != "rl"))
    note = "Mean over seeds; the band reaches from the lowest to the highest." if seeds_of(metrics) > 1 else ""
    if any(len(line.points) >= FEW for line in lines):
        note = f"{note} Smoothed over neighbouring steps where there are many.".strip()
    return course(title, value, "step", lines, note, named=True)


def _point(name: str, step: float, cell: Any) -> Point:
    mean, low, high = (number(cell, end) for end in ("mean", "low", "high"))
    several = (number(cell, "n_seeds") or 0) > 1
    tip = f"{name}, step {step:g}: {mean:.4g}" + (f" [{low:.4g}, {high:.4g}]" if several else "")
    return Point(step, mean or 0.0, tip, low if several else None, high if several else None)
