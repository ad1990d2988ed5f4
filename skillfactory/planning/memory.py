"""What SFT and RL take of the memory of each device, by parts, computed before they start. Imports no torch.

For dense decoders with gated MLPs, trained as sft.py and rl.py do: by TRL, weights in float32 under autocast to
bfloat16. What autograd keeps of a layer is counted tensor by tensor (tests hold the count against torch); what is only
there for a moment is known roughly. benchmarks/bench_memory.py holds the sums against measured peaks on a CPU; on GPUs
nothing of this has been measured, and how memory splits over several is what their documents say.
"""

from dataclasses import dataclass

from skillfactory.errors import RecipeError
from skillfactory.planning import passes
from skillfactory.planning.passes import FULL, HALF, HOLES, Device
from skillfactory.planning.sizes import Shape, Weights
from skillfactory.recipe import Recipe, Rl, Sft

MOMENTS = 2 * FULL  # of AdamW, a trained parameter
PROMPT = 512  # tokens: the paper's longest prompt, where nothing better is known
CONTEXT = 1_000_000_000  # bytes that CUDA and its libraries take for themselves: a guess
BUCKETS = 4 * 500_000_000  # bytes of DeepSpeed's two buckets for gradients (`reduce_bucket_size`)
VLLM_SHARE = {"trl": 0.3, "verl": 0.5}  # of the memory, unless the recipe says (their defaults)
VLLM_OPTIONS = {  # that share, and the number of GPUs that a copy of the weights is split over
    "trl": ("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size"),
    "verl": (
        "actor_rollout_ref.rollout.gpu_memory_utilization",
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
    ),
}
READ, ROOM = 8192, 64  # of engines/cache.py: prompt tokens read at once, steps of the cache


