"""What curation gave and cost, as tables: the same for `skillfactory show`, the report page and Markdown."""

from typing import Any

from skillfactory.records import BROKEN
from skillfactory.report.tables import MISSING, Table, figure, percent

_LOST = {
    "no_attempt": "no attempt drawn",
    "no_correct_attempt": "no correct attempt",
    "no_true_reflection": "no reflection sees that a correct attempt is correct",
    "not_enough_pairs": "too few pairs for the pattern",
    "answer_lost": "the finished trace's answer is not found right",
    "too_long": "all traces longer than the SFT context",
}
_VERDICTS = ("called_correct", "called_incorrect", "no_verdict")


def curation_tables(facts: dict[str, Any]) -> list[Table]:
    """Those that there are figures for. `facts` as overview.curation gives them, with `questions` or without."""
    makers = (_questions, _attempts, _verdicts, _yield, _traces, _lengths, _cost)
    return [table for make in makers if (table := make(facts)) and table.rows]


def _questions(facts: dict[str, Any]) -> Table | None:
    splits = {split: n for split, n in facts.get("questions", {}).items() if isinstance(n, int)}
    return Table("Questions", list(splits), [[_n(n) for n in splits.values()]], labels=0) if splits else None


def _attempts(facts: dict[str, Any]) -> Table | None:
    counts = facts.get("attempts")
    if not counts:
        return None
    columns = ["correct", "wrong", "no_answer", "truncated", "malformed", "leaked"]
    each = {**counts["by_variant"], "all": counts}
    if not counts["leaked"]:
        columns.remove("leaked")
    rows = [
        [variant, _n(part["attempts"]), *(_share(part[key], part["attempts"]) for key in columns)]
        for variant, part in each.items()
    ]
    broken = {reason: counts[reason] for reason in sorted(BROKEN)}
    note = f"Used for traces: {_n(counts['usable'])}, of them correct {_n(counts['usable_correct'])}."
    if counts["empty"]:
        note += f" Empty: {_n(counts['empty'])}."
    if any(broken.values()):
        note += " Broken: " + ", ".join(f"{key.replace('_', ' ')} {_n(n)}" for key, n in broken.items() if n) + "."
    return Table("Attempts", ["prompt variant", "attempts", *(c.replace("_", " ") for c in columns)], rows, note)


def _verdicts(facts: dict[str, Any]) -> Table | None:
    counts = facts.get("reflections")
    if not counts:
        return None
    each = {**counts["first_verdicts_by_variant"], "all": counts["first_verdicts"]}
    rows = [
        [
            variant,
            *(_n(matrix[f"{truth}_{said}"]) for truth in ("correct", "incorrect") for said in _VERDICTS),
            figure(matrix["f1_correct"]), figure(matrix["f1_incorrect"]),
        ]
        for variant, matrix in each.items()
    ]  # fmt: skip
    said = ["Correct", "Incorrect", "none"]
    groups = ("", *["right attempt"] * 3, *["wrong attempt"] * 3, "right", "wrong")
    columns = ["verdicts on", *said, *said, "F1", "F1"]
    note = (
        f"What the first reflection on each attempt says. All {_n(counts['reflections'])} reflections: "
        f"{_n(counts['agree'])} true, {_n(counts['no_verdict'])} without a verdict, "
        f"{_n(counts['truncated'])} truncated."
    )
    return Table("Verdicts", columns, rows, note, groups)


def _yield(facts: dict[str, Any]) -> Table | None:
    attempts, traces = facts.get("attempts"), facts.get("traces")
    if not attempts or not traces or "lost" not in traces:
        return None
    asked, looked_at = attempts["questions"], traces["questions"]
    rows = [
        ["questions attempted", _n(asked), ""],
        ["with a correct attempt", _share(attempts["questions_solved"], asked), ""],
    ]
    if looked_at < asked:
        rows.append(["looked at, until traces.limit was reached", _n(looked_at), ""])
    rows.append(["with a trace", _share(traces["questions_with_traces"], looked_at), ""])
    rows += [[f"lost: {_LOST[step]}", _share(n, looked_at), ""] for step, n in traces["lost"].items()]
    built = left = traces["built"]
    rows.append(["traces built", "", _n(built)])
    for key, what in (("repeated", "the same again"), ("answer_lost", _LOST["answer_lost"]), ("too_long", "too long")):
        left -= traces[key]
        if traces[key]:
            rows.append([f"dropped: {what}", "", _share(traces[key], built)])
    if left > traces["traces"]:
        rows.append(["beyond traces.limit", "", _n(left - traces["traces"])])
    if traces["not_enough_pairs"]:
        rows.append(["not built: too few pairs", "", _n(traces["not_enough_pairs"])])
    rows.append(["traces", "", _n(traces["traces"])])
    return Table("Yield", ["step", "questions", "traces"], rows)


def _traces(facts: dict[str, Any]) -> Table | None:
    traces = facts.get("traces")
    if not traces:
        return None
    pairs = traces["by_pairs"]
    note = "Patterns: " + ", ".join(f"{name} {_n(n)}" for name, n in traces["by_pattern"].items()) + "."
    if "pairs_correct" in traces:
        every = traces["pairs_correct"] + traces["pairs_incorrect"]
        note += f" {percent(traces['pairs_correct'] / every if every else None)} % of {_n(every)} pairs are correct."
    return Table("Pairs in a trace", ["pairs", *pairs], [["traces", *map(_n, pairs.values())]], note)


def _lengths(facts: dict[str, Any]) -> Table | None:
    rows = []
    for name in ("attempts", "reflections", "traces"):
        found = facts.get(name, {}).get("tokens_percentiles")
        if found:
            rows.append([name.removesuffix("s"), *(_n(found[p]) for p in ("5", "50", "90", "99", "100"))])
    note = ""
    if "traces" in facts:
        dropped = facts["traces"].get("too_long", 0)
        note = f"The SFT context (traces.max_tokens) is {_n(facts['sft_context'])}; {_n(dropped)} traces did not fit."
    return Table("Tokens of one", ["", "5 %", "median", "90 %", "99 %", "longest"], rows, note)


def _cost(facts: dict[str, Any]) -> Table | None:
    cost = facts.get("cost")
    if not cost:
        return None
    traces = facts.get("traces", {}).get("traces", 0)
    tokens = sum(part["tokens"] or 0 for part in cost.values())
    seconds = sum(part["seconds"] or 0.0 for part in cost.values())
    rows = [[name, _n(part["tokens"] or 0), figure(part["seconds"], 0)] for name, part in cost.items()]
    rows.append(["all", _n(tokens), figure(seconds, 0)])
    if traces:
        rows.append(["a trace", figure(tokens / traces, 0), figure(seconds / traces, 3)])
    return Table("Cost of sampling", ["", "tokens sampled", "seconds"], rows, f"Budget: {facts['budget']}.")


def _n(value: int) -> str:
    return f"{value:,}"


def _share(n: int, of: int) -> str:
    return f"{n:,} ({n / of:.0%})" if of else (MISSING if not n else f"{n:,}")
