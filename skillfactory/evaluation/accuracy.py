"""How often models are right: by set and by kind of set, between models, and under budget forcing.

Plain dicts from responses, as `metrics.json` holds them. Responses that could not be made or checked are left out, not
scored wrong. The question is the unit of every interval (statistics.py).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from skillfactory.evaluation.skill_use import percentiles
from skillfactory.evaluation.statistics import (
    Difference,
    average,
    average_difference,
    estimate,
    holm,
    paired_difference,
    pass_at_k,
    question_means,
)
from skillfactory.records import BROKEN, Response

Responses = dict[tuple[str, str, str], list[Response]]  # by model, set and mode
Kinds = Mapping[str, str]  # of each set: in_domain, harder, other
KS = (1, 2, 4, 8, 16, 32)  # of pass@k, and the number of samples itself


def scores(responses: Sequence[Response]) -> dict[str, float]:
    """Mean score of each question."""
    return question_means((r.question_id, float(r.outcome == "correct")) for r in responses if is_scored(r))


def is_scored(response: Response) -> bool:
    return response.reason not in BROKEN


def is_kept_step(model: str) -> bool:
    """Whether a model is one that RL kept on its way."""
    return "@" in model


def accuracy(responses: Responses) -> dict[str, Any]:
    """{model: {set: {mode: figures}}}. `samples` is responses a question; `truncated`, `no_answer` are shares."""
    found: dict[str, Any] = {}
    for (model, name, mode), rows in responses.items():
        scored = [r for r in rows if is_scored(r)]
        tokens = [r.tokens for r in rows]
        figures = _estimated(scored) | {
            "samples": max(Counter(r.question_id for r in rows).values()),
            "responses": len(rows),
            "truncated": sum(r.finish_reason == "length" for r in rows) / len(rows),
            "no_answer": sum(r.outcome == "no_answer" for r in scored) / len(scored) if scored else None,
            "not_scored": len(rows) - len(scored),
            "mean_tokens": sum(tokens) / len(rows),
            "tokens": percentiles(tokens),
            "reasons": dict(sorted(Counter(r.reason for r in rows if r.reason).items())),
            "pass_at_k": _pass_at(scored),
        }
        found.setdefault(model, {}).setdefault(name, {})[mode] = figures
    return found


def _estimated(scored: Sequence[Response]) -> dict[str, Any]:
    means = list(scores(scored).values())
    unknown = {"mean": None, "se": None, "low": None, "high": None, "n_questions": 0}
    return asdict(estimate(means)) if means else unknown


def _pass_at(scored: Sequence[Response]) -> dict[str, Any]:
    """{k: mean and standard error over questions}, as far as every question has k samples."""
    each = Counter(r.question_id for r in scored)
    right = Counter(r.question_id for r in scored if r.outcome == "correct")
    most = min(each.values(), default=0)
    found = {}
    for k in sorted({k for k in (*KS, most) if 0 < k <= most}):
        value = estimate([pass_at_k(n, right[question], k) for question, n in each.items()])
        found[str(k)] = {"mean": value.mean, "se": value.se}
    return found


def accuracy_by_kind(responses: Responses, kinds: Kinds) -> dict[str, Any]:
    """{model: {kind: {mode: figures}}}: the mean over sets of a kind, of equal weight as in the paper's tables."""
    grouped: defaultdict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
    for (model, name, mode), rows in responses.items():
        if name in kinds and (means := scores(rows)):
            grouped[model, kinds[name], mode].append(means)
    found: dict[str, Any] = {}
    for (model, kind, mode), sets in grouped.items():
        value = average([estimate(list(means.values())) for means in sets])
        found.setdefault(model, {}).setdefault(kind, {})[mode] = asdict(value) | {"n_sets": len(sets)}
    return found


def pairs_of(models: Sequence[str]) -> list[tuple[str, str]]:
    """Which models are compared, (after, before): each with the one before it, and with the first."""
    whole = [model for model in models if not is_kept_step(model)]
    steps = [model for model in whole if model in ("base", "sft", "rl")]
    pairs = [(after, before) for before, after in pairwise(steps)]
    pairs += [(model, whole[0]) for model in whole[1:]]
    return list(dict.fromkeys(pairs))


