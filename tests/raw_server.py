"""A server on localhost that sends what it is told, byte for byte, sound or not; or one that solves, with faults.

An answer is bytes, or a function that is given the socket and writes itself. The connection is closed after each.
"""

import json
import random
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Answer = bytes | Callable[[socket.socket], None]


def http(
    body: Any, status: int = 200, length: int | None = None, kind: str = "application/json", **headers: str
) -> bytes:
    """A response; `length` is what it says of its own length. Underscores in the names of headers are dashes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Content-Type": kind, "Content-Length": str(len(data) if length is None else length), **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + data


def chat(text: Any = "fine", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """A sound answer of the chat API."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"completion_tokens": 7, "prompt_tokens": 3}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage} | more


OK = http(chat())


def reset(connection: socket.socket) -> None:
    """End the connection without a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def late_reset(connection: socket.socket) -> None:
    """The same in the middle of an answer."""
    connection.sendall(OK[:-20])
    time.sleep(0.1)  # or the reset would overtake it
    reset(connection)


def trickle(connection: socket.socket) -> None:
    """A byte now and then: no single one of them is late."""
    for byte in OK:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silence(connection: socket.socket) -> None:
    """Nothing, until the other side gives up."""
    connection.settimeout(30)
    connection.recv(1)


@contextmanager
def serving(*answers: Answer, respond: Callable[[Any], Answer] | None = None) -> Iterator[tuple[str, list[Any]]]:
    """The address, and the bodies of the requests so far. The last answer is for all that follow.

    `respond` makes the answer from a request in place of `answers`.
    """
    asked: list[Any] = []
    lock = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            file = self.request.makefile("rb")
            head = b""
            while (line := file.readline()) not in (b"\r\n", b""):
                head += line
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if not length:
                return
            body = json.loads(file.read(int(length[1])))
            with lock:
                number = len(asked)
                asked.append(body)
            answer = respond(body) if respond else answers[min(number, len(answers) - 1)]
            try:
                if callable(answer):
                    answer(self.request)
                else:
                    self.request.sendall(answer)
            except OSError:
                pass  # the other side has gone: part of the tests

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        finally:
            server.shutdown()
            thread.join()


# What a server does wrong now and then; each is tried again.
FAULTS: Sequence[Answer] = (
    reset, late_reset, b"", OK[:40], OK[:-20], b"SSH-2.0-OpenSSH_9.6\r\n", http(b'{"choices": [{"mess'), http([1, 2]),
    http({"choices": []}), http(chat(finish="abort")), http(chat(finish=None)), http({"error": "busy"}, 500),
    http({"error": {"message": "\x1b]0;owned\x07slow down"}}, 429, Retry_After="0"),
    http(b"<html>", 502, kind="text/html"),
    http(b"<!DOCTYPE html>One moment", 200, kind="text/html"), http(chat({"text": "?"})), http(b"null"),
)  # fmt: skip


class Solver:
    """Works out products, one in three wrongly, and judges such attempts; the same for the same request.

    A share of the requests meets one of FAULTS first. `left` requests are served, then none: as of a server that died.
    """

    def __init__(self, faulty: float = 0.0, left: int = 10**9) -> None:
        self.rng, self.faulty, self.left = random.Random(5), faulty, left
        self.met: Counter[int] = Counter()
        self.lock = threading.Lock()

    def __call__(self, body: Any) -> Answer:
        with self.lock:
            self.left -= 1
            fault = self.rng.randrange(len(FAULTS)) if self.rng.random() < self.faulty else -1
            self.met[fault] += 1
        if self.left < 0:
            return http({"error": "shutting down"}, 503)
        if fault >= 0:
            return FAULTS[fault]
        return http(chat(self.said(body["messages"][-1]["content"], body["seed"])))

    def said(self, prompt: str, seed: int) -> str:
        """What a model would say."""
        asked = re.search(r"What is (\d+) \* (\d+)", prompt)
        assert asked, prompt
        right = int(asked[1]) * int(asked[2])
        if given := re.search(r"<answer>(\d+)</answer>\.$", prompt, re.MULTILINE):
            return f"Once more.\n<verdict>{'Correct' if int(given[1]) == right else 'Incorrect'}</verdict>"
        return f"So it is\n<answer>{right + (seed % 3 == 0)}</answer>."
