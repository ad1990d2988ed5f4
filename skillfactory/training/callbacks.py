"""What is done at the end of a GRPO step beside training: keeping its model, and seeing whether a budget is spent."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from skillfactory.planning.steps import goes_on
from skillfactory.recipe import Rl
from skillfactory.training import common, processes
from skillfactory.training.metrics import MetricsFile
from skillfactory.training.policy import SamplingCopy


class BudgetSpent(TrainerCallback):
    """Ends RL that goes on after its steps once both `rl.more_tokens` and `rl.more_seconds` are spent.

    Both count from the end of step `rl.steps`, over all resumptions, as metrics.jsonl has them. To come after `metrics`
    among the callbacks.
    """

    def __init__(self, rl: Rl, metrics: MetricsFile, per_step: int) -> None:
        self.rl, self.metrics, self.per_step = rl, metrics, per_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        # A step's line is written with its first update, and it ends with its last.
        step, rest = divmod(state.global_step, self.per_step)
        if "loss" in (logs or {}) and not rest and self.ends(step):
            control.should_save = control.should_training_stop = True

    def ends(self, step: int) -> bool:
        """Whether training is over after so many steps. All processes have to call this."""
        if not goes_on(self.rl):
            return False
        return processes.any_of(processes.is_main() and self._is_spent(step))  # the main process alone has the figures

    def _is_spent(self, step: int) -> bool:
        if step < self.rl.steps:
            return False
        extra = self.metrics.lines()[self.rl.steps :]
        rollouts = self.rl.prompts_per_step * self.rl.group_size
        tokens, seconds = (sum(line[name] for line in extra) for name in ("length", "seconds"))
        return bool(tokens * rollouts >= self.rl.more_tokens and seconds >= self.rl.more_seconds)


class KeptSteps(TrainerCallback):
    """Keeps the policy as `folder`/steps/STEP every `rl.keep_every` steps (0: never) before the last.

    What is kept is the sampling copy, which our sampler has anyhow, and is in the type that the last one is saved in.
    A step is kept before its checkpoint is written: so what a checkpoint is past is there.
    """

    def __init__(self, copy: SamplingCopy, tokenizer: Any, folder: Path, rl: Rl, per_step: int) -> None:
        self.copy, self.tokenizer, self.folder, self.per_step = copy, tokenizer, folder, per_step
        self.every, self.steps = rl.keep_every * per_step, rl.steps

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        last = self.steps * self.per_step  # the whole training's, unless it goes on to spend a budget
        if self.every and state.global_step % self.every == 0 and state.global_step < last:
            self.copy.follow(model, here=processes.is_main())
            if processes.is_main():
                common.keep_model(self.copy.model, self.tokenizer, self.folder, state.global_step // self.per_step)
