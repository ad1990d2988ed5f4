"""All that a user can set: one typed section a stage. YAML with comments, and `section.key=value` on the command line.

Field descriptions are the reference: `docs/reference/recipe.md` is made from them. Settings marked with `speed` change
how fast a stage runs, not what it makes, and stay out of the digests that decide whether finished work can be kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from skillfactory.machinery import EngineName, Engines, Machine, TrainingSystem, speed
from skillfactory.machinery import OpenAI as OpenAI
from skillfactory.machinery import RayCluster as RayCluster
from skillfactory.machinery import Section as Section

SCHEMA = Path(__file__).parent / "recipe.schema.json"
REPEATED = ("attempts", "reflections", "traces", "sft", "rl")  # stages that a method of several rounds repeats

S = TypeVar("S", bound=Section)


class TaskSpec(Section):
    """Which questions: a registered task and its parameters (`skillfactory tasks` lists them)."""

    name: str = Field(description="A registered task: `countdown`, `multiplication`, `jsonl`, …")
    params: dict[str, Any] = Field({}, description="The task's parameters, checked by the task itself.")
    level: str = Field("", description="A label for this difficulty in tables; the task's own where empty.")


class Sampling(Section):
    """How completions are drawn (paper §1a)."""

    temperature: float = Field(0.7, ge=0, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(0.8, gt=0, le=1, description="Nucleus: smallest set of tokens with this probability.")
    top_k: int = Field(20, ge=0, description="Only the k most likely tokens; 0 is no limit.")
    repetition_penalty: float = Field(1.1, ge=1, description="Divides the logit of tokens seen before; 1 is none.")
    max_tokens: int = Field(1024, ge=1, description="Longest completion, in tokens.")


class Questions(Section):
    task: TaskSpec = Field(description="What the model is trained on.")
    sft: int = Field(4000, ge=0, description="Questions for the SFT data (none needed for rl_only).")
    rl: int = Field(1000, ge=1, description="Questions for GRPO.")
    dev: int = Field(200, ge=0, description="Questions for choosing settings; never reported as results.")


class Attempts(Sampling):
    variants: list[str] = Field(
        ["original", "plan_and_execute", "alternatively", "rephrase"],
        min_length=1,
        description="Prompt variants, from the prompts file.",
    )
    per_variant: int = Field(16, ge=1, le=10_000, description="Most samples a question and variant.")
    budget: Literal["on_demand", "paper"] = Field(
        "on_demand",
        description="`on_demand` draws what the traces need, `paper` every attempt and reflection; same traces.",
    )
    hints: Literal["auto", "always", "never"] = Field(
        "auto", description="Also ask with the answer shown, as a twin of each variant; `auto` where the task wants it."
    )
    prompts: str = Field("", description="A YAML file of prompts in place of the built-in one.")
    given: str = Field(
        "", description="Samples made elsewhere (Parquet, JSON lines, a folder, a hub id), in place of sampling."
    )
    model: str = Field("", description="Who makes the attempts, where that is not the recipe's `model`: a teacher.")
    examples: str = Field("", description="A file of worked examples: they make up the prompt variant `bolt`.")
    whole: bool = Field(False, description="An attempt is a whole response, to be learnt with its thinking and tags.")
    split: bool = Field(
        False, description="Take attempts and reflections out of tagged responses to the prompt of SFT and RL."
    )
    instruct: bool = Field(
        False, description="The prompt of SFT, RL and evaluation asks for attempts and reflections in tags."
    )
    engine: EngineName = speed("transformers", "What generates text; options are in `engines`.")


class Reflections(Sampling):
    per_attempt: int = Field(4, ge=1, le=60, description="Most samples an attempt; one whose verdict is true is kept.")


class Traces(Section):
    pattern: str | dict[str, float] = Field(
        "algorithm1",
        description="How pairs are arranged: a pattern, a Python file of your own, or several with their weights.",
    )
    max_pairs: int = Field(5, ge=1, description="L_max: most correct pairs (algorithm1) or most pairs in a trace.")
    pairs: int = Field(0, ge=0, description="Pairs in a trace, where the pattern leaves it open; 0 draws 2..max_pairs.")
    stop_chance: float = Field(0.15, gt=0, le=1, description="fail_first: chance that no further failure is added.")
    order: Literal["pattern", "random"] = Field(
        "pattern", description="`random`: the pattern's pairs in any order, so that a trace may end on a wrong one."
    )
    reflect: bool = Field(True, description="Whether reflections stand in the traces, where the pattern has them.")
    distinct_variants: bool = Field(False, description="Every attempt of a trace from another prompt variant.")
    per_question: int = Field(0, ge=0, description="Most traces a question; 0 is as many as the pattern gives.")
    limit: int = Field(0, ge=0, description="Most traces in all; 0 is no limit.")
    max_tokens: int = Field(4096, ge=1, description="The SFT context: longer traces are dropped and counted, not cut.")
    phrases: str = Field("", description="A YAML file of phrase banks in place of the built-in one.")


class Lora(Section):
    """Low-rank adapters (peft) in place of all weights, merged into the model once training ends."""

    rank: int = Field(0, ge=0, description="Rank of the adapters; 0 trains all weights.")
    alpha: int = Field(0, ge=0, description="Their scale; 0 is twice the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before each adapter.")
    targets: list[str] = Field([], description="Names of the modules that get one; every linear layer where empty.")


class Training(Section):
    """Settings that SFT and RL share."""

    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Its course over the steps."
    )
    warmup: float = Field(0.05, ge=0, le=1, description="Share of steps that warm up.")
    adam_beta2: float = Field(0.95, gt=0, lt=1, description="AdamW's second decay.")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping.")
    lora: Lora = Lora()
    dev_every: int = Field(0, ge=0, description="Steps between measurements on the questions of `dev`; 0 is never.")
    keep: Literal["last", "best"] = Field(
        "last", description="Which model goes on: the last, or the best on the questions of `dev`."
    )
    save_every: int = speed(50, "Steps between checkpoints.", ge=1)
    micro_batch: int = speed(8, "Sequences in one forward pass.", ge=1)
    gradient_checkpointing: bool = speed(False, "Trade compute for memory.")


class Sft(Training):
    epochs: float = Field(2.0, gt=0, description="Passes over the traces.")
    batch_size: int = Field(4, ge=1, description="Traces a step.")


class Shaping(Section):
    """Added to the reward of GRPO. Off: the paper has none, and what is shaped can be hacked."""

    form: float = Field(0.0, ge=0, description="For a rollout whose tags are all there and in place.")
    overlong: int = Field(
        0, ge=0, description="The last so many tokens before `max_tokens` cost up to 1, growing linearly (DAPO)."
    )


class Rl(Training):
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "constant", description="Its course over the steps."
    )
    steps: int = Field(150, ge=1, description="GRPO steps.")
    prompts_per_step: int = Field(256, ge=1, description="Prompts a step.")
    group_size: int = Field(16, ge=2, description="Rollouts a prompt: the group that advantages are relative to.")
    mini_batch: int = Field(32, ge=0, description="Prompts an update; 0 is one update a step (on-policy).")
    temperature: float = Field(1.0, gt=0, description="Rollout temperature.")
    max_tokens: int = Field(4096, ge=1, description="Longest rollout, in tokens.")
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo"] = Field(
        "grpo", description="TRL's name for how token losses are averaged and clipped."
    )
    epsilon: float = Field(0.2, gt=0, description="Clip range of the probability ratio.")
    epsilon_high: float = Field(
        0.0, ge=0, description="Its upper side (DAPO: 0.28; with cispo the ratio itself: 5); 0: as the lower."
    )
    importance: Literal["token", "sequence"] = Field(
        "token", description="Ratios of tokens, or of whole completions (GSPO)."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="What advantages are divided by: the deviation within the group, within the step, nothing."
    )
    mask_truncated: bool = Field(False, description="Leave rollouts out of the loss that `max_tokens` cut off.")
    iterations: int = Field(1, ge=1, description="Times that a step's rollouts are learnt from.")
    beta: float = Field(0.0, ge=0, description="Weight of the KL term; the paper uses none.")
    shaping: Shaping = Shaping()
    patience: int = Field(10, ge=1, description="Steps in a row without signal in any group after which RL ends.")
    more_tokens: int = Field(
        0, ge=0, description="Go on after `steps` until so many more tokens have been sampled (budget matching)."
    )
    more_seconds: float = Field(0.0, ge=0, description="The same until so many more seconds have passed.")
    keep_every: int = speed(
        0, "Steps between models that are kept, each of the model's size, and evaluated; 0 keeps the last alone.", ge=0
    )
    engine: Literal["sampler", "vllm_colocate", "vllm_server"] = speed(
        "sampler",
        "What samples rollouts: our own sampler, or vLLM on the same GPUs or as a server (TRL's `vllm_mode`).",
    )
    vllm: dict[str, Any] = speed({}, "TRL's `vllm_…` options as they are, e.g. `vllm_gpu_memory_utilization`.")


class Star(Section):
    """The method `star`."""

    rounds: int = Field(3, ge=1, le=20, description="Times that attempts are sampled, sifted and learnt.")
    rationalize: bool = Field(
        False, description="Questions that are not solved are also attempted with the answer shown."
    )


class Bolt(Section):
    """The method `bolt`."""

    examples: str = Field("", description="A file of worked examples; `skillfactory examples` has some written.")
    writer: str = Field("", description="The model that writes after them; the recipe's where empty.")
    engine: EngineName = speed("transformers", "What the writer runs on.")


class Distill(Section):
    """The method `distill`."""

    teacher: str = Field("", description="The model to learn from: a folder, a hub id, or what a server calls it.")
    engine: EngineName = speed("transformers", "What the teacher runs on.")
    traces: str = Field("", description="In its place a file of responses: Parquet, JSON lines, a folder, a hub id.")
    keep: Literal["correct", "all"] = Field("correct", description="Learn from right responses alone, or from all.")


class EvaluationSet(Section):
    task: TaskSpec = Field(description="Which questions.")
    n: int = Field(200, ge=1, description="How many.")
    samples: int = Field(0, ge=0, description="Responses a question; 0 is `evaluation.samples`.")
    split: Literal["eval", "dev"] = Field(
        "eval", description="`dev` to choose settings on, without touching the evaluation questions."
    )
    kind: Literal["in_domain", "harder", "other"] = Field(
        "in_domain", description="Trained level, harder level, or another task."
    )


class Forcing(Section):
    """Budget forcing (paper §4): thinking that would end is made to go on, up to a larger budget."""

    budgets: list[int] = Field(
        [], description="Total budgets in tokens, rising, each beyond `evaluation.max_tokens`; none is no forcing."
    )
    trigger: str = Field("<sample>", min_length=1, description="What takes the place of the end of thinking.")
    plain_trigger: str = Field("Wait,", min_length=1, description="The same for a response without `<think>`.")
    answer_tokens: int = Field(64, ge=1, description="Room for an answer where a budget cuts a response off.")


class Evaluation(Sampling):
    repetition_penalty: float = Field(1.0, ge=1, description="Divides the logit of tokens seen before; 1 is none.")
    max_tokens: int = Field(4096, ge=1, description="Longest response, in tokens.")
    samples: int = Field(4, ge=1, description="Responses a question.")
    greedy: bool = Field(False, description="Also one greedy response a question.")
    sets: dict[str, EvaluationSet] = Field(min_length=1, description="Named sets of questions.")
    models: dict[str, str] = Field(
        {}, description="More models to evaluate: a name, and a folder, a hub id, or what a server calls it."
    )
    forcing: Forcing = Forcing()
    engine: EngineName = speed("transformers", "What generates text; options are in `engines`.")


class Assumptions(Section):
    """What `--dry-run` assumes of what has not been measured. No stage reads it."""

    right: float = speed(0.25, "Share of attempts that are right.", gt=0, le=1)
    true_verdicts: float = speed(0.75, "Share of reflections whose verdict is true.", gt=0, le=1)
    filled: float = speed(0.3, "Share of its `max_tokens` that an average sample takes.", gt=0, le=1)
    tflops: float = speed(989.0, "Peak of a GPU in bfloat16, TFLOP/s: 989 is an H100 SXM, and a GH200.", gt=0)
    memory_gb: float = speed(80.0, "Memory of a GPU in GB.", gt=0)
    sampling_use: float = speed(
        0.15, "Share of that which sampling reaches; a guess for vLLM and full batches.", gt=0, le=1
    )
    training_use: float = speed(0.3, "Share of that which training reaches.", gt=0, le=1)
    layer_ms: float = speed(
        1.0, "Milliseconds that a layer takes in a step of our own sampler on a GPU, whatever the batch; a guess.", ge=0
    )
    dollars_per_gpu_hour: float = speed(0.0, "Price of a GPU for an hour; 0 leaves prices out.", ge=0)


class Recipe(Section):
    name: str = Field(
        description="Names the run; its folder is `runs/NAME` unless --run says otherwise.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
    )
    seed: int = Field(0, ge=0, description="The one seed that all randomness derives from.")
    method: str = Field(
        "skillfactory",
        description="`skillfactory`, `rl_only`, `star`, `bolt`, `distill`, an ablation (`random_order`, "
        "`no_reflections`, `one_prompt`, `instruction_prompt`), `skillfactory_twice`, or `evaluate`: no training.",
    )
    model: str = Field("tiny", description="`tiny` (embedded), a Hugging Face folder, or a hub id.")
    revision: str = Field("", description="Hub revision to pin.")
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = speed(
        [], "Where SFT and RL also log while they run; the package must be installed."
    )
    trust_remote_code: bool = Field(False, description="Run code that comes with the model. Off unless you say so.")
    machine: Machine = Machine()
    engines: Engines = Engines()
    questions: Questions
    attempts: Attempts = Attempts()
    reflections: Reflections = Reflections()
    traces: Traces = Traces()
    sft: Sft = Sft()
    rl: Rl = Rl()
    training: TrainingSystem = TrainingSystem()
    star: Star = Star()
    bolt: Bolt = Bolt()
    distill: Distill = Distill()
    evaluation: Evaluation
    estimate: Assumptions = Assumptions()


def schema_text() -> str:
    """The JSON schema of a recipe, for editors: what the file SCHEMA holds."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at dotted names, such as {"sft.epochs": 1}. Raises KeyError for an unknown name."""
    for name, value in settings.items():
        recipe = _with(recipe, name.split("."), value)
    return recipe


def _with(section: S, names: list[str], value: Any) -> S:
    first, *rest = names
    if first not in type(section).model_fields:
        raise KeyError(first)
    new = _with(getattr(section, first), rest, value) if rest else value
    return section.model_copy(update={first: new})
