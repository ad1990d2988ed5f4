"""The tables and charts of an experiment, from its metrics: those of a report, with rows in place of runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from skillfactory.report import forcing, results, skills
from skillfactory.report.charts import Chart
from skillfactory.report.claims import FAILS, HOLDS, UNDECIDED
from skillfactory.report.experiment_charts import COURSES, covered, curve, final_chart, finals, trained
from skillfactory.report.experiment_cost import cost_table, settings_table, stages_table, time_table
from skillfactory.report.sections import Section
from skillfactory.report.tables import (
    KIND_NAMES,
    MISSING,
    Model,
    Table,
    at,
    figure,
    items,
    kind_of,
    kinds_of,
    model_name,
    models_of,
    number,
    ordered_sets,
    points,
    set_headers,
)
from skillfactory.rounds import stage_of

Metrics = dict[str, Any]
HEADS = ("row", "model")
_SIDES = {HOLDS: "above 0", FAILS: "below 0"}
_CURATION = ("attempts", "reflections", "traces")


def sections(metrics: Metrics) -> list[Section]:
    """All that there is to say, under headings."""
    rows = metrics["rows"]
    found = [
        _section("claims", "Claims", [claims_table(metrics), parts_table(metrics)]),
        _section("accuracy", "Accuracy", [final_chart(metrics), results.easy_to_hard(finals(metrics)),
                 main_table(metrics), *difference_tables(metrics), sets_table(metrics), *within_tables(metrics)]),
        _section("ablations", "Ablations", ablation_tables(metrics),
                 "SkillFactory minus what lacks one ingredient: above 0, the ingredient helps."),
        _section("robustness", "Other tasks", [results.robustness(finals(metrics)), robustness_table(metrics)],
                 "What training did to tasks that it did not train: change against the base."),
        _section("forcing", "Budget forcing", forcing_parts(metrics),
                 "What more thinking gives: with more room alone, and with the end of thinking taken away."),
        _section("skills", "Skills", skill_parts(metrics)),
        _section("training", "Training", [curve(metrics, key) for key in COURSES]),
        _section("cost", "Cost", [cost_table(metrics), time_table(metrics), stages_table(metrics)]),
        _section("settings", "Settings", [settings_table(metrics)]),
    ]  # fmt: skip
    return [section for section in found if rows and section.parts]


def _section(id: str, title: str, parts: Sequence[Table | Chart | None], about: str = "") -> Section:
    return Section(id, title, [part for part in parts if part and (isinstance(part, Chart) or part.rows)], about)


def _as_rows(table: Table, **changes: Any) -> Table:
    """A table of runs as one of rows."""
    return replace(table, columns=["row" if i == 0 else name for i, name in enumerate(table.columns)], **changes)


def claims_table(metrics: Metrics) -> Table:
    """The five claims with their verdicts."""
    rows = [[str(each["id"]), str(each["says"]), _verdict(each), _measured(each)] for each in metrics["claims"] or ()]
    note = (
        "Holds: the 95 % interval of every part that it rests on lies above 0; does not hold: that of one lies below; "
        f"else {UNDECIDED}. Intervals {covered(metrics)}; they are not corrected for being several."
    )
    return Table("The paper's claims", ["claim", "says", "here", "measured"], rows, note, labels=4)


def _verdict(claim: Any) -> str:
    """The verdict, which one seed can only give for itself."""
    return f"{claim['verdict']}, for one seed" if claim["one_seed"] else str(claim["verdict"])


def _measured(claim: Any) -> str:
    """The part that a claim rests on with its figure; of several parts how they came out."""
    parts = [part for part in at(claim, "parts") or [] if part["counts"]]
    if len(parts) > 1:
        verdicts = Counter(part["verdict"] for part in parts)
        return f"{len(parts)} parts: {', '.join(f'{n} {_SIDES.get(each, each)}' for each, n in verdicts.items())}"
    return f"{parts[0]['what']}: {parts[0]['text']}" if parts else MISSING


def _side(part: Any) -> str:
    """Where a part's interval lies; in brackets where the claim does not rest on it."""
    said = _SIDES.get(part["verdict"], part["verdict"])
    return said if part["counts"] else f"({said})"


