"""The openai engine: any server that speaks the OpenAI chat API (vLLM, SGLang, llama.cpp, `transformers serve`, …).

Requests are taken in the caller's thread and served by the official client in an event loop in a thread of its own. The
client's own retries are off: they count a server that is away like one that is busy, and take any body for an answer.
"""

import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from skillfactory.engines import chat_api
from skillfactory.engines.base import ENGINE_FAILED, PROMPT_TOO_LONG, Completion, Request, failed
from skillfactory.engines.chat_api import FINISHED, FailedTryError, Reply
from skillfactory.engines.models import ChatTokenizer, locate
from skillfactory.errors import EngineError
from skillfactory.recipe import OpenAI, Recipe
from skillfactory.records import Message

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

INSTALL = "pip install 'openai>=3'"
CONNECT = 10.0  # seconds to open a connection
KEEP = 2.0  # seconds that an idle connection is kept: uvicorn closes its own after 5, and a request may meet that
KNOCK = 10.0  # longest seconds between two tries to reach a server that is away


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A reply, or the code of what was wrong and why; `refused` where the server would not take this request."""

    request: Request
    reply: Reply | None = None
    error: str = ""
    why: str = ""
    refused: bool = False


class OpenAIEngine:
    """See Engine. Its options are the recipe's `engines.openai`."""

    def __init__(self, options: OpenAI, model: str, chat: ChatTokenizer) -> None:
        self.options, self.model, self.chat = options, model, chat
        self.served = 0  # answers so far
        self.reported: set[str] = set()

    @classmethod
    def load(cls, recipe: Recipe, model: str | Path | None = None) -> Self:
        """The recipe's model, or another that the server has; asks it nothing yet. Raises EngineError, ModelError.

        `model` is what the server calls it; a folder is refused. Tokens that the server does not count are counted as
        the recipe's own model has them.
        """
        options = recipe.engines.openai
        if model is not None and (isinstance(model, Path) or Path(model).is_dir()):
            raise EngineError(
                f"The engine `openai` cannot sample from the folder {model}; choose a local engine (transformers, "
                "vllm) for it."
            )
        if find_spec("openai") is None:
            raise EngineError(f"The package `openai` is not installed; install it with `{INSTALL}`.")
        if not re.match(r"https?://[^/]", options.base_url):
            raise EngineError(
                f"`{options.base_url}` (engines.openai.base_url) is no address; give one like http://localhost:8000/v1."
            )
        return cls(options, model or options.model or locate(recipe), ChatTokenizer.load(recipe))

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """See Engine. Closing it cancels what is in flight."""
        from anyio.from_thread import start_blocking_portal

        flying: set[Future[_Outcome]] = set()
        with start_blocking_portal() as portal:
            session = portal.call(_Session, self.options, self.model, self.served)
            try:
                for outcome in self._outcomes(iter(requests), session, portal, flying):
                    yield self._completion(outcome)
            finally:
                self.served = session.served
                for future in flying:
                    future.cancel()
                portal.call(session.client.close)

    def _outcomes(
        self,
        source: Iterator[Request | None],
        session: "_Session",
        portal: "BlockingPortal",
        flying: set[Future[_Outcome]],
    ) -> Iterator[_Outcome]:
        """Ask, and give what comes back. Refusals are held until an answer shows that not all requests meet them."""
        done: SimpleQueue[Future[_Outcome]] = SimpleQueue()
        held: list[_Outcome] = []
        more = True
        while True:
            while more and len(flying) + len(held) < self.options.concurrency:
                try:
                    request = next(source)
                except StopIteration:
                    more = False
                    break
                if request is None:
                    break
                future = portal.start_task_soon(session.answer, request)
                flying.add(future)
                future.add_done_callback(done.put)
            if not flying:
                break
            future = done.get()
            flying.remove(future)
            held.append(future.result())
            if session.served or not held[-1].refused:
                yield from held
                held.clear()
        if held:
            raise EngineError(
                f"The server at {self.options.base_url} refuses every request ({held[0].why}); change what it "
                "names in the recipe, or its own settings."
            )
        if more:
            raise ValueError("None among the requests while none was in flight")

    def _completion(self, outcome: _Outcome) -> Completion:
        reply, request = outcome.reply, outcome.request
        if reply is None:
            if outcome.why not in self.reported:  # each reason once
                self.reported.add(outcome.why)
                logging.getLogger(__name__).warning("%s: a request failed: %s", self.options.base_url, outcome.why)
            return failed(request, outcome.error)
        finish = FINISHED[reply.finish]
        # Counted here, not in the loop: one tokenizer must not be used in two threads at once.
        if request.prefix and reply.prompt_tokens:
            turn: Message = {"role": "assistant", "content": request.prefix}
            continued = self.chat.encode(request.messages, request.prefix)
            if reply.prompt_tokens == len(self.chat.encode([*request.messages, turn])) != len(continued):
                raise chat_api.no_prefix(self.options, "it has begun a new turn")
        tokens = reply.tokens
        if not tokens:
            tokens = len(self.chat.tokenizer(reply.text, add_special_tokens=False)["input_ids"]) + (finish == "stop")
        return Completion(request.id, reply.text, tokens, finish)


