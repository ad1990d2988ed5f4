"""How much a recipe takes, computed: samples that curation draws, and hours of a GPU.

What cannot be computed is assumed, in `recipe.Assumptions`, or measured by a probe (probe.py). All questions are taken
to be alike; prompts are not counted, and neither is attention over long texts.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillfactory.curation.patterns import Pattern, patterns_of
from skillfactory.planning.sizes import Weights
from skillfactory.recipe import Recipe, Rl, Sft, Traces

if TYPE_CHECKING:
    from skillfactory.planning.probe import Estimate

FORWARD = 2  # operations a parameter and token


@dataclass(frozen=True)
class Curation:
    """Samples of one round of curation in all, and mean tokens of each."""

    attempts: int
    reflections: int
    traces: int
    attempt_tokens: float
    reflection_tokens: float
    trace_tokens: float


# --- samples


def most_curation(recipe: Recipe) -> Curation:
    """Upper bounds: all attempts and reflections, each as long as it may be."""
    settings, places = recipe.traces, slots(recipe)
    patterns = [pattern for pattern, _ in patterns_of(settings).values()]
    attempts = recipe.questions.sft * places
    reflects = any(pattern.reflect for pattern in patterns) and not recipe.attempts.split
    reflections = attempts * recipe.reflections.per_attempt if reflects else 0
    each = settings.per_question or max(_natural(pattern, settings) or places for pattern in patterns)
    traces = recipe.questions.sft * each
    if all(pattern.traces == 0 for pattern in patterns):  # each pair is used once
        traces = min(traces, attempts)
    traces = min(traces, settings.limit or traces)
    return Curation(
        attempts, reflections, traces, recipe.attempts.max_tokens, recipe.reflections.max_tokens, settings.max_tokens
    )


def expected_curation(recipe: Recipe, probed: "Estimate | None" = None) -> Curation:
    """What the assumptions say, or a probe, of the recipe's curation."""
    if probed is not None:
        return Curation(
            probed.attempts, probed.reflections, probed.traces, probed.attempt_tokens, probed.reflection_tokens,
            probed.trace_tokens,
        )  # fmt: skip
    settings, assumed = recipe.traces, recipe.estimate
    mix = list(patterns_of(settings).values())
    share = sum(weight for _, weight in mix)
    parts = [_drawn(recipe, pattern, weight / share) for pattern, weight in mix]
    budget = [slots(recipe)] if recipe.attempts.budget == "paper" else []
    attempts = max([*budget, min(slots(recipe), sum(part.attempts for part in parts))])
    reflections = sum(part.reflections for part in parts)
    if budget and reflections:
        reflections = budget[0] * recipe.reflections.per_attempt
    traces = sum(part.traces for part in parts)
    pairs = sum(part.pairs for part in parts) / (traces or 1)
    questions = float(recipe.questions.sft)
    if settings.limit and traces:
        questions = min(questions, settings.limit / traces)
    attempt, reflection = (s.max_tokens * assumed.filled for s in (recipe.attempts, recipe.reflections))
    pair = attempt + (reflection if reflections else 0)
    return Curation(
        round(questions * attempts), 0 if recipe.attempts.split else round(questions * reflections),
        round(questions * traces), attempt, reflection, min(pairs * pair, settings.max_tokens),
    )  # fmt: skip


def slots(recipe: Recipe) -> int:
    """Most attempts a question: prompt variants, with their twins that show the answer, times samples of each.

    A response that attempts are taken out of (`attempts.split`) counts as one.
    """
    from skillfactory.curation.drawing import slots_of

    a = recipe.attempts
    return len(a.variants) * a.per_variant if a.given or a.split else len(slots_of(recipe))


@dataclass(frozen=True)
class _Drawn:
    """For one question."""

    attempts: float
    reflections: float
    traces: float
    pairs: float


def _drawn(recipe: Recipe, pattern: Pattern, share: float) -> _Drawn:
    """What one pattern draws for a question on demand, where it makes a share of its traces.

    A pattern that uses each pair once looks at new attempts for every trace; the others look at all of them in another
    random order each time, so that some have been drawn before.
    """
    settings, assumed, places = recipe.traces, recipe.estimate, slots(recipe)
    judged = 1 - (1 - assumed.true_verdicts) ** recipe.reflections.per_attempt if pattern.reflect else 1.0
    right, usable = assumed.right * judged, places * judged
    rights, wrongs, others = _shape(pattern, settings, places * right)
    natural, once = _natural(pattern, settings), pattern.traces == 0
    found = usable if rights == 0 else places * right / rights
    traces = min(settings.per_question or natural or found, found) if once else settings.per_question or natural
    traces *= share
    used = traces * (rights + min(wrongs, max(usable - places * right, 0) / traces if traces else 0) + others)
    looked = traces * (max(rights / right, wrongs / max(judged - right, 0.01)) + others / judged)
    attempts, pairs = (min(places, looked), used) if once else (_distinct(looked, places), _distinct(used, usable))
    return _Drawn(attempts, pairs / assumed.true_verdicts if pattern.reflect else 0, traces, used)


