"""What a terminal shows of runs that go on side by side: live tables; elsewhere a line whenever one has moved."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Self, TextIO

from skillfactory import console, methods
from skillfactory.characters import clean
from skillfactory.children import Child, loaded
from skillfactory.progress import describe

LINE_EVERY = 15.0  # seconds between lines of one run
LOOK_EVERY = 3.0  # seconds between looks where there is no terminal: each reads all shards' footers
IN_FULL = 2  # runs of which all stages are shown; of more, only the current one


class Watch:
    """A display on `out`. Use as a context manager."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self._live: Any = None
        self._said: dict[str, tuple[str, float]] = {}
        self._looked = 0.0

    def __enter__(self) -> Self:
        if self.out.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self.out), refresh_per_second=2, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._live.console.print(clean(text), markup=False, highlight=False)
        else:
            print(clean(text), file=self.out, flush=True)

    def show(self, children: Sequence[Child], head: str = "") -> None:
        """How far each run is, under a line that is only for a live display."""
        if not self._live and time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        runs = [(child.name, run) for child in children if (run := loaded(child))]
        facts = {name: console.stage_facts(run, methods.stages(run.recipe)) for name, run in runs}
        if self._live:
            from rich.console import Group
            from rich.text import Text

            parts: list[Any] = [Text(clean(head))] if head else []
            if len(facts) > IN_FULL:
                parts += [Text(clean(f"{name}  {_now(each)}")) for name, each in facts.items()]
            else:
                parts += [console.stage_table(name, each) for name, each in facts.items()]
            self._live.update(Group(*parts))
            return
        for name, each in facts.items():
            self._say_moved(name, each)

    def _say_moved(self, name: str, facts: list[dict[str, Any]]) -> None:
        line, state = _now(facts), _current(facts)["state"]
        before, at = self._said.get(name, ("", 0.0))
        moved = line.partition(":")[0] != before.partition(":")[0]
        if line != before and (moved or time.monotonic() - at >= LINE_EVERY) and state != "missing":
            self._said[name] = (line, time.monotonic())
            self.say(f"[{name}] {line}")


def _current(facts: list[dict[str, Any]]) -> dict[str, Any]:
    return next((each for each in facts if each["state"] != "finished"), facts[-1])


def _now(facts: list[dict[str, Any]]) -> str:
    current = _current(facts)
    if "progress" in current:
        return describe(current["stage"], current["progress"])
    return f"{current['stage']}: {current['state']}"
