"""What `skillfactory show` says of a run: the yield of each step, as plain facts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from skillfactory.records import Attempt, Question, Reflection, Trace
from skillfactory.store import LoadedRun


def overview(run: LoadedRun) -> dict[str, Any]:
    """Counts of every step that has rows so far."""
    questions = run.rows("questions", Question)
    attempts = run.rows("attempts", Attempt)
    reflections = run.rows("reflections", Reflection)
    traces = run.rows("traces", Trace)
    facts: dict[str, Any] = {"name": run.recipe.name, "method": run.recipe.method, "model": run.recipe.model}
    if questions:
        facts["questions"] = dict(Counter(q.split for q in questions))
    if attempts:
        facts["attempts"] = {
            "by variant": {
                name: _attempts([a for a in attempts if a.variant == name])
                for name in dict.fromkeys(a.variant for a in attempts)
            },
            "all": _attempts(attempts),
            "reasons": dict(Counter(a.reason for a in attempts if a.reason).most_common()),
            "questions with a correct attempt": len({a.question_id for a in attempts if a.outcome == "correct"}),
            "questions": len({a.question_id for a in attempts}),
            "tokens": lengths([a.tokens for a in attempts]),
        }
    if reflections:
        facts["reflections"] = {
            "all": len(reflections),
            "agree": sum(r.agrees for r in reflections),
            "without verdict": sum(not r.verdict for r in reflections),
            "attempts with an agreeing one": len({r.attempt_id for r in reflections if r.agrees}),
            "tokens": lengths([r.tokens for r in reflections]),
        }
    if traces:
        facts["traces"] = {
            "all": len(traces),
            "questions": len({t.question_id for t in traces}),
            "pairs a trace": dict(sorted(Counter(len(t.steps) for t in traces).items())),
            "tokens": lengths([t.tokens for t in traces]),
        }
    return facts


def _attempts(attempts: Sequence[Attempt]) -> dict[str, int]:
    outcomes = Counter(a.outcome for a in attempts)
    return {
        "attempts": len(attempts), "correct": outcomes["correct"], "wrong": outcomes["wrong"],
        "no answer": outcomes["no_answer"], "malformed": sum(a.reason == "malformed" for a in attempts),
        "cut": sum(a.finish_reason == "length" for a in attempts),
    }  # fmt: skip


def lengths(tokens: Sequence[int]) -> dict[str, int]:
    """Total, median, 95th percentile and maximum of token counts (at least one)."""
    ordered = sorted(tokens)
    return {
        "total": sum(ordered),
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
        "max": ordered[-1],
    }
