"""SIGTERM (docker stop, Slurm, Kubernetes, an experiment that is stopped) costs no work: the step comes to its end.

A step of RL is only whole after its last optimizer update, so transformers' own `enable_jit_checkpoint`, which saves
after any update, does not do. Here the step ends, a checkpoint is written, and training stops. The same command then
goes on from there. A second SIGTERM stops at once, as it would have without this.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from skillfactory.errors import StoppedError
from skillfactory.training import processes

# Seconds in which another SIGTERM is the same one: systemd and Slurm send it to each process of a group, and those that
# have started others hand it on.
SAME = 2.0


class StopAtStep(TrainerCallback):
    """Ends training after the step in which SIGTERM came, with a checkpoint. To be the last of a trainer's callbacks.

    A step is `per_step` optimizer updates; `total` steps are to be done in all (only told).
    """

    def __init__(self, name: str, per_step: int, total: int) -> None:
        self.name, self.per_step, self.total = name, per_step, total
        self.step = 0  # that ended last
        self.told = 0.0  # when SIGTERM came; 0 before
        self.before: Any = signal.SIG_DFL  # what happened at SIGTERM

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step = state.global_step // self.per_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.per_step:
            return
        self.step = state.global_step // self.per_step
        if processes.any_of(bool(self.told)):  # a scheduler may tell one process alone
            control.should_save = control.should_training_stop = True

    def check(self) -> None:
        """Raises StoppedError where SIGTERM came. To be called by all processes once the trainer has returned."""
        if processes.any_of(bool(self.told)):
            raise StoppedError(
                f"{self.name}: stopped at step {self.step:,} of {self.total:,} by SIGTERM; the same command goes on "
                "from there."
            )

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler: it only takes note, unless it is told again."""
        now = time.monotonic()
        if not self.told:
            self.told = now
            if processes.is_main():
                said = f"{self.name}: SIGTERM; the step is brought to its end and saved (once more: stop at once)\n"
                with suppress(OSError):
                    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, said.encode())  # print may be under way
        elif now - self.told > SAME:
            signal.signal(signal.SIGTERM, self.before)
            if callable(self.before):
                self.before(number, frame)
            else:
                signal.raise_signal(signal.SIGTERM)


@contextmanager
def heeded(name: str, per_step: int, total: int) -> Iterator[StopAtStep]:
    """Heed SIGTERM as long as a stage trains; yields what is to be among the trainer's callbacks.

    What happened at SIGTERM before is put back. In a thread that is not the main one, which Python lets handle no
    signals, everything stays as it is.
    """
    stop = StopAtStep(name, per_step, total)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # None: set by another language, and not to be had from here.
    stop.before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    signal.signal(signal.SIGTERM, stop.on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, stop.before)
