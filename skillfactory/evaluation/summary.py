"""All figures of a run in one plain dict: what `metrics.json` holds, and what tables and pages are made from.

Only JSON types, and None for what is unknown (never NaN). Shares are from 0 to 1, lengths in tokens, times in seconds.
"""

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import skillfactory
from skillfactory.evaluation.skill_use import aggregate, read_skills
from skillfactory.evaluation.statistics import estimate, paired_difference, pass_at_k, question_means
from skillfactory.overview import curation
from skillfactory.recipe import Recipe
from skillfactory.records import BROKEN, Question, Response
from skillfactory.tasks.questions import task_of

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

MODELS = ("base", "sft", "rl")  # the order in which a model comes from the one before
KINDS = ("in_domain", "harder", "other")
LAST_STEPS = 10  # steps that a "last figures" mean is taken over
Responses = dict[tuple[str, str, str], list[Response]]  # by model, set and mode


def summarize(run: "LoadedRun") -> dict[str, Any]:
    """The metrics of a run, however much of it there is. Takes seconds: every sample of every response is graded."""
    recipe = run.recipe
    questions = {q.id: q for q in run.rows("questions", Question)} if run.state("questions") != "missing" else {}
    responses = responses_of(run)
    metrics = {
        "run": {
            "name": recipe.name,
            "method": recipe.method,
            "model": recipe.model,
            "seed": recipe.seed,
            "version": skillfactory.__version__,
        },
        "sets": _sets(recipe, responses),
        "accuracy": accuracy(responses),
        "skill_use": skill_use(recipe, questions, responses),
        "differences": differences(responses, {name: name for name in recipe.evaluation.sets}),
        "differences_by_kind": differences(responses, {n: s.kind for n, s in recipe.evaluation.sets.items()}),
        "curation": {"questions": dict(run.manifest("questions").get("counts") or {})} | curation(run),
        "training": {stage: last_figures(read_jsonl(run.path / stage / "metrics.jsonl")) for stage in ("sft", "rl")},
        "cost": cost(run),
    }
    plain: dict[str, Any] = to_plain(metrics)
    return plain


def responses_of(run: "LoadedRun") -> Responses:
    """All responses of a run by model, set and mode, in an order that does not depend on which finished first."""
    found: defaultdict[tuple[str, str, str], list[Response]] = defaultdict(list)
    if run.state("evaluation") != "missing":
        for row in run.rows("evaluation", Response):
            found[row.model, row.set, row.mode].append(row)
    sets = list(run.recipe.evaluation.sets)

    def place(key: tuple[str, str, str]) -> tuple[Any, ...]:
        model, name, mode = key
        return (
            MODELS.index(model) if model in MODELS else len(MODELS), model,
            sets.index(name) if name in sets else len(sets), name, mode != "sampled", mode,
        )  # fmt: skip

    return {key: sorted(found[key], key=lambda r: (r.question_id, r.sample)) for key in sorted(found, key=place)}


def scores(responses: list[Response]) -> dict[str, float]:
    """Mean score of each question. What could not be made or checked is left out, not scored wrong."""
    return question_means((r.question_id, float(r.outcome == "correct")) for r in responses if is_scored(r))


def is_scored(response: Response) -> bool:
    return response.reason not in BROKEN


def accuracy(responses: Responses) -> dict[str, Any]:
    """{model: {set: {mode: figures}}}. `samples` is responses a question; `truncated`, `no_answer` are shares."""
    found: dict[str, Any] = {}
    for (model, name, mode), rows in responses.items():
        scored = [r for r in rows if is_scored(r)]
        means = scores(rows)
        figures = asdict(estimate(list(means.values()))) if means else {"mean": None, "se": None, "n_questions": 0}
        each = Counter(r.question_id for r in scored)
        right = Counter(r.question_id for r in scored if r.outcome == "correct")
        most_k = min(each.values(), default=0)
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32) if k <= most_k} | ({most_k} if most_k else set()))
        figures |= {
            "samples": max(Counter(r.question_id for r in rows).values()),
            "responses": len(rows),
            "truncated": sum(r.finish_reason == "length" for r in rows) / len(rows),
            "no_answer": sum(r.outcome == "no_answer" for r in scored) / len(scored) if scored else None,
            "not_scored": len(rows) - len(scored),
            "mean_tokens": sum(r.tokens for r in rows) / len(rows),
            "reasons": dict(sorted(Counter(r.reason for r in rows if r.reason).items())),
            "pass_at_k": {str(k): sum(pass_at_k(n, right[q], k) for q, n in each.items()) / len(each) for k in ks},
        }
        found.setdefault(model, {}).setdefault(name, {})[mode] = figures
    return found


