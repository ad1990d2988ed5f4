"""In which order training sees traces and questions: drawn by name from the seed, whatever is resumed or split.

(TRL's sampler for GRPO draws each pass over the questions from one generator, which a resumption starts anew; that of
transformers for traces of like length depends on the number of devices.)
"""

import math
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from skillfactory import seeds

WINDOW = 50  # micro-batches among which traces of like length are looked for


def trace_order(lengths: Sequence[int], epochs: float, micro_batch: int, seed: int) -> list[int]:
    """Numbers of traces, all passes of SFT in one list, in micro-batches of like length, which are in random order.

    Each pass has every trace once; a pass that is not whole has the first of its traces.
    """
    rows: list[int] = []
    total = math.ceil(len(lengths) * epochs)
    for turn in range(math.ceil(epochs)):
        numbers = list(range(len(lengths)))
        seeds.rng(seed, "sft order", turn).shuffle(numbers)
        rows += numbers[: total - len(rows)]
    found: list[int] = []
    for start in range(0, total, WINDOW * micro_batch):
        window = sorted(rows[start : start + WINDOW * micro_batch], key=lambda row: lengths[row])
        whole = len(window) - len(window) % micro_batch
        batches = [window[i : i + micro_batch] for i in range(0, whole, micro_batch)]
        seeds.rng(seed, "sft batches", start).shuffle(batches)
        found += [row for batch in [*batches, window[whole:]] for row in batch]  # what is left over is the very end
    return found


class PromptOrder(Sampler[int]):
    """Numbers of questions as TRL's loader takes them: a step's prompts, each `group` times, all that `repeat` times.

    Passes over the questions follow each other without a gap: a step may end one and begin the next. `repeat` is how
    often TRL looks at a step's batch; all but the first time it has its rollouts already.
    """

    def __init__(self, questions: int, steps: int, prompts_per_step: int, group: int, repeat: int, seed: int) -> None:
        self.questions, self.steps, self.prompts_per_step = questions, steps, prompts_per_step
        self.group, self.repeat, self.seed = group, repeat, seed

    def __len__(self) -> int:
        return self.steps * self.prompts_per_step * self.group * self.repeat

    def __iter__(self) -> Iterator[int]:
        stream = self._stream()
        for _ in range(self.steps):
            prompts = [next(stream) for _ in range(self.prompts_per_step)]
            for _ in range(self.repeat):
                for prompt in prompts:
                    yield from [prompt] * self.group

    def _stream(self) -> Iterator[int]:
        turn = 0
        while True:
            numbers = list(range(self.questions))
            seeds.rng(self.seed, "rl order", turn).shuffle(numbers)
            yield from numbers
            turn += 1
