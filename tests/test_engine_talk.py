"""Chains of requests on an engine that answers in any order, a few at a time; and on the embedded model."""

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from helpers import make_recipe
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import engines
from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.engines.sampler import sample
from skillfactory.engines.talk import Talk, converse
from skillfactory.engines.transformers import stop_ids
from skillfactory.records import Message

PARAMS = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=30)
Row = tuple[int, int, str]  # talk, its how manieth row, what it had been answered by then
ASK, SAY = True, False


def messages_of(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def answer(text: str) -> str:
    return f"<{text}>"


@dataclass
class Scripted:
    """An engine that takes and answers as many requests at a time as it is told, in a random order."""

    random: random.Random
    most: int
    fails_after: int = 10**9
    error: BaseException = field(default_factory=lambda: RuntimeError("the engine broke"))
    asked: list[Request] = field(default_factory=list)
    busiest: int = 0
    closed: bool = False
    running: Iterator[Completion] | None = None  # held, so that it is not closed by being forgotten

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        self.running = self._generate(requests)
        return self.running

    def _generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        source, ended, given = iter(requests), False, 0
        flying: list[Request] = []
        try:
            while flying or not ended:
                while not ended and len(flying) < self.random.randint(1, self.most):
                    try:
                        request = next(source)
                    except StopIteration:
                        ended = True
                        break
                    if request is None:
                        assert flying, "None while none is in flight"
                        break
                    assert request.id not in [other.id for other in flying]
                    flying.append(request)
                    self.asked.append(request)
                self.busiest = max(self.busiest, len(flying))
                for _ in range(self.random.randint(1, 3)):
                    if flying:
                        if given == self.fails_after:
                            raise self.error
                        given += 1
                        request = flying.pop(self.random.randrange(len(flying)))
                        said = str(request.messages[0]["content"])
                        yield Completion(request.id, answer(said), len(said), "stop")
        finally:
            self.closed = True


def talk_of(number: int, steps: list[bool], on: Callable[[str], None] = lambda _: None) -> Talk[Row]:
    """Asks and says in the given order; each question holds the answers so far, so a mix-up would show."""
    said, rows = f"talk {number}", 0
    on(f"begun {number}")
    try:
        for step in steps:
            if step is ASK:
                completion = yield Request("its own", messages_of(said), number, PARAMS)
                assert completion is not None
                assert completion.text == answer(said)
                said = completion.text
            else:
                assert (yield number, rows, said) is None
                rows += 1
    finally:
        on(f"ended {number}")


def expected(number: int, steps: list[bool]) -> list[Row]:
    asked = 0
    rows: list[Row] = []
    for step in steps:
        asked += step is ASK
        if step is SAY:
            rows.append((number, len(rows), "<" * asked + f"talk {number}" + ">" * asked))
    return rows


def take(stream: Iterator[Row], rows: list[Row]) -> None:
    """Everything up to an error, if there is one."""
    for row in stream:
        rows.append(row)


def events(heard: list[str], what: str) -> list[str]:
    return sorted(event.removeprefix(what) for event in heard if event.startswith(what))


scripts = st.lists(st.lists(st.booleans(), max_size=7), max_size=12)


@given(scripts, st.integers(0, 10**6), st.integers(1, 9))
def test_every_talk_gets_its_own_completions_and_all_rows_come(steps: list[list[bool]], seed: int, most: int) -> None:
    engine = Scripted(random.Random(seed), most)
    rows = list(converse(engine, (talk_of(i, each) for i, each in enumerate(steps))))
    assert sorted(rows) == sorted(row for i, each in enumerate(steps) for row in expected(i, each))
    for i, each in enumerate(steps):
        assert [row for row in rows if row[0] == i] == expected(i, each)
    assert len(engine.asked) == sum(step is ASK for each in steps for step in each)
    assert all(request.id != "its own" for request in engine.asked)
    assert sorted((r.seed, r.messages[0]["content"]) for r in engine.asked) == sorted(
        (i, "<" * n + f"talk {i}" + ">" * n) for i, each in enumerate(steps) for n in range(sum(each))
    )
    assert engine.busiest <= most
    assert engine.closed


@given(scripts, st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 20), st.booleans())
def test_rows_that_were_made_come_before_what_breaks(
    steps: list[list[bool]], seed: int, most: int, after: int, interrupt: bool
) -> None:
    error = KeyboardInterrupt() if interrupt else RuntimeError("the engine broke")
    engine = Scripted(random.Random(seed), most, after, error)
    made: list[Row] = []
    heard: list[str] = []

    def noted(talk: Talk[Row]) -> Talk[Row]:
        """The same talk; each row is noted when it is made."""
        completion = None
        try:
            while True:
                try:
                    item = talk.send(completion)
                except StopIteration:
                    return
                if not isinstance(item, Request):
                    made.append(item)
                completion = yield item
        finally:
            talk.close()

    stream = converse(engine, (noted(talk_of(i, each, heard.append)) for i, each in enumerate(steps)))
    rows: list[Row] = []
    asked = sum(step is ASK for each in steps for step in each)
    if asked <= after:
        rows += stream
    else:
        with pytest.raises(type(error)) as raised:
            take(stream, rows)
        assert raised.value is error
    assert rows == made
    assert sorted(e.replace("begun", "ended") for e in heard if "begun" in e) == sorted(
        e for e in heard if "ended" in e
    )


