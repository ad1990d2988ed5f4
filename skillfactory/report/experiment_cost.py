"""What the rows of an experiment cost, where its time went, and in which settings they differ, as tables."""

from typing import Any

from skillfactory.report.experiment_charts import trained
from skillfactory.report.shares import PARTS
from skillfactory.report.tables import MISSING, Table, figure, items, number, percent
from skillfactory.rounds import stage_of

Metrics = dict[str, Any]
_CURATION = ("attempts", "reflections", "traces")


def cost_table(metrics: Metrics) -> Table:
    """What a cell of each row cost, in the mean: tokens and seconds, as if alone and as paid here."""
    rows = []
    for label, stages in items(metrics, "cost"):

        def total(key: str, *names: str, stages: Any = stages) -> float | None:
            found = [number(f, key) for stage, f in items(stages) if stage_of(stage) in names or not names]
            known = [value for value in found if value is not None]
            return sum(known) if known else None

        stages_of = (_CURATION, ("sft",), ("rl",), ("evaluation",))
        sampled = [total("tokens", *group) for group in (_CURATION, ("rl",), ("evaluation",))]
        learned = [total("trained_tokens", stage) for stage in ("sft", "rl")]
        seconds = [total("seconds", *group) for group in stages_of]
        rows.append(
            [label, *(figure(v, 0) for v in (*sampled, *learned, *seconds, total("seconds"), total("seconds_paid")))]
        )
    columns = [
        "row",
        "curation",
        "RL",
        "evaluation",
        "SFT",
        "RL",
        "curation",
        "SFT",
        "RL",
        "evaluation",
        "all",
        "paid here",
    ]
    groups = ("",) + ("tokens sampled",) * 3 + ("tokens trained on",) * 2 + ("seconds",) * 6
    note = (
        "A cell of the row, mean over seeds, earlier rounds included. Seconds on the clock beside other cells, as if "
        "nothing were shared; paid here: without stages that another cell had made. Trained on: traces times epochs, "
        "with their prompts; rollouts."
    )
    return Table("Cost of a cell", columns, rows, note, groups)


def stages_table(metrics: Metrics) -> Table:
    """The same by stage."""
    keys = ("seconds", "seconds_paid", "tokens", "tokens_paid", "trained_tokens", "peak_memory_mb")
    rows = [
        [label, stage, *(figure(number(facts, key), 0) for key in keys)]
        for label, stages in items(metrics, "cost")
        for stage, facts in items(stages)
    ]
    columns = ["row", "stage", "as if alone", "paid here", "as if alone", "paid here", "trained on", "peak memory MB"]
    groups = ("", "", "seconds", "seconds", "tokens sampled", "tokens sampled", "tokens", "")
    return Table("Cost by stage", columns, rows, "Mean over seeds.", groups, 2, folded=True)


def time_table(metrics: Metrics) -> Table:
    """Where the wall time of the job slots went."""
    names = (
        "attempts",
        "reflections",
        "rollouts",
        "evaluation",
        "SFT",
        "RL updates",
        "other",
        "failed cells",
        "idle slots",
    )
    rows = []
    for label, parts in items(metrics, "time"):
        whole = number(parts, "seconds") or 0.0
        cells = [(number(parts, part) or 0.0) / whole if whole else None for part in PARTS]
        rows.append([label or "all", figure(whole / 3600, 2), *(percent(cell) for cell in cells)])
    groups = ("", "") + ("% sampling",) * 4 + ("% training",) * 2 + ("%",) * 3
    note = (
        "Of the hours that the job slots took, paid here. Other: questions, building traces, reports, starting up. "
        "Failed cells and idle slots (no cell left to run, or none that could) are known of the whole only."
    )
    return Table("Where the time went", ["row", "hours", *names], rows, note, groups)


def settings_table(metrics: Metrics) -> Table:
    """The settings in which the rows' recipes differ."""
    labels = [row["run"]["label"] for row in trained(metrics)]
    rows = [[key, *(str(values.get(label, MISSING)) for label in labels)] for key, values in items(metrics, "settings")]
    return Table("Settings that differ", ["setting", *labels], rows, labels=1 + len(labels))
