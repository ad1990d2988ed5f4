"""What the cells of an experiment measured, and the figures of each row over its seeds.

A row's figures have the shape of one run's metrics (evaluation/summary.py), so that the report's tables and charts take
rows as they take runs; only their intervals cover seeds, too (evaluation/across.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillfactory.evaluation import across
from skillfactory.evaluation.accuracy import is_kept_step, pairs_of, scores
from skillfactory.evaluation.across import Scores, over_seeds
from skillfactory.evaluation.summary import models_in, responses_of
from skillfactory.report.comparison import metrics_of
from skillfactory.report.skills import CONFUSION
from skillfactory.report.tables import at, items, number

if TYPE_CHECKING:
    from skillfactory.report.experiment import Row
    from skillfactory.store import LoadedRun

BASE, SAMPLED = "base", "sampled"
_MEANS = ("truncated", "no_answer", "mean_tokens", "samples")  # of a cell of accuracy, over seeds
_SUMS = ("responses", "not_scored")
SKILLS = (
    "answers", "distinct_answers", "reflections", "retries", "f1_correct", "f1_incorrect", "lost", "malformed",
)  # fmt: skip
VERDICTS = ("informedness", "prevalence", "f1_if_always")


@dataclass(frozen=True, slots=True)
class Cell:
    """A finished cell: its run, its metrics, and the mean score of each question by model, set and mode."""

    run: "LoadedRun"
    metrics: dict[str, Any]
    scores: dict[tuple[str, str, str], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row with its cells by seed. `kinds`: of each set."""

    label: str
    method: str
    cells: dict[int, Cell]
    kinds: dict[str, str]

    @property
    def models(self) -> list[str]:
        """The models, in the order in which they come of each other, without kept RL steps."""
        found = {model for cell in self.cells.values() for model, _, _ in cell.scores if not is_kept_step(model)}
        return models_in(next(iter(self.cells.values())).run.recipe, found) if self.cells else []

    @property
    def final(self) -> str:
        """What comes of it all: the RL model, else the SFT model, else the base."""
        return next((name for name in ("rl", "sft") if name in self.models), BASE)

    def modes(self, model: str) -> list[str]:
        """The ways in which a model was asked, in order."""
        return list(dict.fromkeys(m for cell in self.cells.values() for name, _, m in cell.scores if name == model))

    def names(self, kind: str) -> list[str]:
        """The sets of a kind."""
        return [name for name, each in self.kinds.items() if each == kind]

    def scores(self, model: str, names: Sequence[str], mode: str = SAMPLED) -> Scores:
        """{seed: {set: {question: mean score}}} of these sets."""
        found = {
            seed: {name: cell.scores[model, name, mode] for name in names if cell.scores.get((model, name, mode))}
            for seed, cell in sorted(self.cells.items())
        }
        return {seed: sets for seed, sets in found.items() if sets}

    def is_fixed(self, model: str) -> bool:
        """Whether the model is the same for all seeds: the base, or one that the recipe names."""
        return model not in ("sft", "rl") and not model.startswith(("sft-", "rl-"))

    def change(self, model: str, names: Sequence[str]) -> Scores:
        """A model minus the base, of every question of these sets."""
        return across.paired(self.scores(model, names), self.scores(BASE, names))


def read(row: "Row") -> Measured:
    """Read a row's cells. Takes seconds a cell without a report, whose responses have to be graded."""
    cells = {}
    for seed, run in sorted(row.runs.items()):
        answers = responses_of(run, texts=False)
        cells[seed] = Cell(
            run, metrics_of(run), {key: means for key, rows in answers.items() if (means := scores(rows))}
        )
    sets = {name: each.kind for cell in cells.values() for name, each in cell.run.recipe.evaluation.sets.items()}
    return Measured(row.label, row.method, cells, dict(sets))


