"""What a recipe would do, in numbers, before it does it: what `skillfactory run --dry-run` prints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillfactory import methods, store
from skillfactory.pipeline import identities, model_folder
from skillfactory.recipe import Recipe

BYTES_PER_TOKEN = 2.0  # of generated text in compressed Parquet, about
TRAINED = 7  # times the model on disk: itself, and two checkpoints of model and two fp32 AdamW moments


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
    q, a, r = recipe.questions, recipe.attempts, recipe.rl
    attempts = q.sft * len(a.variants) * a.per_variant
    trained = None if model is None else model * TRAINED
    match name:
        case "questions":
            counts = {"sft": q.sft, "rl": q.rl, "dev": q.dev, "eval": sum(s.n for s in recipe.evaluation.sets.values())}
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
            kept = _kept_steps(recipe)
            disk = None if model is None else model * (TRAINED + kept)
            return counts | ({"models kept": kept} if kept else {}), r.steps * rollouts * r.max_tokens, disk
        case "evaluation":
            return _evaluation(recipe)
        case _:
            return {}, 0, 5_000_000


def _kept_steps(recipe: Recipe) -> int:
    every, trains = recipe.rl.keep_every, "rl" in methods.get(recipe.method)
    return (recipe.rl.steps - 1) // every if every and trains else 0


def _evaluation(recipe: Recipe) -> tuple[dict[str, int], int, int | None]:
    e, budgets = recipe.evaluation, recipe.evaluation.forcing.budgets
    whole, kept = 1 + len({"sft", "rl"} & set(methods.get(recipe.method))) + len(e.models), _kept_steps(recipe)
    samples = sum(each.n * (each.samples or e.samples) for each in e.sets.values())
    questions = sum(each.n for each in e.sets.values())
    lines = 1 + 2 * len(budgets) if budgets else 0  # of budget forcing, beside the sample itself
    responses = whole * (samples * (1 + lines) + e.greedy * questions) + kept * questions
    tokens = (whole * (samples + e.greedy * questions) + kept * questions) * e.max_tokens
    if budgets:
        tokens += whole * samples * (2 * (budgets[-1] - e.max_tokens) + lines * e.forcing.answer_tokens)
    counts = {"models": whole + kept, "sets": len(e.sets), "responses": responses}
    longest = budgets[-1] if budgets else e.max_tokens
    return counts, tokens, _text(responses * longest)


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
