"""What training did, step by step: curves of RL and SFT, and their first and last figures."""

from collections.abc import Sequence
from typing import Any

from skillfactory.report.charts import Chart, Line, Point, course
from skillfactory.report.tables import (
    MISSING,
    MODEL_NAMES,
    Table,
    figure,
    items,
    model_name,
    models_of,
    number,
    run_label,
)

Runs = Sequence[dict[str, Any]]
Rows = list[dict[str, float]]  # lines of a metrics.jsonl
_RL = {
    "reward": ("Reward in RL", "mean reward"),
    "length": ("Length of rollouts", "tokens"),
    "truncated": ("Rollouts cut at the limit", "share of rollouts"),
    "no_signal": ("Groups without signal", "share of groups"),
    "entropy": ("Entropy in RL", "nats a token"),
}
_SMOOTH = "Thick: mean over neighbouring steps. Thin: each step."


def parts(runs: Runs, rl: Sequence[Rows], sft: Sequence[Rows]) -> list[Table | Chart | None]:
    """What the section holds. `rl` and `sft`: the lines of each run's metrics.jsonl."""
    curves = [curve(title, key, value, runs, rl) for key, (title, value) in _RL.items()]
    return [*curves, curve("Loss in SFT", "loss", "loss", runs, sft, "sft"), training_table(runs)]


def curve(title: str, key: str, value: str, runs: Runs, steps: Sequence[Rows], model: str = "rl") -> Chart | None:
    """One figure of training, a line a run in the colour of its model."""
    colours = {id(each.run): each.colour for each in models_of(runs) if each.name == model}
    lines = []
    for i, (run, rows) in enumerate(zip(runs, steps, strict=True)):
        label = run_label(run) if len(runs) > 1 else model_name(model)
        default = i if len(runs) > 1 else list(MODEL_NAMES).index(model)
        lines.append(line_of(label, colours.get(id(run), default), rows, key))
    return course(title, value, "step", lines, _note(lines), named=len(runs) > 1)


def line_of(label: str, colour: int, rows: Rows, key: str) -> Line:
    """A figure over steps."""
    found = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
    return Line(label, colour, [Point(step, y, f"{label}, step {step:g}: {y:.4g}") for step, y in found])


def _note(lines: Sequence[Line]) -> str:
    from skillfactory.report.figures import MANY

    return _SMOOTH if any(len(line.points) >= MANY for line in lines) else ""


def training_table(runs: Runs) -> Table:
    """One row a training stage and figure: first step and mean of the last steps."""
    several = len(runs) > 1
    rows = [
        [
            *([run_label(run)] if several else []), model_name(stage), name.replace("_", " "),
            figure(number(facts, "steps"), 0), *(_short(number(facts, end, name)) for end in ("first", "last")),
        ]
        for run in runs
        for stage, facts in items(run, "training")
        for name, _ in items(facts, "last")
    ]  # fmt: skip
    columns = [*(["run"] if several else []), "stage", "figure", "steps", "first step", "at the end"]
    note = "At the end: mean of the last 10 steps."
    return Table("First and last figures", columns, rows, note, labels=2 + several, folded=len(rows) > 24)


def _short(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"
