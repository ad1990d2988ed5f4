"""How much a recipe takes, computed: samples that curation draws, parameters of a model, hours of a GPU, its memory.

What cannot be computed is assumed, in `recipe.Assumptions`, or measured by a probe (probe.py). All questions are taken
to be alike; prompts are not counted, and neither is attention over long texts.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory.curation.patterns import Pattern, patterns_of
from skillfactory.recipe import Assumptions, Recipe, Traces

if TYPE_CHECKING:
    from skillfactory.probe import Estimate

SAMPLING_FLOPS, TRAINING_FLOPS = 2, 6  # a parameter and token: forward; forward and backward
STATE_BYTES = 16  # a trained parameter: fp32 weight and gradient, two fp32 moments of AdamW
CHECKPOINT_BYTES = 12  # a trained parameter on disk: the same without its gradient
_TYPES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # of safetensors: bytes
_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """A model's size. `parameters` is None where nothing says it, `known_by` is `weights`, `config`, `name` or ""."""

    parameters: int | None
    known_by: str
    bytes_each: int = 2

    @property
    def bytes(self) -> int | None:
        """What the model takes on disk and in memory, as it is sampled from."""
        return None if self.parameters is None else self.parameters * self.bytes_each


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


# --- models


def weights_of(recipe: Recipe, model: str = "") -> Weights:
    """The size of a model, the recipe's where none is named, from this machine alone: nothing is downloaded."""
    named = model or recipe.model
    parameters, known_by, stored = _size(named, "" if model else recipe.revision)
    typed = {"float32": 4, "float16": 2, "bfloat16": 2}.get(recipe.machine.dtype, stored)
    return Weights(parameters, known_by, typed)


def _size(model: str, revision: str) -> tuple[int | None, str, int]:
    """Parameters, how they are known, and bytes of each in the model's files."""
    if folder := _folder(model, revision):
        headers = [_header(path) for path in sorted(folder.glob("*.safetensors"))]
        if tensors := [each for header in headers for name, each in header.items() if name != "__metadata__"]:
            kinds = {_TYPES.get(str(each["dtype"]), 2) for each in tensors}
            return sum(math.prod(each["shape"]) for each in tensors), "weights", max(kinds, default=2)
        config = folder / "config.json"
        if config.is_file() and (count := by_config(json.loads(config.read_text(encoding="utf-8")))):
            return count, "config", 2
    if found := _IN_NAME.search(model.rstrip("/").rpartition("/")[2]):
        return round(float(found[1]) * {"B": 1e9, "M": 1e6}[found[2].upper()]), "name", 2
    return None, "", 2


def _folder(model: str, revision: str) -> Path | None:
    """The folder of a local model, or of a hub model that has been downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from skillfactory.tiny import FOLDER

    path = FOLDER if model == "tiny" else Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of the tensors in a safetensors file; {} for one that is broken."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return dict(json.loads(file.read(length))) if length < 2**27 else {}
    except (OSError, ValueError):
        return {}


def by_config(config: dict[str, Any]) -> int | None:
    """Parameters of a dense decoder with gated MLPs (Llama, Qwen, Olmo, …); None for another kind of model."""
    c = config.get("text_config") or config
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    if not all(isinstance(c.get(key), int) for key in keys) or any("experts" in key for key in c):
        return None
    hidden, layers, heads, inner, words = (int(c[key]) for key in keys)
    width = int(c.get("head_dim") or hidden // heads)
    attention = 2 * hidden * width * (heads + int(c.get("num_key_value_heads") or heads))
    tables = words * hidden * (1 if c.get("tie_word_embeddings", True) else 2)
    return layers * (attention + 3 * hidden * inner + 2 * hidden) + tables + hidden


# --- hours and memory


def hours(assumed: Assumptions, weights: Weights, sampled: float, trained: float = 0) -> float | None:
    """Hours of one GPU for so many tokens; None where the model's size is not known."""
    if weights.parameters is None:
        return None if sampled or trained else 0.0
    work = SAMPLING_FLOPS * sampled / assumed.sampling_use + TRAINING_FLOPS * trained / assumed.training_use
    return work * weights.parameters / (assumed.tflops * 1e12) / 3600


def memory(assumed: Assumptions, weights: Weights, trains: bool) -> dict[str, int] | None:
    """Bytes that stay on the GPUs, and how many of these it takes at least. Activations and cache come on top."""
    if weights.parameters is None or weights.bytes is None:
        return None
    state = STATE_BYTES * weights.parameters if trains else 0
    held = state + weights.bytes
    return {"state_bytes": state, "copy_bytes": weights.bytes, "cards": math.ceil(held / (assumed.memory_gb * 1e9))}
