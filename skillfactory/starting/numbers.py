"""The numbers of a first recipe: the paper's, or those of a quick look, cut to the questions that there are."""

from dataclasses import dataclass, replace
from typing import Literal

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.starting.stock import Stock
from skillfactory.tasks.base import Task, TooFewError

Size = Literal["quick", "paper"]
SIZES: dict[str, str] = {
    "quick": "a first look: every stage runs, and its output can be read; too small to learn much",
    "paper": "the numbers of the paper (of the embedded model: of the demo)",
}
_SURE = 0.9  # share of the questions found with one seed that are found with any
FEWEST = 10  # questions: below this there is nothing to split


@dataclass(frozen=True)
class Numbers:
    """As the recipe's sections have them; `evaluated` is questions of an evaluation set."""

    sft: int
    rl: int
    dev: int
    per_variant: int
    attempt_tokens: int
    reflections: int
    reflection_tokens: int
    pattern: str
    max_pairs: int
    per_question: int
    trace_limit: int
    trace_tokens: int
    sft_rate: float
    epochs: int
    sft_batch: int
    rl_rate: float
    steps: int
    prompts: int
    group: int
    mini_batch: int
    rollout_tokens: int
    evaluated: int
    samples: int
    response_tokens: int
    micro_batch: int = 4
    at_once: int = 64
    save_every: int = 10


_PAPER = Numbers(
    sft=4000, rl=1000, dev=200, per_variant=16, attempt_tokens=1024, reflections=4, reflection_tokens=1024,
    pattern="algorithm1", max_pairs=5, per_question=0, trace_limit=0, trace_tokens=4096, sft_rate=1e-6, epochs=2,
    sft_batch=4, rl_rate=1e-6, steps=150, prompts=256, group=16, mini_batch=32, rollout_tokens=4096, evaluated=500,
    samples=4, response_tokens=4096,
)  # fmt: skip
_GPU_LOOK = replace(
    _PAPER, sft=200, rl=200, dev=20, per_variant=4, attempt_tokens=512, reflection_tokens=512, trace_limit=200,
    steps=10, prompts=32, group=8, mini_batch=0, rollout_tokens=1024, evaluated=50, samples=2, response_tokens=1024,
)  # fmt: skip
_CPU_LOOK = replace(
    _GPU_LOOK, sft=16, rl=16, dev=4, per_variant=2, attempt_tokens=256, reflections=2, reflection_tokens=128,
    trace_limit=8, trace_tokens=1024, epochs=1, steps=2, prompts=4, group=4, rollout_tokens=256, evaluated=8, samples=1,
    response_tokens=256, micro_batch=1, at_once=16, save_every=1,
)  # fmt: skip
# The embedded model: the recipe `demo`, and a part of it.
_TINY = Numbers(
    sft=600, rl=1500, dev=150, per_variant=6, attempt_tokens=64, reflections=1, reflection_tokens=64,
    pattern="fail_first", max_pairs=14, per_question=2, trace_limit=800, trace_tokens=900, sft_rate=1e-3, epochs=1,
    sft_batch=8, rl_rate=2.5e-4, steps=12, prompts=32, group=16, mini_batch=0, rollout_tokens=600, evaluated=200,
    samples=2, response_tokens=800, micro_batch=8, at_once=256, save_every=4,
)  # fmt: skip
_TINY_LOOK = replace(
    _TINY, sft=40, rl=40, dev=8, max_pairs=4, trace_limit=60, steps=2, prompts=8, group=8, rollout_tokens=256,
    evaluated=16, samples=1, response_tokens=256, save_every=1,
)  # fmt: skip


def usual(size: Size, is_tiny: bool, devices: int) -> Numbers:
    """The numbers for a size, a model and so many GPUs, however many questions there are."""
    if is_tiny:
        return _TINY if size == "paper" else _TINY_LOOK
    found = _PAPER if size == "paper" else _GPU_LOOK if devices else _CPU_LOOK
    return found if devices else replace(found, micro_batch=1, at_once=16)


def numbers_of(size: Size, is_tiny: bool, devices: int, stock: Stock) -> Numbers:
    """The numbers for a size, a model and so many GPUs. Raises QuestionError where there are too few questions."""
    found = usual(size, is_tiny, devices)
    if stock.rows:
        found = _cut(found, stock)
    elif not stock.is_remote:
        found = _found(found, stock)
    return _batched(found, max(1, devices))


def _found(numbers: Numbers, stock: Stock) -> Numbers:
    """The splits as there are questions that a task can make: some make few."""
    task = tasks.get(stock.task, **stock.params)
    sft, rl, dev = (_most(task, getattr(numbers, split), split) for split in ("sft", "rl", "dev"))
    sets = [_most(tasks.get(each.task, **each.params), numbers.evaluated, "eval") for each in stock.sets]
    return replace(numbers, sft=sft, rl=rl, dev=dev, evaluated=min(sets))


def _most(task: Task, wanted: int, split: str) -> int:
    """So many questions of a split as are wanted, or most of what the task makes, where that is fewer."""
    while wanted > 1:
        try:
            task.generate(wanted, 0, split)
        except TooFewError as error:
            return min(wanted, max(1, round(error.there * _SURE)))
        except QuestionError:  # of tasks that do not say how many there are
            wanted //= 2
        else:
            break
    return wanted


def _cut(numbers: Numbers, stock: Stock) -> Numbers:
    """The splits as they fit the rows: a fifth at most is evaluated, a twentieth is for choosing settings.

    Every set that draws on the same rows counts; what is left is for SFT and RL in the paper's proportion.
    """
    sharing = sum(each.task == stock.task and each.params == stock.params for each in stock.sets)
    evaluated = min(numbers.evaluated, max(1, stock.rows // 5)) if sharing else numbers.evaluated
    if stock.held_out:
        evaluated = min(evaluated, stock.held_out)
    if stock.rows < FEWEST:
        raise QuestionError(
            f"There are only {stock.rows} questions, which are to serve SFT, RL and evaluation; give at least {FEWEST}."
        )
    dev = min(numbers.dev, stock.rows // 20)
    left = stock.rows - dev - sharing * evaluated
    rl = min(numbers.rl, max(1, left * numbers.rl // (numbers.sft + numbers.rl)))
    return replace(numbers, sft=min(numbers.sft, left - rl), rl=rl, dev=dev, evaluated=evaluated)


def _batched(numbers: Numbers, devices: int) -> Numbers:
    """Batches that there are questions for, and that the devices can share."""
    prompts = numbers.prompts
    while prompts > numbers.rl:
        prompts //= 2
    if numbers.rl >= devices:
        prompts = max(devices, prompts // devices * devices)
    mini = numbers.mini_batch if numbers.mini_batch and prompts % numbers.mini_batch == 0 else 0
    if (mini or prompts) * numbers.group % devices:
        mini = 0
    update = (mini or prompts) * numbers.group // devices
    micro = max(n for n in range(1, numbers.micro_batch + 1) if update % n == 0) if update else 1
    batch = -(-numbers.sft_batch // devices) * devices
    return replace(numbers, prompts=prompts, mini_batch=mini, micro_batch=micro, sft_batch=batch)
