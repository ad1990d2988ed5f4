"""A conversation with a server of the OpenAI chat API: one client, what is known of the server, and when to try again.

The client's own retries are off: they count a server that is away like one that is busy, and take any body for an
answer. Lives in an event loop.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from skillfactory.characters import one_line
from skillfactory.engines import chat_answer, chat_api
from skillfactory.engines.base import ENGINE_FAILED, PROMPT_TOO_LONG, Request
from skillfactory.engines.chat_answer import FINISHED, FailedTryError, Reply
from skillfactory.errors import EngineError
from skillfactory.recipe import OpenAI

if TYPE_CHECKING:
    import httpx2

CONNECT = 10.0  # seconds to open a connection
KEEP = 2.0  # seconds that an idle connection is kept: uvicorn closes its own after 5, and a request may meet that
KNOCK = 10.0  # longest seconds between two tries to reach a server that is away
LARGEST = 2**24  # bytes of an answer: what a broken server sends must not fill the memory


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reply, or the code of what was wrong and why; `refused` where the server would not take this request."""

    request: Request
    reply: Reply | None = None
    error: str = ""
    why: str = ""
    refused: bool = False


async def _bounded(response: "httpx2.Response") -> None:
    """Make a response one that ends: httpx reads and unpacks as much as a server sends. For its hooks."""
    import httpx2

    coding = response.headers.get("content-encoding", "identity").lower()
    if coding not in ("", "identity"):
        raise FailedTryError("passing", f"its answer is packed ({coding}), which was not asked for")
    stream = response.stream

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in cast(httpx2.AsyncByteStream, stream):
                size += len(part)
                if size > LARGEST:
                    raise FailedTryError("passing", f"its answer has more than {LARGEST:,} bytes")
                yield part

        async def aclose(self) -> None:
            await cast(httpx2.AsyncByteStream, stream).aclose()

    response.stream = Bounded()


class Session:
    """What the requests of one `generate` share: the client, and what is known of the server. Lives in the loop."""

    def __init__(self, options: OpenAI, model: str, served: int) -> None:
        import httpx2
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, omit

        self.options, self.model, self.served = options, model, served
        self.away_since: float | None = None
        self.wants_config = False  # see chat_api.wanted
        key = os.environ.get(options.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EngineError(
                f"The environment variable {options.api_key_env} (engines.openai.api_key_env) holds no API key: keys "
                "are plain letters and digits."
            )
        self.headers: dict[str, Any] = {"Accept-Encoding": "identity"} | ({} if key else {"Authorization": omit})
        try:
            http_client = DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(None, connect=min(CONNECT, options.timeout / 2)),
                limits=httpx2.Limits(max_keepalive_connections=options.concurrency, keepalive_expiry=KEEP),
                follow_redirects=False,  # following one would turn a POST into a GET
                event_hooks={"response": [_bounded]},
            )
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
            raise EngineError(
                f"The HTTP settings in this machine's environment cannot be used ({one_line(str(error))}); "
                "mend HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
            ) from error
        self.client = AsyncOpenAI(
            base_url=options.base_url,
            api_key=key or "none",  # the client wants one; the header is left out
            max_retries=0,
            http_client=http_client,
        )

    async def answer(self, request: Request) -> Outcome:
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
                    return Outcome(request, error=PROMPT_TOO_LONG, why="a prompt is too long for the server")
                elif error.kind == "page" and not self.served:
                    raise chat_api.page(self.options) from error
                elif error.kind in ("refused", "unknown_fields"):
                    return Outcome(request, error=ENGINE_FAILED, why=error.why, refused=True)
                elif tries == self.options.retries:
                    why = f"given up after {tries + 1} tries ({error.why})"
                    return Outcome(request, error=ENGINE_FAILED, why=why)
                else:
                    tries += 1
                    await asyncio.sleep(max(chat_api.pause(tries), error.wait))
            else:
                self.served += 1
                if reply.finish in FINISHED:
                    return Outcome(request, reply)
                return Outcome(request, error=ENGINE_FAILED, why=f"its answer finished with `{reply.finish}`")

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
            if isinstance(error.__cause__, FailedTryError):  # by `_bounded`
                raise error.__cause__ from None
            why = one_line(str(error.__cause__)) or type(error.__cause__).__name__
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
        return chat_answer.read(raw.content, raw.headers, request.prefix)

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