def figures(row: Measured, base: bool) -> dict[str, Any]:
    """A row's figures over seeds, in the shape of a run's metrics. `base`: with those of its base model."""
    models = [model for model in row.models if base or model != BASE]
    kinds = list(dict.fromkeys(row.kinds.values()))
    return {
        "run": {"name": row.label, "label": row.label, "method": row.method, "seeds": sorted(row.cells)},
        "sets": sets_of([row]),
        "accuracy": {model: _accuracy(row, model) for model in models},
        "accuracy_by_kind": {model: _by_kind(row, model, kinds) for model in models},
        "differences": _differences(row, {name: [name] for name in row.kinds}),
        "differences_by_kind": _differences(row, {kind: row.names(kind) for kind in kinds}),
        "forcing": _forcing(row, {name: [name] for name in row.kinds}),
        "forcing_by_kind": _forcing(row, {kind: row.names(kind) for kind in kinds}),
        "skill_use": {model: _skill_use(row, model) for model in models},
        "training": merged([at(cell.metrics, "training") for cell in row.cells.values()]),
    }


def sets_of(rows: Sequence[Measured]) -> dict[str, Any]:
    """Kind, task, level and number of different questions of each set, over all cells."""
    found: dict[str, Any] = {}
    asked: dict[str, set[str]] = {}
    for row in rows:
        for cell in row.cells.values():
            for name, facts in items(cell.metrics, "sets"):
                found.setdefault(name, dict(facts))
            for (_, name, _), questions in cell.scores.items():
                asked.setdefault(name, set()).update(questions)
    return {name: facts | {"n_questions": len(asked.get(name, ()))} for name, facts in found.items()}