@dataclass(frozen=True)
class Lengths:
    """Tokens: of the longest prompt, and of the longest sequence that is learnt from, its prompt included."""

    prompt: int
    longest: int

    @property
    def completion(self) -> int:
        """Tokens that are scored."""
        return self.longest - self.prompt


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by parts, at the moment that takes most: `training`, `sampling` or `saving`.

    `state` never leaves while it trains: weights, gradients, optimizer. `host` is main memory of the machine.
    """

    moment: str
    parts: dict[str, int]
    state: int
    host: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def lengths_of(recipe: Recipe, name: str, prompt: int = PROMPT) -> Lengths:
    """The longest that the recipe allows for a stage, `sft` or `rl`, with so long a prompt."""
    if name == "sft":
        return Lengths(min(prompt, recipe.traces.max_tokens - 1), recipe.traces.max_tokens)
    return Lengths(prompt, prompt + recipe.rl.max_tokens)


def of_stage(recipe: Recipe, name: str, weights: Weights, device: Device, lengths: Lengths | None = None) -> Memory:
    """What `sft` or `rl` takes of each device. `weights` must have a size. Raises ValueError without."""
    if weights.parameters is None or weights.shape is None or weights.bytes is None:
        raise ValueError("the model's size is not known")
    job = _Job(
        recipe, name, weights.parameters, weights.bytes, weights.shape, device, lengths or lengths_of(recipe, name)
    )
    held, sampler = job.held(), job.sampling_copy()
    resting = {part: size for part, size in held.items() if part not in ("gradients", "exchange")}
    moments = {"training": held | sampler | job.learning()}
    if name == "rl" or job.section.dev_every:
        moments["sampling"] = resting | sampler | job.sampling()
    if not job.is_verl:
        moments["saving"] = resting | sampler | {"sampling copy": job.bytes}  # the main process's, whole
    if device.kind == "cpu":
        for parts in moments.values():
            parts.setdefault("holes", round(HOLES * (parts.get("cache", 0) + parts.get("next words", 0))))
    most = max(moments, key=lambda moment: sum(moments[moment].values()))
    state = sum(held[part] for part in ("weights", "gradients", "optimizer"))
    parts = {part: size for part, size in moments[most].items() if size}
    return Memory(most, parts, state, job.host())


def vllm_share(recipe: Recipe) -> tuple[float, int]:
    """The share of a GPU's memory that vLLM takes for RL, and the GPUs that its copy of the weights is split over.

    Raises RecipeError where the recipe gives what is no such number.
    """
    system = recipe.training.backend
    given, section = recipe.rl.vllm, "rl.vllm"
    if system == "verl":
        given, section = recipe.training.verl.options, "training.verl.options"
    options = {name.lstrip("+"): value for name, value in given.items()}  # as Hydra writes one that is added
    for_share, for_split = VLLM_OPTIONS[system]
    share, split = options.get(for_share, VLLM_SHARE[system]), options.get(for_split, 1)
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise RecipeError(f"{section}: {for_share} is {share!r}; give the share of a GPU's memory, such as 0.5.")
    if not isinstance(split, int) or isinstance(split, bool) or split < 1:
        raise RecipeError(f"{section}: {for_split} is {split!r}; give a number of GPUs, 1 or more.")
    return float(share), split


def trained(section: Sft | Rl, parameters: int, shape: Shape) -> int:
    """Parameters that are trained: all, or those of adapters beside every linear layer (the head has none)."""
    rank, h = section.lora.rank, shape.hidden
    ends = 2 * (h + shape.queries) + 2 * (h + shape.keys) + 3 * (h + shape.inner)
    return shape.layers * rank * ends if rank else parameters


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    name: str
    parameters: int
    bytes: int
    shape: Shape
    device: Device
    lengths: Lengths

    @property
    def section(self) -> Sft | Rl:
        return self.recipe.sft if self.name == "sft" else self.recipe.rl

    @property
    def is_verl(self) -> bool:
        return self.name == "rl" and self.recipe.training.backend == "verl"

    @property
    def devices(self) -> int:
        return self.recipe.training.devices * (self.recipe.training.verl.nodes if self.is_verl else 1)

    @property
    def shard(self) -> str:
        if self.devices == 1:
            return "none"
        return "fsdp2" if self.is_verl else self.recipe.training.shard

    @property
    def rows(self) -> int:
        """Sequences of a micro-batch."""
        if self.name == "sft":
            return max(1, min(self.section.micro_batch, self.recipe.sft.batch_size // self.devices))
        return self.section.micro_batch

    @property
    def update(self) -> int:
        """Sequences that a device learns from before its weights change."""
        rl = self.recipe.rl
        whole = (
            self.recipe.sft.batch_size if self.name == "sft" else (rl.mini_batch or rl.prompts_per_step) * rl.group_size
        )
        return whole // self.devices

    def held(self) -> dict[str, int]:
        """Weights, gradients and optimizer of one device, and what the exchange of gradients between devices takes."""
        n, all_, own = self.devices, self.parameters, trained(self.section, self.parameters, self.shape)
        whole = all_ + (own if own < all_ else 0)
        match self.shard:
            case "fsdp2":
                # While gradients of several micro-batches add up, accelerate leaves them whole on every device.
                exchange = HALF * own if self.update > self.rows and not self.is_verl else 0
                exchange += HALF * (2 * self.shape.layer + self.shape.table)  # two layers at once, and the words
                sizes = FULL * whole // n, FULL * own // n, MOMENTS * own // n, exchange
            case "zero2" | "zero3":  # by its paper (arXiv 1910.02054): bfloat16, and the optimizer's float32 weights
                parts, gathered = (1, 0) if self.shard == "zero2" else (n, HALF * 2 * self.shape.layer)
                buckets = min(BUCKETS, 2 * HALF * own)
                sizes = HALF * whole // parts, HALF * own // n, (FULL + MOMENTS) * own // n, gathered + buckets
            case _:  # each device has all; torch's DDP has its gradients once more, in buckets
                sizes = FULL * whole, FULL * own, MOMENTS * own, FULL * own if n > 1 else 0
        found = dict(zip(("weights", "gradients", "optimizer", "exchange"), sizes, strict=True))
        if self.name == "rl" and self.recipe.rl.beta and own == all_:  # adapters are switched off instead
            width = HALF if self.shard.startswith("zero") else FULL
            found["reference model"] = width * all_ // (n if self.shard in ("fsdp2", "zero3") else 1)
        return found | ({"context": CONTEXT} if self.device.kind == "cuda" else {})

    def sampling_copy(self) -> dict[str, int]:
        """The copy of the model that is sampled from, whole on every device; and vLLM's share of the memory."""
        if (self.name == "rl" and self.recipe.rl.engine != "sampler") or self.is_verl:
            return self._copy() | ({} if self._sleeps() else self._vllm())
        return self._copy()

    def _copy(self) -> dict[str, int]:
        """Ours: for rollouts, for measurements, and where models of steps in between are kept."""
        kept = self.name == "rl" and (self.recipe.rl.engine == "sampler" or self.recipe.rl.keep_every)
        return {"sampling copy": self.bytes} if (kept or self.section.dev_every) and not self.is_verl else {}

    def learning(self) -> dict[str, int]:
        """See passes.py."""
        section = self.section
        batch = passes.Batch(self.rows, self.lengths.longest, self.lengths.completion, section.gradient_checkpointing)
        return passes.learning(self.shape, self.device, batch, section.lora.rank, self.shard)

    def sampling(self) -> dict[str, int]:
        """Rollouts, or answers to questions of `dev`: the cache of all sequences at once, and their next words."""
        if self.is_verl or (self.name == "rl" and self.recipe.rl.engine != "sampler" and not self.section.dev_every):
            return self._vllm() if self._sleeps() else {}
        s, each = self.shape, max(1, self.bytes // self.parameters)
        rl = self.recipe.rl
        own = self.name == "rl" and rl.engine == "sampler"
        wanted = [rl.prompts_per_step * rl.group_size // self.devices] if own else []
        longest = [rl.max_tokens] if own else []
        if self.section.dev_every:
            wanted.append(self.recipe.questions.dev // self.devices)
            longest.append(self.recipe.evaluation.max_tokens)
        rows = max(1, min(self.recipe.machine.batch_size, max(wanted)))
        places = -(-(self.lengths.prompt + max(longest)) // ROOM) * ROOM
        one = rows * places * 2 * s.keys * each  # of a layer, which is there twice while it grows
        reading = min(READ, rows * self.lengths.prompt) * each * (3 * s.inner + 4 * s.hidden)
        words = rows * s.vocab * (each + 4 * FULL + 1)
        return {"cache": (s.layers + 1) * one, "next words": max(words, reading)}

    def _vllm(self) -> dict[str, int]:
        if not self.is_verl and self.recipe.rl.engine == "vllm_server":
            return {}
        share, split = vllm_share(self.recipe)
        return {"vLLM": max(round(self.device.size * share), self.bytes // split)}

    def _sleeps(self) -> bool:
        """Whether vLLM gives its memory back while weights are trained."""
        return self.is_verl or bool(self.recipe.rl.vllm.get("vllm_enable_sleep_mode"))

    def host(self) -> int:
        """Main memory: every process loads all weights before they are split; checkpoints of FSDP2 come together."""
        own = trained(self.section, self.parameters, self.shape)
        together = FULL * self.parameters + MOMENTS * own if self.shard == "fsdp2" and not self.is_verl else 0
        return max(FULL * self.parameters * self.recipe.training.devices, together)
