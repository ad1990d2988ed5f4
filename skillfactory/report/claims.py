"""The paper's claims, C1 to C5, each with what was measured and whether it holds here.

A part `holds` where its 95 % interval lies above 0, `does not hold` where it lies below, and is `undecided` where it
crosses 0 or is not known. A claim holds where all parts that it rests on do, and does not where one does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from skillfactory.evaluation import across
from skillfactory.evaluation.across import Scores, over_seeds, paired
from skillfactory.report.experiment_rows import BASE, Measured, budgets_of, forced_minus, judgement
from skillfactory.report.skills import CONFUSION, mean
from skillfactory.report.tables import KIND_NAMES, MISSING, at, figure, number, percent, points

HOLDS, FAILS, UNDECIDED, UNKNOWN = "holds", "does not hold", "undecided", "not measured"
ABLATIONS = ("random_order", "no_reflections", "one_prompt", "instruction_prompt")
FLOOR = 0.03  # accuracy of the base up to which it has next to nothing to lose


@dataclass(frozen=True, slots=True)
class Part:
    """One thing measured. `figure`: mean, low, high; of shares, or else of counts. `counts`: the claim rests on it."""

    what: str
    figure: dict[str, Any] | None
    share: bool = True
    counts: bool = True

    @property
    def verdict(self) -> str:
        return verdict_of(self.figure)

    @property
    def text(self) -> str:
        """Its figure and interval in words."""
        if self.share:
            return points(self.figure, " points", " ")
        value, low, high = (number(self.figure, key) for key in ("mean", "low", "high"))
        if value is None:
            return MISSING
        known = f" [{_count(low)}, {_count(high)}]" if low is not None and high is not None else ""
        return _count(value) + known


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim in one sentence, what was measured for it, and what one has to know beside it."""

    id: str
    says: str
    parts: list[Part] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        found = [part.verdict for part in self.parts if part.counts and part.verdict != UNKNOWN]
        if not found:
            return UNKNOWN
        return FAILS if FAILS in found else HOLDS if set(found) == {HOLDS} else UNDECIDED

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        parts = [asdict(part) | {"text": part.text, "verdict": part.verdict} for part in self.parts]
        seeds = [number(part.figure, "n_seeds") for part in self.parts if part.counts and part.figure]
        return {
            "id": self.id, "says": self.says, "verdict": self.verdict, "one_seed": 1 in seeds, "parts": parts,
            "remarks": self.remarks,
        }  # fmt: skip


def verdict_of(cell: Mapping[str, Any] | None) -> str:
    """Whether a figure is above 0, by its interval."""
    if not cell or number(cell, "mean") is None:
        return UNKNOWN
    low, high = number(cell, "low"), number(cell, "high")
    if low is None or high is None:
        return UNDECIDED
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def claims(rows: Sequence[Measured], reference: str) -> list[Claim]:
    """All five, whatever was measured."""
    ours = row_of(rows, "skillfactory")
    plain = row_of(rows, "rl_only", reference)
    others = [row for row in rows if row.method == "rl_only" and row.cells and row is not plain]  # of another budget
    return [
        _easy_to_hard(ours, plain, others),
        _skills(ours),
        _robust(ours, plain, others),
        _ingredients(ours, rows),
        _forced(ours, plain),
    ]


def row_of(rows: Sequence[Measured], method: str, preferred: str = "") -> Measured | None:
    """The row that stands for a method: of its rows `preferred`, else the one of its name, else the first."""
    there = [row for row in rows if row.method == method and row.cells]
    named = [row for name in (preferred, method) for row in there if row.label == name]
    return next(iter(named or there), None)


def _names(row: Measured | None, *kinds: str) -> list[str]:
    return [name for kind in kinds for name in row.names(kind)] if row else []


def _difference(scores: Scores, bound: float = 1.0) -> dict[str, Any] | None:
    return across.plain(across.difference(scores, bound))


def _finals(ours: Measured | None, plain: Measured | None, names: Sequence[str]) -> dict[str, Any] | None:
    """Final model of the one minus that of the other."""
    if not ours or not plain:
        return None
    return _difference(paired(ours.scores(ours.final, names), plain.scores(plain.final, names)))