def _distinct(drawn: float, places: float) -> float:
    """How many different ones so many independent draws come to."""
    return places * -math.expm1(-drawn / places)


def _shape(pattern: Pattern, settings: Traces, right: float) -> tuple[float, float, float]:
    """Mean right, wrong and arbitrary pairs of a trace, where there are so many right ones for the question.

    A pattern of the user's is taken for `ends_correct`.
    """
    most = settings.max_pairs
    length = settings.pairs or (min(2, most) + most) / 2
    match pattern.name:
        case "algorithm1" | "no_reflections":
            # Uniform{1..most}, but that the last trace gets what is left: as renewal theory has it.
            rights = max(1.0, right * (most + 1) / 2 / (right + (most - 1) / 3))
            return rights, (rights - 1) / 2, 0
        case "single" | "solution":
            return 1, 0, 0
        case "any_solution":
            return 0, 0, 1
        case "fail_first":
            return 1, sum((1 - settings.stop_chance) ** n for n in range(1, most)), 0
        case "ladder":
            return 1, 0, (most - 1) / 2
        case "backtrack":
            return 1, 1, max(length, 2) - 2
        case "confirm":
            return 2, 0, max(length, 2) - 2
        case _:
            return 1, 0, length - 1


def _natural(pattern: Pattern, settings: Traces) -> int:
    """Traces a question where the recipe does not say; 0 for as many as there are pairs for."""
    return settings.max_pairs if pattern.traces == "max_pairs" else pattern.traces


# --- hours


@dataclass(frozen=True)
class Drawn:
    """Tokens that are sampled, and those it would be if every sample ran to its cap."""

    tokens: float
    at_cap: float


def sampling_hours(recipe: Recipe, weights: Weights, drawn: Drawn, engine: str) -> float | None:
    """Hours of one GPU that sampling takes; None where the model's size is not known.

    vLLM refills its batch, so its rate is a share of the GPU's peak. Our own sampler (`transformers`, `sampler`) runs a
    batch until its longest sample has ended, and its steps take time by the layer, however few samples are left.
    """
    assumed, shape = recipe.estimate, weights.shape
    if weights.parameters is None or shape is None:
        return None if drawn.tokens else 0.0
    seconds = FORWARD * drawn.tokens * weights.parameters / (assumed.sampling_use * assumed.tflops * 1e12)
    if engine == "ray":
        engine = recipe.engines.ray.worker
    if engine in ("transformers", "sampler"):
        steps = drawn.at_cap / recipe.machine.batch_size
        seconds = max(seconds, steps * shape.layers * assumed.layer_ms / 1000)
    return seconds / 3600


def training_hours(recipe: Recipe, weights: Weights, tokens: float, section: Sft | Rl) -> float | None:
    """Hours of one GPU that learning from so many tokens takes; None where the model's size is not known."""
    if weights.parameters is None:
        return None if tokens else 0.0
    rate = recipe.estimate.training_use * recipe.estimate.tflops * 1e12
    return training_flops(recipe, section) * tokens * weights.parameters / rate / 3600


def training_flops(recipe: Recipe, section: Sft | Rl) -> int:
    """Operations a parameter and token that is learnt from.

    Forward and twice that backward, once where the weights stand still beside adapters; forward again with gradient
    checkpointing; once more for the probabilities of rollouts, if weights change before all of a step are learnt; and
    once for those of the reference model, if there is one.
    """
    backward = FORWARD if section.lora.rank else 2 * FORWARD
    again = FORWARD if section.gradient_checkpointing else 0
    if not isinstance(section, Rl):
        return FORWARD + backward + again
    several = section.iterations > 1 or section.mini_batch not in (0, section.prompts_per_step)
    old = FORWARD if several or section.engine != "sampler" or recipe.training.backend == "verl" else 0
    reference = FORWARD if section.beta else 0
    return (FORWARD + backward + again) * section.iterations + old + reference
