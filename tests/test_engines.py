"""The transformers engine: requests, memory, context, answers that have begun; and folders that cannot be used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_recipe

from skillfactory import engines, seeds
from skillfactory.engines.base import Request, SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.engines.sampler import sample
from skillfactory.engines.transformers import TransformersEngine, stop_ids
from skillfactory.errors import ModelError
from skillfactory.recipes import load_recipe
from skillfactory.records import Message
from skillfactory.tasks.questions import task_of

PLAIN = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=40)
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=40)


@pytest.fixture(scope="module")
def model(random_model: Path) -> Any:
    return load_model(make_recipe(model=str(random_model))).eval()


def test_the_engine_answers_every_request_once(random_model: Path) -> None:
    recipe = make_recipe(model=str(random_model))
    engine = engines.load(recipe)
    requests = [
        Request(f"r{i}", [{"role": "user", "content": f"What is {i % 3} * 4 ?"}], seeds.derive(0, i), PLAIN)
        for i in range(12)
    ]
    done = {completion.id: completion for completion in engine.generate(requests)}
    assert sorted(done) == sorted(request.id for request in requests)
    assert {completion.finish_reason for completion in done.values()} <= {"stop", "length"}
    assert all("<|end|>" not in completion.text for completion in done.values())
    assert all(completion.tokens == 40 for completion in done.values() if completion.finish_reason == "length")
    [alone] = engine.generate([requests[5]])
    assert alone == done["r5"]


def test_tokens_are_counted_as_they_are_trained_on(random_model: Path) -> None:
    chat = ChatTokenizer.load(make_recipe(model=str(random_model)))
    messages = [{"role": "system", "content": "Be careful."}, {"role": "user", "content": "What is 3 * 4 ?"}]
    ids = chat.encode(messages)  # type: ignore[arg-type]
    assert chat.tokenizer.decode(ids) == "<|system|>Be careful.<|end|><|user|>What is 3 * 4 ?<|end|><|assistant|>"
    assert chat.count_tokens(messages) == len(ids)  # type: ignore[arg-type]
    extra = len(chat.tokenizer("<answer>12</answer>")["input_ids"]) + 1
    assert chat.count_tokens(messages, "<answer>12</answer>") == len(ids) + extra  # type: ignore[arg-type]


def test_the_model_may_name_more_ends_of_a_turn_than_the_tokenizer(model: Any, tiny_tokenizer: Any) -> None:
    assert stop_ids(model, tiny_tokenizer) == [1]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [3, 1]
    try:
        assert stop_ids(model, tiny_tokenizer) == [1, 3]
    finally:
        model.generation_config.eos_token_id = before


# --- folders that cannot be used


def broken(source: Path, folder: Path, *without: str) -> Path:
    shutil.copytree(source, folder)
    for name in without:
        (folder / name).unlink()
    return folder


def test_a_folder_without_tokenizer_or_template_or_weights(random_model: Path, tmp_path: Path) -> None:
    def load(folder: Path) -> TransformersEngine:
        return TransformersEngine.load(make_recipe(model=str(folder)))

    bare = broken(random_model, tmp_path / "a", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    with pytest.raises(ModelError, match=r"/a`: no tokenizer could be loaded"):
        load(bare)
    with pytest.raises(ModelError, match=r"/b`: its tokenizer has no chat template; .*chat_template\.jinja"):
        load(broken(random_model, tmp_path / "b", "chat_template.jinja"))
    with pytest.raises(ModelError, match=r"/c` could not be loaded"):
        load(broken(random_model, tmp_path / "c", "model.safetensors"))
    endless = broken(random_model, tmp_path / "d")
    settings = json.loads((endless / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (endless / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="no end-of-turn"):
        load(endless)
    damaged = broken(random_model, tmp_path / "e")
    (damaged / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"/e`: no tokenizer could be loaded"):
        load(damaged)
    with pytest.raises(ModelError, match="could be loaded"):
        load(tmp_path / "nowhere")


def test_a_template_that_refuses_a_role_says_so(random_model: Path, tmp_path: Path) -> None:
    strict = broken(random_model, tmp_path / "strict")
    (strict / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    chat = ChatTokenizer.load(make_recipe(model=str(strict)))
    with pytest.raises(ModelError, match=r"roles \['system', 'user'\]: no system role"):
        chat.encode([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])


# --- the engine: streaming, memory, context


def asks(count: int, params: SamplingParams = PLAIN) -> list[Request]:
    return [
        Request(f"r{i}", [{"role": "user", "content": f"What is {i} * 4 ?"}], seeds.derive(0, i), params)
        for i in range(count)
    ]


def texts(engine: Any, requests: Any) -> dict[str, str]:
    found = [(done.id, done.text) for done in engine.generate(requests)]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_requests_may_follow_from_completions(random_model: Path) -> None:
    """A request is taken only once there is room, None is understood, and two kinds of settings may be mixed."""
    engine = engines.load(make_recipe(model=str(random_model), machine={"device": "cpu", "batch_size": 3}))
    wanted = texts(engine, asks(20)) | {f"late-{k}": v for k, v in texts(engine, asks(20, GREEDY)).items()}
    seen: list[str] = []
    waiting = asks(20)
    flying = 0

    def requests() -> Any:
        nonlocal flying
        late = iter(asks(20, GREEDY))
        for request in waiting:
            flying += 1
            yield request
        for place in range(20):
            while len(seen) <= place:  # the next one follows from a completion
                assert flying
                yield None
            request = next(late)
            flying += 1
            yield Request(f"late-{request.id}", request.messages, request.seed, request.params)

    found = {}
    for done in engine.generate(requests()):
        flying -= 1
        seen.append(done.id)
        found[done.id] = done.text
    assert found == wanted


def test_the_batch_is_halved_when_memory_is_short(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skillfactory.engines import sampler

    recipe = make_recipe(model=str(random_model), machine={"device": "cpu", "dtype": "float32", "batch_size": 16})
    wanted = texts(engines.load(recipe), asks(30))
    sizes: list[int] = []
    real = sampler.sample

    def short(model: Any, prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        for number, done in enumerate(real(model, prompts, *rest)):
            if len(prompts) > 4 and number == 2:  # some rows had come before memory ran out
                raise torch.OutOfMemoryError("out of memory")
            yield done

    monkeypatch.setattr(sampler, "sample", short)
    engine = engines.load(recipe)
    assert texts(engine, asks(30)) == wanted
    assert max(sizes) == 16
    assert engine.batch_size <= 4  # type: ignore[attr-defined]

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")
        yield

    monkeypatch.setattr(sampler, "sample", never)
    assert {(d.id, d.error) for d in engine.generate(asks(3))} == {(f"r{i}", "engine_failed") for i in range(3)}
    monkeypatch.setattr(sampler, "sample", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(engine.generate(asks(1)))


def test_prompts_over_the_context_fail_alone(random_model: Path, tmp_path: Path) -> None:
    small = broken(random_model, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    engine = engines.load(make_recipe(model=str(small)))
    long = Request("long", [{"role": "user", "content": "1 + 2 = 3. " * 20}], 1, PLAIN)
    found = {done.id: done for done in engine.generate([long, *asks(2)])}
    assert (found["long"].finish_reason, found["long"].error) == ("failed", "prompt_too_long")
    for name in ("r0", "r1"):  # what is left of the context is the limit
        assert 0 < found[name].tokens < 40
        assert found[name].finish_reason in ("stop", "length")


def test_requests_of_different_limits_share_a_batch(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skillfactory.engines import sampler

    sizes: list[int] = []
    real = sampler.sample

    def counted(model: Any, prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        return real(model, prompts, *rest)

    monkeypatch.setattr(sampler, "sample", counted)
    engine = engines.load(make_recipe(model=str(random_model)))
    requests = [replace(request, params=replace(PLAIN, max_tokens=1 + i)) for i, request in enumerate(asks(30))]
    together = {done.id: done for done in engine.generate(requests)}
    assert sizes == [30]
    assert together == {request.id: done for request in requests for done in engine.generate([request])}
    for request in requests:
        done = together[request.id]
        assert done.tokens == request.params.max_tokens or (
            done.finish_reason == "stop" and done.tokens < request.params.max_tokens
        )


# --- answers that have begun


def test_a_prefix_is_tokenized_with_the_prompt(random_model: Path) -> None:
    chat = ChatTokenizer.load(make_recipe(model=str(random_model)))
    messages: list[Message] = [{"role": "user", "content": "What is 3 * 4 ?"}]
    ids = chat.encode(messages, "<think>\nIt is 1")
    assert chat.tokenizer.decode(ids).endswith("<|user|>What is 3 * 4 ?<|end|><|assistant|><think>\nIt is 1")
    assert ids[: len(chat.encode(messages))] == chat.encode(messages)
    assert chat.encode(messages, "") == chat.encode(messages)


def test_a_completion_in_two_pieces_is_the_completion() -> None:
    """Greedy, in float32, by the embedded model; where the text of the first piece has the tokens that it came from."""
    engine: Any = engines.load(make_recipe(model="tiny"))
    encode, stops = engine.chat.encode, stop_ids(engine.model, engine.chat.tokenizer)
    questions = task_of(load_recipe("demo", []).questions.task).generate(12, 0, "dev")
    messages: list[list[Message]] = [[{"role": "user", "content": question.text}] for question in questions]
    params = replace(GREEDY, max_tokens=90)
    found = sample(engine.model, list(map(encode, messages)), [0] * 12, params, stops, 64)
    wholes = sorted(found, key=lambda done: done.index)
    assert len(wholes) == 12
    firsts = [
        Request(f"{i}/{cut}", messages[i], i, replace(GREEDY, max_tokens=cut))
        for i in range(12)
        for cut in range(1, 60)
    ]
    left: dict[str, tuple[str, Request]] = {}
    for first in engine.generate(firsts):
        i, cut = map(int, first.id.split("/"))
        ids = wholes[i].ids
        assert first.tokens == min(cut, len(ids))
        assert first.finish_reason == ("stop" if wholes[i].stopped and cut >= len(ids) else "length")
        if cut < len(ids) and encode(messages[i], first.text) == encode(messages[i]) + ids[:cut]:
            params = replace(GREEDY, max_tokens=90 - cut)
            left[first.id] = first.text, Request(first.id, messages[i], 99, params, first.text)
    assert len(left) > 60
    for second in engine.generate(request for _, request in left.values()):
        i, cut = map(int, second.id.split("/"))
        assert left[second.id][0] + second.text == engine.chat.decode(wholes[i].ids)
        assert cut + second.tokens == len(wholes[i].ids)


def test_a_prefix_over_the_context_fails_alone(random_model: Path) -> None:
    engine: Any = engines.load(make_recipe(model=str(random_model)))
    first, second = asks(2)
    room = engine.context - len(engine.chat.encode(first.messages))
    piece = len(engine.chat.encode(first.messages, "7 7")) - len(engine.chat.encode(first.messages, "7"))
    long = "7" + " 7" * room
    fits = "7" + " 7" * ((room - 3) // piece - 1)
    found = {
        done.id: done
        for done in engine.generate([replace(first, id="long", prefix=long), second, replace(first, prefix=fits)])
    }
    assert (found["long"].finish_reason, found["long"].error) == ("failed", "prompt_too_long")
    left = engine.context - len(engine.chat.encode(first.messages, fits))
    assert 0 < left < 40
    assert found["r0"].tokens <= left
    assert (found["r0"].finish_reason == "length") == (found["r0"].tokens == left) or found["r0"].tokens < left
    [alone] = engine.generate([second])
    assert alone == found["r1"]