def _easy_to_hard(ours: Measured | None, plain: Measured | None, others: Sequence[Measured]) -> Claim:
    says = "After RL on the easy level, SkillFactory's model is right more often on harder levels than RL alone."
    harder = _names(ours, "harder")
    parts = [Part(f"{_pair(ours, plain)}, mean of the harder sets", _finals(ours, plain, harder))]
    by_set = {name: Part(f"the same on {name}", _finals(ours, plain, [name]), counts=False) for name in harder}
    parts += by_set.values() if len(harder) > 1 else ()
    for row in others:
        parts.append(Part(f"{_pair(ours, row)}, mean of the harder sets", _finals(ours, row, harder), counts=False))
    if ours and "sft" in ours.models:
        gain = _difference(ours.change("sft", harder))
        parts.append(
            Part(f"{ours.label}, SFT − base, mean of the harder sets (what SFT alone gives)", gain, counts=False)
        )
    return Claim("C1", says, parts, _against(parts[0], by_set) + _seeds(ours, plain))


def _skills(ours: Measured | None) -> Claim:
    says = (
        "SkillFactory's model gives more answers and reflections on harder questions than on those it was trained on, "
        "and its verdicts tell right attempts from wrong ones."
    )
    if not ours:
        return Claim("C2", says)
    parts = [
        Part(f"{key} a response: harder − in domain", _harder_minus_easy(ours, key), share=False)
        for key in ("answers", "reflections")
    ]
    remarks = [
        "Answers, reflections and verdicts: intervals over seeds alone.",
        _F1_MISLEADS,
    ]
    for kind in ("in_domain", "harder"):
        judged = _judged(ours, ours.names(kind))
        what = f"informedness of verdicts, {KIND_NAMES[kind]}"
        parts.append(Part(what, over_seeds([each["informedness"] for each in judged], 1.0), share=False))
        shown = {key: mean([each[key] for each in judged]) for key in ("f1_correct", "f1_incorrect", *_PREVALENCE)}
        if shown["prevalence"] is not None:
            remarks.append(
                f"{KIND_NAMES[kind].capitalize()}: F1 on correct {figure(shown['f1_correct'])}, on incorrect "
                f"{figure(shown['f1_incorrect'])}; {percent(shown['prevalence'], 0)} % of the judged attempts are "
                f"wrong, so that calling all incorrect would have F1 {figure(shown['f1_if_always'])}."
            )
    return Claim("C2", says, parts, remarks)


_PREVALENCE = ("prevalence", "f1_if_always")
_F1_MISLEADS = (
    "F1 on incorrect is high wherever most attempts are wrong, also for one who calls all of them incorrect; for such "
    "a one informedness (share of wrong attempts called incorrect + share of right ones called correct − 1) is 0, so "
    "the claim rests on that."
)
_FORCING = (
    "In domain and harder sets, each of equal weight. Forced − unforced is what forcing adds to as much room; forced − "
    "standard is that and the room."
)


def _harder_minus_easy(row: Measured, key: str) -> dict[str, Any]:
    """Mean over seeds of a skill's use on harder sets minus that on sets in domain."""

    def use(metrics: Any, kind: str) -> float | None:
        return mean([number(metrics, "skill_use", row.final, name, key) for name in row.names(kind)])

    pairs = [(use(cell.metrics, "harder"), use(cell.metrics, "in_domain")) for cell in row.cells.values()]
    return over_seeds([hard - easy for hard, easy in pairs if hard is not None and easy is not None])


def _judged(row: Measured, names: Sequence[str]) -> list[dict[str, float | None]]:
    """What each seed's verdicts say over these sets."""
    from skillfactory.report.skills import f1_of

    found = []
    for cell in row.cells.values():
        each = [at(cell.metrics, "skill_use", row.final, name, "verdicts") for name in names]
        counts = {key: int(sum(number(verdicts, key) or 0 for verdicts in each)) for key in CONFUSION}
        right, wrong = f1_of(counts)
        found.append(judgement(counts) | {"f1_correct": right, "f1_incorrect": wrong})
    return found


