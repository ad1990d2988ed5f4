"""What a recipe would do, in numbers, before it does it: what `skillfactory run --dry-run` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import methods
from skillfactory.planning import estimate, memory
from skillfactory.planning.estimate import Curation, Drawn
from skillfactory.planning.sizes import Weights, weights_of
from skillfactory.recipe import Recipe, Rl, Sft
from skillfactory.rounds import recipe_of, stage_of

if TYPE_CHECKING:
    from skillfactory.planning.probe import Estimate

BYTES_PER_TOKEN = 2.0  # of generated text in compressed Parquet, about
CHECKPOINT_BYTES = 12  # a trained parameter on disk: float32 weight and AdamW's two moments
QUESTION_BYTES, REPORT_BYTES = 300, 5_000_000
CHECKPOINTS = 2  # of a training, for a moment: the next is written before the last one goes


@dataclass(frozen=True)
class Cost:
    """Tokens that are sampled (of SFT: learnt), hours of one GPU, bytes on disk, and dollars where there is a price.

    None where the model's size decides and is not known.
    """

    tokens: int = 0
    gpu_hours: float | None = 0.0
    disk: int | None = 0
    dollars: float | None = None


@dataclass(frozen=True)
class StagePlan:
    """One stage: its state in the run directory, its counts before filtering, and what it takes.

    `most` is with every sample as long as it may be, and the disk while it runs; `expected` is by the assumptions, and
    the disk afterwards.
    """

    name: str
    state: str = "missing"
    counts: dict[str, int] = field(default_factory=dict)
    most: Cost = Cost()
    expected: Cost = Cost()


@dataclass(frozen=True)
class _Sizes:
    """The same arithmetic gives bounds and expectations: `filled` is the share of its cap that a sample takes."""

    curation: Curation
    filled: float
    at_most: bool


def plan(
    recipe: Recipe, path: Path, probed: "Estimate | None" = None, states: Mapping[str, str] | None = None
) -> list[StagePlan]:
    """The stages of the recipe's method, in order; their `states` as pipeline.states gives them.

    What has been `probed` takes the place of what is assumed of it.
    """
    weights, known = weights_of(recipe), states or {}
    return [
        replace(_planned(name, recipe_of(name, recipe, path), weights, probed), state=known.get(name, "missing"))
        for name in methods.stages(recipe)
    ]


def _planned(name: str, recipe: Recipe, weights: Weights, probed: "Estimate | None") -> StagePlan:
    curates = stage_of(name) in ("attempts", "reflections", "traces", "sft")
    none = Curation(0, 0, 0, 0, 0, 0)
    most = estimate.most_curation(recipe) if curates else none
    known = None if recipe.attempts.split or recipe.attempts.given else probed
    likely = estimate.expected_curation(recipe, known) if curates else none
    cost = partial(_priced, name, recipe, weights)
    return StagePlan(
        name,
        counts=_counts(stage_of(name), recipe, most),
        most=cost(_Sizes(most, 1.0, True)),
        expected=cost(_Sizes(likely, recipe.estimate.filled, False)),
    )


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


def _priced(name: str, recipe: Recipe, weights: Weights, sizes: _Sizes) -> Cost:
    cost, price = _cost(name, recipe, weights, sizes), recipe.estimate.dollars_per_gpu_hour
    return replace(cost, dollars=cost.gpu_hours * price) if price and cost.gpu_hours is not None else cost


def _cost(name: str, recipe: Recipe, weights: Weights, sizes: _Sizes) -> Cost:
    """What one stage takes. Attempts that are given, and what a probe says of them, cost nothing but their disk."""
    c, stage = sizes.curation, stage_of(name)
    match stage:
        case "questions":
            return Cost(disk=QUESTION_BYTES * sum(_counts(stage, recipe, c).values()))
        case "attempts":
            tokens = round(c.attempts * c.attempt_tokens)
            maker = weights_of(recipe, recipe.attempts.model) if recipe.attempts.model else weights
            drawn = Drawn(0, 0) if recipe.attempts.given else Drawn(tokens, c.attempts * recipe.attempts.max_tokens)
            spent = estimate.sampling_hours(recipe, maker, drawn, recipe.attempts.engine)
            return Cost(round(drawn.tokens), spent, _text(tokens))
        case "reflections":
            tokens = round(c.reflections * c.reflection_tokens)
            drawn = Drawn(tokens, c.reflections * recipe.reflections.max_tokens)
            return Cost(tokens, estimate.sampling_hours(recipe, weights, drawn, recipe.attempts.engine), _text(tokens))
        case "traces":
            return Cost(disk=_text(c.traces * c.trace_tokens))
        case "sft":
            tokens = round(c.traces * c.trace_tokens * recipe.sft.epochs)
            spent = estimate.training_hours(recipe, weights, tokens, recipe.sft)
            return Cost(tokens, spent, _trained(weights, recipe.sft, sizes.at_most))
        case "rl":
            return _rl(recipe, weights, sizes)
        case "evaluation":
            return _evaluation(recipe, weights, sizes)
        case _:
            return Cost(disk=REPORT_BYTES)


def _rl(recipe: Recipe, weights: Weights, sizes: _Sizes) -> Cost:
    rl = recipe.rl
    at_cap = rl.steps * rl.prompts_per_step * rl.group_size * rl.max_tokens
    tokens = round(at_cap * sizes.filled) + rl.more_tokens
    drawn = Drawn(tokens, at_cap + rl.more_tokens / sizes.filled)
    engine = "vllm" if recipe.training.backend == "verl" else rl.engine
    spent = _sum(
        [
            estimate.sampling_hours(recipe, weights, drawn, engine),
            estimate.training_hours(recipe, weights, tokens, rl),
        ]
    )
    return Cost(tokens, spent, _trained(weights, rl, sizes.at_most, _kept_steps(recipe)))


def _trained(weights: Weights, section: Sft | Rl, at_most: bool, kept: int = 0) -> int | None:
    """Bytes of a training: its model and those kept on the way, and while it runs its checkpoints.

    The best model so far is beside a better one for a moment; in the end it is the model itself.
    """
    if weights.parameters is None or weights.bytes is None or weights.shape is None:
        return None
    models = weights.bytes * (1 + kept)
    if not at_most:
        return models
    checkpoints = CHECKPOINTS * CHECKPOINT_BYTES * memory.trained(section, weights.parameters, weights.shape)
    return models + checkpoints + (weights.bytes if section.keep == "best" else 0)


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
    e, (whole, kept) = recipe.evaluation, _evaluated(recipe)
    each = _model_tokens(recipe, sizes.filled, sizes.at_most)
    steps = kept * _evaluated_questions(recipe) * e.max_tokens * sizes.filled
    own = (whole - len(e.models)) * each + steps
    places = _model_tokens(recipe, 1.0, sizes.at_most)

    def spent(of: Weights, tokens: float) -> float | None:
        at_cap = tokens * places / each if each else 0.0
        return estimate.sampling_hours(recipe, of, Drawn(tokens, at_cap), e.engine)

    others = [spent(weights_of(recipe, name), each) for name in e.models.values()]
    longest = (e.forcing.budgets or [e.max_tokens])[-1]
    text = _counts("evaluation", recipe, sizes.curation)["responses"] * longest * sizes.filled
    return Cost(round(own + len(e.models) * each), _sum([spent(weights, own), *others]), _text(text))


def _model_tokens(recipe: Recipe, filled: float, at_most: bool) -> float:
    """Tokens that one model is evaluated by."""
    e, budgets = recipe.evaluation, recipe.evaluation.forcing.budgets
    each = (_samples(recipe) + e.greedy * _evaluated_questions(recipe)) * e.max_tokens * filled
    if budgets:
        room = budgets[-1] - e.max_tokens
        answers = _lines(recipe) * e.forcing.answer_tokens if at_most else 0
        each += _samples(recipe) * (room * (2 if at_most else filled) + answers)
    return each


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _text(tokens: float) -> int:
    return round(tokens * BYTES_PER_TOKEN)


def total(costs: Sequence[Cost]) -> Cost:
    """The sum; a figure that is not known for one stage is not known for all."""
    disk = _sum([cost.disk for cost in costs])
    hours = _sum([cost.gpu_hours for cost in costs])
    priced = any(cost.dollars is not None for cost in costs) and hours is not None
    return Cost(
        sum(cost.tokens for cost in costs),
        hours,
        None if disk is None else int(disk),
        sum(cost.dollars or 0.0 for cost in costs) if priced else None,
    )


def as_facts(stages: Sequence[StagePlan]) -> list[dict[str, Any]]:
    """For --json."""
    return [{"stage": s.name, "state": s.state, **s.counts, **_flat(s.most, s.expected)} for s in stages]


def total_facts(stages: Sequence[StagePlan]) -> dict[str, Any]:
    """The last row, for --json."""
    return _flat(total([s.most for s in stages]), total([s.expected for s in stages]))


def _flat(most: Cost, expected: Cost) -> dict[str, Any]:
    names = {"tokens": "tokens", "gpu_hours": "gpu_hours", "disk": "disk_bytes", "dollars": "dollars"}
    return {f"{kind}_{names[key]}": value for kind, cost in (("most", most), ("expected", expected))
            for key, value in asdict(cost).items() if key != "dollars" or value is not None}  # fmt: skip
