"""The vLLM engine: offline vLLM in this process, for GPUs and for CPUs that its builds know.

It wants an environment of its own, since vLLM pins its torch and transformers. Nothing of it is imported before `load`.
"""

import itertools
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from skillfactory.engines.base import (
    ENGINE_FAILED,
    PROMPT_TOO_LONG,
    Completion,
    Request,
    SamplingParams,
    failed,
)
from skillfactory.engines.models import ChatTokenizer, first_line, hub_options, locate
from skillfactory.engines.transformers import stop_ids
from skillfactory.errors import EngineError, ModelError
from skillfactory.recipe import Recipe
from skillfactory.records import Message

WATCH = 2.0  # seconds between two looks at vLLM's process
CPU_CACHE = 2 * 2**30  # bytes of key-value cache on CPU


class VllmEngine:
    """See Engine. Requests enter vLLM's continuous batch as others leave it; the batch is never drained between.

    Every request is one of vLLM's own, with its own seed. vLLM's `n` would not be faster: it only splits one request
    into n, which prefix caching serves the same way (`benchmarks/bench_engines.py` has both). But it seeds them with
    seed, seed + 1, …, so that a text would depend on which requests came together, and hands all n over only when the
    longest is done.

    The same request gives the same text again on the same machine and versions as far as its logits are the same: they
    are rounded by what else is in the batch, unless VLLM_BATCH_INVARIANT=1 is set (slower, some GPUs only). Texts are
    not those of another engine for the same seed, except greedy ones up to rounding.

    One `generate` at a time.
    """

    def __init__(self, llm: Any, chat: ChatTokenizer, in_flight: int) -> None:
        self.llm, self.chat, self.in_flight = llm, chat, in_flight
        settings = SimpleNamespace(**llm.llm_engine.model_config.try_get_generation_config())
        self.stops = stop_ids(SimpleNamespace(generation_config=settings), chat.tokenizer)
        self.context: int = llm.llm_engine.model_config.max_model_len
        self.numbers = itertools.count()  # names of requests within vLLM, where one that is aborted may linger

    @classmethod
    def load(cls, recipe: Recipe, model: str | Path | None = None) -> Self:
        """The recipe's base model, or a folder. Raises ModelError, and EngineError where vLLM is missing or fails."""
        vllm = _import()
        chat = ChatTokenizer.load(recipe, model)
        section, name, hub = recipe.engines.vllm, locate(recipe, model), hub_options(recipe, model)
        options = {
            "dtype": _dtype(recipe, name, hub),
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            **hub,
            **({"tokenizer_revision": hub["revision"]} if hub else {}),
            **section.options,
        }
        if vllm.platforms.current_platform.is_cpu():
            # vLLM 0.32 on CPU breaks off ("CPU Generator does not use offset") where it reads a prompt that has a seed
            # in two pieces, and by default asks for 92 % of the machine's memory.
            options.setdefault("enable_chunked_prefill", False)
            if "gpu_memory_utilization" not in options:
                options.setdefault("kv_cache_memory_bytes", CPU_CACHE)
        try:
            llm = vllm.LLM(name, **options)
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            raise EngineError(
                f"vLLM could not start with model `{name}` ({first_line(error)}); what it wrote says more. Its "
                "settings are `engines.vllm.options`, e.g. max_model_len, gpu_memory_utilization."
            ) from error
        return cls(llm, chat, section.in_flight)

    def close(self) -> None:
        """End vLLM's processes: they hold the memory of GPUs, and would live as long as this one, which may train next.

        (To let go of the object is not enough: vLLM keeps frames that know of it.)
        """
        self.llm.llm_engine.engine_core.shutdown()

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """See Engine."""
        source, more = iter(requests), True
        flying: dict[str, Request] = {}
        latest: tuple[list[Message], str] | None = None  # those of one prompt come in a row
        prompt: list[int] = []
        with self._serving(flying):
            while more or flying:
                while more and len(flying) < self.in_flight:
                    try:
                        request = next(source)
                    except StopIteration:
                        more = False
                        break
                    if request is None:
                        break
                    if (asked := (request.messages, request.prefix)) != latest:
                        latest, prompt = asked, self.chat.encode(*asked)
                    if len(prompt) >= self.context:
                        yield failed(request, PROMPT_TOO_LONG)
                    else:
                        flying[self._add(request, prompt)] = request
                if flying:
                    ended = [done for done in self.llm.llm_engine.step() if done.finished]
                    yield from [self._completion(flying.pop(done.request_id), done) for done in ended]

    @contextmanager
    def _serving(self, flying: dict[str, Request]) -> Iterator[None]:
        """Abort what is in flight at the end, and say so where vLLM is no more.

        Where its process is killed, vLLM 0.32 ends the thread that reads from it, and `step` would wait for ever.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, over = self.llm.llm_engine, threading.Event()
        client = engine.engine_core

        def watch() -> None:
            while not over.wait(WATCH):
                if client.resources.engine_dead:
                    client.outputs_queue.put_nowait(EngineDeadError())
                    return

        if hasattr(client, "resources") and hasattr(client, "outputs_queue"):  # it has a process of its own
            threading.Thread(target=watch, name="vllm-watch", daemon=True).start()
        try:
            yield
        except EngineDeadError as error:
            raise EngineError("vLLM broke off; what it wrote says why.") from error
        finally:
            over.set()
            if flying:
                with suppress(Exception):  # one that is dead has nothing to abort
                    engine.abort_request(list(flying))

    def _add(self, request: Request, prompt: list[int]) -> str:
        """Hand a request to vLLM; returns its name there."""
        from vllm.inputs import tokens_input

        name, params = str(next(self.numbers)), _params(request.params, request.seed, self.stops)
        try:
            self.llm.llm_engine.add_request(name, tokens_input(prompt), params)
        except ValueError as error:
            raise EngineError(f"vLLM refused a request ({first_line(error)}).") from error
        return name

    def _completion(self, request: Request, done: Any) -> Completion:
        output = done.outputs[0]
        reason, ids = output.finish_reason, list(output.token_ids)
        if reason not in ("stop", "length"):
            logging.getLogger(__name__).warning("vLLM ended request %s with `%s`.", request.id, reason)
            return failed(request, ENGINE_FAILED)
        return Completion(request.id, self.chat.decode(ids[:-1] if reason == "stop" else ids), len(ids), reason)


def _import() -> Any:
    # Its notices would interrupt our progress bars, and it reports its use to its makers. Either can be set otherwise.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
        import vllm.platforms
    except ImportError as error:
        raise EngineError(
            f"The vllm engine needs vLLM, which cannot be imported here ({first_line(error)}): install it beside "
            "skillfactory in an environment of its own (`pip install vllm`, then `pip install --no-deps skillfactory`; "
            "docs/howto/engine.md), or serve the model with it and set attempts.engine=openai."
        ) from error
    return vllm


def _params(params: SamplingParams, seed: int, stops: list[int]) -> Any:
    from vllm.sampling_params import RequestOutputKind
    from vllm.sampling_params import SamplingParams as VllmParams

    return VllmParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        repetition_penalty=params.repetition_penalty,
        max_tokens=params.max_tokens,
        seed=seed,
        stop_token_ids=stops,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _dtype(recipe: Recipe, name: str, hub: dict[str, Any]) -> str:
    """The type to sample in, `auto` being the file's own: vLLM's `auto` would halve float32."""
    from transformers import AutoConfig

    if recipe.machine.dtype != "auto":
        return recipe.machine.dtype
    try:
        config = AutoConfig.from_pretrained(name, **hub)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"Model `{name}` could not be loaded ({first_line(error)}); name a Hugging Face folder of a causal "
            "language model, or a hub id that this machine can reach."
        ) from error
    return str(config.dtype or "auto").removeprefix("torch.")