def _robust(ours: Measured | None, plain: Measured | None, others: Sequence[Measured]) -> Claim:
    says = "On other tasks SkillFactory's model loses less by RL, or gains more, than RL alone, both against the base."
    names = _names(ours, "other")

    def against(names: Sequence[str], row: Measured | None = plain) -> dict[str, Any] | None:
        if not ours or not row:
            return None
        return _difference(paired(ours.change(ours.final, names), row.change(row.final, names)), 2.0)

    parts = [Part(f"{_pair(ours, plain)}, change from the base, mean of the other tasks", against(names))]
    by_set = {name: Part(f"the same on {name}", against([name]), counts=False) for name in names}
    parts += by_set.values() if len(names) > 1 else ()
    parts += [Part(f"{_pair(ours, row)}, the same", against(names, row), counts=False) for row in others]
    parts += [
        Part(f"{row.label}: {row.final.upper()} − base, mean of the other tasks",
             _difference(row.change(row.final, names)), counts=False)
        for row in (ours, plain)
        if row
    ]  # fmt: skip
    remarks = _against(parts[0], by_set) + _seeds(ours, plain)
    for name in names:
        base = across.accuracy(ours.scores(BASE, [name]), fixed=True) if ours else None
        if base and base.mean <= FLOOR:
            remarks.append(f"On {name} the base itself is right on {percent(base.mean)} %: there it can show no loss.")
    return Claim("C3", says, parts, remarks)


def _ingredients(ours: Measured | None, rows: Sequence[Measured]) -> Claim:
    there = [row for name in ABLATIONS if (row := row_of(rows, name))]
    named = ", ".join(row.method for row in there) or "an order, reflections, several prompts, or SFT at all"
    says = f"SkillFactory is right more often on other tasks and harder levels than without one ingredient ({named})."
    parts = [
        Part(f"{_pair(ours, row)}, {KIND_NAMES[kind]}", _finals(ours, row, _names(ours, kind)))
        for row in there
        for kind in ("other", "harder")
    ]
    remarks = [] if len(there) in (0, 4) else [f"{len(there)} of the paper's four ablations were run."]
    return Claim("C4", says, parts, remarks + (_seeds(ours, *there) if there else []))


def _forced(ours: Measured | None, plain: Measured | None) -> Claim:
    says = "Being forced to think on helps SkillFactory's model on the task that was trained, and more than RL alone."
    names = _names(ours, "in_domain", "harder")
    shared = set(budgets_of(ours)) & set(budgets_of(plain)) if ours and plain else set()
    if not ours or not plain or not shared:
        return Claim("C5", says)
    budget = max(shared)

    def minus(row: Measured, other: str) -> Scores:
        return forced_minus(row, row.final, names, budget, other)

    more = paired(minus(ours, "standard"), minus(plain, "standard"))
    parts = [Part(f"{_pair(ours, plain)}, forced − standard at {budget:,} tokens", _difference(more, 2.0))]
    for row in (ours, plain):
        for other in ("standard", "unforced"):
            rests = row is ours and other == "standard"  # less harm is no help
            parts.append(Part(f"{row.label}: forced − {other}", _difference(minus(row, other)), counts=rests))
    return Claim("C5", says, parts, [_FORCING, *_seeds(ours, plain)])


def _pair(first: Measured | None, second: Measured | None) -> str:
    return f"{first.label if first else 'skillfactory'} − {second.label if second else 'rl_only'}"


def _against(whole: Part, by_set: Mapping[str, Part]) -> list[str]:
    """Sets of which the mean over sets tells something else."""
    found = []
    for verdict, said in ((FAILS, "it does not hold"), (HOLDS, "it holds")):
        names = [name for name, part in by_set.items() if part.verdict == verdict != whole.verdict]
        if names and len(by_set) > 1:
            found.append(f"Unlike on the mean over sets, {said} on {', '.join(names)}.")
    return found


def _seeds(*rows: Measured | None) -> list[str]:
    """Where it rests on fewer seeds than a row has."""
    known = [row for row in rows if row]
    if len(known) < 2:
        return []
    first, *others = known
    few = {row.label: len(set(first.cells) & set(row.cells)) for row in others}
    lacking = [f"{label} {n}" for label, n in few.items() if n < max(len(row.cells) for row in known)]
    one = ["One seed: the intervals say nothing of how another training would come out."] if 1 in few.values() else []
    return one + ([f"Seeds that {first.label} shares with others: {', '.join(lacking)}."] if lacking else [])


def _count(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")
