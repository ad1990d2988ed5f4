"""What curation gave and cost: the same for `skillfactory show`, the report page and Markdown."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from skillfactory.records import BROKEN
from skillfactory.report.charts import Chart, Line, Point, spoken
from skillfactory.report.tables import MISSING, Table, at, figure, items, number, percent, run_label

_LOST = {
    "no_attempt": "no attempt drawn",
    "no_correct_attempt": "no correct attempt",
    "no_true_reflection": "no reflection sees that a correct attempt is correct",
    "not_enough_pairs": "too few pairs for the pattern",
    "answer_lost": "the finished trace's answer is not found right",
    "too_long": "all traces longer than the SFT context",
}
_FOLDED = ("Verdicts", "Tokens of one")  # for reference
_VERDICTS = ("called_correct", "called_incorrect", "no_verdict")


def curation_parts(runs: Sequence[dict[str, Any]]) -> list[Table | Chart | None]:
    """Figures of all runs, then the tables of each that has curated."""
    several = len(runs) > 1
    parts: list[Table | Chart | None] = [yield_chart(runs), pairs_chart(runs)]
    for run in runs:
        for table in curation_tables(at(run, "curation") or {}):
            title = f"{run_label(run)}: {table.title.lower()}" if several else table.title
            parts.append(replace(table, title=title, folded=several or table.title in _FOLDED))
    return parts


def curation_tables(facts: dict[str, Any]) -> list[Table]:
    """Those that there are figures for. `facts` as overview.curation gives them, with `questions` or without."""
    makers = (_questions, _attempts, _verdicts, _yield, _traces, _lengths, _cost)
    return [table for make in makers if (table := make(facts)) and table.rows]


def _questions(facts: dict[str, Any]) -> Table | None:
    splits = {split: n for split, n in items(facts, "questions") if isinstance(n, int)}
    return Table("Questions", list(splits), [[_n(n) for n in splits.values()]], labels=0) if splits else None


def _attempts(facts: dict[str, Any]) -> Table | None:
    counts = at(facts, "attempts")
    if not counts:
        return None
    columns = ["correct", "wrong", "no_answer", "truncated", "malformed", "leaked"]
    each = {**dict(items(counts, "by_variant")), "all": counts}
    if not number(counts, "leaked"):
        columns.remove("leaked")
    rows = [
        [variant, _n(number(part, "attempts")), *(_share(number(part, c), number(part, "attempts")) for c in columns)]
        for variant, part in each.items()
    ]
    broken = {reason: number(counts, reason) for reason in sorted(BROKEN)}
    usable, right = number(counts, "usable"), number(counts, "usable_correct")
    note = f"Used for traces: {_n(usable)}, of them correct {_n(right)}."
    if empty := number(counts, "empty"):
        note += f" Empty: {_n(empty)}."
    if any(broken.values()):
        note += " Broken: " + ", ".join(f"{key.replace('_', ' ')} {_n(n)}" for key, n in broken.items() if n) + "."
    return Table("Attempts", ["prompt variant", "attempts", *(c.replace("_", " ") for c in columns)], rows, note)


def _verdicts(facts: dict[str, Any]) -> Table | None:
    counts = at(facts, "reflections")
    if not counts:
        return None
    each = {**dict(items(counts, "first_verdicts_by_variant")), "all": at(counts, "first_verdicts")}
    rows = [
        [
            variant,
            *(_n(number(matrix, f"{truth}_{said}")) for truth in ("correct", "incorrect") for said in _VERDICTS),
            figure(number(matrix, "f1_correct")), figure(number(matrix, "f1_incorrect")),
        ]
        for variant, matrix in each.items()
    ]  # fmt: skip
    said = ["Correct", "Incorrect", "none"]
    groups = ("", *["right attempt"] * 3, *["wrong attempt"] * 3, "right", "wrong")
    columns = ["verdicts on", *said, *said, "F1", "F1"]
    every, agree, none, cut = (number(counts, key) for key in ("reflections", "agree", "no_verdict", "truncated"))
    note = (
        f"What the first reflection on each attempt says. All {_n(every)} reflections: "
        f"{_n(agree)} true, {_n(none)} without a verdict, {_n(cut)} truncated."
    )
    return Table("Verdicts", columns, rows, note, groups)


def _yield(facts: dict[str, Any]) -> Table | None:
    attempts, traces = at(facts, "attempts"), at(facts, "traces")
    if not attempts or not traces or at(traces, "lost") is None:
        return None
    asked, looked_at = number(attempts, "questions"), number(traces, "questions")
    rows = [
        ["questions attempted", _n(asked), ""],
        ["with a correct attempt", _share(number(attempts, "questions_solved"), asked), ""],
    ]
    if (looked_at or 0) < (asked or 0):
        rows.append(["looked at, until traces.limit was reached", _n(looked_at), ""])
    rows.append(["with a trace", _share(number(traces, "questions_with_traces"), looked_at), ""])
    lost = dict(items(traces, "lost"))
    rows += [[f"lost: {_LOST.get(step, step)}", _share(number(lost, step), looked_at), ""] for step in lost]
    built = left = number(traces, "built") or 0
    rows.append(["traces built", "", _n(built)])
    for key, what in (("repeated", "the same again"), ("answer_lost", _LOST["answer_lost"]), ("too_long", "too long")):
        dropped = number(traces, key) or 0
        left -= dropped
        if dropped:
            rows.append([f"dropped: {what}", "", _share(dropped, built)])
    kept = number(traces, "traces")
    if left > (kept or 0):
        rows.append(["beyond traces.limit", "", _n(left - (kept or 0))])
    if few := number(traces, "not_enough_pairs"):
        rows.append(["not built: too few pairs", "", _n(few)])
    rows.append(["traces", "", _n(kept)])
    return Table("Yield", ["step", "questions", "traces"], rows)


def _traces(facts: dict[str, Any]) -> Table | None:
    traces = at(facts, "traces")
    if not traces:
        return None
    pairs = dict(items(traces, "by_pairs"))
    note = "Patterns: " + ", ".join(f"{name} {_n(number(n))}" for name, n in items(traces, "by_pattern")) + "."
    right, wrong = number(traces, "pairs_correct"), number(traces, "pairs_incorrect")
    if right is not None and wrong is not None:
        every = right + wrong
        note += f" {percent(right / every if every else None)} % of {_n(every)} pairs are correct."
    return Table("Pairs in a trace", ["pairs", *pairs], [["traces", *(_n(number(n)) for n in pairs.values())]], note)


def _lengths(facts: dict[str, Any]) -> Table | None:
    rows = []
    for name in ("attempts", "reflections", "traces"):
        found = at(facts, name, "tokens_percentiles")
        if found:
            rows.append([name.removesuffix("s"), *(_n(number(found, p)) for p in ("5", "50", "90", "99", "100"))])
    note = ""
    if at(facts, "traces"):
        dropped = number(facts, "traces", "too_long") or 0
        context = _n(number(facts, "sft_context"))
        note = f"The SFT context (traces.max_tokens) is {context}; {_n(dropped)} traces did not fit."
    return Table("Tokens of one", ["", "5 %", "median", "90 %", "99 %", "longest"], rows, note)


def _cost(facts: dict[str, Any]) -> Table | None:
    cost = dict(items(facts, "cost"))
    if not cost:
        return None
    traces = number(facts, "traces", "traces")
    tokens = sum(number(part, "tokens") or 0 for part in cost.values())
    seconds = sum(number(part, "seconds") or 0.0 for part in cost.values())
    rows = [[name, _n(number(part, "tokens") or 0), figure(number(part, "seconds"), 0)] for name, part in cost.items()]
    rows.append(["all", _n(tokens), figure(seconds, 0)])
    if traces:
        rows.append(["a trace", figure(tokens / traces, 0), figure(seconds / traces, 3)])
    return Table("Cost of sampling", ["", "tokens sampled", "seconds"], rows, f"Budget: {at(facts, 'budget')}.")


def yield_chart(runs: Sequence[dict[str, Any]]) -> Chart | None:
    """What each step kept of what it looked at."""
    steps: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
        "questions solved": (("attempts", "questions_solved"), ("attempts", "questions")),
        "attempts correct": (("attempts", "correct"), ("attempts", "attempts")),
        "verdicts true": (("reflections", "agree"), ("reflections", "reflections")),
        "questions with a trace": (("traces", "questions_with_traces"), ("traces", "questions")),
        "traces kept": (("traces", "traces"), ("traces", "built")),
    }
    lines = []
    for i, run in enumerate(runs):
        label = run_label(run) if len(runs) > 1 else "kept"
        found = []
        for place, (step, (some, whole)) in enumerate(steps.items()):
            kept, of = number(run, "curation", *some), number(run, "curation", *whole)
            if kept is not None and of:
                tip = f"{label}, {step}: {_n(kept)} of {_n(of)}, {percent(kept / of)} %"
                found.append(Point(place, 100 * kept / of, tip))
        if found:
            lines.append(Line(label, i if len(runs) > 1 else 1, found))
    if not lines:
        return None
    title = "What each step kept"
    return Chart(title, "bars", lines, spoken(title, lines), "%", ticks=list(steps))


def pairs_chart(runs: Sequence[dict[str, Any]]) -> Chart | None:
    """How many traces hold 1, 2, … pairs."""
    counts = [dict(items(run, "curation", "traces", "by_pairs")) for run in runs]
    ticks = sorted({pairs for each in counts for pairs in each if pairs.isdecimal()}, key=int)
    lines = []
    for i, (run, each) in enumerate(zip(runs, counts, strict=True)):
        label = run_label(run) if len(runs) > 1 else "traces"
        found = [
            Point(place, n, f"{label}, {pairs} pairs: {_n(n)} traces")
            for place, pairs in enumerate(ticks)
            if (n := number(each, pairs)) is not None
        ]
        if found:
            lines.append(Line(label, i if len(runs) > 1 else 1, found))
    if not lines:
        return None
    title = "Pairs in a trace"
    return Chart(
        title,
        "bars",
        lines,
        spoken(title, lines),
        "traces",
        ticks=[f"{pairs} pair{'s' if pairs != '1' else ''}" for pairs in ticks],
    )


def _n(value: float | None) -> str:
    return figure(value, 0)


def _share(n: float | None, of: float | None) -> str:
    return f"{_n(n)} ({n / of:.0%})" if n is not None and of else (MISSING if not n else _n(n))
