"""What a recipe would do, in numbers, before it does it: what `skillfactory run --dry-run` prints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillfactory import methods, store
from skillfactory.pipeline import identities, model_folder
from skillfactory.recipe import Recipe

BYTES_PER_TOKEN = 2.0  # of generated text in compressed Parquet, about


@dataclass(frozen=True)
class StagePlan:
    """One stage: its state in the run directory, its counts, the most tokens it can generate, and disk in bytes."""

    name: str
    state: str
    counts: dict[str, int] = field(default_factory=dict)
    most_tokens: int = 0
    disk: int | None = 0  # None: not known before the model is there


def plan(recipe: Recipe, path: Path) -> list[StagePlan]:
    """The stages of the recipe's method, in order. Counts before filtering; tokens and disk are upper bounds."""
    model = _model_bytes(recipe)
    return [
        StagePlan(name, _state(name, recipe, path), *_figures(name, recipe, model))
        for name in methods.get(recipe.method)
    ]


def _figures(name: str, recipe: Recipe, model: int | None) -> tuple[dict[str, int], int, int | None]:
    """Counts, most tokens, most disk of one stage."""
    q, a, r, e = recipe.questions, recipe.attempts, recipe.rl, recipe.evaluation
    attempts = q.sft * len(a.variants) * a.per_variant
    trained = None if model is None else model * 7  # the model, and two checkpoints: model and two fp32 AdamW moments
    match name:
        case "questions":
            counts = {"sft": q.sft, "rl": q.rl, "dev": q.dev, "eval": sum(s.n for s in e.sets.values())}
            return counts, 0, 300 * sum(counts.values())
        case "attempts":
            counts = {
                "questions": q.sft,
                "variants": len(a.variants),
                "per variant": a.per_variant,
                "attempts": attempts,
            }
            return counts, attempts * a.max_tokens, _text(attempts * a.max_tokens)
        case "reflections":
            most = attempts * recipe.reflections.per_attempt
            tokens = most * recipe.reflections.max_tokens
            return {"reflections at most": most}, tokens, _text(tokens)
        case "traces":
            most = _most_traces(recipe, attempts)
            return {"traces at most": most}, 0, _text(most * recipe.traces.max_tokens)
        case "sft":
            most = _most_traces(recipe, attempts)
            steps = -(-most // recipe.sft.batch_size)
            return {"traces at most": most, "steps at most": round(steps * recipe.sft.epochs)}, 0, trained
        case "rl":
            rollouts = r.prompts_per_step * r.group_size
            counts = {"steps": r.steps, "rollouts a step": rollouts, "rollouts": r.steps * rollouts}
            return counts, r.steps * rollouts * r.max_tokens, trained
        case "evaluation":
            models = 1 + ("sft" in methods.get(recipe.method)) + 1
            responses = models * sum(s.n for s in e.sets.values()) * (e.samples + e.greedy)
            counts = {"models": models, "sets": len(e.sets), "responses": responses}
            return counts, responses * e.max_tokens, _text(responses * e.max_tokens)
        case _:
            return {}, 0, 5_000_000


def _most_traces(recipe: Recipe, attempts: int) -> int:
    from skillfactory.curation.patterns import patterns_of

    t = recipe.traces
    each = [t.max_pairs if p.traces == "max_pairs" else p.traces or attempts for p, _ in patterns_of(t).values()]
    most = min(attempts, recipe.questions.sft * (t.per_question or max(each)))
    return min(most, t.limit) if t.limit else most


def _text(tokens: int) -> int:
    return round(tokens * BYTES_PER_TOKEN)


def _model_bytes(recipe: Recipe) -> int | None:
    folder = model_folder(recipe)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder else None


def _state(name: str, recipe: Recipe, path: Path) -> str:
    """`missing`, `partial`, `finished`, `running`, or `other settings`."""
    if not (path / store.RECIPE).is_file():
        return "missing"
    run = store.load_run(path)
    state = run.state(name)
    wanted = identities(recipe)[name]
    return "other settings" if state != "missing" and run.manifest(name).get("digest") != wanted.digest else state


def as_facts(stages: list[StagePlan]) -> list[dict[str, Any]]:
    """For --json."""
    return [
        {"stage": s.name, "state": s.state, **s.counts, "most_tokens": s.most_tokens, "most_disk_bytes": s.disk}
        for s in stages
    ]
