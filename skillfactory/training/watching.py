"""While a training runs: its signs are told, once each, and RL ends where nothing is left to learn."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from skillfactory import progress
from skillfactory.errors import NothingLeftError
from skillfactory.planning import room
from skillfactory.planning.memory import Lengths
from skillfactory.recipe import Recipe, Rl
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training import processes, signs
from skillfactory.training.metrics import MetricsFile
from skillfactory.training.signs import Line, Sign

WARNINGS = "warnings"  # in the stage's manifest: [{"name", "text"}]


class SignsTold(TrainerCallback):
    """Tells what `find` sees in the lines of metrics.jsonl: each sign once a stage, also where it is taken up again.

    It stands on stderr, in the run's log.jsonl and in the stage's manifest. To come after `metrics` in the callbacks.
    `every`: steps between looks, each of which reads the file.
    """

    def __init__(
        self,
        run: Run,
        stage: Stage,
        metrics: MetricsFile,
        find: Callable[[Sequence[Line]], list[Sign]],
        every: int = 1,
    ) -> None:
        self.run, self.stage, self.metrics, self.find, self.every = run, stage, metrics, find, every
        self.seen = metrics.step

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if processes.is_main() and self.metrics.step > self.seen and self.metrics.step % self.every == 0:
            self.seen = self.metrics.step
            self.tell(self.find(self.metrics.lines()))

    def memory(self, recipe: Recipe, name: str, lengths: Lengths) -> None:
        """Tell where `sft` or `rl` may not fit into memory; see room.check_memory, also for what is raised."""
        self.tell([Sign(*warning) for warning in room.check_memory(recipe, name, lengths).items()])

    def tell(self, found: Sequence[Sign]) -> None:
        """Tell those that were not told before."""
        if not processes.is_main():
            return
        kept = list(self.stage.manifest.get(WARNINGS, []))
        for sign in found:
            if sign.name in {each["name"] for each in kept}:
                continue
            kept.append({"name": sign.name, "text": sign.text})
            progress.say(f"{self.stage.path.name}: warning: {sign.text}")
            self.run.log(self.stage.path.name, "warning", name=sign.name, text=sign.text)
            self.stage.note(**{WARNINGS: kept})


class Patience(TrainerCallback):
    """Ends RL after `rl.patience` steps in which no group had signal; see signs.end_of.

    Where no rollout was ever right it raises NothingLeftError, in all processes. Else the model is kept, and `facts`
    says for the manifest that the training ended, and why. To come after `metrics` among the callbacks.
    """

    def __init__(self, rl: Rl, metrics: MetricsFile, per_step: int, told: SignsTold) -> None:
        self.rl, self.metrics, self.per_step, self.told = rl, metrics, per_step, told
        self.facts: dict[str, str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        # A step's line is written with its first update, and it ends with its last.
        if "loss" in (logs or {}) and state.global_step % self.per_step == 0 and self.ends():
            control.should_save = control.should_training_stop = True

    def ends(self) -> bool:
        """Whether training is over after the steps so far; says so. All processes have to call this."""
        end = signs.end_of(self.metrics.lines(), self.rl) if processes.is_main() else None
        words = signs.end_in_words(end, self.metrics.step, self.rl) if end else ""
        if processes.any_of(end == "never_right"):
            raise NothingLeftError(f"GRPO: {words}.")
        if not processes.any_of(end is not None):
            return False
        self.facts = {"ended_early": words}
        if end == "solved":
            progress.say(f"{self.told.stage.path.name}: {words}")
            self.told.run.log(self.told.stage.path.name, "ended early", text=words)
        elif end:
            self.told.tell([Sign("ended_early", words)])
        return True
