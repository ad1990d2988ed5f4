"""Cells on a Ray cluster: each a task that runs the same process on a machine that sees the same folder."""

import contextlib
import math
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillfactory import children
from skillfactory.children import Child
from skillfactory.errors import EngineError
from skillfactory.experiments.runner import Begin
from skillfactory.recipe import RayCluster

LOST = 70  # exit code of a task whose worker has died
STOPPED = 143  # of one that was asked to stop


@contextlib.contextmanager
def connected(address: str, gpus: float) -> Iterator[tuple[Begin, int]]:
    """Be connected to the cluster at `address` (`local` makes one), for cells that want `gpus` GPUs each.

    Yields what starts a cell, and how many have room at once. Raises EngineError where there is no cluster or no room.
    """
    from skillfactory.engines import ray as engine

    ray = engine.import_ray()
    section = RayCluster(address="" if address == "local" else address, gpus=gpus)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(engine.cluster(ray, section))
            engine.check_room(ray, section)
        except EngineError as error:
            said = str(error).replace("engines.ray.address", "--ray").replace("engines.ray", "--gpus-per-cell")
            raise EngineError(said) from error
        there = ray.cluster_resources()
        room = min(int(there.get("CPU", 1)), math.floor(there.get("GPU", 0) / gpus) if gpus else 1_000_000)
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run)

        def begin(name: str, run: Path, log: Path, arguments: Sequence[str]) -> Child:
            words = children.command(arguments, run)
            return Child(name, run, log, _Task(ray, task.remote(words, str(log.resolve()), os.getcwd()), log))

        yield begin, max(room, 1)


@dataclass(eq=False)
class _Task:
    """A Ray task as a job."""

    ray: Any
    reference: Any
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and self.ray.wait([self.reference], timeout=0)[0]:
            self.code = self._result()
        return self.code

    def _result(self) -> int:
        try:
            return int(self.ray.get(self.reference))
        except self.ray.exceptions.TaskCancelledError:
            return STOPPED
        except self.ray.exceptions.RayError as error:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"Error: the Ray worker was lost: {str(error).splitlines()[0]}\n")
            return LOST

    def terminate(self) -> None:
        self.ray.cancel(self.reference, force=False)

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)


def _run(words: list[str], log: str, folder: str) -> int:
    """In a worker: run the process to its end; where the task is cancelled, stop it politely."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=folder,
            env=children.environment(), start_new_session=True,
        )  # fmt: skip
    try:
        while process.poll() is None:  # (an interrupt does not reach a wait that blocks)
            time.sleep(0.2)
        return process.returncode
    finally:
        children.stop([Child(words[-1], Path(folder, words[-1]), Path(log), process)])
