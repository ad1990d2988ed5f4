"""The demonstration: one recipe, two methods at once, then their comparison.

Each method is a process of its own with one torch thread, so that neither waits for the other.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skillfactory import store
from skillfactory.errors import SkillFactoryError
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe

RECIPE = "demo"
METHODS = ("skillfactory", "rl_only")
LAST_LINES = 15  # of the log of a process that failed
GRACE = 20.0  # seconds that a process gets to stop


class DemoError(SkillFactoryError, RuntimeError):
    """One of the demo's processes failed."""


@dataclass(frozen=True)
class Child:
    """One method's process, its run directory and its log."""

    method: str
    run: Path
    log: Path
    process: subprocess.Popen[bytes]


def reduced(recipe: Recipe) -> list[str]:
    """Overrides that shrink the demo to a test that every stage works; nothing is learnt in it."""
    questions, rl = recipe.questions, recipe.rl
    changes: dict[str, int] = {
        "questions.sft": min(40, questions.sft),
        "questions.rl": min(32, questions.rl),
        "questions.dev": min(8, questions.dev),
        "rl.steps": min(3, rl.steps),
        "rl.prompts_per_step": min(16, rl.prompts_per_step),
        "rl.mini_batch": 0,
        "evaluation.samples": 1,
    }
    changes |= {f"evaluation.sets.{name}.n": min(16, each.n) for name, each in recipe.evaluation.sets.items()}
    return [f"{key}={value}" for key, value in changes.items()]


def run_demo(
    out: Path, small: bool, watch: Callable[[Sequence[Child]], None], overrides: Sequence[str] = ()
) -> list[Path]:
    """Run both methods until they are done; returns their run directories. Raises DemoError where one fails.

    `watch(children)` is called about once a second. Signals to stop end both processes, which keep their work.
    """
    if small:
        overrides = [*reduced(load_recipe(RECIPE)), *overrides]
    load_recipe(RECIPE, overrides)  # a mistake shows here, before any process starts
    with contextlib.ExitStack() as stack:
        children: list[Child] = []
        stack.callback(_stop, children)
        for method in METHODS:
            children.append(stack.enter_context(_start(method, out, overrides)))
        while any(child.process.poll() is None for child in children):
            watch(children)
            _raise_failed(children)
            time.sleep(1)
        watch(children)
        _raise_failed(children)
    return [child.run for child in children]


@contextlib.contextmanager
def _start(method: str, out: Path, overrides: Sequence[str]) -> Iterator[Child]:
    run, log = out / method, out / f"{method}.log"
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "skillfactory", "run", RECIPE, *overrides, f"method={method}", "--run", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "TERM": "dumb"}
    with log.open("ab") as file:
        # A session of its own: a key press reaches it only through us, once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        yield Child(method, run, log, process)


def _raise_failed(children: Sequence[Child]) -> None:
    for child in children:
        code = child.process.poll()
        if code:
            last = child.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            how = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"failed with exit code {code}"
            raise DemoError(
                f"The demo's {child.method} run {how}; the same command goes on from there. "
                f"Last lines of {child.log}:\n" + "\n".join(f"  {line}" for line in last)
            )


def _stop(children: Sequence[Child]) -> None:
    """End what still runs: politely, so that it keeps its work; after a while for good."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.1, deadline - time.monotonic()))
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def loaded(child: Child) -> store.LoadedRun | None:
    """The child's run so far; None before it has begun."""
    return store.load_run(child.run) if (child.run / store.RECIPE).exists() else None
