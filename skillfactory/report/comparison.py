"""Several runs over the same questions, side by side: what may be compared, and the paired differences."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.accuracy import averaged, compared, sampled
from skillfactory.evaluation.statistics import holm
from skillfactory.evaluation.summary import models_in, responses_of, summarize
from skillfactory.report.same import check_same, differing_settings, notes_on
from skillfactory.report.tables import (
    KIND_NAMES,
    Table,
    at,
    kept_step,
    kinds_of,
    model_name,
    points,
    run_label,
    set_headers,
)

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

Differences = dict[str, dict[str, dict[str, Any]]]  # by model, then by run, then by set or kind
_TESTED = (
    "Percentage points [95 % interval], paired by question (t-test), sampled responses. In brackets: p corrected for "
    "all cells of the table (Holm)."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Metrics of each run, {model: {label: {set or kind: difference to the reference}}}, and what else differs.

    `notes` say what makes the comparison less than like against like.
    """

    metrics: list[dict[str, Any]]
    reference: str
    differences: Differences
    differences_by_kind: Differences
    settings: list[list[str]]
    notes: list[str]

    @property
    def labels(self) -> list[str]:
        """What the runs are called here."""
        return [each["run"]["label"] for each in self.metrics]

    def facts(self) -> dict[str, Any]:
        """All but the metrics, as plain data."""
        return {
            "runs": self.labels,
            "reference": self.reference,
            "notes": self.notes,
            "differences": self.differences,
            "differences_by_kind": self.differences_by_kind,
            "settings": [dict(zip(["setting", *self.labels], row, strict=True)) for row in self.settings],
        }


def compare(runs: Sequence["LoadedRun"], reference: str = "") -> Comparison:
    """Compare runs. `reference` is a run's name or path; by default the only `rl_only` run, or the first.

    Raises SkillFactoryError naming what differs where they were not asked the same, or not graded alike.
    """
    if len(runs) < 2:
        raise SkillFactoryError("A comparison needs at least two runs.")
    responses = [responses_of(run, texts=False) for run in runs]
    check_same(runs, responses)
    metrics = [metrics_of(run) for run in runs]
    labels = unique_labels(metrics)
    for label, each in zip(labels, metrics, strict=True):
        each["run"]["label"] = label
    chosen = find_reference(reference, runs, labels) if reference else reference_of(metrics)
    kinds = {name: section.kind for name, section in runs[0].recipe.evaluation.sets.items()}
    same_base = len({_base_of(run) for run in runs}) == 1
    by_set: Differences = {}
    by_kind: Differences = {}
    models = models_in(runs[0].recipe, {name for each in responses for name, _, _ in each})
    for model in sorted(models, key=lambda name: name != "rl"):  # what comes of it all stands first
        if kept_step(model) is not None or (model == "base" and same_base):
            continue
        theirs = sampled(responses[chosen], model)
        pairs = {
            label: compared(sampled(each, model), theirs)
            for i, (label, each) in enumerate(zip(labels, responses, strict=True))
            if i != chosen
        }
        # A model that either run lacks (rl_only has no SFT) has nothing to compare.
        known = {label: sets for label, sets in pairs.items() if sets}
        if known:
            by_set[model] = corrected({label: {n: asdict(d) for n, d in sets.items()} for label, sets in known.items()})
            by_kind[model] = corrected({label: averaged(sets, kinds) for label, sets in known.items()})
    settings, notes = differing_settings(runs), notes_on(runs)
    return Comparison(metrics, labels[chosen], by_set, by_kind, settings, notes)


def _base_of(run: "LoadedRun") -> tuple[str, ...]:
    """What tells one base model from another: where it is from, and what was in its folder."""
    content = run.manifest("evaluation").get("settings", {}).get("model (content)", "")
    return run.recipe.model, run.recipe.revision, str(content)


def metrics_of(run: "LoadedRun") -> dict[str, Any]:
    """The metrics that the report stage wrote, or fresh ones where it has not run, or was of an older version."""
    try:
        kept = run.metrics if run.state("report") == "finished" else {}
    except (SkillFactoryError, ValueError, TypeError):  # gone or damaged: the rows themselves are still there
        kept = {}
    current = {"run", "sets", "accuracy", "accuracy_by_kind", "differences_by_kind", "forcing", "skill_use"} <= set(
        kept
    )
    return kept if current else summarize(run)


def unique_labels(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """A label for each run; numbered where two would be the same."""
    labels = [run_label(each) for each in metrics]
    numbered = [f"{label} #{labels[: i + 1].count(label)}" for i, label in enumerate(labels)]
    return [label if labels.count(label) == 1 else number for label, number in zip(labels, numbered, strict=True)]


def reference_of(metrics: Sequence[dict[str, Any]]) -> int:
    """Which run the others are held against: the only `rl_only` run where there is one, else the first."""
    plain = [i for i, each in enumerate(metrics) if each["run"]["method"] == "rl_only"]
    return plain[0] if len(plain) == 1 else 0


def find_reference(wanted: str, runs: Sequence["LoadedRun"], labels: Sequence[str]) -> int:
    """The run that a label, a name or a path means. Raises SkillFactoryError where it is none or several of them."""
    path = Path(wanted).expanduser()
    ways = (
        [label == wanted for label in labels],
        [run.recipe.name == wanted for run in runs],
        [path.exists() and run.path.resolve() == path.resolve() for run in runs],
        [run.path.name == wanted for run in runs],
    )
    for found in ways:
        if sum(found) == 1:
            return found.index(True)
    there = ", ".join(f"{label} ({run.path})" for label, run in zip(labels, runs, strict=True))
    problem = "is the name of several of the runs" if any(map(any, ways)) else "is none of the runs"
    raise SkillFactoryError(f"The reference `{wanted}` {problem}; give the path of one of these: {there}.")


def corrected(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The differences, each with its p-value corrected for being one of all these (Holm)."""
    places = [(label, group) for label, cells in rows.items() for group in cells]
    adjusted = holm([rows[label][group]["p"] for label, group in places])
    found: dict[str, dict[str, Any]] = {label: {} for label in rows}
    for (label, group), p in zip(places, adjusted, strict=True):
        found[label][group] = rows[label][group] | {"p_adjusted": p}
    return found


def difference_tables(comparison: Comparison) -> list[Table]:
    """For each model, every run minus the reference: by kind of question, then by set."""
    first = comparison.metrics[0]
    names, above = set_headers(first)
    kinds = kinds_of(first)
    found = []
    for source, groups, columns, heads, ending in (
        (comparison.differences_by_kind, kinds, [KIND_NAMES[kind] for kind in kinds], ("",) * len(kinds), ""),
        (comparison.differences, names, names, above, ", by set"),
    ):
        for model, rows in source.items():
            title = f"{model_name(model)} model: difference to {comparison.reference}{ending}"
            cells = [[label, *(points(at(found, group)) for group in groups)] for label, found in rows.items()]
            found.append(Table(title, ["run", *columns], cells, _TESTED, ("", *heads)))
    return found


def settings_table(comparison: Comparison) -> Table:
    """Settings in which the runs differ."""
    labels = comparison.labels
    return Table("Settings that differ", ["setting", *labels], comparison.settings, labels=1 + len(labels))
