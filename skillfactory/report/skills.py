"""Which skills responses show, and whether they help."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from skillfactory.evaluation.markers import markers
from skillfactory.evaluation.skill_use import f1
from skillfactory.report.charts import Chart, Line, Point, share, spoken
from skillfactory.report.tables import (
    KIND_NAMES,
    Model,
    Table,
    at,
    figure,
    items,
    kind_of,
    kinds_of,
    models_of,
    number,
    ordered_sets,
    percent,
    run_columns,
)

Runs = Sequence[dict[str, Any]]
CONFUSION = (
    "correct_called_correct", "correct_called_incorrect", "incorrect_called_incorrect", "incorrect_called_correct",
    "no_verdict", "unmatched",
)  # fmt: skip
FEW = 10  # responses below which nothing is said of their accuracy
_USES = ("answers", "distinct", "reflections", "retries", "reflects", "retries", "has tags")
_USE_GROUPS = ("mean",) * 4 + ("% of responses",) * 3
_USE_NOTE = (
    "Of sampled responses. Answers: explicit ones. Distinct: without repeats, which are no search. Retries: attempts "
    "that follow an explicit answer."
)
_CHARTED = {"answers": "Explicit answers", "reflections": "Reflections"}


def use_parts(runs: Runs) -> list[Table | Chart | None]:
    """How often skills show."""
    return [kind_table(runs), *(use_chart(runs, key, title) for key, title in _CHARTED.items())]


def truth_parts(runs: Runs) -> list[Table | Chart | None]:
    """Whether skills help and verdicts are true; and tables for reference."""
    return [
        *(answers_chart(runs, kind) for kind in kinds_of(runs[0])),
        verdict_table(runs),
        stops_table(runs),
        skill_table(runs),
        markers_table(runs),
    ]


def kind_table(runs: Runs) -> Table:
    """How often each skill shows: one row a model and kind of question, every set of equal weight."""
    keys = ("answers", "distinct_answers", "reflections", "retries", "with_reflection", "with_retry", "tagged")
    rows = []
    for model in models_of(runs):
        for kind in kinds_of(runs[0]):
            names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == kind]
            uses = [use for name in names if (use := at(model.run, "skill_use", model.name, name))]
            means = [mean([number(use, key) for use in uses]) for key in keys]
            if uses:
                rows.append(
                    [*model.cells, KIND_NAMES[kind], *map(figure, means[:4]), *(percent(m, 0) for m in means[4:])]
                )
    heads = run_columns(runs)
    columns = [*heads, "questions", *_USES]
    groups = ("",) * (len(heads) + 1) + _USE_GROUPS
    return Table("Use of skills", columns, rows, _USE_NOTE, groups, len(heads) + 1)


def use_chart(runs: Runs, key: str, title: str) -> Chart | None:
    """How often a skill shows in a response, by set; nothing where it never does."""
    names = ordered_sets(runs[0])
    lines = []
    for model in models_of(runs):
        cells = [(i, name, number(model.run, "skill_use", model.name, name, key)) for i, name in enumerate(names)]
        found = [
            Point(i, value, f"{model.label}, {name}: {figure(value)}") for i, name, value in cells if value is not None
        ]
        if found:
            lines.append(Line(model.label, model.colour, found))
    if not any(point.y for line in lines for point in line.points):
        return None
    return Chart(title, "bars", lines, spoken(title, lines), "mean a response", ticks=names, named=True)


def skill_table(runs: Runs) -> Table:
    """How often each skill shows: one row a model and set."""
    rows = [
        [
            *model.cells, name,
            *(figure(number(use, key)) for key in ("answers", "distinct_answers", "reflections", "retries")),
            *(percent(number(use, key), 0) for key in ("with_reflection", "with_retry", "tagged")),
        ]
        for model, name, use in _uses(runs)
    ]  # fmt: skip
    heads = run_columns(runs)
    columns = [*heads, "set", *_USES]
    groups = ("",) * (len(heads) + 1) + _USE_GROUPS
    return Table("Use of skills by set", columns, rows, _USE_NOTE, groups, len(heads) + 1, folded=True)


def verdict_table(runs: Runs) -> Table:
    """What reflections say of right and of wrong attempts: one row a model and kind of question."""
    rows = []
    for model in models_of(runs):
        for kind in kinds_of(runs[0]):
            names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == kind]
            counts = verdicts_of(model.run, model.name, names)
            if counts.total():
                f1s = (figure(value) for value in f1_of(counts))
                rows.append([*model.cells, KIND_NAMES[kind], *(f"{counts[key]:,}" for key in CONFUSION), *f1s])
    heads = run_columns(runs)
    columns = [
        *heads,
        "questions",
        "Correct",
        "Incorrect",
        "Incorrect",
        "Correct",
        "none",
        "on nothing",
        "correct",
        "incorrect",
    ]
    groups = ("",) * (len(heads) + 1) + ("on right",) * 2 + ("on wrong",) * 2 + ("verdict",) * 2 + ("F1",) * 2
    note = (
        "What reflections say of the attempt before them, by its true grade: true verdicts first, then false ones. "
        "None: a reflection without a verdict. On nothing: a verdict without an attempt before it."
    )
    return Table("Verdicts of the models", columns, rows, note, groups, len(heads) + 1)


def stops_table(runs: Runs) -> Table:
    """Whether responses stop when they should, and what retries do to the answer."""
    keys = ("early_stops", "late_stops", "flips_to_correct", "flips_to_wrong")
    rows = [
        [
            *model.cells, name, *(percent(number(use, key)) for key in keys[:2]),
            *(figure(number(use, key)) for key in keys[2:]),
            *(percent(number(use, key)) for key in ("lost", "malformed")),
        ]
        for model, name, use in _uses(runs)
        if any(number(use, key) for key in (*keys, "lost", "malformed"))
    ]  # fmt: skip
    heads = run_columns(runs)
    columns = [*heads, "set", "too early %", "too late %", "to right", "to wrong", "lost %", "malformed %"]
    groups = ("",) * (len(heads) + 1) + ("stops",) * 2 + ("flips a response",) * 2 + ("", "")
    note = (
        "Too early: the last verdict is Incorrect, and the response ends all the same. Too late: it goes on after a "
        "right answer was called Correct. Flips: changes between right and wrong from one explicit answer to the next. "
        "Lost: an explicit answer was right, but not the final one. Malformed: a tag is missing or fits nowhere."
    )
    return Table("Stops and flips", columns, rows, note, groups, len(heads) + 1, folded=len(rows) > 12)


def markers_table(runs: Runs) -> Table:
    """Implicit signs of skills in text without tags."""
    kinds = list(markers())
    rows = [
        [
            *model.cells, name, percent(None if (tagged := number(use, "tagged")) is None else 1 - tagged, 0),
            *(figure(number(use, "markers", kind)) for kind in kinds),
        ]
        for model, name, use in _uses(runs)
        if items(use, "markers")
    ]  # fmt: skip
    heads = run_columns(runs)
    columns = [*heads, "set", "without tags %", *kinds]
    groups = ("",) * (len(heads) + 2) + ("mean",) * len(kinds)
    note = 'Phrases such as "let me check" a response without tags: a hint of skills, counted apart from the tags.'
    return Table("Implicit markers", columns, rows, note, groups, len(heads) + 1, folded=True)


def answers_chart(runs: Runs, kind: str) -> Chart | None:
    """Share of right responses by number of explicit answers, over the sets of a kind."""
    names = [name for name in ordered_sets(runs[0]) if kind_of(runs[0], name) == kind]
    lines = []
    numbers: set[str] = set()
    for model in models_of(runs):
        everyone, right = Counter[str](), Counter[str]()
        for name in names:
            for answers, cell in items(model.run, "skill_use", model.name, name, "by_answers"):
                everyone[answers] += int(number(cell, "responses") or 0)
                right[answers] += int(number(cell, "correct") or 0)
        enough = [answers for answers in everyone if everyone[answers] >= FEW and _count(answers) is not None]
        found = sorted(enough, key=lambda answers: _count(answers) or 0)
        if len(found) > 1:
            numbers.update(found)
            lines.append(Line(model.label, model.colour, [_by_answers(model, a, everyone[a], right[a]) for a in found]))
    if not any(point.y for line in lines for point in line.points):
        return None
    title = f"Right by number of answers: {KIND_NAMES[kind]}"
    note = f"From {FEW} responses up; intervals as if they were independent. More answers often mean a harder question."
    ticks = sorted(numbers, key=lambda a: _count(a) or 0)
    most = _count(ticks[-1]) or 0
    ticks = [next((t for t in ticks if _count(t) == i), str(i)) for i in range(most + 1)]
    return Chart(title, "lines", lines, spoken(title, lines), "% right", "explicit answers", ticks, note, named=True)


def _by_answers(model: Model, answers: str, responses: int, right: int) -> Point:
    from scipy.stats import binomtest

    ends = binomtest(right, responses).proportion_ci(method="wilson")
    what = f"{model.label}, {answers} answers in {responses:,} responses"
    return share(float(_count(answers) or 0), right / responses, what, float(ends.low), float(ends.high))


def _uses(runs: Runs) -> list[tuple[Model, str, Any]]:
    """(model, set, skill use) of all that is known."""
    found = [
        (model, name, at(model.run, "skill_use", model.name, name))
        for model in models_of(runs)
        for name in ordered_sets(runs[0])
    ]
    return [(model, name, use) for model, name, use in found if use]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None for nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _count(answers: str) -> int | None:
    """8 for "8+"."""
    digits = answers.removesuffix("+")
    return int(digits) if digits.isdecimal() else None


def verdicts_of(run: dict[str, Any], model: str, names: Sequence[str]) -> Counter[str]:
    """What a model's reflections say, summed over sets; the keys are CONFUSION."""
    counts = Counter[str]()
    for name in names:
        found = at(run, "skill_use", model, name, "verdicts")
        counts.update({key: int(number(found, key) or 0) for key in CONFUSION})
    return counts


def f1_of(counts: Mapping[str, int]) -> tuple[float | None, float | None]:
    """F1 of verdicts on correct and on incorrect attempts, from summed counts."""
    right, missed, caught, fooled = (counts[key] for key in CONFUSION[:4])
    return f1(right, fooled, missed), f1(caught, missed, fooled)