def differences(responses: Responses) -> dict[str, Any]:
    """{after: {before: {set: difference}}} of one run's models, over sampled responses; see `compared`."""
    models = list(dict.fromkeys(model for model, _, mode in responses if mode == "sampled"))
    found: dict[str, Any] = {}
    for after, before in pairs_of(models):
        sets = compared(sampled(responses, after), sampled(responses, before))
        if sets:
            found.setdefault(after, {})[before] = with_corrected(sets)
    return found


def differences_by_kind(responses: Responses, kinds: Kinds) -> dict[str, Any]:
    """{after: {before: {kind: difference}}}: the mean over the sets of a kind, each of equal weight."""
    models = list(dict.fromkeys(model for model, _, mode in responses if mode == "sampled"))
    found: dict[str, Any] = {}
    for after, before in pairs_of(models):
        by_kind = averaged(compared(sampled(responses, after), sampled(responses, before)), kinds)
        if by_kind:
            found.setdefault(after, {})[before] = by_kind
    return found


def sampled(responses: Responses, model: str, mode: str = "sampled") -> dict[str, list[Response]]:
    """A model's responses by set."""
    return {name: rows for (other, name, how), rows in responses.items() if other == model and how == mode}


def compared(
    first: Mapping[str, Sequence[Response]], second: Mapping[str, Sequence[Response]]
) -> dict[str, Difference]:
    """`first` minus `second` on each set that both have, paired by question."""
    found = {
        name: paired_difference(scores(rows), scores(second[name])) for name, rows in first.items() if name in second
    }
    return {name: difference for name, difference in found.items() if difference}


def with_corrected(sets: Mapping[str, Difference]) -> dict[str, Any]:
    """The differences as dicts, each with its p-value corrected for being one of several sets (Holm)."""
    corrected = holm([difference.p for difference in sets.values()])
    return {
        name: asdict(difference) | {"p_adjusted": p}
        for (name, difference), p in zip(sets.items(), corrected, strict=True)
    }


def averaged(sets: Mapping[str, Difference], kinds: Kinds) -> dict[str, Any]:
    """The mean difference over the sets of each kind, its p-value corrected for being one of several kinds."""
    grouped: defaultdict[str, list[Difference]] = defaultdict(list)
    for name, difference in sets.items():
        if name in kinds:
            grouped[kinds[name]].append(difference)
    found = with_corrected({kind: average_difference(each) for kind, each in grouped.items()})
    return {kind: figures | {"n_sets": len(grouped[kind])} for kind, figures in found.items()}


def forcing(responses: Responses, first: int, budgets: Sequence[int]) -> dict[str, Any]:
    """{model: {set: figures}} of budget forcing: what a larger budget gives with forcing and without it.

    `standard` is the response to the first budget as it is; the `unforced` one to the first budget gives an answer
    where the standard one was cut off. Differences are paired by question. {} without budgets.
    """
    found: dict[str, Any] = {}
    for (model, name, mode), rows in responses.items():
        by_mode = {how: responses.get((model, name, how), []) for how in _lines(first, budgets)}
        if mode != "sampled" or not any(by_mode.values()):
            continue
        lines = {
            line: {str(b): _cell(by_mode[f"{line}-{b}"]) for b in at}
            for line, at in (("unforced", (first, *budgets)), ("forced", budgets))
        }
        against = {
            "standard": dict.fromkeys(budgets, rows),
            "unforced": {b: by_mode[f"unforced-{b}"] for b in budgets},
        }
        found.setdefault(model, {})[name] = {
            "first": first,
            "budgets": list(budgets),
            "standard": _cell(rows),
            **lines,
            **{
                f"forced_minus_{other}": {
                    str(b): _difference(by_mode[f"forced-{b}"], theirs) for b, theirs in each.items()
                }
                for other, each in against.items()
            },
        }
    return found


def _lines(first: int, budgets: Sequence[int]) -> list[str]:
    return [f"unforced-{b}" for b in (first, *budgets)] + [f"forced-{b}" for b in budgets]


def _cell(rows: Sequence[Response]) -> dict[str, Any]:
    figures = _estimated([r for r in rows if is_scored(r)])
    return figures | {"mean_tokens": sum(r.tokens for r in rows) / len(rows) if rows else None}


def _difference(first: Sequence[Response], second: Sequence[Response]) -> dict[str, Any] | None:
    result = paired_difference(scores(first), scores(second))
    return asdict(result) if result else None