def parts_table(metrics: Metrics) -> Table:
    """All that was measured for the claims."""
    rows = [
        [
            str(claim["id"]),
            str(part["what"]),
            str(part["text"]),
            _side(part),
        ]
        for claim in metrics["claims"] or ()
        for part in claim["parts"]
    ]
    note = "[95 % interval], p of differences not corrected. In brackets: beside the claim, which does not rest on it."
    return Table("What the claims rest on", ["claim", "measured", "difference", "interval"], rows, note, labels=2)


def main_table(metrics: Metrics) -> Table:
    """Base, then SFT and final model of each row, by kind: the paper's table of results."""
    seeds = ", ".join(f"{row['run']['label']} {len(row['run']['seeds'])}" for row in trained(metrics))
    note = f"Per cent right, mean over seeds and sets [95 % interval {covered(metrics)}]. Seeds: {seeds}."
    return _as_rows(results.kind_table(metrics["rows"]), note=note)


def sets_table(metrics: Metrics) -> Table:
    """The same by set."""
    table = results.accuracy_table(metrics["rows"])
    asked = table.note.partition("Questions: ")[2]
    note = f"Per cent right, mean over seeds [95 % interval {covered(metrics)}]. Different questions in all: {asked}"
    return _as_rows(table, note=note)


def difference_tables(metrics: Metrics) -> list[Table]:
    """The final model of each row minus that of the reference, by kind and by set."""
    reference = metrics["experiment"]["reference"]
    title = f"Difference to {reference}"
    return [
        _table(metrics, title, metrics["differences_by_kind"], kinds=True),
        _table(metrics, f"{title}, by set", metrics["differences"], kinds=False),
    ]


def ablation_tables(metrics: Metrics) -> list[Table]:
    """SkillFactory minus each ablation, by kind and by set."""
    title = "SkillFactory minus each ablation"
    return [
        _table(metrics, title, metrics["ablations_by_kind"], kinds=True),
        _table(metrics, f"{title}, by set", metrics["ablations"], kinds=False),
    ]


def _table(metrics: Metrics, title: str, found: dict[str, Any], kinds: bool) -> Table:
    """Differences of final models: a row each, a column a kind or a set."""
    groups, heads = _columns(metrics, kinds)
    rows = [[label, *(points(at(cells, group)) for group in groups)] for label, cells in found.items()]
    columns = [KIND_NAMES[group] if kinds else group for group in groups]
    return Table(title, ["row", *columns], rows, _paired(metrics, "all cells of the table"), ("", *heads))


def _columns(metrics: Metrics, kinds: bool) -> tuple[list[str], tuple[str, ...]]:
    first = metrics["rows"][0]
    return (kinds_of(first), ("",) * len(kinds_of(first))) if kinds else set_headers(first)


def _paired(metrics: Metrics, family: str) -> str:
    return (
        f"Percentage points [95 % interval {covered(metrics)}], paired by seed and question, with p; in brackets "
        f"corrected for {family} (Holm)."
    )


def within_tables(metrics: Metrics) -> list[Table]:
    """What each stage of training did, within each row."""
    tables = (results.kind_differences_table(metrics["rows"]), results.differences_table(metrics["rows"]))
    notes = (_paired(metrics, "the kinds of a row"), _paired(metrics, "the sets of a row"))
    titles = ("What each stage did, by kind of question", "What each stage did, by set")
    return [_as_rows(t, title=title, note=note) for t, title, note in zip(tables, titles, notes, strict=True)]


def robustness_table(metrics: Metrics) -> Table:
    """Change on other tasks against the base, by row and model."""
    first = metrics["rows"][0]
    names = [name for name in ordered_sets(first) if kind_of(first, name) == "other"]
    by_kind = metrics["robustness_by_kind"]
    rows = [
        [label, model_name(model), points(at(by_kind, label, model, "other")), *(points(at(cells, n)) for n in names)]
        for label, models in items(metrics, "robustness")
        for model, cells in items(models)
    ]
    note = _paired(metrics, "all means, and for all sets")
    return Table("Change on other tasks against the base", [*HEADS, "mean", *names], rows, note, labels=2)


