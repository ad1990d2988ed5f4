"""The sections of a report, in their order: the same for one run and for several, for page, Markdown and terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillfactory.evaluation.summary import read_jsonl
from skillfactory.report import forcing, provenance, results, skills, steps, training, trust
from skillfactory.report.charts import Chart
from skillfactory.report.comparison import Comparison, difference_tables, settings_table
from skillfactory.report.curation import curation_parts
from skillfactory.report.tables import Table, at, items, model_name, run_label
from skillfactory.report.training import Rows

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with tables and charts below it. `about`: a sentence on what it says."""

    id: str
    title: str
    parts: list[Table | Chart]
    about: str = ""

    @property
    def tables(self) -> list[Table]:
        """Its tables alone."""
        return [part for part in self.parts if isinstance(part, Table)]


@dataclass(frozen=True, slots=True)
class Material:
    """What a report is made from: runs, their metrics and training lines, and for several runs their comparison."""

    runs: Sequence["LoadedRun"]
    metrics: list[dict[str, Any]]
    rl: list[Rows]
    sft: list[Rows]
    comparison: Comparison | None = None


def material(
    runs: Sequence["LoadedRun"], metrics: list[dict[str, Any]], comparison: Comparison | None = None
) -> Material:
    """Read what is not in the metrics."""
    rl, sft = ([read_jsonl(run.path / stage / "metrics.jsonl") for run in runs] for stage in ("rl", "sft"))
    return Material(runs, metrics, rl, sft, comparison)


def headline(given: Material) -> Chart | None:
    """The first sentence as a picture."""
    if not given.comparison:
        rows = {
            model_name(model): at(befores, "base")
            for model, befores in items(given.metrics[0], "differences_by_kind")
            if at(befores, "base")
        }
        return results.differences_chart("Change against the base model", rows, given.metrics)
    comparison = given.comparison
    rows = {
        f"{label}, {model_name(model)}": kinds
        for model, found in comparison.differences_by_kind.items()
        for label, kinds in found.items()
    }
    return results.differences_chart(f"Difference to {comparison.reference}", rows, given.metrics)


def sections(given: Material) -> list[Section]:
    """All sections that have something to say."""
    runs, comparison = given.metrics, given.comparison
    between = difference_tables(comparison) if comparison else []
    kinds, *rest = results.parts(runs)
    labels = [run_label(run) for run in runs]
    cost: list[Table | Chart | None] = [
        *([settings_table(comparison)] if comparison else []),
        provenance.cost_table(runs),
        provenance.versions_table(given.runs, labels),
    ]
    found = [
        _section("accuracy", "Accuracy", [kinds, *between, *rest]),
        _section(
            "forcing", "Budget forcing", forcing.parts(runs),
            "What more thinking gives: with more room alone, and with the end of thinking taken away.",
        ),
        _section(
            "skills", "Skills", [*skills.use_parts(runs), *steps.parts(runs, given.rl), *skills.truth_parts(runs)],
            "What the tags in responses show. Attempts in a response are graded one by one.",
        ),
        _section(
            "training", "Training", [*training.parts(runs, given.rl, given.sft), *trust.parts(given.runs, labels, runs)]
        ),
        _section("curation", "Curation", curation_parts(runs), "What each step to the traces made and kept."),
        _section("cost", "Cost and versions", cost),
    ]  # fmt: skip
    return [section for section in found if section.parts]


def _section(id: str, title: str, parts: Sequence[Table | Chart | None], about: str = "") -> Section:
    kept = [part for part in parts if part and (isinstance(part, Chart) or part.rows)]
    return Section(id, title, kept, about)