@pytest.mark.parametrize("most", [1, 3])
def test_talks_under_way_go_first(most: int) -> None:
    """With room for one request, one talk after the other; with more, no more talks than there is room for."""
    under_way: set[str] = set()
    busiest = 0

    def on(event: str) -> None:
        nonlocal busiest
        what, number = event.split()
        (under_way.add if what == "begun" else under_way.remove)(number)
        busiest = max(busiest, len(under_way))

    taken: list[int] = []

    def talks() -> Iterator[Talk[Row]]:
        for i in range(20):
            taken.append(i)
            yield talk_of(i, [ASK, ASK, SAY, ASK], on)

    engine = Scripted(random.Random(0), most)
    stream = converse(engine, talks())
    next(stream)
    assert len(taken) <= most + 2  # the rest is not asked for yet
    assert len(list(stream)) == 19
    assert busiest == most
    if most == 1:
        assert [request.seed for request in engine.asked] == [i for i in range(20) for _ in range(3)]


def test_closing_closes_the_engine_and_the_talks() -> None:
    heard: list[str] = []
    engine = Scripted(random.Random(0), 4)
    stream = converse(engine, (talk_of(i, [ASK, SAY, ASK, SAY], heard.append) for i in range(9)))
    next(stream)
    assert not engine.closed
    assert isinstance(stream, Generator)
    stream.close()
    assert engine.closed
    assert sorted(e.replace("begun", "ended") for e in heard if "begun" in e) == sorted(
        e for e in heard if "ended" in e
    )
    assert 0 < len(heard) < 18


def test_what_a_talk_raises_comes_after_the_rows_before_it() -> None:
    def broken(at: int) -> Talk[Row]:
        yield from talk_of(0, [SAY, ASK, SAY][:at])
        raise ZeroDivisionError("in a talk")

    for at, rows in ((1, 1), (2, 1), (3, 2)):
        engine = Scripted(random.Random(0), 3)
        found: list[Row] = []
        with pytest.raises(ZeroDivisionError, match="in a talk"):
            take(converse(engine, [broken(at), talk_of(1, [ASK] * 20)]), found)
        assert len(found) == rows
        assert engine.closed


def test_talks_without_requests_and_no_talks() -> None:
    engine = Scripted(random.Random(0), 3)
    assert list(converse(engine, [talk_of(0, [SAY, SAY]), talk_of(1, [])])) == [(0, 0, "talk 0"), (0, 1, "talk 0")]
    assert list(converse(engine, [])) == []


def test_an_answer_continued_over_several_requests_is_one_answer() -> None:
    """On the real engine, six tokens at a time; where the text of the pieces has the tokens that they came from."""
    engine: Any = engines.load(make_recipe(model="tiny"))
    texts = [f"What is {i} * {i + 3}?" for i in range(30, 50)]
    prompts = [engine.chat.encode(messages_of(text)) for text in texts]
    stops = stop_ids(engine.model, engine.chat.tokenizer)
    whole = {done.index: done for done in sample(engine.model, prompts, [0] * 20, PARAMS, stops, 64)}

    def continued(i: int) -> Talk[tuple[int, str, bool]]:
        text, agrees = "", True
        for piece in range(1, 6):
            params = replace(PARAMS, max_tokens=6)
            completion = yield Request("", messages_of(texts[i]), i, params, text)
            assert completion is not None
            text += completion.text
            if completion.finish_reason == "stop":
                break
            agrees &= engine.chat.encode(messages_of(texts[i]), text) == prompts[i] + whole[i].ids[: 6 * piece]
        yield i, text, agrees

    rows = list(converse(engine, (continued(i) for i in range(20))))
    assert sorted(i for i, _, _ in rows) == list(range(20))
    assert sum(agrees for _, _, agrees in rows) > 8
    for i, text, agrees in rows:
        if agrees:
            assert text == engine.chat.decode(whole[i].ids)
