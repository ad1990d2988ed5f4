"""On what a recipe runs: machine, engines, programs that train. Nearly all of it changes the speed, not the result."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EngineName = Literal["transformers", "vllm", "openai", "ray"]


def speed(default: Any, description: str, **limits: Any) -> Any:
    """A setting that changes the speed of a stage but not its result."""
    return Field(default, description=description, json_schema_extra={"speed": True}, **limits)


class Section(BaseModel):
    # validate_default: a default of 2 for a number is 2.0, as a file gives it; digests tell the two apart.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )


class OpenAI(Section):
    """Any server with the OpenAI chat API: vLLM, SGLang, llama.cpp, `transformers serve`, or a company's."""

    base_url: str = speed("http://localhost:8000/v1", "Where it listens.")
    model: str = Field("", description="The model's name there; the recipe's `model` where empty.")
    api_key_env: str = speed("OPENAI_API_KEY", "Environment variable that holds the key; none is sent if unset.")
    concurrency: int = speed(64, "Requests in flight at once.", ge=1)
    timeout: float = speed(600.0, "Seconds that one answer may take.", gt=0)
    retries: int = speed(5, "Times that a request is tried again before it counts as failed.", ge=0)
    patience: float = speed(300.0, "Seconds to wait for a server that does not answer at all.", ge=0)
    plain: bool = Field(False, description="Send standard OpenAI settings alone (no top_k, no repetition_penalty).")


class Vllm(Section):
    """vLLM in this process; needs an environment that has it."""

    in_flight: int = speed(1024, "Requests that vLLM holds at once, running and waiting.", ge=1)
    options: dict[str, Any] = speed({}, "Passed to `vllm.LLM` as they are, e.g. `tensor_parallel_size`.")


class RayCluster(Section):
    """Ray Data over one machine or many, each worker with an engine of its own."""

    address: str = speed("", "Of a running cluster, or `auto`; a local one is started where empty.")
    worker: Literal["transformers", "vllm"] = speed("transformers", "The engine in each worker.")
    workers: int = speed(1, "Workers at once.", ge=1)
    gpus: float = speed(0, "GPUs a worker.", ge=0)
    cpus: float = speed(1, "CPU cores a worker.", ge=0)
    batch: int = speed(64, "Questions handed to a worker at once: what a killed worker costs.", ge=1)


class Engines(Section):
    """Options of the engines."""

    openai: OpenAI = OpenAI()
    vllm: Vllm = Vllm()
    ray: RayCluster = RayCluster()


class Machine(Section):
    device: str = speed("auto", "`auto`, `cpu`, `cuda`, `mps`.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="For sampling; `auto` is what the model's files say."
    )
    attention: Literal["auto", "grouped", "sdpa", "eager", "flash_attention_2"] = speed(
        "auto", "Attention code; `grouped` is ours, for small models on CPU."
    )
    threads: int = speed(0, "Torch threads; 0 is one for models under 50 M parameters, else all cores.", ge=0)
    batch_size: int = speed(64, "Sequences sampled at once.", ge=1)


class Verl(Section):
    """GRPO by verl (Ray, FSDP, vLLM), in an environment of its own."""

    python: str = speed("", "The Python of an environment that has verl and this package.")
    nodes: int = speed(1, "Machines of the Ray cluster, each with `training.devices` GPUs.", ge=1)
    options: dict[str, Any] = speed({}, "verl's own settings by their dotted names; they win over ours.")


class LlamaFactory(Section):
    """SFT by LLaMA-Factory, in an environment of its own."""

    command: str = speed("llamafactory-cli", "Its command, with its path where it is not on PATH.")
    options: dict[str, Any] = speed({}, "Its own settings; they win over ours.")


class TrainingSystem(Section):
    """Who trains, and on what."""

    backend: Literal["trl", "verl"] = speed("trl", "Who runs GRPO.")
    sft: Literal["trl", "llamafactory"] = speed("trl", "Who runs SFT.")
    devices: int = speed(1, "GPUs of this machine (without any: processes) that SFT and RL run on.", ge=1)
    shard: Literal["none", "fsdp2", "zero2", "zero3"] = speed(
        "none", "How weights and optimizer are split over the devices: not at all, FSDP2, DeepSpeed ZeRO-2 or -3."
    )
    accelerate: str = speed("", "A configuration file of `accelerate launch` in place of ours.")
    verl: Verl = Verl()
    llamafactory: LlamaFactory = LlamaFactory()
