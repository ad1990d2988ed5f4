"""The openai engine and servers that fail: what they send, byte for byte, and what becomes of a run beside them."""

import gzip
import logging
import socket
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from helpers import TASK, make_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import FAULTS, OK, Answer, Solver, chat, http, late_reset, reset, serving, silence, trickle

pytest.importorskip("openai", minversion="3")

from skillfactory import load_run, pipeline
from skillfactory.engines import chat_api, chat_session
from skillfactory.engines.base import ENGINE_FAILED, Completion, Request, SamplingParams
from skillfactory.engines.chat_answer import FailedTryError
from skillfactory.engines.openai import OpenAIEngine
from skillfactory.errors import EngineError
from skillfactory.records import Attempt, Reflection, Trace

PARAMS = SamplingParams(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, max_tokens=64)
FINE = Completion("r", "fine", 7, "stop")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries of some milliseconds."""
    monkeypatch.setattr(chat_api, "pause", lambda tries, longest=60.0: 0.005)


def engine(url: str, **options: Any) -> OpenAIEngine:
    options = {"base_url": url, "model": "m", "timeout": 10, **options}
    return OpenAIEngine.load(make_recipe(engines={"openai": options}))


def one(*answers: Answer, tries: int = 0, **options: Any) -> Completion:
    """What becomes of one request to a server of these answers; `tries`: how many there must have been."""
    request = Request("r", [{"role": "user", "content": "?"}], 5, PARAMS)
    with serving(*answers) as (url, asked):
        (completion,) = engine(url, **options).generate([request])
        assert len(asked) == tries or not tries
    return completion


# --- what is sent, byte for byte


BROKEN = {
    "reset": reset, "reset in the body": late_reset, "nothing": b"", "half a status line": b"HTTP/1.1 2",
    "half a header": OK[:40], "no body": OK[: OK.index(b"\r\n\r\n") + 4], "half a body": OK[:-20],
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP": b"\0\xff\x16\x03\x01" * 50,
    "a length below zero": http(chat(), length=-1), "two lengths": http(chat(), Content_length="3"),
    "too short a length": http(chat(), length=30), "a broken chunk":
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "a long line": b"HTTP/1.1 200 " + b"y" * 300_000,
    "no content": http(b"", 204), "nothing in it": http(b""), "cut JSON": http(b'{"choices": [{"mess'),
    "a list": http([chat()]), "a number": http(b"7"), "null": http(b"null"), "NaN": http(b"NaN"),
    "text": http('"fine"'),
    "no choices": http({"id": "x"}), "choices of null": http(chat(choices=None)), "no choice": http(chat(choices=[])),
    "choices by name": http(chat(choices={"0": {}})), "a choice of null": http(chat(choices=[None])),
    "no message": http(chat(choices=[{"index": 0, "finish_reason": "stop"}])),
    "a message of null": http(chat(choices=[{"message": None, "finish_reason": "stop"}])),
    "a text for a message": http(chat(choices=[{"message": "fine", "finish_reason": "stop"}])),
    "a number for a text": http(chat(5)), "parts for a text": http(chat([{"type": "text", "text": "fine"}])),
    "unfinished": http(chat(finish=None)), "finished unheard of": http(chat(finish="because")),
    "finished by number": http(chat(finish=1)), "not UTF-8": http(b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "deep": http(b'{"choices": ' + b"[" * 200_000), "an error of status 200": http({"error": {"message": "no"}}),
    "packed": http(gzip.compress(b" " * 10**7), Content_Encoding="gzip"), "a bare 500": http(b"", 500),
    "a page of status 502": http(b"<html>Bad gateway", 502, kind="text/html"), "a list of status 500": http([1], 500),
    "status 599": http(b"\xff\xfe", 599), "halves in a broken answer": http(b'{"choices": "\\ud800'),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_tried_again_within_bounds(name: str) -> None:
    assert one(BROKEN[name], OK, tries=2) == FINE
    assert one(BROKEN[name], tries=3, retries=2) == Completion("r", "", 0, "failed", ENGINE_FAILED)


def test_a_packed_answer_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        one(BROKEN["packed"], retries=0)
    assert "its answer is packed (gzip)" in caplog.text
    assert "connection lost" not in caplog.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda body: http(body), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=9)),
        st.builds(lambda at, byte: OK[:at] + byte + OK[at + 1 :], st.integers(0, len(OK) - 1), st.binary(max_size=2)),
        st.builds(
            lambda key, value: http(chat(**{key: value})),
            st.sampled_from(["choices", "usage", "model", "id", "error", "object"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            ),
        ),
    )
)
def test_whatever_is_sent_ends_in_an_answer_a_failure_or_one_sentence(answer: bytes) -> None:
    try:
        completion = one(answer, retries=0, patience=0, timeout=5)
        assert completion.finish_reason in ("stop", "length", "failed")
        assert 0 <= completion.tokens < 2**31
        completion.text.encode()
        said = ""
    except EngineError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600


def test_silence_and_trickling_bytes_are_given_up() -> None:
    for answer in (silence, trickle):
        start = time.monotonic()
        assert one(answer, OK, tries=2, timeout=0.5) == FINE
        assert time.monotonic() - start < 8


def test_a_server_that_takes_no_connection_is_waited_for_and_then_named() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # until its queue is full, and a new connection hangs
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        try:
            request = Request("r", [{"role": "user", "content": "?"}], 5, PARAMS)
            with pytest.raises(EngineError, match=rf"127.0.0.1:{port}/v1 .*has not answered for 0.5 s .*start it"):
                list(engine(f"http://127.0.0.1:{port}/v1", timeout=1, patience=0.5).generate([request]))
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_without_end_is_not_read_to_its_end(status: int) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(http(b"", status, length=10**8))
        for _ in range(100):
            connection.sendall(b" " * 10**6)
            sent += 10**6

    assert one(flood, OK, tries=2) == FINE
    assert sent < 2 * chat_session.LARGEST


# --- what an answer holds


@pytest.mark.parametrize(
    "answer",
    [
        http(chat(), kind="text/html"), http(chat(), kind=""), http(chat(), kind="application/octet-stream"),
        http(b"\n \t" + http(chat()).partition(b"\r\n\r\n")[2]), http(chat(), 201),
        http(chat(usage={"completion_tokens": 7, "prompt_tokens": -3})),
        http(chat(choices=chat()["choices"] * 3)),
        http(chat(choices=[*chat()["choices"], *chat("another")["choices"]])),
        http(chat(choices=[chat()["choices"][0] | {"index": 9}])),
        http(chat(choices=[chat()["choices"][0] | {"index": "first"}])),
        http(chat(model=None)), http(chat(model=5)), http(chat(model="")),
    ],
)  # fmt: skip
def test_what_matters_is_sound(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert one(answer, tries=1) == FINE
    assert not caplog.text


@pytest.mark.parametrize(
    "usage",
    [
        None, [], "7", 7, {},
        *({"completion_tokens": n} for n in (None, -7, 0, 10**30, 2**31, "7", 7.5, True, [7], {})),
    ],
)  # fmt: skip
def test_a_count_that_cannot_be_is_counted_here(usage: Any) -> None:
    completion = one(http(chat("one two three four", usage=usage)), tries=1)
    assert completion.text == "one two three four"
    assert 2 < completion.tokens < 30


def test_empty_and_odd_texts_are_texts() -> None:
    assert one(http(chat(""))) == Completion("r", "", 7, "stop")
    assert one(http(chat(None))) == Completion("r", "", 7, "stop")
    odd = "\0\x1b[31m\u202e<script>\u2028\r\n\ufeff\U0001f600"
    assert one(http(chat(odd))).text == odd
    assert len(one(http(chat("a" * 10**7))).text) == 10**7


def test_halves_of_characters_are_replaced_where_they_come_in() -> None:
    said = one(http(chat("a \ud800 b \udfff\ud83d c \U0001f600")), tries=1).text
    assert said == "a \ufffd b \ufffd\ufffd c \U0001f600"
    choice = chat()["choices"][0] | {"message": {"content": "x", "reasoning": "\ud800"}}
    assert one(http(chat(choices=[choice]))).text == "<think>\n\ufffd\n</think>\nx"
    assert one(http(b'{"choices": [{"message": {"content": "\\\\ud800"}, "finish_reason": "stop"}]}')).text == "\\ud800"


@pytest.mark.parametrize(
    ("asked", "said", "told"),
    [
        ("m", "other", True), ("org/Model-1B", "model-1b", False), ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("org/a", "org/a@main", False), ("/data/models/m", "m", False), ("a", "\x1b]0;t\x07z" * 500, True),
    ],
)  # fmt: skip
def test_another_models_answers_are_told_once(
    asked: str, said: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [Request(str(i), [{"role": "user", "content": "?"}], 5, PARAMS) for i in range(4)]
    with serving(http(chat(model=said))) as (url, _):
        assert len(list(engine(url, model=asked).generate(requests))) == 4
    assert caplog.text.count("answers (engines.openai.model)") == told
    assert "\x1b" not in caplog.text
    assert len(caplog.text) < 600


# --- what a server asks for


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("2", 2), ("2.5", 2.5), (" 3 ", 3), ("1e3", 600), ("1e999", 600), ("99999999999999999999", 600),
        ("-5", 0), ("nan", 0), ("inf", 0), ("", 0), ("soon", 0), ("\xb2", 0), ("1,5", 0), ("0x10", 0),
        (formatdate(10**10, usegmt=True), 600), (formatdate(0, usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 600), ("Fri, 31 Feb 2027 23:59:59 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Thu, 01 Jan 1970 00:00:00", 0), ("9" * 5000, 600), ("Mon, 1 Jan 99999999999 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_what_a_retry_after_asks_for_is_bounded(value: str, seconds: float) -> None:
    import httpx2
    import openai

    response = httpx2.Response(
        429,
        headers={"Retry-After": value.encode("latin-1")},
        request=httpx2.Request("POST", "http://localhost"),  # type: ignore[dict-item]
    )
    failed = chat_api.judged(
        openai.APIStatusError("slow", response=response, body=None), make_recipe().engines.openai, "m"
    )
    assert isinstance(failed, FailedTryError)
    assert (failed.kind, failed.wait) == ("passing", pytest.approx(seconds, abs=2 if value.endswith("GMT") else 0))


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with (
        serving(OK) as (elsewhere, asked),
        pytest.raises(EngineError, match=r"redirects to .*; set engines\.openai\.base_url"),
    ):
        one(http(b"", status, Location=f"{elsewhere}/chat/completions"))
    assert not asked


def test_what_a_server_says_is_one_line_that_a_terminal_may_show(caplog: pytest.LogCaptureFixture) -> None:
    evil = "\x1b]52;c;b3duZWQ=\x07\x9b2J\u202e\ud800 line\r\nline " + "x" * 10**6
    for status in (400, 401, 402, 404):
        with pytest.raises(EngineError) as raised:
            one(http({"error": {"message": evil, "code": [evil], "type": {"a": evil}}}, status))
        said = str(raised.value)
        assert said.isprintable()
        assert len(said) < 600
        said.encode()
    assert one(http({"error": evil}, 500), retries=0).error == ENGINE_FAILED
    assert "\x1b" not in caplog.text
    assert "\x9b" not in caplog.text


def test_a_page_between_answers_passes_and_from_the_start_it_does_not() -> None:
    page = http(b"<!DOCTYPE html>One moment", kind="text/html")
    missing = http(b"<html>Not found", 404, kind="text/html")
    requests = [Request(str(i), [{"role": "user", "content": "?"}], 5, PARAMS) for i in range(3)]
    with serving(OK, page, missing, OK) as (url, asked):
        assert [c.text for c in engine(url, concurrency=1).generate(requests)] == ["fine"] * 3
    assert len(asked) == 5
    for first in (page, missing):
        with pytest.raises(EngineError, match=r"answers with a web page.*end in /v1"):
            one(first, OK)


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://", "http:///v1", "https://[::1/v1", "http://host:99999/v1", "http://h:x/v1", "ftp://h/v1", "http://\0/",
     "file:///etc/passwd", "http://" + "a" * 70_000],
)  # fmt: skip
def test_what_is_no_address_is_said_before_anything_is_asked(url: str) -> None:
    with pytest.raises(EngineError, match=r"\(engines\.openai\.base_url\) is no address"):
        engine(url)


def test_an_environment_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("k\u00e9y", "a\nb", "\U0001f511"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(EngineError, match=r"OPENAI_API_KEY \(engines\.openai\.api_key_env\) holds no API key"):
            one(OK)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("ALL_PROXY", "gopher://localhost")
    with pytest.raises(EngineError, match="HTTP settings in this machine's environment cannot be used"):
        one(OK)


# --- a run beside such servers


def curated(folder: Path, url: str, **options: Any) -> dict[str, list[Any]]:
    """The rows of a small run whose samples come from a server, in the order of their ids."""
    server = {"base_url": url, "model": "m", "concurrency": 8, "retries": 50, "patience": 0.1, **options}
    recipe = make_recipe(
        questions={"task": TASK, "sft": 12, "rl": 1, "dev": 0},
        attempts={"engine": "openai", "per_variant": 4, "variants": ["original", "rephrase"], "budget": "paper"},
        reflections={"per_attempt": 2},
        engines={"openai": server},
    )  # fmt: skip
    pipeline.run(recipe, folder, "traces")
    run = load_run(folder)
    kinds: dict[str, type] = {"attempts": Attempt, "reflections": Reflection, "traces": Trace}
    return {name: sorted(run.rows(name, kind), key=lambda row: row.id) for name, kind in kinds.items()}


def test_a_faulty_server_neither_loses_nor_doubles_nor_changes_a_row(tmp_path: Path) -> None:
    with serving(respond=Solver()) as (url, _):
        wanted = curated(tmp_path / "sound", url)
    assert len(wanted["attempts"]) == 12 * 8
    assert min(Counter(row.outcome for row in wanted["attempts"]).values()) > 10
    assert len(wanted["traces"]) > 10
    solver = Solver(faulty=0.4)
    with serving(respond=solver) as (url, _):
        found = curated(tmp_path / "faulty", url)
    assert found == wanted
    assert set(solver.met) == set(range(-1, len(FAULTS)))


def test_a_server_that_dies_half_way_leaves_what_is_finished(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with serving(respond=Solver()) as (url, _):
        wanted = curated(tmp_path / "sound", url)
    total = len(wanted["attempts"]) + len(wanted["reflections"])
    answered = 0
    for _ in range(2):  # each time it gets a little further
        with (
            serving(respond=Solver(left=total // 3)) as (url, asked),
            pytest.raises(
                EngineError, match=r"has not answered for 0\.1 s \(503: shutting down\); .*run the same again"
            ),
        ):
            curated(tmp_path / "dying", url)
        answered += total // 3
    with serving(respond=Solver()) as (url, asked):
        assert curated(tmp_path / "dying", url) == wanted
    assert total <= answered + len(asked) < 1.5 * total  # what was finished was not asked for again
