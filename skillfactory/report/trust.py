"""What training warned of, how it did on the development questions, and where it is not as in the paper."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skillfactory import methods
from skillfactory.evaluation.summary import read_jsonl
from skillfactory.report.charts import Chart
from skillfactory.report.tables import ALL, MISSING, Table, model_name
from skillfactory.report.training import curve
from skillfactory.rounds import stage_of
from skillfactory.training.deviations import STANDING, Deviation, deviations, shown

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

TRAINED = ("sft", "rl")


def parts(
    runs: Sequence["LoadedRun"], labels: Sequence[str], metrics: Sequence[dict[str, Any]]
) -> list[Table | Chart | None]:
    """What the report has of it. `labels`: what the runs are called."""
    measured = {stage: [read_jsonl(run.path / stage / "dev.jsonl") for run in runs] for stage in TRAINED}
    titles = {"sft": "Development questions in SFT", "rl": "Development questions in RL"}
    charts = [curve(titles[stage], "accuracy", "share right", metrics, measured[stage], stage) for stage in TRAINED]
    return [*charts, warnings_table(runs, labels), deviations_table(runs, labels)]


def warnings_of(run: "LoadedRun") -> dict[str, list[str]]:
    """{stage: sentences} of the stages that warned of something."""
    found = {}
    for stage in _trained(run):
        kept = run.manifest(stage).get("warnings")
        texts = [str(each["text"]) for each in kept if isinstance(each, dict) and "text" in each] if kept else []
        if texts:
            found[stage] = texts
    return found


def deviations_of(run: "LoadedRun") -> list[Deviation]:
    """Where the training stages that have begun are not as in the paper."""
    begun = {stage_of(stage) for stage in _trained(run) if run.state(stage) != "missing"}
    return [each for each in deviations(run.recipe) if each.setting.partition(".")[0] in begun]


def facts_of(run: "LoadedRun") -> dict[str, Any]:
    """Both as plain data; nothing where there is nothing to say."""
    found = {"warnings": warnings_of(run), "not_as_in_the_paper": [str(each) for each in deviations_of(run)]}
    return {name: facts for name, facts in found.items() if facts}


def warnings_table(runs: Sequence["LoadedRun"], labels: Sequence[str]) -> Table:
    """A row a warning."""
    several = len(runs) > 1
    rows = [
        [*([label] if several else []), model_name(stage), text]
        for run, label in zip(runs, labels, strict=True)
        for stage, texts in warnings_of(run).items()
        for text in texts
    ]
    columns = [*(["run"] if several else []), "stage", "warning"]
    note = "Each was said when it was first seen; docs/training.md says what it takes to be said."
    return Table("Warnings", columns, rows, note, labels=len(columns))


def deviations_table(runs: Sequence["LoadedRun"], labels: Sequence[str]) -> Table:
    """A row a setting; of several runs those that have it alike stand in one row."""
    several = len(runs) > 1
    found = [deviations_of(run) for run in runs]
    rows = []
    for each in dict.fromkeys((d.setting, shown(d.value)) for theirs in found for d in theirs):
        having = {
            label: d
            for label, theirs in zip(labels, found, strict=True)
            for d in theirs
            if (d.setting, shown(d.value)) == each
        }
        one = next(iter(having.values()))
        stated = [shown(one.default), MISSING] if one.stated else [MISSING, shown(one.default)]
        for label in [ALL] if len(having) == len(runs) else having:
            rows.append([*([label] if several else []), *each, *stated])
    columns = [*(["run"] if several else []), "setting", "here", "the paper", "default, where the paper says nothing"]
    note = "Always: " + " ".join(STANDING)
    return Table("Training that is not as in the paper", columns, rows, note, labels=len(columns))


def _trained(run: "LoadedRun") -> list[str]:
    return [stage for stage in methods.stages(run.recipe) if stage_of(stage) in TRAINED]