def _accuracy(row: Measured, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in row.kinds:
        for mode in row.modes(model):
            value = across.plain(across.accuracy(row.scores(model, [name], mode), row.is_fixed(model)))
            if value:
                each = [at(cell.metrics, "accuracy", model, name, mode) for cell in row.cells.values()]
                found.setdefault(name, {})[mode] = value | _beside([cell for cell in each if cell])
    return found


def _beside(cells: Sequence[Any]) -> dict[str, Any]:
    """What stands beside accuracy: means over seeds, sums of counts."""
    found: dict[str, Any] = {key: over_seeds([number(cell, key) for cell in cells])["mean"] for key in _MEANS}
    found |= {key: sum(int(number(cell, key) or 0) for cell in cells) for key in _SUMS}
    found["tokens"] = merged([at(cell, "tokens") for cell in cells])
    ks = set.intersection(*({k for k, _ in items(cell, "pass_at_k")} for cell in cells)) if cells else set()
    each = {k: over_seeds([number(cell, "pass_at_k", k, "mean") for cell in cells]) for k in sorted(ks, key=int)}
    return found | {"pass_at_k": {k: {"mean": value["mean"], "se": value["se"]} for k, value in each.items()}}


def _by_kind(row: Measured, model: str, kinds: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in kinds:
        for mode in row.modes(model):
            value = across.accuracy(row.scores(model, row.names(kind), mode), row.is_fixed(model))
            if value:
                found.setdefault(kind, {})[mode] = across.plain(value)
    return found


def _differences(row: Measured, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{after: {before: {group: difference}}} of the row's models, corrected for the groups of a pair."""
    found: dict[str, Any] = {}
    models = [model for model in row.models if SAMPLED in row.modes(model)]
    for after, before in pairs_of(models):
        cells = difference_cells(
            {
                group: across.paired(row.scores(after, names), row.scores(before, names))
                for group, names in groups.items()
            }
        )
        across.corrected(list(cells.values()))
        if cells:
            found.setdefault(after, {})[before] = cells
    return found


def difference_cells(groups: Mapping[str, Scores], fixed: bool = False) -> dict[str, dict[str, Any]]:
    """The mean difference of each group of paired differences, without those that have none."""
    found = {group: across.plain(across.difference(pairs, fixed=fixed)) for group, pairs in groups.items()}
    return {group: cell for group, cell in found.items() if cell}


def budgets_of(row: Measured) -> list[int]:
    """The budgets of forcing."""
    return sorted({b for cell in row.cells.values() for b in cell.run.recipe.evaluation.forcing.budgets})


def _forcing(row: Measured, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{model: {group: figures}} in the shape of accuracy.forcing."""
    budgets = budgets_of(row)
    if not budgets:
        return {}
    first = next(iter(row.cells.values())).run.recipe.evaluation.max_tokens
    found: dict[str, Any] = {}
    for model in row.models:
        for group, names in groups.items():
            modes = {mode: row.scores(model, names, mode) for mode in row.modes(model)}
            if not any(mode.startswith("forced-") and modes[mode] for mode in modes):
                continue
            cell: dict[str, Any] = {"first": first, "budgets": budgets}
            cell["standard"] = _forced_cell(row, model, names, SAMPLED, "standard", "")
            for line, at_budgets in (("unforced", [first, *budgets]), ("forced", budgets)):
                each = {str(b): _forced_cell(row, model, names, f"{line}-{b}", line, str(b)) for b in at_budgets}
                cell[line] = {budget: value for budget, value in each.items() if value}
            for other in ("standard", "unforced"):
                cell[f"forced_minus_{other}"] = difference_cells(
                    {str(b): forced_minus(row, model, names, b, other) for b in budgets}, row.is_fixed(model)
                )
            found.setdefault(model, {})[group] = cell
    return found


def forced_minus(row: Measured, model: str, names: Sequence[str], budget: int, other: str) -> Scores:
    """Forced to a budget minus `standard`, or minus `unforced` with as much room, by question."""
    mode = SAMPLED if other == "standard" else f"unforced-{budget}"
    return across.paired(row.scores(model, names, f"forced-{budget}"), row.scores(model, names, mode))


def _forced_cell(
    row: Measured, model: str, names: Sequence[str], mode: str, line: str, budget: str
) -> dict[str, Any] | None:
    value = across.plain(across.accuracy(row.scores(model, names, mode), row.is_fixed(model)))
    places = [at(cell.metrics, "forcing", model, name, line) for cell in row.cells.values() for name in names]
    tokens = [number(at(place, budget) if budget else place, "mean_tokens") for place in places]
    return value | {"mean_tokens": over_seeds(tokens)["mean"]} if value else None


def _skill_use(row: Measured, model: str) -> dict[str, Any]:
    """{set: figures}: means over seeds, counts summed; `over_seeds` has the spread of those that the tables show."""
    found = {}
    for name in row.kinds:
        uses = [use for cell in row.cells.values() if (use := at(cell.metrics, "skill_use", model, name))]
        if uses:
            judged = [judgement(at(use, "verdicts")) for use in uses]
            spread = {key: over_seeds([number(use, key) for use in uses]) for key in SKILLS}
            spread |= {key: over_seeds([each[key] for each in judged]) for key in VERDICTS}
            found[name] = merged(uses, summed=("responses", "verdicts", "by_answers")) | {"over_seeds": spread}
    return found


def judgement(verdicts: Any) -> dict[str, float | None]:
    """How much verdicts say of attempts: from the counts of what they say by what is true.

    `informedness`: share of wrong attempts called incorrect plus share of right ones called correct, minus 1; 0 for
    whoever does not look. `prevalence`: share of wrong ones among those judged. `f1_if_always`: F1 on incorrect of one
    who calls everything incorrect.
    """
    right, missed, caught, fooled = (number(verdicts, key) or 0.0 for key in CONFUSION[:4])
    wrong, all_of_them = caught + fooled, right + missed + caught + fooled
    prevalence = wrong / all_of_them if all_of_them else None
    informed = caught / wrong + right / (right + missed) - 1 if wrong and right + missed else None
    always = 2 * prevalence / (1 + prevalence) if prevalence is not None else None
    return {"informedness": informed, "prevalence": prevalence, "f1_if_always": always}


def merged(trees: Sequence[Any], summed: Sequence[str] = (), add: bool = False) -> dict[str, Any]:
    """Nested figures as one: each number's mean over those that have it, or its sum under the keys `summed`."""
    keys = dict.fromkeys(key for tree in trees for key, _ in items(tree))
    found: dict[str, Any] = {}
    for key in keys:
        values = [tree[key] for tree in trees if isinstance(tree, dict) and tree.get(key) is not None]
        adds = add or key in summed
        if values and all(isinstance(value, dict) for value in values):
            found[key] = merged(values, summed, adds)
        else:
            known = [value for value in (number(tree, key) for tree in trees) if value is not None]
            found[key] = (sum(known) if adds else sum(known) / len(known)) if known else None
    return found
