"""The tables of a run as plain text cells, the same for the terminal, the page and Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KIND_NAMES = {"in_domain": "in domain", "harder": "harder", "other": "other task"}
MODEL_NAMES = {"base": "base", "sft": "SFT", "rl": "RL"}
MISSING = "–"
# Control characters can move the cursor or change the title; bidirectional ones can turn text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text. `groups`: kinds of the columns or "". The first `labels` columns are words, the rest figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    groups: tuple[str, ...] = ()
    labels: int = 1


def clean(text: str) -> str:
    """Text that is safe to print: control characters except newline and tab are replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage without its sign: .125 is "12.5"."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def with_error(mean: float | None, se: float | None) -> str:
    """A share and its standard error in per cent: "12.5 ± 1.0"."""
    return percent(mean) if mean is None or se is None else f"{percent(mean)} ± {percent(se)}"


def points(figures: dict[str, Any] | None, unit: str = "", gap: str = "\n") -> str:
    """A difference in percentage points with its 95 % interval, and after `gap` its p-value."""
    if not figures:
        return MISSING
    text = f"{100 * figures['mean']:+.1f}{unit}"
    if figures["low"] is not None:
        text += f" [{100 * figures['low']:+.1f}, {100 * figures['high']:+.1f}]"
    return f"{text},{gap}{p_value(figures['p'])}"


