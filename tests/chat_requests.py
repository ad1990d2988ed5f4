"""The misbehaving server of chat_server.py as a process, and requests of the openai engine to it or to another."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import make_recipe

from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.engines.openai import OpenAIEngine

SERVER = Path(__file__).parent / "chat_server.py"
PARAMS = SamplingParams(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, max_tokens=64)


@contextmanager
def process(*command: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own, killed at the end with all that it started."""
    started = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        kill(started)


def kill(started: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


@contextmanager
def chat_server(port: int = 0, seconds: float = 0) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    with process(sys.executable, SERVER, port, seconds) as started:
        assert started.stdout
        yield started, f"http://127.0.0.1:{int(started.stdout.readline())}/v1"


def engine(url: str, **options: Any) -> OpenAIEngine:
    return OpenAIEngine.load(make_recipe(engines={"openai": {"base_url": url, "model": "m", **options}}))


def stats(url: str) -> Any:
    with urllib.request.urlopen(url.replace("/v1", "/stats")) as answer:
        return json.load(answer)


def asked(name: str, text: str, params: SamplingParams = PARAMS, seed: int = 5) -> Request:
    return Request(name, [{"role": "user", "content": text}], seed, params)


def scripted(name: str, *kinds: str) -> Request:
    return asked(name, json.dumps({"id": name, "do": kinds}))


def one(url: str, name: str, *kinds: str, **options: Any) -> Completion:
    (completion,) = engine(url, **options).generate([scripted(name, *kinds)])
    assert completion.id == name
    return completion


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
