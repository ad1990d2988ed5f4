"""The OpenAI chat API as servers really speak it: what is asked, and what an error means."""

import json
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from skillfactory.characters import one_line
from skillfactory.engines.base import Request, SamplingParams
from skillfactory.engines.chat_answer import FailedTryError, is_page
from skillfactory.errors import EngineError
from skillfactory.recipe import OpenAI

if TYPE_CHECKING:
    from openai import APIStatusError

LONGEST_PAUSE = 60.0  # seconds between two tries
LONGEST_WAIT = 600.0  # seconds of a Retry-After that are honoured
SEEDS = 2**31 - 1  # what every server takes: some hold seeds in 32 bits, and give the largest a meaning of their own
# OpenAI, vLLM and SGLang; vLLM for one token too many, and for max_tokens; llama.cpp (message, type); companies.
_TOO_LONG = re.compile(
    r"(maximum|model's) context length|context_length_exceeded|maximum model length|available context size"
    r"|exceed_context_size|max_model_len|context window|prompt is too long",
    re.IGNORECASE,
)
_CONTINUE = re.compile(r"continue_final_message|add_generation_prompt")
_EXTRAS = re.compile(r"top_k|min_p|repetition_penalty|repeat_penalty|repeat_last_n|generation_config")


def wanted(request: Request, model: str, *, plain: bool, config: bool, limited: bool) -> dict[str, Any]:
    """Arguments of `chat.completions.create`. `config`: for `transformers serve`. `limited`: send max_tokens.

    A prefix is sent as a last message of the assistant's, which vLLM and SGLang continue when told to, and llama.cpp by
    itself. Other servers take it for a finished turn and begin a new one, mostly without a word.
    """
    params, prefix = request.params, request.prefix
    arguments: dict[str, Any] = {
        "model": model,
        "messages": [*request.messages, {"role": "assistant", "content": prefix}] if prefix else request.messages,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": request.seed % SEEDS,
    }
    if limited:
        arguments["max_tokens"] = params.max_tokens
    if not plain:
        arguments["extra_body"] = {"generation_config": _config(params)} if config else _extras(params)
        if prefix:
            arguments["extra_body"] |= {"continue_final_message": True, "add_generation_prompt": False}
    return arguments


def _extras(params: SamplingParams) -> dict[str, Any]:
    """Settings outside OpenAI's API; servers ignore what they do not know, and have defaults for what is left out.

    vLLM and SGLang have `repetition_penalty`; llama.cpp has `repeat_penalty`, over the last 64 tokens unless told
    otherwise, and a min_p of its own. No limit of k is -1: SGLang takes no 0.
    """
    penalty = params.repetition_penalty
    return {
        "top_k": params.top_k or -1, "min_p": 0.0, "repetition_penalty": penalty, "repeat_penalty": penalty,
        "repeat_last_n": -1,
    }  # fmt: skip


def _config(params: SamplingParams) -> str:
    """A GenerationConfig in JSON; its own top_k would be 50, and it samples only if told so."""
    config: dict[str, Any] = {"repetition_penalty": params.repetition_penalty, "do_sample": params.temperature > 0}
    if params.temperature > 0:
        config |= {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k}
    return json.dumps(config)


def is_address(url: str) -> bool:
    """Whether a text can be a server's address."""
    import httpx2

    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host) and (parsed.port or 0) < 2**16


def judged(error: "APIStatusError", options: OpenAI, model: str) -> FailedTryError | EngineError:
    """What a response that is no success means."""
    status, said = error.status_code, _said(error)
    place = f"The server at {options.base_url}"
    if status in (401, 403):
        return EngineError(
            f"{place} refuses the API key ({said}); set the environment variable {options.api_key_env} "
            "(engines.openai.api_key_env) to a key that it takes."
        )
    if status == 402 or error.code == "insufficient_quota":
        return EngineError(f"{place} serves this account no more ({said}); see to its quota, then run the same again.")
    if status < 400:
        return EngineError(
            f"{place} redirects to {one_line(error.response.headers.get('location', ''))}; set engines.openai.base_url "
            "to the address where it listens."
        )
    if status >= 500 or status in (408, 409, 425, 429):
        return FailedTryError("loading" if status == 503 else "passing", f"{status}: {said}", _asked(error))
    if is_page(error.response.content, error.response.headers):
        return FailedTryError("page", f"{status}: a web page in place of an answer")
    if status == 404:
        return EngineError(
            f"{place} does not know what is asked of it ({said}); base_url must end in /v1, and engines.openai.model "
            f"(now `{model}`) must be a model that it serves."
        )
    if _CONTINUE.search(said):
        return no_prefix(options, said)
    if "Unexpected fields in the request" in said:
        return FailedTryError("unknown_fields", said)
    if _TOO_LONG.search(f"{said} {error.code} {error.type}"):
        return FailedTryError("too_long", said)
    if not options.plain and _EXTRAS.search(said):
        return EngineError(
            f"{place} does not take top_k and repetition_penalty ({said}); set engines.openai.plain=true to go "
            "without them."
        )
    return FailedTryError("refused", f"{status}: {said}")


def no_prefix(options: OpenAI, said: str) -> EngineError:
    """For a server that cannot continue an answer that has begun."""
    return EngineError(
        f"The server at {options.base_url} cannot continue an answer that has begun, which budget forcing needs "
        f"({said}); serve the model with vLLM, SGLang or llama.cpp, or choose a local engine (transformers, vllm)."
    )


def page(options: OpenAI) -> EngineError:
    """For an address that is not a chat API's."""
    return EngineError(
        f"{options.base_url} (engines.openai.base_url) answers with a web page, not as a chat API; the address must be "
        "the server's own, not a proxy's, and end in /v1."
    )


def _said(error: "APIStatusError") -> str:
    """The server's own message, on one line."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return one_line(str(body or error.response.reason_phrase))


def _asked(error: "APIStatusError") -> float:
    """Seconds of a Retry-After header, which holds a number or a date."""
    value = error.response.headers.get("retry-after", "0")
    try:
        seconds = (
            float(value) if value.strip()[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
        )
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def pause(tries: int, longest: float = LONGEST_PAUSE) -> float:
    """Seconds before try number `tries`: twice as long each time, scattered so that requests do not come at once."""
    return min(2.0 ** min(tries - 1, 10), longest) * random.uniform(0.5, 1)
