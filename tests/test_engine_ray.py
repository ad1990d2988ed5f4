"""Ray workers on a real local cluster: every row once, also when a worker is killed; errors as they were raised."""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe

from skillfactory import engines
from skillfactory.engines.base import Engine, Request, SamplingParams
from skillfactory.engines.ray import ENVIRONMENT
from skillfactory.errors import EngineError, ModelError, QuestionError
from skillfactory.evaluation import responses
from skillfactory.evaluation.talks import Item, modes_of
from skillfactory.recipe import Recipe
from skillfactory.tasks import get

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray Data (pip install 'ray[data]')")
SHORT = SamplingParams(temperature=0.7, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=8)
Row = tuple[str, str, int]  # item, text, process


def cluster_recipe(**ray: Any) -> Recipe:
    return make_recipe(engines={"ray": {"workers": 2, "batch": 4} | ray})


def ask(engine: Engine, items: Iterable[str], seconds: float = 0.0) -> Iterator[Row]:
    """One completion an item; `seconds` for each batch beside."""
    requests = [Request(item, [{"role": "user", "content": item}], i, SHORT) for i, item in enumerate(items)]
    time.sleep(seconds)
    for done in engine.generate(requests):
        yield done.id, done.text, os.getpid()


def refuse(engine: Engine, items: Iterable[str], at: str) -> Iterator[str]:
    items = list(items)
    if at in items:
        raise QuestionError(f"Question `{at}` has no answer; give it one.")
    yield from items


def stumble(engine: Engine, items: Iterable[str]) -> Iterator[str]:
    raise ZeroDivisionError("no such share")


class TwoPartError(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")


def stumble_oddly(engine: Engine, items: Iterable[str]) -> Iterator[str]:
    raise TwoPartError("this", "that")


def die(engine: Engine, items: Iterable[str]) -> Iterator[str]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield from items


@pytest.fixture(scope="module", autouse=True)
def found_by_workers() -> Iterator[None]:
    """Workers of a local cluster import this module to find the functions above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A cluster that was there before."""
    os.environ.update(ENVIRONMENT)  # before ray is imported
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def busy(ray: Any) -> float:
    """CPUs in use, once what was told to end has had a moment."""
    for _ in range(100):
        used = float(ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0))
        if not used:
            break
        time.sleep(0.1)
    return used


@needs_ray
def test_a_killed_worker_costs_nothing_but_time(capfd: pytest.CaptureFixture[str]) -> None:
    items = [f"question {i}" for i in range(30)]
    rows: list[Row] = []
    at_sigterm = signal.getsignal(signal.SIGTERM)
    for row in engines.stream(cluster_recipe(), "ray", partial(ask, seconds=0.3), items):
        if not rows:
            os.kill(row[2], signal.SIGKILL)  # while it works on its second batch
        rows.append(row)
        assert signal.getsignal(signal.SIGTERM) is at_sigterm  # Ray would put in its own
    assert sorted(item for item, _, _ in rows) == sorted(items)
    assert len({process for _, _, process in rows}) == 3  # two, and one in place of the killed one
    assert os.getpid() not in {process for _, _, process in rows}
    assert capfd.readouterr() == ("", "")
    import ray

    assert not ray.is_initialized()  # the cluster was made for it
    batches = [items[start : start + 4] for start in range(0, 30, 4)]
    here = [row for batch in batches for row in engines.stream(cluster_recipe(), "transformers", ask, batch)]
    assert sorted(row[:2] for row in rows) == sorted(row[:2] for row in here)


@needs_ray
def test_a_cluster_that_is_away_is_said_in_a_sentence() -> None:
    with pytest.raises(EngineError, match=r"^Nothing answers at `127\.0\.0\.1:1` \(engines\.ray\.address, .+ray start"):
        list(engines.stream(cluster_recipe(address="127.0.0.1:1"), "ray", ask, ["q"]))


@needs_ray
def test_rows_come_batch_by_batch_and_closing_ends_the_workers(running: Any) -> None:
    stream = engines.stream(cluster_recipe(workers=1), "ray", partial(ask, seconds=1.0), (f"q{i}" for i in range(400)))
    first = next(stream)
    start = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 20  # 100 batches would take as many seconds
    assert first[0] in {"q0", "q1", "q2", "q3"}
    assert running.is_initialized()  # the cluster was there before
    assert busy(running) == 0
    assert list(engines.stream(cluster_recipe(), "ray", ask, [])) == []


@needs_ray
def test_errors_arrive_as_they_were_raised(running: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    items = [f"q{i}" for i in range(8)]
    with pytest.raises(QuestionError, match=r"^Question `q6` has no answer; give it one\.$") as raised:
        list(engines.stream(cluster_recipe(workers=1), "ray", partial(refuse, at="q6"), items))
    assert raised.value.__cause__ is None
    with pytest.raises(ZeroDivisionError, match="no such share") as odd:
        list(engines.stream(cluster_recipe(workers=1), "ray", stumble, items))
    assert "in stumble" in odd.value.__notes__[0]
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        list(engines.stream(cluster_recipe(workers=1), "ray", ask, items, tmp_path))
    assert capfd.readouterr() == ("", "")


@needs_ray
@pytest.mark.slow
def test_a_batch_that_kills_every_worker_ends_the_run(running: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"^Ray gave up \(.+\)\. A worker that is killed again and again"):
        list(engines.stream(cluster_recipe(workers=1), "ray", die, ["q"]))
    assert capfd.readouterr() == ("", "")


@needs_ray
@pytest.mark.slow
def test_an_error_that_cannot_travel_is_named(running: Any) -> None:
    with pytest.raises(RuntimeError, match="TwoPartError: this and that"):
        list(engines.stream(cluster_recipe(workers=1), "ray", stumble_oddly, ["q"]))


@needs_ray
def test_workers_evaluate_as_this_process_does_budget_forcing_included(running: Any) -> None:
    task = {"name": "multiplication", "params": {"digits": 2}}
    evaluation = {
        "max_tokens": 6, "samples": 1, "sets": {"two": {"task": task, "n": 6}},
        "forcing": {"budgets": [12], "answer_tokens": 4},
    }  # fmt: skip
    recipe = make_recipe(method="evaluate", evaluation=evaluation, engines={"ray": {"workers": 2, "batch": 3}})
    members = get("multiplication", digits=2).generate(6, 0, "eval")
    items = [Item(each, modes_of(each, recipe)) for each in responses.asks("base", {"two": members}, recipe)]
    work = partial(responses.respond, recipe=recipe)
    found = [sorted(engines.stream(recipe, name, work, items), key=repr) for name in ("ray", "transformers")]
    assert len(found[0]) == 6 * 4
    assert found[0] == found[1]


def test_a_worker_that_fits_nowhere_is_refused(running: Any) -> None:
    with pytest.raises(
        EngineError, match=r"wants 1 CPUs and 2 GPUs \(engines\.ray\).+has 2 CPUs, 0 GPUs; ask for less"
    ):
        list(engines.stream(cluster_recipe(gpus=2), "ray", ask, ["q"]))


def test_ray_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"install it with `pip install 'ray\[data\]"):
        list(engines.stream(cluster_recipe(), "ray", ask, ["q"]))
