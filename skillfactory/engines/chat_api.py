"""The OpenAI chat API as servers really speak it: what is asked, what an answer holds, what an error means."""

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from skillfactory.engines.base import Request, SamplingParams
from skillfactory.errors import EngineError
from skillfactory.recipe import OpenAI
from skillfactory.records import FinishReason

if TYPE_CHECKING:
    from openai import APIStatusError

LONGEST_PAUSE = 60.0  # seconds between two tries
LONGEST_WAIT = 600.0  # seconds of a Retry-After that are honoured
SEEDS = 2**31 - 1  # what every server takes: some hold seeds in 32 bits, and give the largest a meaning of their own
FINISHED: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}
REFUSALS = ("content_filter", "tool_calls", "function_call")  # finish reasons that another try would not change
# OpenAI, vLLM and SGLang; vLLM for one token too many, and for max_tokens; llama.cpp (message, type); companies.
_TOO_LONG = re.compile(
    r"(maximum|model's) context length|context_length_exceeded|maximum model length|available context size"
    r"|exceed_context_size|max_model_len|context window|prompt is too long",
    re.IGNORECASE,
)
_CONTINUE = re.compile(r"continue_final_message|add_generation_prompt")
_EXTRAS = re.compile(r"top_k|min_p|repetition_penalty|repeat_penalty|repeat_last_n|generation_config")


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None  # vLLM
    reasoning_content: str | None = None  # SGLang, llama.cpp, `transformers serve`, vLLM before 0.12


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its first choice. Tokens, of the answer and of its prompt, are 0 where the server counts none."""

    text: str
    finish: str
    tokens: int
    prompt_tokens: int


class FailedTryError(Exception):
    """One try came to nothing; `kind` says what to do. `wait`: seconds that the server asks for.

    - absent: no connection. loading: there, but not ready. passing: try again.
    - unknown_fields: `transformers serve`, which wants `generation_config`.
    - too_long: prompt, or prompt and max_tokens, exceed the context. refused: this request, or every one, is wrong.
    """

    def __init__(
        self,
        kind: Literal["absent", "loading", "passing", "unknown_fields", "too_long", "refused"],
        why: str,
        wait: float = 0,
    ) -> None:
        super().__init__(why)
        self.kind, self.why, self.wait = kind, one_line(why), wait


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


def read(content: bytes, headers: Mapping[str, str], options: OpenAI, prefix: str = "") -> Reply:
    """The answer, to follow `prefix`, in a response of status 200. Raises FailedTryError, or EngineError for a page."""
    if _is_page(content, headers):
        raise _page(options)
    try:
        body = _Body.model_validate_json(content)
    except ValidationError as error:
        raise FailedTryError("passing", f"its answer is no chat completion: {error.errors()[0]['msg']}") from error
    choice = body.choices[0]
    if choice.finish_reason not in FINISHED and choice.finish_reason not in REFUSALS:
        # "abort", "error": a server that is being stopped
        raise FailedTryError("passing", f"its answer finished with `{choice.finish_reason}`")
    usage, text = body.usage or _Usage(), _text(choice, begun="<think>" in prefix)
    return Reply(text, str(choice.finish_reason), usage.completion_tokens or 0, usage.prompt_tokens or 0)


def _text(choice: _Choice, begun: bool) -> str:
    """The text with the reasoning that the server took out of it; reasoning that was cut short is left open.

    Where the reasoning was `begun` before, its opening stands there already.
    """
    content = choice.message.content or ""
    reasoning = choice.message.reasoning or choice.message.reasoning_content
    if not reasoning:
        return content
    opened = reasoning.rstrip("\n") if begun else "<think>\n" + reasoning.strip("\n")
    if not content and choice.finish_reason == "length":
        return opened
    return opened + "\n</think>\n" + content.lstrip("\n")


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
    if _is_page(error.response.content, error.response.headers):
        return _page(options)
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


def _page(options: OpenAI) -> EngineError:
    return EngineError(
        f"{options.base_url} (engines.openai.base_url) answers with a web page, not as a chat API; the address must be "
        "the server's own, not a proxy's, and end in /v1."
    )


def _is_page(content: bytes, headers: Mapping[str, str]) -> bool:
    return "html" in headers.get("content-type", "") or content.lstrip()[:1] == b"<"


def _said(error: "APIStatusError") -> str:
    """The server's own message, on one line."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return one_line(str(body or error.response.reason_phrase))


def one_line(text: str) -> str:
    """At most 200 characters of a text, on one line."""
    return " ".join(text.split())[:200].rstrip(". ")


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
