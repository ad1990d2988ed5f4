"""How skills come with the steps of RL: in its rollouts, and in the models that it kept."""

from collections.abc import Callable, Sequence
from typing import Any

from skillfactory.report.charts import Chart, Line, Point, course
from skillfactory.report.skills import f1_of, mean, verdicts_of
from skillfactory.report.tables import (
    KIND_NAMES,
    MODEL_NAMES,
    Table,
    at,
    figure,
    interval,
    items,
    kept_step,
    kinds_of,
    model_name,
    models_of,
    number,
    ordered_sets,
    run_label,
)
from skillfactory.report.training import Rows, curve, line_of

Runs = Sequence[dict[str, Any]]
_ROLLOUTS = {
    "answers": "explicit answers a rollout",
    "reflections": "reflections a rollout",
    "retries": "retries a rollout",
    "malformed": "share of rollouts",
    "incorrect_verdicts": "share of verdicts",
}


def parts(runs: Runs, rl: Sequence[Rows]) -> list[Table | Chart | None]:
    """What is known by step. `rl`: the lines of each run's rl/metrics.jsonl."""
    return [*rollout_charts(runs, rl), *kept_charts(runs), kept_table(runs)]


def rollout_charts(runs: Runs, rl: Sequence[Rows]) -> list[Chart | None]:
    """Skills in RL's rollouts, from their tags."""
    if len(runs) > 1:
        titles = {key: f"{key.replace('_', ' ').capitalize()} in rollouts" for key in _ROLLOUTS}
        return [curve(titles[key], key, what, runs, rl) for key, what in _ROLLOUTS.items()]
    lines = [line_of(key, i, rl[0], key) for i, key in enumerate(("answers", "reflections", "retries"))]
    shares = {"malformed": "malformed rollouts", "incorrect_verdicts": "verdicts “Incorrect”"}
    signs = [line_of(label, i, rl[0], key) for i, (key, label) in enumerate(shares.items())]
    return [
        course("Skills in rollouts", "mean a rollout", "step", lines),
        course("Verdicts and broken tags in rollouts", "share", "step", signs, named=True),
    ]


def kept_of(run: dict[str, Any]) -> list[tuple[int, str]]:
    """(step, model) from the start of RL to its end; [] where no model was kept on the way."""
    names = [name for name, _ in items(run, "accuracy")]
    kept = sorted((step, name) for name in names if (step := kept_step(name)) is not None)
    if not kept:
        return []
    start = next((name for name in ("sft", "base") if name in names), None)
    last = number(run, "training", "rl", "steps")
    end = [(int(last), "rl")] if last is not None and "rl" in names and last > kept[-1][0] else []
    return [*([(0, start)] if start else []), *kept, *end]


def kept_charts(runs: Runs) -> list[Chart | None]:
    """Accuracy, explicit answers and F1 of verdicts of the kept models, by step."""
    measures: dict[str, tuple[str, dict[str, Callable[[dict[str, Any], str], float | None]]]] = {
        "Accuracy by RL step": ("% right", {KIND_NAMES[k]: _accuracy(k) for k in kinds_of(runs[0])}),
        "Skills by RL step": (
            "mean a response", {key: _mean_use(key) for key in ("answers", "reflections", "retries")},
        ),
        "F1 of verdicts by RL step": ("F1", {"on correct": _f1(0), "on incorrect": _f1(1)}),
    }  # fmt: skip
    charts = []
    for title, (value, lines) in measures.items():
        if len(runs) == 1:
            found = [_line(runs[0], label, i, measure) for i, (label, measure) in enumerate(lines.items())]
            charts.append(course(title, value, "step", found, named=True))
            continue
        colours = {id(each.run): each.colour for each in models_of(runs) if each.name == "rl"}
        for label, measure in lines.items():
            found = [_line(run, run_label(run), colours.get(id(run), i), measure) for i, run in enumerate(runs)]
            charts.append(course(f"{title}: {label}", value, "step", found, named=True))
    return charts


def kept_table(runs: Runs) -> Table:
    """One row a kept model."""
    several = len(runs) > 1
    kinds = kinds_of(runs[0])
    rows = [
        [
            *([run_label(run)] if several else []), "start" if step == 0 else model_name(model), f"{step:,}",
            *(interval(at(run, "accuracy_by_kind", model, kind, "sampled")) for kind in kinds),
            *(figure(_mean_use(key)(run, model)) for key in ("answers", "reflections", "retries")),
            *(figure(value) for value in f1_of(verdicts_of(run, model, ordered_sets(run)))),
        ]
        for run in runs
        for step, model in kept_of(run)
    ]  # fmt: skip
    heads = [*(["run"] if several else []), "model"]
    columns = [
        *heads,
        "step",
        *(KIND_NAMES[k] for k in kinds),
        "answers",
        "reflections",
        "retries",
        "correct",
        "incorrect",
    ]
    groups = ("",) * (len(heads) + 1) + ("% right",) * len(kinds) + ("mean",) * 3 + ("F1 of verdicts",) * 2
    note = (
        f"Start: the model that RL began with ({', '.join(_starts(runs))}). Means over all sets, each of equal weight."
    )
    return Table("Models by RL step", columns, rows, note, groups, len(heads))


def _starts(runs: Runs) -> list[str]:
    return list(dict.fromkeys(MODEL_NAMES[kept[0][1]] for run in runs if (kept := kept_of(run)) and kept[0][0] == 0))


def _line(run: dict[str, Any], label: str, colour: int, measure: Callable[[dict[str, Any], str], float | None]) -> Line:
    found = [(step, value) for step, model in kept_of(run) if (value := measure(run, model)) is not None]
    return Line(label, colour, [Point(step, y, f"{label}, step {step}: {y:.4g}") for step, y in found])


def _accuracy(kind: str) -> Callable[[dict[str, Any], str], float | None]:
    def measure(run: dict[str, Any], model: str) -> float | None:
        right = number(run, "accuracy_by_kind", model, kind, "sampled", "mean")
        return None if right is None else 100 * right

    return measure


def _mean_use(key: str) -> Callable[[dict[str, Any], str], float | None]:
    def measure(run: dict[str, Any], model: str) -> float | None:
        return mean([number(run, "skill_use", model, name, key) for name in ordered_sets(run)])

    return measure


def _f1(which: int) -> Callable[[dict[str, Any], str], float | None]:
    return lambda run, model: f1_of(verdicts_of(run, model, ordered_sets(run)))[which]
