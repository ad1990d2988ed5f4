"""What an answer of the OpenAI chat API holds, as servers really give it: much is missing, some of it is wrong."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from skillfactory.characters import one_line, whole
from skillfactory.records import FinishReason

FINISHED: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}
REFUSALS = ("content_filter", "tool_calls", "function_call")  # finish reasons that another try would not change
_MOST_TOKENS = 2**31  # a count beyond it is none
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # how JSON spells one; pairs, too


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None  # vLLM
    reasoning_content: str | None = None  # SGLang, llama.cpp, `transformers serve`, vLLM before 0.12


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: Any = None
    usage: Any = None  # not worth an answer: what is no count is none


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its first choice. Tokens, of the answer and of its prompt, are 0 where the server counts none.

    `model`: who the server says that it comes from, "" for nobody.
    """

    text: str
    finish: str
    tokens: int
    prompt_tokens: int
    model: str = ""


class FailedTryError(Exception):
    """One try came to nothing; `kind` says what to do. `wait`: seconds that the server asks for.

    - absent: no connection. loading: there, but not ready. passing: try again.
    - page: a web page, of a wrong address or of a proxy whose server is away for a moment.
    - unknown_fields: `transformers serve`, which wants `generation_config`.
    - too_long: prompt, or prompt and max_tokens, exceed the context. refused: this request, or every one, is wrong.
    """

    def __init__(
        self,
        kind: Literal["absent", "loading", "passing", "page", "unknown_fields", "too_long", "refused"],
        why: str,
        wait: float = 0,
    ) -> None:
        super().__init__(why)
        self.kind, self.why, self.wait = kind, one_line(why), wait


def read(content: bytes, headers: Mapping[str, str], prefix: str = "") -> Reply:
    """The answer, to follow `prefix`, in a response of status 200. Raises FailedTryError."""
    if is_page(content, headers):
        raise FailedTryError("page", "a web page in place of an answer")
    try:
        body = _body(content)
    except ValidationError as error:
        raise FailedTryError("passing", f"its answer is no chat completion: {error.errors()[0]['msg']}") from error
    choice = body.choices[0]
    if choice.finish_reason not in FINISHED and choice.finish_reason not in REFUSALS:
        # "abort", "error": a server that is being stopped
        raise FailedTryError("passing", f"its answer finished with `{choice.finish_reason}`")
    return Reply(
        _text(choice, begun="<think>" in prefix), str(choice.finish_reason), _count(body.usage, "completion_tokens"),
        _count(body.usage, "prompt_tokens"), body.model if isinstance(body.model, str) else "",
    )  # fmt: skip


def _body(content: bytes) -> _Body:
    """Raises ValidationError. Halves of characters, which JSON can spell and no file can hold, are replaced."""
    try:
        return _Body.model_validate_json(content)
    except ValidationError:
        if not _HALF.search(content):
            raise
        try:
            mended = whole(json.dumps(json.loads(content), ensure_ascii=False))
        except (ValueError, RecursionError):
            mended = ""
        if not mended:
            raise
        return _Body.model_validate_json(mended)


def _count(usage: object, name: str) -> int:
    """A count of tokens, 0 where there is none that can be."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 < found < _MOST_TOKENS else 0


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


def other_model(asked: str, said: str) -> str:
    """A sentence where an answer comes from another model than was asked for; "" where the names go together.

    Servers give a part of the name, or more than it: `org/model` is `model`, `gpt-4o` is `gpt-4o-2024-08-06`.
    """
    names = [name.rstrip("/").rpartition("/")[2].lower() for name in (asked, said)]
    if not said or names[0] in names[1] or names[1] in names[0]:
        return ""
    return f"`{asked}` was asked for, but `{one_line(said)}` answers (engines.openai.model)"


def is_page(content: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a body is a web page, whatever it says of itself."""
    start = content[:1000].lstrip()[:1]
    return start == b"<" or ("html" in headers.get("content-type", "") and start != b"{")