def skill_use(recipe: Recipe, questions: dict[str, Question], responses: Responses) -> dict[str, Any]:
    """{model: {set: figures}} over sampled responses; see skill_use.aggregate."""
    tasks = {name: task_of(section.task) for name, section in recipe.evaluation.sets.items()}
    found: dict[str, Any] = {}
    for (model, name, mode), rows in responses.items():
        if mode == "sampled" and name in tasks:
            uses = [
                read_skills(tasks[name], questions[r.question_id], r.text, r.outcome)
                for r in rows
                if r.question_id in questions and is_scored(r)
            ]
            found.setdefault(model, {})[name] = aggregate(uses)
    return found


def differences(responses: Responses, groups: dict[str, str]) -> dict[str, Any]:
    """Paired differences between models of one run, {"rl-base": {group: figures}}; `groups` maps a set to its group.

    Sampled responses only. A group of several sets pools their questions, each of equal weight.
    """
    pooled: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (model, name, mode), rows in responses.items():
        if mode == "sampled" and name in groups:
            pooled[model, groups[name]] |= {f"{name}\x1f{q}": score for q, score in scores(rows).items()}
    present = [m for m in MODELS if any(model == m for model, _ in pooled)]
    pairs = [*pairwise(present), *([(present[0], present[-1])] if len(present) > 2 else [])]
    found: dict[str, Any] = {}
    for before, after in pairs:
        for group in dict.fromkeys(groups.values()):
            result = paired_difference(pooled[after, group], pooled[before, group])
            if result:
                found.setdefault(f"{after}-{before}", {})[group] = asdict(result)
    return found


def read_jsonl(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file, [] where there is none. Lines that a kill left half-written are skipped."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append({k: float(v) for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)})
    return rows


def last_figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Steps and seconds in all, the first step's figures, and each figure's mean over the last LAST_STEPS steps."""
    if not rows:
        return {}
    tail = rows[-LAST_STEPS:]
    names = [name for name in rows[-1] if name not in ("step", "seconds")]
    return {
        "steps": rows[-1].get("step", len(rows)),
        "seconds": sum(row.get("seconds", 0.0) for row in rows),
        "first": {name: rows[0][name] for name in names if name in rows[0]},
        "last": {name: _mean([row[name] for row in tail if name in row]) for name in names},
        "last_is_mean_of": len(tail),
    }


def cost(run: "LoadedRun") -> dict[str, Any]:
    """{stage: {seconds, tokens, peak_memory_mb}} of the stages there are; `tokens`: sampled, None where unknown."""
    found: dict[str, Any] = {}
    for stage in ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation"):
        if run.state(stage) == "missing":
            continue
        manifest = run.manifest(stage)
        tokens = (manifest.get("counts") or {}).get("tokens") if stage not in ("traces", "sft") else None
        if tokens is None and stage == "rl":
            section = run.recipe.rl
            steps = read_jsonl(run.path / "rl" / "metrics.jsonl")
            tokens = round(sum(s.get("length", 0.0) for s in steps) * section.prompts_per_step * section.group_size)
        found[stage] = {
            "seconds": manifest.get("seconds"),
            "tokens": tokens,
            "peak_memory_mb": manifest.get("peak_memory_mb"),
        }
    return found


def to_plain(data: Any) -> Any:
    """The same with JSON types alone: NaN and infinities become None, numpy numbers become Python's."""
    if isinstance(data, dict):
        return {str(key): to_plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [to_plain(value) for value in data]
    if hasattr(data, "item") and not isinstance(data, str | bytes):
        data = data.item()
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def _sets(recipe: Recipe, responses: Responses) -> dict[str, Any]:
    """Kind, level and number of questions of each set."""
    found = {}
    for name, section in recipe.evaluation.sets.items():
        asked = {r.question_id for (_, other, _), rows in responses.items() if other == name for r in rows}
        found[name] = {
            "kind": section.kind,
            "task": section.task.name,
            "level": section.task.level,
            "n_questions": len(asked),
        }
    return found


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
