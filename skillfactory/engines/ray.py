"""The ray engine: items spread by Ray Data over workers on one machine or many, each with an engine of its own.

On a cluster of several machines this package, the worker's engine and the model must be on every one of them, each
under the same path; nothing is copied there but the recipe, `work` and the items.
"""

import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from skillfactory import engines
from skillfactory.engines.base import Engine
from skillfactory.engines.models import first_line
from skillfactory.errors import EngineError, SkillFactoryError
from skillfactory.recipe import RayCluster, Recipe

Item = TypeVar("Item")
Row = TypeVar("Row")
Work = Callable[[Engine, Iterable[Item]], Iterable[Row]]

# Read when Ray is imported. It reports its use to its makers unless told not to; tries 20 times, 40 seconds each, to
# reach a cluster that is no more; and writes long notices between our progress bars: of what it always does itself, and
# of workers that died, whose batch is done again.
ENVIRONMENT = {
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died or was killed|will be retried",
}
RETRIES = 3  # times that a batch is begun again after its worker died: one that is too large kills every worker


@dataclass
class _Done:
    """What came of a batch: its rows, or what went wrong."""

    rows: list[Any]
    error: BaseException | None = None


class _Worker:
    """Lives in a process of its own on some machine of the cluster; its engine is loaded for the first batch."""

    def __init__(self, recipe: Recipe, work: Work[Any, Any], model: str | None) -> None:
        self.recipe, self.work, self.model = recipe, work, model
        self.engine: Engine | None = None

    def __call__(self, batch: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
        """Rows of one batch of items. Both are pickled; an error travels as a row, since Ray would wrap it."""
        try:
            if self.engine is None:
                self.engine = engines.load(self.recipe, self.model, self.recipe.engines.ray.worker)
            done = _Done(list(self.work(self.engine, pickle.loads(batch["items"][0]))))
        except SkillFactoryError as error:
            done = _Done([], error)
        except Exception as error:
            error.add_note(f"In a Ray worker:\n{traceback.format_exc()}")
            done = _Done([], error)
        return {"done": [_pickled(done)]}


def stream(
    recipe: Recipe, work: Work[Item, Row], items: Iterable[Item], model: str | Path | None = None
) -> Iterator[Row]:
    """The rows that `work` makes of `items` in Ray workers, each batch's as soon as it is done, in no order.

    Items are all taken before the first row comes. A batch whose worker dies is done again by another; none of its rows
    was seen before. Raises what `work` raises, and EngineError where Ray is missing, has no room for a worker, or lost
    its workers over one batch again and again.
    """
    ray = import_ray()
    section = recipe.engines.ray
    name = None if model is None else _whole(model)
    recipe = recipe.model_copy(update={"model": _whole(recipe.model)})
    with cluster(ray, section):
        check_room(ray, section)
        source = iter(items)
        batches = [{"items": pickle.dumps(batch)} for batch in iter(lambda: list(islice(source, section.batch)), [])]
        if not batches:
            return
        with ray.data.DataContext.current(_settings(ray)), warnings.catch_warnings():
            # Until 2.64 there is no other way to say max_task_retries, and the default is without end.
            warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
            done = ray.data.from_items(batches, override_num_blocks=len(batches)).map_batches(
                _Worker,
                fn_constructor_args=(recipe, work, name),
                batch_size=1,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=section.workers, max_tasks_in_flight_per_actor=1),
                num_cpus=section.cpus,
                num_gpus=section.gpus or None,
                max_task_retries=RETRIES,
            )
        # Without prefetching a batch is handed over when it is there, not when the next one is too.
        found = iter(done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"))
        with closing(found), _ray_errors(ray):
            for block in found:
                for pickled in block["done"]:
                    yield from _rows(pickle.loads(pickled))


def _rows(done: _Done) -> list[Any]:
    if done.error is not None:
        raise done.error
    return done.rows


def _pickled(done: _Done) -> bytes:
    try:
        pickled = pickle.dumps(done)
        if done.error is not None:
            pickle.loads(pickled)  # some exceptions can be written but not read again
        return pickled
    except Exception as error:
        said = done.error or error
        return pickle.dumps(_Done([], RuntimeError("".join(traceback.format_exception(said)))))


def import_ray() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            f"The ray engine needs Ray Data, which cannot be imported here ({error}); install it with "
            "`pip install 'ray[data]>=2.60'`."
        ) from error
    return ray


@contextmanager
def cluster(ray: Any, section: RayCluster) -> Iterator[None]:
    """Be connected to the cluster meanwhile: this process's own, the one at the address, or a local one made for it."""
    if ray.is_initialized():
        yield
        return
    _knock(section.address)
    where: dict[str, Any] = {"address": section.address}
    if not section.address:
        cores = max(os.cpu_count() or 1, math.ceil(section.workers * section.cpus))
        where = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    try:
        with _muted(), _own_sigterm():
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        place = f"at `{section.address}` (engines.ray.address)" if section.address else "on this machine"
        said = f"No Ray cluster {place} could be reached or started ({first_line(error)})"
        if "AuthToken" in str(error.__cause__):
            said += "; it wants its token: set RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from its head"
        raise EngineError(f"{said}.") from error
    try:
        yield
    finally:
        ray.shutdown()  # ends a local cluster; from another it only parts


def _knock(address: str) -> None:
    """Whether anything listens at HOST:PORT; Ray itself would go on trying for five minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"Nothing answers at `{address}` (engines.ray.address, {first_line(error)}); start a cluster there with "
            "`ray start --head`, or leave the address empty for a local one."
        ) from error


@contextmanager
def _muted() -> Iterator[None]:
    """Ray's own C++ code tells on stderr how loud it has been asked to be."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way of ending at SIGTERM: Ray puts in one that exits with 15."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if kept is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


def check_room(ray: Any, section: RayCluster) -> None:
    """One worker must fit on a machine; Ray would wait for it without end. A cluster from elsewhere may yet grow."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(m.get("GPU", 0) >= section.gpus and m.get("CPU", 0) >= section.cpus for m in machines):
        return
    has = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in machines)
    said = f"A worker wants {section.cpus:g} CPUs and {section.gpus:g} GPUs (engines.ray), and the cluster has {has}"
    if not section.address:
        raise EngineError(f"{said}; ask for less.")
    logging.getLogger(__name__).warning("%s; waiting for it to grow.", said)


def _settings(ray: Any) -> Any:
    """Ray Data's settings, without its own progress bars and notices, which would interrupt ours."""
    settings = ray.data.DataContext.get_current().copy()
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    settings.enable_auto_log_stats = False
    settings.max_consecutive_actor_init_deaths = RETRIES
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return settings


@contextmanager
def _ray_errors(ray: Any) -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"Ray gave up ({first_line(error)}). A worker that is killed again and again mostly "
            "wants more memory: fewer workers, a smaller engines.ray.batch or machine.batch_size."
        ) from error


def _whole(model: str | Path) -> str:
    """A folder's whole path, since workers may start in another folder; a hub id, and `tiny`, as they are."""
    return str(Path(model).resolve()) if model != "tiny" and Path(model).is_dir() else str(model)
