"""The openai engine: any server that speaks the OpenAI chat API (vLLM, SGLang, llama.cpp, `transformers serve`, …).

Requests are taken in the caller's thread and served in an event loop in a thread of its own, see chat_session.py.
"""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from skillfactory.engines import chat_answer, chat_api
from skillfactory.engines.base import Completion, Request, failed
from skillfactory.engines.chat_answer import FINISHED
from skillfactory.engines.chat_session import Outcome, Session
from skillfactory.engines.models import ChatTokenizer, locate
from skillfactory.errors import EngineError
from skillfactory.recipe import OpenAI, Recipe
from skillfactory.records import Message

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

INSTALL = "pip install 'openai>=3'"


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
        if not chat_api.is_address(options.base_url):
            raise EngineError(
                f"`{options.base_url}` (engines.openai.base_url) is no address; give one like http://localhost:8000/v1."
            )
        return cls(options, model or options.model or locate(recipe), ChatTokenizer.load(recipe))

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """See Engine. Closing it cancels what is in flight."""
        from anyio.from_thread import start_blocking_portal

        flying: set[Future[Outcome]] = set()
        with start_blocking_portal() as portal:
            session = portal.call(Session, self.options, self.model, self.served)
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
        session: Session,
        portal: "BlockingPortal",
        flying: set[Future[Outcome]],
    ) -> Iterator[Outcome]:
        """Ask, and give what comes back. Refusals are held until an answer shows that not all requests meet them."""
        done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        held: list[Outcome] = []
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

    def _completion(self, outcome: Outcome) -> Completion:
        reply, request = outcome.reply, outcome.request
        if reply is None:
            if outcome.why not in self.reported:  # each reason once
                self.reported.add(outcome.why)
                logging.getLogger(__name__).warning("%s: a request failed: %s", self.options.base_url, outcome.why)
            return failed(request, outcome.error)
        finish = FINISHED[reply.finish]
        if (told := chat_answer.other_model(self.model, reply.model)) and told not in self.reported:
            self.reported.add(told)
            logging.getLogger(__name__).warning("%s: %s", self.options.base_url, told)
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