class _Session:
    """What the requests of one `generate` share: the client, and what is known of the server. Lives in the loop."""

    def __init__(self, options: OpenAI, model: str, served: int) -> None:
        import httpx2
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, omit

        self.options, self.model, self.served = options, model, served
        self.away_since: float | None = None
        self.wants_config = False  # see chat_api.wanted
        key = os.environ.get(options.api_key_env, "").strip()
        self.headers = {} if key else {"Authorization": omit}
        self.client = AsyncOpenAI(
            base_url=options.base_url,
            api_key=key or "none",  # the client wants one; the header is left out
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(None, connect=min(CONNECT, options.timeout / 2)),
                limits=httpx2.Limits(max_keepalive_connections=options.concurrency, keepalive_expiry=KEEP),
                follow_redirects=False,  # following one would turn a POST into a GET
            ),
        )

    async def answer(self, request: Request) -> _Outcome:
        """Ask until there is an answer, a refusal, or no try left. Raises EngineError where asking is pointless."""
        tries = knocks = 0
        limited = True
        while True:
            served, config = self.served, self.wants_config
            try:
                reply = await self._ask(request, config, limited)
            except FailedTryError as error:
                # A server that serves others while it is not ready for us is busy, not away.
                if error.kind == "absent" or (error.kind == "loading" and self.served == served):
                    knocks += 1
                    await self._wait(error, knocks)
                elif error.kind == "unknown_fields" and not (config or self.options.plain):
                    self.wants_config = True
                elif error.kind == "too_long" and limited:
                    limited = False  # perhaps only with max_tokens: what is left of the context is then the limit
                elif error.kind == "too_long":
                    return _Outcome(request, error=PROMPT_TOO_LONG, why="a prompt is too long for the server")
                elif error.kind in ("refused", "unknown_fields"):
                    return _Outcome(request, error=ENGINE_FAILED, why=error.why, refused=True)
                elif tries == self.options.retries:
                    why = f"given up after {tries + 1} tries ({error.why})"
                    return _Outcome(request, error=ENGINE_FAILED, why=why)
                else:
                    tries += 1
                    await asyncio.sleep(max(chat_api.pause(tries), error.wait))
            else:
                self.served += 1
                if reply.finish in FINISHED:
                    return _Outcome(request, reply)
                return _Outcome(request, error=ENGINE_FAILED, why=f"its answer finished with `{reply.finish}`")

    async def _ask(self, request: Request, config: bool, limited: bool) -> Reply:
        import httpx2
        import openai

        arguments = chat_api.wanted(request, self.model, plain=self.options.plain, config=config, limited=limited)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.options.timeout):
                raw = await self.client.chat.completions.with_raw_response.create(
                    **arguments, extra_headers=self.headers
                )
        except TimeoutError:
            raise FailedTryError("passing", f"no answer within {self.options.timeout:g} s") from None
        except openai.APIConnectionError as error:
            why = str(error.__cause__) or type(error.__cause__).__name__
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                raise FailedTryError("absent", why) from error
            if self.away_since and started > self.away_since:  # a connection of before says nothing of now
                self.away_since = None
            raise FailedTryError("passing", f"connection lost: {why}") from error
        except openai.APIStatusError as error:
            if error.status_code != 503:
                self.away_since = None
            raise chat_api.judged(error, self.options, self.model) from error
        self.away_since = None
        return chat_api.read(raw.content, raw.headers, self.options, request.prefix)

    async def _wait(self, error: FailedTryError, knocks: int) -> None:
        """For a server that is away, `patience` seconds at most from when the first request met that."""
        now, patience, place = time.monotonic(), self.options.patience, self.options.base_url
        if self.away_since is None:
            self.away_since = now
            print(
                f"The server at {place} does not answer ({error.why}); waiting up to {patience:g} s for it.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        left = self.away_since + patience - now
        if left <= 0:
            raise EngineError(
                f"The server at {place} (engines.openai.base_url) has not answered for {patience:g} s ({error.why}); "
                "start it, or correct the address, then run the same again."
            )
        await asyncio.sleep(min(max(chat_api.pause(knocks, KNOCK), error.wait), left))
