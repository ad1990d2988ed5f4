"""Chains of requests, each of which follows from the completion before it: many at once on one engine."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from skillfactory.engines.base import Completion, Engine, Request

Row = TypeVar("Row")
# Yields a request, whose completion it is sent, or a row, for which it is sent None.
Talk = Generator[Request | Row, Completion | None, None]


@dataclass
class _Desk(Generic[Row]):
    """Turns talks into requests, and completions into what their talks make of them."""

    talks: Iterator[Talk[Row]]
    asked: dict[str, Talk[Row]] = field(default_factory=dict)  # by request id
    queue: deque[Request] = field(default_factory=deque)  # what talks that are under way want
    rows: deque[Row] = field(default_factory=deque)
    begun: int = 0

    def requests(self) -> Iterator[Request | None]:
        """Requests as long as there are any; None while all that is known is in flight."""
        while True:
            if self.queue:
                yield self.queue.popleft()
            elif (talk := next(self.talks, None)) is not None:
                self.go_on(str(self.begun), talk, None)
                self.begun += 1
            elif self.asked:
                yield None
            else:
                return

    def take(self, completion: Completion) -> None:
        """A completion has come: its talk goes on."""
        self.go_on(completion.id, self.asked.pop(completion.id), completion)

    def go_on(self, id: str, talk: Talk[Row], completion: Completion | None) -> None:
        """Up to the talk's next request, or its end."""
        try:
            while not isinstance(item := talk.send(completion), Request):
                self.rows.append(item)
                completion = None
        except StopIteration:
            return
        self.asked[id] = talk
        self.queue.append(replace(item, id=id))


def converse(engine: Engine, talks: Iterable[Talk[Row]]) -> Iterator[Row]:
    """The rows of all talks, each as it is made; those of one talk in its order.

    What running talks ask goes first; new ones are begun as the engine has room. The ids of requests are made here,
    whatever a talk says. What the engine or a talk raises comes after the rows that were made before it.
    """
    desk = _Desk(iter(talks))
    completions = engine.generate(desk.requests())
    try:
        try:
            for completion in completions:
                desk.take(completion)
                while desk.rows:
                    yield desk.rows.popleft()
        except (Exception, KeyboardInterrupt):
            yield from desk.rows
            raise
        yield from desk.rows
    finally:
        if isinstance(completions, Generator):
            completions.close()  # what is in flight is given up
        for talk in desk.asked.values():
            talk.close()
