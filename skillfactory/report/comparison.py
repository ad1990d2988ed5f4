"""Several runs over the same questions, side by side: what may be compared, and the paired differences."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.statistics import paired_difference
from skillfactory.evaluation.summary import Responses, responses_of, scores, summarize
from skillfactory.records import Question
from skillfactory.report.tables import MISSING, MODEL_NAMES, Table, points, run_label, set_headers

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun


@dataclass(frozen=True, slots=True)
class Comparison:
    """Metrics of each run, {model: {label: {set or kind: difference to the reference}}}, and what else differs."""

    metrics: list[dict[str, Any]]
    reference: str
    differences: dict[str, dict[str, dict[str, Any]]]
    differences_by_kind: dict[str, dict[str, dict[str, Any]]]
    settings: list[list[str]]


def compare(runs: Sequence["LoadedRun"]) -> Comparison:
    """Compare finished runs. Raises SkillFactoryError naming what differs where they were not asked the same."""
    if len(runs) < 2:
        raise SkillFactoryError("A comparison needs at least two runs.")
    responses = [responses_of(run) for run in runs]
    check_same(runs, responses)
    metrics = [metrics_of(run) for run in runs]
    labels = unique_labels(metrics)
    for label, each in zip(labels, metrics, strict=True):
        each["run"]["label"] = label
    reference = reference_of(metrics)
    sets = list(runs[0].recipe.evaluation.sets)
    kinds = {name: section.kind for name, section in runs[0].recipe.evaluation.sets.items()}
    by_set: dict[str, dict[str, dict[str, Any]]] = {}
    by_kind: dict[str, dict[str, dict[str, Any]]] = {}
    for model in ("rl", "sft"):
        for i, label in enumerate(labels):
            if i != reference:
                pair = (responses[i], responses[reference])
                by_set.setdefault(model, {})[label] = _differences(*pair, model, {n: n for n in sets})
                by_kind.setdefault(model, {})[label] = _differences(*pair, model, dict(kinds))
    # A model that either run lacks (rl_only has no SFT) has nothing to compare.
    by_set = {model: rows for model, rows in by_set.items() if any(rows.values())}
    settings = differing_settings(runs)
    return Comparison(metrics, labels[reference], by_set, by_kind, settings)


def metrics_of(run: "LoadedRun") -> dict[str, Any]:
    """The metrics that the report stage wrote, or fresh ones where it has not run."""
    return run.metrics if run.state("report") == "finished" else summarize(run)


def unique_labels(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """A label for each run; numbered where two would be the same."""
    labels = [run_label(each) for each in metrics]
    numbered = [f"{label} #{labels[: i + 1].count(label)}" for i, label in enumerate(labels)]
    return [label if labels.count(label) == 1 else number for label, number in zip(labels, numbered, strict=True)]


def reference_of(metrics: Sequence[dict[str, Any]]) -> int:
    """Which run the others are held against: the only `rl_only` run where there is one, else the first."""
    plain = [i for i, each in enumerate(metrics) if each["run"]["method"] == "rl_only"]
    return plain[0] if len(plain) == 1 else 0


def check_same(runs: Sequence["LoadedRun"], responses: Sequence[Responses]) -> None:
    """Refuse runs of different seeds, sets or questions, and runs that have not been evaluated."""
    first = runs[0]
    for run, found in zip(runs, responses, strict=True):
        if not found:
            raise SkillFactoryError(f"{run.path} has no responses to compare; let its evaluation finish first.")
    ours = asked_of(first, responses[0])
    for run, found in zip(runs[1:], responses[1:], strict=True):
        pair = f"{first.path} and {run.path}"
        if first.recipe.seed != run.recipe.seed:
            raise SkillFactoryError(
                f"{pair} cannot be compared: their seeds differ ({first.recipe.seed} and {run.recipe.seed}); "
                "run both with the same seed."
            )
        theirs = asked_of(run, found)
        if set(ours) != set(theirs):
            lonely = sorted(set(ours) ^ set(theirs))
            raise SkillFactoryError(f"{pair} cannot be compared: only one of them has the set `{lonely[0]}`.")
        for name, questions in ours.items():
            if questions != theirs[name]:
                shared = len(questions & theirs[name])
                raise SkillFactoryError(
                    f"{pair} cannot be compared: the questions of set `{name}` differ "
                    f"({shared} shared, {len(questions)} and {len(theirs[name])} in all); evaluate both on the same."
                )


def asked_of(run: "LoadedRun", responses: Responses) -> dict[str, set[tuple[str, str, str]]]:
    """What each set asked: (id, text, data) of its questions."""
    questions = {q.id: (q.id, q.text, q.data) for q in run.rows("questions", Question)}
    asked: dict[str, set[tuple[str, str, str]]] = {}
    for (_, name, _), rows in responses.items():
        asked.setdefault(name, set()).update(questions.get(r.question_id, (r.question_id, "", "")) for r in rows)
    return asked


def differing_settings(runs: Sequence["LoadedRun"]) -> list[list[str]]:
    """Rows (setting, value in each run) of all that differs but the name; sections that a method skips included."""
    flat = [_flatten(run.recipe.model_dump()) for run in runs]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if key != "name"]
    rows = [[key, *(str(each.get(key, MISSING)) for each in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def difference_tables(comparison: Comparison) -> list[Table]:
    """For each model, every run minus the reference, by set."""
    names, kinds = set_headers(comparison.metrics[0])
    note = "Percentage points [95 % interval], paired by question (t-test), sampled responses."
    return [
        Table(
            f"{MODEL_NAMES[model]} model: difference to {comparison.reference}",
            ["run", *names],
            [[label, *(points(sets.get(name)) for name in names)] for label, sets in rows.items()],
            note,
            ("", *kinds),
        )
        for model, rows in comparison.differences.items()
    ]


def settings_table(comparison: Comparison) -> Table:
    """Settings in which the runs differ."""
    labels = [each["run"]["label"] for each in comparison.metrics]
    return Table("Settings that differ", ["setting", *labels], comparison.settings, labels=1 + len(labels))


def _differences(first: Responses, second: Responses, model: str, groups: dict[str, str]) -> dict[str, Any]:
    """{group: difference} of one model between two runs; a group of several sets pools their questions."""
    found = {}
    for group in dict.fromkeys(groups.values()):
        pooled = [
            {
                f"{name}\x1f{question_id}": score
                for name in groups
                if groups[name] == group
                for question_id, score in scores(responses.get((model, name, "sampled"), [])).items()
            }
            for responses in (first, second)
        ]
        result = paired_difference(pooled[0], pooled[1])
        if result:
            found[group] = asdict(result)
    return found


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
