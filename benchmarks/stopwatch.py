"""Where the time of a GRPO step goes, by timers around the methods of TRL's trainer; ours is a subclass of it.

A part's time is that of its outermost call: grading inside a rollout would count as rollout. `other` is what is left of
the step: padding, advantages, sorting, logging, data loading.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

PARTS = ("rollouts", "reward", "log-probabilities", "forward", "backward", "optimizer", "other")
METHODS = {  # of the trainer
    "_calculate_rewards": "reward",
    "_get_per_token_logps_and_entropies": "log-probabilities",  # of the old policy and the reference; else in `forward`
    "compute_loss": "forward",
}


@dataclass
class Stopwatch:
    """`steps` are the seconds of each step by part; a step is so many optimizer updates, each of which logs once."""

    updates: int
    steps: list[dict[str, float]] = field(default_factory=list)
    rows: list[tuple[list[int], list[int]]] = field(default_factory=list)  # tokens of each step's prompts, completions
    spent: dict[str, float] = field(default_factory=dict)
    logs: int = 0
    began: float = 0.0
    busy: bool = False

    def part(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, timed as this part."""

        @wraps(run)
        def timed(*args: Any, **options: Any) -> Any:
            if self.busy:
                return run(*args, **options)
            self.busy, start = True, time.perf_counter()
            try:
                return run(*args, **options)
            finally:
                self.busy = False
                self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - start

        return timed

    def generating(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """TRL's `_generate`, of which prompts and completions are the first two results, timed and its rows kept."""

        def kept(*args: Any, **options: Any) -> Any:
            made = generate(*args, **options)
            self.rows.append(([len(ids) for ids in made[0]], [len(ids) for ids in made[1]]))
            return made

        return self.part("rollouts", kept)

    def logged(self, logs: dict[str, Any]) -> None:
        """An update has ended; every `updates` of them, a step."""
        if "loss" not in logs:  # the summary at the end
            return
        self.logs += 1
        if self.logs % self.updates:
            return
        now = time.perf_counter()
        whole = now - self.began
        self.steps.append({**self.spent, "other": whole - sum(self.spent.values()), "whole": whole})
        self.began, self.spent = now, {}

    def figures(self) -> dict[str, Any]:
        """Means over all steps but the first. Raises RuntimeError where training went past the timers."""
        counted = self.steps[1:]
        if not counted or any(step.get("rollouts", 0.0) == 0 for step in counted):
            raise RuntimeError("no step was timed: training does not go through TRL's GRPOTrainer in this process")
        parts = {part: sum(step.get(part, 0.0) for step in counted) / len(counted) for part in PARTS}
        whole = sum(step["whole"] for step in counted) / len(counted)
        lengths = [length for _, completions in self.rows[1:] for length in completions]
        return {
            "seconds a step": whole, "parts": parts, "percent of a step in the reward": 100 * parts["reward"] / whole,
            "mean tokens": sum(lengths) / len(lengths), "steps": [step["whole"] for step in self.steps],
            "rows": self.rows[1:],
        }  # fmt: skip


@contextmanager
def watching(watch: Stopwatch, reward: Callable[..., Any] | None = None) -> Iterator[None]:
    """Time every trainer that is started meanwhile.

    `reward(rewards, completion_ids)` changes what all checks together gave, after they were timed.
    """
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import Trainer

    train, step = Trainer.train, AcceleratedOptimizer.step

    def timed_train(self: Any, *args: Any, **options: Any) -> Any:
        if reward is not None:
            _replace_rewards(self, reward)
        self._generate = watch.generating(self._generate)
        for method, part in METHODS.items():
            setattr(self, method, watch.part(part, getattr(self, method)))
        self.accelerator.backward = watch.part("backward", self.accelerator.backward)
        self.accelerator.clip_grad_norm_ = watch.part("optimizer", self.accelerator.clip_grad_norm_)
        log = self.log

        def logging(logs: dict[str, Any], *more: Any, **options: Any) -> None:
            log(logs, *more, **options)
            watch.logged({**logs, **self.state.log_history[-1]})  # TRL adds its figures on the way

        self.log = logging
        watch.began = time.perf_counter()
        return train(self, *args, **options)

    Trainer.train, AcceleratedOptimizer.step = timed_train, watch.part("optimizer", step)
    try:
        yield
    finally:
        Trainer.train, AcceleratedOptimizer.step = train, step


def _replace_rewards(trainer: Any, reward: Callable[..., Any]) -> None:
    calculate = trainer._calculate_rewards

    def changed(inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
        return reward(calculate(inputs, prompts, completions, completion_ids), completion_ids)

    trainer._calculate_rewards = changed
