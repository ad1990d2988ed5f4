"""What a recipe would do, in numbers, before it does it: what `skillfactory run --dry-run` prints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import estimate, methods, store
from skillfactory.estimate import CHECKPOINT_BYTES, Curation, Weights
from skillfactory.pipeline import identities
from skillfactory.recipe import Recipe
from skillfactory.rounds import recipe_of, stage_of

if TYPE_CHECKING:
    from skillfactory.probe import Estimate

BYTES_PER_TOKEN = 2.0  # of generated text in compressed Parquet, about
QUESTION_BYTES, REPORT_BYTES = 300, 5_000_000
CHECKPOINTS = 2  # of a training, for a moment: the next is written before the last one goes


@dataclass(frozen=True)
class Cost:
    """Tokens that are sampled (of SFT: learnt), hours of one GPU, bytes on disk; None where the model's size decides
    and is not known."""

    tokens: int = 0
    gpu_hours: float | None = 0.0
    disk: int | None = 0


@dataclass(frozen=True)
class StagePlan:
    """One stage: its state in the run directory, its counts before filtering, and what it takes.

    `most` is with every sample as long as it may be, and the disk while it runs; `expected` is by the assumptions, and
    the disk afterwards.
    """

    name: str
    state: str
    counts: dict[str, int] = field(default_factory=dict)
    most: Cost = Cost()
    expected: Cost = Cost()


@dataclass(frozen=True)
class _Sizes:
    """The same arithmetic gives bounds and expectations: `filled` is the share of its cap that a sample takes."""

    curation: Curation
    filled: float
    at_most: bool


def plan(recipe: Recipe, path: Path, probed: "Estimate | None" = None) -> list[StagePlan]:
    """The stages of the recipe's method, in order. What has been `probed` takes the place of what is assumed of it."""
    weights = estimate.weights_of(recipe)
    return [_planned(name, recipe, path, weights, probed) for name in methods.stages(recipe)]


def _planned(name: str, recipe: Recipe, path: Path, weights: Weights, probed: "Estimate | None") -> StagePlan:
    seen = recipe_of(name, recipe, path)
    curates = stage_of(name) in ("attempts", "reflections", "traces", "sft")
    none = Curation(0, 0, 0, 0, 0, 0)
    most = estimate.most_curation(seen) if curates else none
    known = None if seen.attempts.split or seen.attempts.given else probed
    likely = estimate.expected_curation(seen, known) if curates else none
    cost = partial(_cost, name, seen, weights)
    return StagePlan(
        name, _state(name, recipe, path), _counts(stage_of(name), seen, most),
        cost(_Sizes(most, 1.0, True)), cost(_Sizes(likely, recipe.estimate.filled, False)),
    )  # fmt: skip


