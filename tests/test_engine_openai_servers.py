"""The openai engine and servers that are away: loading, gone for good, or killed in the middle; real ones, too."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from chat_requests import asked, chat_server, engine, free_port, kill, one, process
from helpers import make_recipe

pytest.importorskip("openai", minversion="3")

from skillfactory import engines
from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.errors import EngineError
from skillfactory.tiny import FOLDER as TINY


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with chat_server() as (_, address):
        yield address


def test_a_server_that_stays_away(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    start = time.monotonic()
    with pytest.raises(EngineError, match=rf"127.0.0.1:{port}/v1 .*has not answered for 1 s .*start it"):
        list(engine(f"http://127.0.0.1:{port}/v1", patience=1).generate([asked(f"{i}", "x") for i in range(9)]))
    assert 0.9 < time.monotonic() - start < 4
    assert capfd.readouterr().err.count("waiting up to 1 s") == 1
    with pytest.raises(EngineError, match=r"no-such-host\.invalid.*has not answered"):
        list(engine("http://no-such-host.invalid/v1", patience=0).generate([asked("x", "x")]))


def test_a_server_that_is_loading_is_waited_for(url: str) -> None:
    assert one(url, "loading", "503", "503", "503", "ok", retries=0).text == "re: loading"
    with pytest.raises(EngineError, match=r"503: Loading model"):
        one(url, "loading-ever", "503", patience=1)


def killed_and_restarted(
    start: Callable[[int], Any], requests: list[Request], capfd: pytest.CaptureFixture[str], **options: Any
) -> list[Completion]:
    """All completions, of a server that is killed after a third of them and comes back on the same port."""
    port = free_port()
    found: list[Completion] = []
    with ExitStack() as stack:
        first = stack.enter_context(start(port))
        again = threading.Timer(2, lambda: stack.enter_context(start(port)))
        for completion in engine(f"http://127.0.0.1:{port}/v1", **options).generate(requests):
            found.append(completion)
            if len(found) == len(requests) // 3:
                capfd.readouterr()  # before the kill: the engine may speak of it before kill() returns
                kill(first)
                again.start()
        again.join()
    assert sorted(c.id for c in found) == sorted(r.id for r in requests)
    assert [c for c in found if c.finish_reason == "failed"] == []
    assert capfd.readouterr().err.count("waiting up to") == 1
    return found


def test_a_killed_server_loses_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    @contextmanager
    def start(port: int) -> Iterator[Any]:
        with chat_server(port, 0.2) as (started, _):
            yield started

    requests = [asked(f"r{i}", f"{i}") for i in range(300)]
    found = killed_and_restarted(start, requests, capfd, concurrency=16, retries=1)
    assert all(c.text == f"re: {c.id[1:]}" for c in found)


def real_requests(count: int, max_tokens: int = 24) -> list[Request]:
    """Prompts of the tiny model's world."""
    params = SamplingParams(temperature=1.0, top_p=1.0, top_k=20, repetition_penalty=1.1, max_tokens=max_tokens)
    return [asked(f"q{i}", f"What is {i + 10} + {i}?", params, seed=i) for i in range(count)]


def transformers_serve(port: int) -> Any:
    code = (
        "import torch, sys; torch.set_num_threads(1); from transformers.cli.transformers import main; "
        "sys.argv[0] = 'transformers'; main()"
    )
    return process(
        sys.executable, "-c", code, "serve", TINY, "--port", port, "--host", "127.0.0.1", "--device", "cpu",
    )  # fmt: skip


def test_transformers_serve_killed_in_the_middle(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    found = killed_and_restarted(transformers_serve, real_requests(60), capfd, concurrency=8, model="", patience=120)
    assert all(c.text for c in found)
    assert {c.finish_reason for c in found} <= {"stop", "length"}
    assert all(1 <= c.tokens <= 24 for c in found)
    assert len({c.text for c in found}) > 30  # sampled, not greedy


def test_transformers_serve_cannot_continue_an_answer() -> None:
    """It would begin a new turn: that it refuses the fields, or else what it counts, gives it away."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = free_port()
    whole, begun = (replace(real_requests(1)[0], prefix=prefix) for prefix in ("", "It is "))
    with transformers_serve(port):
        for plain, said in ((False, "Unexpected fields"), (True, "it has begun a new turn")):
            options: dict[str, Any] = {"model": "", "patience": 120, "plain": plain}
            client = engine(f"http://127.0.0.1:{port}/v1", **options)
            assert [done.finish_reason for done in client.generate([whole])] != ["failed"]
            with pytest.raises(EngineError, match=f"cannot continue an answer that has begun.*{said}"):
                list(client.generate([begun]))


def vllm_serve(port: int, dtype: str = "auto") -> Any:
    return process(
        os.environ["SKILLFACTORY_VLLM"], "serve", TINY, "--served-model-name", "tiny", "--host", "127.0.0.1",
        "--port", port, "--max-model-len", 512, "--enforce-eager", "--dtype", dtype,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif("SKILLFACTORY_VLLM" not in os.environ, reason="SKILLFACTORY_VLLM names no `vllm` command")
def test_vllm_serve_killed_in_the_middle(capfd: pytest.CaptureFixture[str]) -> None:
    requests = real_requests(60, 100)
    found = killed_and_restarted(vllm_serve, requests, capfd, concurrency=8, model="tiny", patience=280)
    assert all(c.text for c in found)


@pytest.mark.slow
@pytest.mark.skipif("SKILLFACTORY_VLLM" not in os.environ, reason="SKILLFACTORY_VLLM names no `vllm` command")
def test_vllm_serve_continues_an_answer() -> None:
    """Greedy texts in two pieces are those in one, and those of the transformers engine for the same two pieces."""
    port = free_port()
    greedy = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=40)
    local = engines.load(make_recipe(model="tiny"))
    firsts = [replace(r, params=replace(greedy, max_tokens=8)) for r in real_requests(20)]
    prefixes = {done.id: done.text for done in local.generate(firsts) if done.finish_reason == "length"}
    begun = [replace(r, params=greedy, prefix=prefixes[r.id]) for r in firsts if r.id in prefixes]
    assert len(begun) > 10
    with vllm_serve(port, "float32"):
        client = engine(f"http://127.0.0.1:{port}/v1", model="tiny", patience=280)
        found = {done.id: done for done in client.generate(begun)}
    assert found == {done.id: done for done in local.generate(begun)}
