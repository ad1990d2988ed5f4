"""While verl trains: its steps become lines of metrics.jsonl and dev.jsonl, signs are told, old checkpoints dropped."""

import json
import math
from dataclasses import asdict
from typing import Any

from skillfactory import files, progress
from skillfactory.errors import NothingLeftError
from skillfactory.recipe import Rl
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training import signs
from skillfactory.training.development import FILE, Measured
from skillfactory.training.elsewhere import verl_log
from skillfactory.training.metrics import MetricsFile, keep_steps
from skillfactory.training.signs import Sign
from skillfactory.training.watching import SignsTold


class EndedError(Exception):
    """RL has come to its end before its last step; says why."""


class Watch:
    """To be called while verl runs, and when it has ended. Raises EndedError where nothing is left to learn.

    `dev` is the number of dev questions.
    """

    def __init__(self, run: Run, stage: Stage, rl: Rl, steps: verl_log.Steps, metrics: MetricsFile, dev: int):
        self.run, self.stage, self.rl, self.steps, self.metrics, self.dev = run, stage, rl, steps, metrics, dev
        self.told = SignsTold(run, stage, metrics, lambda lines: signs.of_rl(lines, rl))
        keep_steps(stage.path / FILE, metrics.step)

    def __call__(self, ended: bool) -> None:
        found = False
        for seen in self.steps.new(ended):
            if seen.accuracy is not None:
                self._measured(seen)
            if seen.line is not None and seen.step > self.metrics.step:
                self.metrics.add(seen.line, seen.seconds)
                self.told.tell(self.told.find(self.metrics.lines()))
                found = True
        if found:
            verl_log.prune(self.steps.folder, self._kept(), known=self.metrics.step)
            self._end(ended)

    def catch_up(self, done: int) -> None:
        """Take the figures of steps up to `done` that verl did after whoever watched it was killed."""
        for seen in self.steps.new(ended=True):
            if seen.step <= done:
                if seen.accuracy is not None:
                    self._measured(seen)
                if seen.line is not None and seen.step == self.metrics.step + 1:
                    self.metrics.add(seen.line, seen.seconds)
        self.metrics.step = done

    def best(self) -> Measured | None:
        """The best measurement of those whose model is there; of equally good ones the earlier."""
        there = {0, *verl_log.checkpoints(self.steps.folder)}
        known = [line for line in self._lines() if line.accuracy is not None and line.step in there]
        return max(known, key=lambda line: (line.accuracy or 0.0, -line.step), default=None)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of measurements (as development.py's)."""
        lines, best = self._lines(), self.best()
        if not lines:
            return {}
        if self.rl.keep != "best" or best is None:
            return {"dev_accuracy": lines[-1].accuracy}
        return {"kept_step": best.step, "dev_accuracy": best.accuracy, "last_dev_accuracy": lines[-1].accuracy}

    def _lines(self) -> list[Measured]:
        path = self.stage.path / FILE
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [Measured(**json.loads(line)) for line in text.splitlines()]

    def _measured(self, seen: verl_log.Seen) -> None:
        """A line of dev.jsonl. Of its responses verl tells no more than how many were right."""
        if seen.step in {line.step for line in self._lines()}:
            return  # a resumed verl measures what it begins with
        share, n = float(seen.accuracy or 0.0), self.dev
        se = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None
        line = Measured(seen.step, share, se, None, None, None, n, round(seen.dev_seconds, 3))
        with files.told(str(self.stage.path / FILE)), (self.stage.path / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
        self.metrics.advance(0, dev=share)

    def _kept(self) -> set[int]:
        """The steps whose checkpoints are needed at the end, beside the last."""
        every, best = self.rl.keep_every, self.best() if self.rl.keep == "best" else None
        return {*(range(every, self.rl.steps, every) if every else ()), *([best.step] if best else ())}

    def _end(self, ended: bool) -> None:
        lines = self.metrics.lines()
        end = signs.end_of(lines, self.rl)
        if end is None:
            return
        words = signs.end_in_words(end, len(lines), self.rl)
        if end == "never_right":
            raise NothingLeftError(f"GRPO: {words}.")
        # All that was learnt has to be in a checkpoint: it is of a step from which on no group had signal.
        if ended or verl_log.latest(self.steps.folder) < len(lines) - self.rl.patience:
            return
        if end == "solved":
            progress.say(f"{self.stage.path.name}: {words}")
            self.run.log(self.stage.path.name, "ended early", text=words)
        else:
            self.told.tell([Sign("ended_early", words)])
        raise EndedError(words)