def _counts(stage: str, recipe: Recipe, most: Curation) -> dict[str, int]:
    q, a, r = recipe.questions, recipe.attempts, recipe.rl
    match stage:
        case "questions":
            return {"sft": q.sft, "rl": q.rl, "dev": q.dev, "eval": sum(s.n for s in recipe.evaluation.sets.values())}
        case "attempts":
            variants = estimate.slots(recipe) // a.per_variant
            return {
                "questions": q.sft, "variants": variants, "per variant": a.per_variant, "attempts": most.attempts,
            }  # fmt: skip
        case "reflections":
            return {"reflections at most": most.reflections}
        case "traces":
            return {"traces at most": most.traces}
        case "sft":
            steps = -(-most.traces // recipe.sft.batch_size)
            return {"traces at most": most.traces, "steps at most": round(steps * recipe.sft.epochs)}
        case "rl":
            rollouts, kept = r.prompts_per_step * r.group_size, _kept_steps(recipe)
            counts = {"steps": r.steps, "rollouts a step": rollouts, "rollouts": r.steps * rollouts}
            return counts | ({"models kept": kept} if kept else {})
        case "evaluation":
            whole, kept = _evaluated(recipe)
            responses = whole * _responses(recipe) + kept * _evaluated_questions(recipe)
            return {"models": whole + kept, "sets": len(recipe.evaluation.sets), "responses": responses}
        case _:
            return {}


def _cost(name: str, recipe: Recipe, weights: Weights, sizes: _Sizes) -> Cost:
    """What one stage takes. Attempts that are given, and what a probe says of them, cost nothing but their disk."""
    c, assumed, stage = sizes.curation, recipe.estimate, stage_of(name)
    match stage:
        case "questions":
            return Cost(disk=QUESTION_BYTES * sum(_counts(stage, recipe, c).values()))
        case "attempts":
            tokens = round(c.attempts * c.attempt_tokens)
            maker = estimate.weights_of(recipe, recipe.attempts.model) if recipe.attempts.model else weights
            sampled = 0 if recipe.attempts.given else tokens
            return Cost(sampled, estimate.hours(assumed, maker, sampled), _text(tokens))
        case "reflections":
            tokens = round(c.reflections * c.reflection_tokens)
            return Cost(tokens, estimate.hours(assumed, weights, tokens), _text(tokens))
        case "traces":
            return Cost(disk=_text(c.traces * c.trace_tokens))
        case "sft":
            tokens = round(c.traces * c.trace_tokens * recipe.sft.epochs)
            return Cost(tokens, estimate.hours(assumed, weights, 0, tokens), _trained(weights, sizes.at_most))
        case "rl":
            rollouts = recipe.rl.steps * recipe.rl.prompts_per_step * recipe.rl.group_size
            tokens = round(rollouts * recipe.rl.max_tokens * sizes.filled) + recipe.rl.more_tokens
            spent = estimate.hours(assumed, weights, tokens, tokens)
            return Cost(tokens, spent, _trained(weights, sizes.at_most, _kept_steps(recipe)))
        case "evaluation":
            return _evaluation(recipe, weights, sizes)
        case _:
            return Cost(disk=REPORT_BYTES)


def _trained(weights: Weights, at_most: bool, kept: int = 0) -> int | None:
    """Bytes of a training: its model and those kept on the way, and while it runs its checkpoints."""
    if weights.parameters is None or weights.bytes is None:
        return None
    return weights.bytes * (1 + kept) + (CHECKPOINTS * CHECKPOINT_BYTES * weights.parameters if at_most else 0)


def _kept_steps(recipe: Recipe) -> int:
    every, trains = recipe.rl.keep_every, "rl" in methods.stages(recipe)
    return (recipe.rl.steps - 1) // every if every and trains else 0


def _evaluated(recipe: Recipe) -> tuple[int, int]:
    """Models that are evaluated in full, and steps of RL that get one sample a question."""
    trained = sum(stage_of(name) in ("sft", "rl") for name in methods.stages(recipe))
    return 1 + trained + len(recipe.evaluation.models), _kept_steps(recipe)


def _samples(recipe: Recipe) -> int:
    return sum(each.n * (each.samples or recipe.evaluation.samples) for each in recipe.evaluation.sets.values())


def _evaluated_questions(recipe: Recipe) -> int:
    return sum(each.n for each in recipe.evaluation.sets.values())


def _lines(recipe: Recipe) -> int:
    """Of budget forcing, beside the sample itself."""
    budgets = recipe.evaluation.forcing.budgets
    return 1 + 2 * len(budgets) if budgets else 0


def _responses(recipe: Recipe) -> int:
    """Of one model."""
    return _samples(recipe) * (1 + _lines(recipe)) + recipe.evaluation.greedy * _evaluated_questions(recipe)


def _evaluation(recipe: Recipe, weights: Weights, sizes: _Sizes) -> Cost:
    """At most both lines of forcing go on to the last budget; expected is that the unforced one has ended by itself."""
    e, budgets, (whole, kept) = recipe.evaluation, recipe.evaluation.forcing.budgets, _evaluated(recipe)
    asked = _samples(recipe) + e.greedy * _evaluated_questions(recipe)
    each = asked * e.max_tokens * sizes.filled  # of one model
    if budgets:
        room = budgets[-1] - e.max_tokens
        answers = _lines(recipe) * e.forcing.answer_tokens if sizes.at_most else 0
        each += _samples(recipe) * (room * (2 if sizes.at_most else sizes.filled) + answers)
    steps = kept * _evaluated_questions(recipe) * e.max_tokens * sizes.filled
    own = (whole - len(e.models)) * each + steps
    others = [estimate.hours(recipe.estimate, estimate.weights_of(recipe, each_), each) for each_ in e.models.values()]
    text = _counts("evaluation", recipe, sizes.curation)["responses"] * (budgets or [e.max_tokens])[-1] * sizes.filled
    spent = _sum([estimate.hours(recipe.estimate, weights, own), *others])
    return Cost(round(own + len(e.models) * each), spent, _text(text))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _text(tokens: float) -> int:
    return round(tokens * BYTES_PER_TOKEN)


def _state(name: str, recipe: Recipe, path: Path) -> str:
    """`missing`, `partial`, `finished`, `running`, or `other settings`."""
    if not (path / store.RECIPE).is_file():
        return "missing"
    run = store.load_run(path)
    state = run.state(name)
    wanted = identities(recipe)[name]
    return "other settings" if state != "missing" and run.manifest(name).get("digest") != wanted.digest else state


def total(costs: Sequence[Cost]) -> Cost:
    """The sum; a figure that is not known for one stage is not known for all."""
    disk = _sum([cost.disk for cost in costs])
    return Cost(
        sum(cost.tokens for cost in costs),
        _sum([cost.gpu_hours for cost in costs]),
        None if disk is None else int(disk),
    )


def basis(recipe: Recipe, probed: "Estimate | None" = None) -> dict[str, Any]:
    """What the figures rest on: the assumptions, what was measured in their place, the model's size, memory."""
    weights = estimate.weights_of(recipe)
    trains = any(stage_of(name) in ("sft", "rl") for name in methods.stages(recipe))
    return {
        "assumed": recipe.estimate.model_dump(),
        "measured": {} if probed is None else {"questions": probed.probed, "right": probed.share_correct},
        "parameters": weights.parameters,
        "parameters_known_by": weights.known_by,
        "memory": estimate.memory(recipe.estimate, weights, trains),
        "trains": trains,
    }


def as_facts(stages: Sequence[StagePlan]) -> list[dict[str, Any]]:
    """For --json."""
    return [{"stage": s.name, "state": s.state, **s.counts, **_flat(s.most, s.expected)} for s in stages]


def total_facts(stages: Sequence[StagePlan]) -> dict[str, Any]:
    """The last row, for --json."""
    return _flat(total([s.most for s in stages]), total([s.expected for s in stages]))


def _flat(most: Cost, expected: Cost) -> dict[str, Any]:
    names = {"tokens": "tokens", "gpu_hours": "gpu_hours", "disk": "disk_bytes"}
    return {f"{kind}_{names[key]}": value for kind, cost in (("most", most), ("expected", expected))
            for key, value in asdict(cost).items()}  # fmt: skip
