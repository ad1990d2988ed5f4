"""The openai engine against real servers: one that misbehaves as told, and real ones that are killed and restarted."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_requests import PARAMS, asked, chat_server, engine, one, process, scripted, stats
from helpers import make_recipe

pytest.importorskip("openai", minversion="3")

from skillfactory import engines
from skillfactory.engines.base import ENGINE_FAILED, PROMPT_TOO_LONG, Completion, Request
from skillfactory.errors import EngineError
from skillfactory.tiny import FOLDER as TINY


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with chat_server() as (_, address):
        yield address


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "portal" in thread.name}


# --- what is sent


def test_what_is_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " secret\n")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    request = scripted("sent", "ok")
    list(engine(url, api_key_env="MY_KEY").generate([Request("sent", request.messages, 2**62 + 12345, PARAMS)]))
    said = stats(url)
    body = said["bodies"]["sent"]
    assert said["key"] == "Bearer secret"
    assert body["model"] == "m"
    assert body["messages"] == request.messages
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.8, 64)
    assert (body["top_k"], body["repetition_penalty"], body["repeat_penalty"]) == (20, 1.1, 1.1)
    assert 0 <= body["seed"] < 2**31 - 1
    assert "stream" not in body
    greedy = Request("greedy", scripted("greedy", "ok").messages, 7, PARAMS.greedy())
    plain = scripted("plain", "ok")
    list(engine(url).generate([greedy]))
    assert stats(url)["key"] is None  # the variable is not set
    list(engine(url, plain=True).generate([plain]))
    bodies = stats(url)["bodies"]
    assert (bodies["greedy"]["temperature"], bodies["greedy"]["top_k"], bodies["greedy"]["seed"]) == (0.0, -1, 7)
    assert set(bodies["plain"]) == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}


def test_a_server_that_wants_a_generation_config_gets_one(url: str) -> None:
    requests = [scripted(f"strict{i}", "strict") for i in range(5)]
    assert {c.text for c in engine(url, concurrency=2).generate(requests)} == {f"re: strict{i}" for i in range(5)}
    said = stats(url)
    config = json.loads(said["bodies"]["strict0"]["generation_config"])
    assert config == {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
    assert said["tries"]["strict4"] == 1  # learnt from the first
    with pytest.raises(EngineError, match=r"does not take top_k .*Unrecognized.*engines\.openai\.plain=true"):
        one(url, "stricter", "stricter")
    assert one(url, "stricter", "stricter", plain=True).finish_reason == "stop"


# --- what passes, and what does not


@pytest.mark.parametrize("kind", ["500", "reset", "hangup", "half", "json", "empty", "other", "abort"])
def test_what_may_pass_is_tried_again(url: str, kind: str) -> None:
    assert one(url, f"once-{kind}", kind, "ok") == Completion(f"once-{kind}", f"re: once-{kind}", 7, "stop")
    assert stats(url)["tries"][f"once-{kind}"] == 2


@pytest.mark.parametrize("kind", ["500", "reset", "json"])
def test_tries_come_to_an_end(url: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    assert one(url, f"ever-{kind}", kind, retries=1) == Completion(f"ever-{kind}", "", 0, "failed", ENGINE_FAILED)
    assert stats(url)["tries"][f"ever-{kind}"] == 2
    assert "given up after 2 tries" in caplog.text
    assert one(url, f"no-{kind}", kind, retries=0).error == ENGINE_FAILED
    assert stats(url)["tries"][f"no-{kind}"] == 1


@pytest.mark.parametrize("kind", ["429", "429date"])
def test_retry_after_is_kept(url: str, kind: str) -> None:
    start = time.monotonic()
    assert one(url, kind, kind, "ok").finish_reason == "stop"
    assert 1.9 < time.monotonic() - start < 6


@pytest.mark.parametrize("kind", ["slow", "drip"])
def test_a_slow_answer_is_given_up(url: str, kind: str) -> None:
    start = time.monotonic()
    assert one(url, kind, kind, "ok", timeout=1).text == f"re: {kind}"
    assert time.monotonic() - start < 10
    assert one(url, f"{kind}-ever", kind, timeout=0.5, retries=0).error == ENGINE_FAILED


@pytest.mark.parametrize("kind", ["vllm", "vllm_old", "vllm_edge", "llama", "openai", "sglang", "too_large"])
def test_a_prompt_that_is_too_long(url: str, kind: str) -> None:
    long, short = scripted(f"long-{kind}", kind), asked("short", "hello")
    found = {c.id: c for c in engine(url).generate([long, short])}
    assert found[long.id] == Completion(long.id, "", 0, "failed", PROMPT_TOO_LONG)
    assert found["short"].text == "re: hello"


@pytest.mark.parametrize("kind", ["sglang_sum", "vllm_max"])
def test_max_tokens_that_leave_no_room_for_the_prompt_are_left_out(url: str, kind: str) -> None:
    assert one(url, kind, kind) == Completion(kind, f"re: {kind}", 7, "length")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("401", r"refuses the API key \(Incorrect API key provided: none\).*OPENAI_API_KEY"),
        ("403", r"refuses the API key \(Not in your region x+\)"),
        ("404", r"The model `m` does not exist\); base_url must end in /v1, and engines.openai.model \(now `m`\)"),
        ("400", r"refuses every request \(400: temperature must not be 0.7 today\)"),
        ("422", r"refuses every request \(422: .*Field required"),
        ("html", r"answers with a web page.*end in /v1"),
        ("moved", r"redirects to https://elsewhere.example/v1/chat/completions; set engines.openai.base_url"),
        ("quota", r"serves this account no more \(You exceeded your current quota\)"),
    ],
)
def test_what_holds_for_every_request_is_one_sentence(url: str, kind: str, message: str) -> None:
    requests = [scripted(f"all-{kind}-{i}", kind) for i in range(100)]
    with pytest.raises(EngineError, match=message) as raised:
        list(engine(url, concurrency=4).generate(requests))
    said = str(raised.value)
    assert "127.0.0.1" in said
    assert "\n" not in said
    assert len(said) < 500
    tries = stats(url)["tries"]
    assert sum(name.startswith(f"all-{kind}-") for name in tries) <= 4  # it did not go through all of them
    assert not threads()


def test_a_refusal_of_one_request_fails_that_one(url: str, caplog: pytest.LogCaptureFixture) -> None:
    client = engine(url, concurrency=3)
    requests = [scripted("bad", "400"), *[asked(f"good{i}", f"{i}") for i in range(9)], scripted("bad2", "400")]
    found = {c.id: c for c in client.generate(requests)}
    assert len(found) == 11
    assert {c.id for c in found.values() if c.finish_reason == "failed"} == {"bad", "bad2"}
    assert found["bad"].error == ENGINE_FAILED
    assert caplog.text.count("a request failed: 400: temperature must not be 0.7 today") == 1  # each reason once
    assert [c.error for c in client.generate([scripted("bad3", "400")])] == [ENGINE_FAILED]  # it has served before


def test_a_wrong_path(url: str) -> None:
    with pytest.raises(EngineError, match="does not know what is asked of it"):
        one(url.removesuffix("/v1"), "path", "ok")


def test_addresses_and_models_that_cannot_be(url: str) -> None:
    with pytest.raises(EngineError, match=r"`localhost:8000` \(engines.openai.base_url\) is no address"):
        engine("localhost:8000")
    for folder in (Path("runs/x/rl/model"), TINY, str(TINY)):
        with pytest.raises(EngineError, match=f"cannot sample from the folder {folder}; choose a local engine"):
            engines.load(make_recipe(), folder, "openai")


def test_a_model_by_the_name_that_the_server_has_for_it(url: str) -> None:
    recipe = make_recipe(engines={"openai": {"base_url": url, "model": "m"}})
    list(engines.load(recipe, "org/other-model", "openai").generate([scripted("other", "ok")]))
    list(engines.load(recipe, None, "openai").generate([scripted("own", "ok")]))
    assert [stats(url)["bodies"][name]["model"] for name in ("other", "own")] == ["org/other-model", "m"]


# --- answers that have begun


PREFIX = "<think>\nIt is 1"


def begun(name: str, *kinds: str, prefix: str = PREFIX, seed: int = 5) -> Request:
    return replace(scripted(name, *kinds), prefix=prefix, seed=seed)


def test_a_prefix_is_sent_as_the_last_message(url: str) -> None:
    requests = {name: begun(name, "ok") for name in ("begun", "begun-plain")}
    for name, plain in (("begun", False), ("begun-plain", True)):
        [done] = engine(url, plain=plain).generate([requests[name]])
        assert done == Completion(name, f"re: {name}", 7, "stop")
    bodies = stats(url)["bodies"]
    for name, request in requests.items():
        assert bodies[name]["messages"] == [*request.messages, {"role": "assistant", "content": PREFIX}]
    assert bodies["begun"]["continue_final_message"] is True
    assert bodies["begun"]["add_generation_prompt"] is False
    assert set(bodies["begun-plain"]) == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}
    list(engine(url).generate([begun("not-begun", "ok", prefix="")]))
    assert not {"continue_final_message", "add_generation_prompt"} & set(stats(url)["bodies"]["not-begun"])


@pytest.mark.parametrize(("kind", "said"), [("strict", "Unexpected fields in the request"), ("no_place", "chat temp")])
def test_a_server_that_cannot_continue_is_one_sentence(url: str, kind: str, said: str) -> None:
    client = engine(url)
    found = list(client.generate([scripted(f"before-{kind}", "strict")]))  # it has served before, and is known
    with pytest.raises(EngineError, match=rf"127\.0\.0\.1.* cannot continue an answer .*{said}.*vLLM") as raised:
        found += client.generate(begun(f"{kind}-{i}", kind) for i in range(200))
    assert len(found) == 1
    assert "\n" not in str(raised.value)
    with pytest.raises(EngineError, match="cannot continue an answer that has begun"):
        list(engine(url).generate([begun(f"first-{kind}", kind)]))


def test_a_server_that_begins_a_new_turn_is_found_out_by_its_count(url: str) -> None:
    client = engine(url)
    messages = scripted("counts", "counts").messages
    continued = len(client.chat.encode(messages, PREFIX))
    anew = len(client.chat.encode([*messages, {"role": "assistant", "content": PREFIX}]))
    assert anew > continued
    for count in (continued, anew + 1, 0):  # another tokenizer may count in its own way
        [done] = client.generate([begun("counts", "counts", seed=count)])
        assert done.text == "re: counts"
    for plain in (False, True):
        with pytest.raises(EngineError, match=r"cannot continue .*\(it has begun a new turn\)"):
            list(engine(url, plain=plain).generate([begun("counts", "counts", seed=anew)]))
    list(client.generate([begun("counts", "counts", prefix="", seed=anew)]))


def test_reasoning_that_had_begun_is_not_opened_again(url: str) -> None:
    for kind in ("reasoning", "reasoning_content"):
        [done] = engine(url).generate([begun(kind, kind)])
        assert done.text == f"\nlet me see\n</think>\nre: {kind}"
    [done] = engine(url).generate([begun("cut", "cut")])
    assert done.text == "\nlet me"
    [done] = engine(url).generate([begun("reasoning", "reasoning", prefix="Well, ")])
    assert done.text == "<think>\nlet me see\n</think>\nre: reasoning"


# --- what an answer holds


def test_answers(url: str) -> None:
    assert one(url, "several", "several").text == "re: several"
    assert one(url, "length", "length").finish_reason == "length"
    assert one(url, "blank", "blank") == Completion("blank", "", 7, "stop")
    for kind in ("content_filter", "tool_calls"):
        assert one(url, kind, kind) == Completion(kind, "", 0, "failed", ENGINE_FAILED)
        assert stats(url)["tries"][kind] == 1
    for kind in ("reasoning", "reasoning_content"):
        assert one(url, kind, kind).text == f"<think>\nlet me see\n</think>\nre: {kind}"
    assert one(url, "cut", "cut").text == "<think>\nlet me"


def test_tokens_are_counted_where_the_server_does_not(url: str) -> None:
    request = asked("counted", json.dumps({"id": "counted", "do": ["no_usage"]}))
    client = engine(url)
    (completion,) = client.generate([request])
    whole = client.chat.count_tokens(request.messages, completion.text)
    assert completion.tokens == whole - client.chat.count_tokens(request.messages) > 1


# --- many at once


def test_concurrency_is_a_bound_and_is_used() -> None:
    with chat_server(seconds=0.05) as (_, address):
        requests = [asked(f"r{i}", f"{i}") for i in range(60)]
        pulled: list[int] = []

        def source() -> Iterator[Request]:
            for i, request in enumerate(requests):
                pulled.append(i)
                yield request

        running = engine(address, concurrency=7).generate(source())
        first = next(running)
        assert len(pulled) <= 8
        found = [first, *running]
        assert sorted(c.id for c in found) == sorted(r.id for r in requests)
        assert all(c.text == f"re: {c.id[1:]}" for c in found)
        assert stats(address)["most"] == 7


def test_a_request_may_follow_from_a_completion(url: str) -> None:
    found: list[Completion] = []

    def chains(count: int, length: int) -> Iterator[Request | None]:
        """`count` chains of `length` requests, each made from the text before."""
        seen, left = 0, count
        for chain in range(count):
            yield asked(f"{chain}/0", "start")
        while left:
            while seen == len(found):
                yield None
            done, seen = found[seen], seen + 1
            chain, step = map(int, done.id.split("/"))
            if step + 1 < length:
                yield asked(f"{chain}/{step + 1}", done.text)
            else:
                left -= 1

    for completion in engine(url, concurrency=3).generate(chains(4, 5)):
        found.append(completion)
    assert sorted(c.id for c in found) == sorted(f"{chain}/{step}" for chain in range(4) for step in range(5))
    assert all(c.text == "re: " * (int(c.id.split("/")[1]) + 1) + "start" for c in found)


def test_closing_early_and_errors_of_the_caller_end_the_thread(url: str) -> None:
    client = engine(url, concurrency=8)

    def broken() -> Iterator[Request]:
        yield scripted("slow0", "slow")
        raise RuntimeError("the caller's own")

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="the caller's own"):
        list(client.generate(broken()))
    assert not threads()
    with pytest.raises(ValueError, match="None among the requests"):
        list(client.generate([None]))
    running = client.generate([asked("first", "x"), *[scripted(f"slow{i}", "slow") for i in range(50)]])
    assert next(running).id == "first"
    assert threads()
    running.close()
    assert not threads()
    assert time.monotonic() - start < 5  # no slow answer was waited for


def test_ctrl_c_ends_it_promptly() -> None:
    script = (
        "import sys\nsys.path.insert(0, sys.argv[2])\nfrom test_engine_openai import asked, engine\n"
        "client = engine(sys.argv[1])\nprint('ready', flush=True)\n"
        "list(client.generate(asked(f'r{i}', 'x') for i in range(100)))\n"
    )
    with (
        chat_server(seconds=30) as (_, address),
        process(sys.executable, "-c", script, address, Path(__file__).parent) as caller,
    ):
        assert caller.stdout
        assert caller.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while stats(address)["most"] < 64 and time.monotonic() < deadline:
            time.sleep(0.1)
        caller.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert caller.wait(timeout=20) != 0
        assert time.monotonic() - start < 5
