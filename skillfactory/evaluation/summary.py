"""All figures of a run in one plain dict: what `metrics.json` holds, and what tables and pages are made from.

Only JSON types, and None for what is unknown (never NaN). Shares are from 0 to 1, lengths in tokens, times in seconds.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import skillfactory
from skillfactory import methods
from skillfactory.evaluation.accuracy import (
    Responses,
    accuracy,
    accuracy_by_kind,
    differences,
    differences_by_kind,
    forcing,
    is_scored,
)
from skillfactory.evaluation.skill_use import SkillUse, aggregate, read_skills
from skillfactory.overview import curation
from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.rounds import stage_of
from skillfactory.rows import to_records
from skillfactory.tasks.deadline import ahead
from skillfactory.tasks.questions import is_slow, task_of

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

MODELS = ("base", "sft", "rl")  # the order in which a model comes from the one before
MODES = ("sampled", "greedy", "unforced", "forced")
LAST_STEPS = 10  # steps that a "last figures" mean is taken over


def summarize(run: "LoadedRun") -> dict[str, Any]:
    """The metrics of a run, however much of it there is. Takes seconds: every sample of every response is graded."""
    recipe = run.recipe
    questions = {q.id: q for q in run.rows("questions", Question)} if run.state("questions") != "missing" else {}
    responses = responses_of(run, texts=False)
    kinds = {name: section.kind for name, section in recipe.evaluation.sets.items()}
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
        "accuracy_by_kind": accuracy_by_kind(responses, kinds),
        "differences": differences(responses),
        "differences_by_kind": differences_by_kind(responses, kinds),
        "forcing": forcing(responses, recipe.evaluation.max_tokens, recipe.evaluation.forcing.budgets),
        "skill_use": skill_use(run, questions),
        "curation": {"questions": dict(run.manifest("questions").get("counts") or {})} | curation(run),
        "training": {stage: last_figures(read_jsonl(run.path / stage / "metrics.jsonl")) for stage in ("sft", "rl")},
        "cost": cost(run),
    }
    plain: dict[str, Any] = to_plain(metrics)
    return plain


def responses_of(run: "LoadedRun", texts: bool = True) -> Responses:
    """All responses of a run by model, set and mode, in an order that does not depend on which finished first.

    Without `texts` those are "": a large run's would not fit in memory.
    """
    found: defaultdict[tuple[str, str, str], list[Response]] = defaultdict(list)
    if run.state("evaluation") != "missing":
        names = [field.name for field in fields(Response) if texts or field.name != "text"]
        for table in run.stage("evaluation").tables():
            kept = table.select([name for name in names if name in table.column_names])
            for row in kept.to_pylist():
                response = Response(**{"text": "", **row})
                found[response.model, response.set, response.mode].append(response)
    models, sets = models_in(run.recipe, {model for model, _, _ in found}), list(run.recipe.evaluation.sets)

    def place(key: tuple[str, str, str]) -> tuple[Any, ...]:
        model, name, mode = key
        line, _, budget = mode.partition("-")
        return (
            models.index(model), sets.index(name) if name in sets else len(sets), name,
            MODES.index(line) if line in MODES else len(MODES), int(budget) if budget.isdecimal() else 0, mode,
        )  # fmt: skip

    return {key: sorted(found[key], key=lambda r: (r.question_id, r.sample)) for key in sorted(found, key=place)}


def models_in(recipe: Recipe, there: Iterable[str]) -> list[str]:
    """Models in the order in which they come of each other: base, SFT, kept RL steps, RL, then the recipe's others.

    Those of earlier rounds ("sft-1") come after the base, round by round.
    """
    more = list(recipe.evaluation.models)

    def place(model: str) -> tuple[Any, ...]:
        name, _, step = model.partition("@")
        stage, _, number = name.partition("-")
        if stage in MODELS and (number.isdecimal() or name == stage):
            last = not number and stage != "base"
            round_of = int(number) if number else 0
            return 0, last, round_of, MODELS.index(stage), not step, int(step) if step.isdecimal() else 0, model
        return 1, False, 0, 0, False, more.index(model) if model in more else len(more), model

    return sorted(set(there), key=place)


def skill_use(run: "LoadedRun", questions: dict[str, Question]) -> dict[str, Any]:
    """{model: {set: figures}} over sampled responses, a shard at a time; see skill_use.aggregate."""
    tasks = {name: task_of(section.task) for name, section in run.recipe.evaluation.sets.items()}
    uses: defaultdict[tuple[str, str], list[SkillUse]] = defaultdict(list)
    kept: defaultdict[tuple[str, str], list[Response]] = defaultdict(list)
    if run.state("evaluation") == "missing":
        return {}
    for table in run.stage("evaluation").tables():
        rows = [
            row
            for row in to_records(table, Response, str(run.path))
            if row.mode == "sampled" and row.set in tasks and row.question_id in questions and is_scored(row)
        ]
        # Checks that wait for other processes wait together.
        found = ahead(
            lambda row: read_skills(tasks[row.set], questions[row.question_id], row),
            rows,
            lambda row: is_slow(tasks[row.set]),
        )
        for row, use in zip(rows, found, strict=True):
            uses[row.model, row.set].append(use)
            kept[row.model, row.set].append(replace(row, text=""))
    result: dict[str, Any] = {}
    for model in models_in(run.recipe, {model for model, _ in uses}):
        result[model] = {name: aggregate(uses[model, name], kept[model, name]) for name in tasks if uses[model, name]}
    return result


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
    for stage in methods.stages(run.recipe):
        if run.state(stage) == "missing" or stage == "report":
            continue
        manifest = run.manifest(stage)
        tokens = (manifest.get("counts") or {}).get("tokens") if stage_of(stage) not in ("traces", "sft") else None
        if tokens is None and stage_of(stage) == "rl":
            section = run.recipe.rl
            steps = read_jsonl(run.path / stage / "metrics.jsonl")
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