def p_value(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def figure(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; a dash where it is unknown."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def ordered_sets(metrics: dict[str, Any]) -> list[str]:
    """Sets by kind: in domain, harder, other; within a kind as the recipe lists them."""
    sets = metrics.get("sets", {})
    return sorted(sets, key=lambda name: list(KIND_NAMES).index(sets[name]["kind"]))


def set_headers(metrics: dict[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """The sets as column names, and the kind of each."""
    names = ordered_sets(metrics)
    return names, tuple(KIND_NAMES[metrics["sets"][name]["kind"]] for name in names)


def accuracy_table(runs: Sequence[dict[str, Any]], modes: Sequence[str] = ("sampled", "greedy")) -> Table:
    """One row a model and mode (and run, for several runs), one column a set."""
    names, kinds = set_headers(runs[0]) if runs else ([], ())
    rows = []
    for metrics in runs:
        label = [run_label(metrics)] if len(runs) > 1 else []
        for model, sets in metrics.get("accuracy", {}).items():
            for mode in modes:
                if any(mode in sets.get(name, {}) for name in names):
                    cells = [sets.get(name, {}).get(mode, {}) for name in names]
                    title = MODEL_NAMES.get(model, model) + (", greedy" if mode == "greedy" else "")
                    rows.append([*label, title, *(with_error(c.get("mean"), c.get("se")) for c in cells)])
    labels = 2 if len(runs) > 1 else 1
    note = "Per cent of responses that are right ± standard error over questions."
    if runs:
        note += " Questions: " + ", ".join(f"{n} {runs[0]['sets'][n]['n_questions']}" for n in names) + "."
        note += lost_note(runs)
    columns = [*(["run"] if labels == 2 else []), "model", *names]
    return Table("Accuracy", columns, rows, note, ("",) * labels + kinds, labels)


def lost_note(runs: Sequence[dict[str, Any]]) -> str:
    """A sentence on responses that were not scored, "" where all were."""
    models = [sets for metrics in runs for sets in metrics.get("accuracy", {}).values()]
    lost = sum(cell["not_scored"] for sets in models for modes in sets.values() for cell in modes.values())
    return f" Left out: {lost} responses that could not be made or checked." if lost else ""


def length_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Length, truncation and missing answers of sampled responses: one row a model, one column a set."""
    names, kinds = set_headers(runs[0]) if runs else ([], ())
    rows = []
    for metrics in runs:
        label = [run_label(metrics)] if len(runs) > 1 else []
        for model, sets in metrics.get("accuracy", {}).items():
            cells = [sets.get(name, {}).get("sampled") for name in names]
            rows.append([*label, MODEL_NAMES.get(model, model), *(_lengths(cell) for cell in cells)])
    labels = 2 if len(runs) > 1 else 1
    columns = [*(["run"] if labels == 2 else []), "model", *names]
    note = "Mean tokens / % cut at the length limit / % without an answer."
    return Table("Length of responses", columns, rows, note, ("",) * labels + kinds, labels)


def _lengths(cell: dict[str, Any] | None) -> str:
    if not cell:
        return MISSING
    return f"{figure(cell['mean_tokens'], 0)} / {percent(cell['truncated'], 0)} / {percent(cell['no_answer'], 0)}"


def skill_table(runs: Sequence[dict[str, Any]]) -> Table:
    """One row a model and set."""
    rows = []
    for metrics in runs:
        label = [run_label(metrics)] if len(runs) > 1 else []
        for model, sets in metrics.get("skill_use", {}).items():
            for name in ordered_sets(metrics):
                use = sets.get(name)
                if use:
                    rows.append(
                        [
                            *label,
                            MODEL_NAMES.get(model, model),
                            name,
                            *(figure(use[key]) for key in ("answers", "distinct_answers", "reflections", "retries")),
                            f"{figure(use['f1_correct'])} / {figure(use['f1_incorrect'])}",
                            f"{percent(use['lost'])}",
                        ]
                    )
    labels = 3 if len(runs) > 1 else 2
    columns = ["model", "set", "answers", "distinct", "reflections", "retries", "verdict F1", "lost %"]
    note = (
        "Means per sampled response. Verdict F1: on correct / on incorrect answers, judged against the true grade. "
        "Lost: an explicit answer was right but not the final one."
    )
    return Table("Use of skills", [*(["run"] if labels == 3 else []), *columns], rows, note, labels=labels)


def training_table(runs: Sequence[dict[str, Any]]) -> Table:
    """One row a training stage and figure: first step and mean of the last steps."""
    rows = []
    for metrics in runs:
        label = [run_label(metrics)] if len(runs) > 1 else []
        for stage, figures in metrics.get("training", {}).items():
            for name, last in figures.get("last", {}).items():
                first = figures["first"].get(name)
                cells = [f"{figures['steps']:.0f}", name.replace("_", " "), _short(first), _short(last)]
                rows.append([*label, MODEL_NAMES[stage], *cells])
    labels = 2 if len(runs) > 1 else 1
    columns = [*(["run"] if labels == 2 else []), "stage", "steps", "figure", "first step", "at the end"]
    return Table("Training", columns, rows, "At the end: mean of the last 10 steps.", labels=labels)


def cost_table(metrics: dict[str, Any]) -> Table:
    """Time, tokens sampled and peak memory of each stage."""
    rows = [
        [stage, figure(c["seconds"], 0), figure(c["tokens"], 0), figure(c["peak_memory_mb"], 0)]
        for stage, c in metrics.get("cost", {}).items()
    ]
    return Table("Cost", ["stage", "seconds", "tokens", "peak memory MB"], rows)


def differences_table(metrics: dict[str, Any]) -> Table:
    """Paired differences between the models of one run."""
    names, kinds = set_headers(metrics)
    rows = [
        [" − ".join(MODEL_NAMES.get(m, m) for m in pair.split("-")), *(points(sets.get(name)) for name in names)]
        for pair, sets in metrics.get("differences", {}).items()
    ]
    note = "Percentage points [95 % interval], paired by question (t-test), sampled responses."
    return Table("Differences", ["models", *names], rows, note, ("", *kinds))


def run_label(metrics: dict[str, Any]) -> str:
    """A run's name, with its method where the name does not say it."""
    run = metrics["run"]
    if "label" in run:  # set where runs stand side by side
        return str(run["label"])
    return str(run["name"]) if run["method"] in run["name"] else f"{run['name']} ({run['method']})"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    marks = ["---" if i < table.labels else "---:" for i in range(len(table.columns))]
    return "\n".join([line(table.columns), line(marks), *map(line, table.rows), "", table.note]).rstrip() + "\n"


def _short(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"