def forcing_parts(metrics: Metrics) -> list[Table | Chart | None]:
    """Budget forcing by row: by kind of question, then by set."""
    rows = metrics["rows"]
    if not any(items(row, "forcing") for row in rows):
        return []
    by_kind = [_kinds_as_sets(row) for row in rows]
    tables = [forcing.forcing_table(by_kind), forcing.forcing_table(by_kind, every=True), forcing.forcing_table(rows)]
    titles = ("Standard, unforced and forced", "The same at every budget", "The same by set")
    shown: list[Table | Chart | None] = []
    for table, title in zip(tables, titles, strict=True):
        columns = ["row", *table.columns[1:]]
        if "by set" not in title:
            columns[columns.index("set")] = "questions"
        about, differences, _ = table.note.partition("Differences in percentage points")
        note = f"{about}{differences and _paired(metrics, 'all differences of forcing')} Tokens: mean of the forced."
        shown.append(replace(table, title=title, columns=columns, note=note, folded=title != titles[0]))
    return [*shown[:1], *(forcing.budget_chart(finals(metrics), kind) for kind in kinds_of(rows[0])), *shown[1:]]


def _kinds_as_sets(row: Metrics) -> Metrics:
    found = {
        model: {KIND_NAMES[kind]: cell for kind, cell in items(kinds)} for model, kinds in items(row, "forcing_by_kind")
    }
    return row | {"forcing": found, "sets": {KIND_NAMES[kind]: {"kind": kind} for kind in kinds_of(row)}}


def skill_parts(metrics: Metrics) -> list[Table | Chart | None]:
    """Use of skills, by row and set; and what verdicts say."""
    rows, last = metrics["rows"], finals(metrics)
    verdicts = skills.verdict_table(rows)
    return [
        skill_table(metrics),
        skills.use_chart(last, "answers", "Explicit answers"),
        skills.use_chart(last, "reflections", "Reflections"),
        judgement_table(metrics),
        _as_rows(verdicts, note=f"Counts of all seeds. {verdicts.note}", folded=True),
    ]  # fmt: skip


def skill_table(metrics: Metrics) -> Table:
    """Skills of sampled responses after SFT and after RL: mean over seeds ± its standard error."""
    counted = ("answers", "distinct_answers", "reflections")
    shares = ("lost", "malformed")
    rows = [
        [*model.cells, name, *(_with_error(use, key) for key in (*counted, "f1_correct", "f1_incorrect")),
         *(_with_error(use, key, 100) for key in shares)]
        for model, name, use in _uses(metrics)
    ]  # fmt: skip
    columns = [*HEADS, "set", "answers", "distinct", "reflections", "correct", "incorrect", "lost %", "malformed %"]
    groups = ("",) * 3 + ("a response",) * 3 + ("F1 of verdicts",) * 2 + ("", "")
    note = (
        "Mean over seeds ± standard error over seeds, sampled responses. Distinct: answers without repeats. Lost: an "
        "explicit answer was right, but not the final one. Malformed: a tag is missing or fits nowhere."
    )
    return Table("Use of skills", columns, rows, note, groups, 3, folded=len(rows) > 24)


def judgement_table(metrics: Metrics) -> Table:
    """How much verdicts are worth, where most attempts are wrong."""
    rows = [
        [*model.cells, name, _with_error(use, "informedness"),
         *(_with_error(use, key) for key in ("f1_incorrect", "f1_if_always")), _with_error(use, "prevalence", 100)]
        for model, name, use in _uses(metrics)
        if number(use, "over_seeds", "prevalence", "mean") is not None
    ]  # fmt: skip
    columns = [*HEADS, "set", "informedness", "F1 incorrect", "if always", "wrong %"]
    note = (
        "Mean over seeds ± standard error. Informedness: share of wrong attempts called incorrect + share of right "
        "ones called correct − 1; 0 for verdicts that know nothing. If always: F1 on incorrect of one who calls all "
        "attempts incorrect. Wrong: of the attempts that were judged."
    )
    return Table("What verdicts are worth", columns, rows, note, labels=3, folded=True)


def _uses(metrics: Metrics) -> list[tuple[Model, str, Any]]:
    """Use of skills of what was trained."""
    found = [
        (model, name, at(model.run, "skill_use", model.name, name))
        for model in models_of(metrics["rows"])
        for name in ordered_sets(metrics["rows"][0])
        if stage_of(model.name) in ("sft", "rl")
    ]
    return [(model, name, use) for model, name, use in found if use]


def _with_error(use: Any, key: str, times: float = 1) -> str:
    mean, se = number(use, "over_seeds", key, "mean"), number(use, "over_seeds", key, "se")
    digits = 1 if times != 1 else 2
    text = figure(None if mean is None else times * mean, digits)
    return text if se is None or mean is None else f"{text} ± {figure(times * se, digits)}"
