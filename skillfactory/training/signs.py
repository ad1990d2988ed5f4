"""Signs that a training goes wrong, in plain words, read from the lines of its metrics.jsonl.

Pure functions: lines in, signs out; nothing here loads torch. Thresholds are such that none of the project's own runs
that went well is warned of (tests/test_signs.py has their course); each says why it is where it is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, Literal

from skillfactory.recipe import Rl

Line = dict[str, Any]  # of metrics.jsonl; a figure that is no number is None
End = Literal["solved", "no_signal", "never_right"]

IN_A_ROW = 3  # steps that a figure has to last: one step of few prompts can have it by chance
COLLAPSED = 0.2  # of the entropy at the start: our healthy runs keep a third of it over 100 steps
LONGER = 2.0  # times the length at the start: without a gain in reward that is rambling, with one it may be thinking
RISEN = 1.1  # times the reward at the start that counts as a gain
SILENT = 0.9  # of groups: with so few left that have signal, a step is hardly more than its noise
TRUNCATED = 0.4  # of rollouts: from about here on, what is learnt is above all to be shorter; healthy runs had 0.3
BROKEN = 0.05  # of checks: rollouts that are left out tell on a step's result from about here on
EXPLODED = 20.0  # times the usual norm of the gradient: healthy runs stay within 8 times their median
USUAL_AFTER = 5  # steps from which on it is known what is usual
QUARTERS = 4  # of SFT, whose first and last are compared: warm-up is over in the first, the rate low in the last
FEWEST = 8  # losses a quarter, for a mean that says something


@dataclass(frozen=True, slots=True)
class Sign:
    """Something that looks wrong: a name, and a sentence with the figure and the setting to change."""

    name: str
    text: str


def of_rl(lines: Sequence[Line], rl: Rl) -> list[Sign]:
    """The signs in RL's lines so far. Each is about the last steps: call it after every step."""
    found = (each(lines, rl) for each in _RL) if lines else ()
    return [sign for sign in found if sign]


def of_sft(lines: Sequence[Line], ended: bool = False, learned_tokens: int | None = None) -> list[Sign]:
    """The signs in SFT's lines so far. Whether its loss falls is only known once it has `ended`."""
    found = [_nothing_to_learn(lines, learned_tokens), _not_finite(lines, "sft"), _exploded(lines, "sft")]
    if ended:
        found.append(_does_not_fall(lines))
    return [sign for sign in found if sign]


def end_of(lines: Sequence[Line], rl: Rl) -> End | None:
    """Why RL should end now: no group had signal in the last `rl.patience` steps. None where it should go on.

    "solved": every rollout was right in all of them. "never_right": none was since the first step. "no_signal": what
    was learnt has come to a point where all groups are of one mind, some right and some wrong, or all wrong again.
    """
    last = lines[-rl.patience :]
    if len(last) < rl.patience or not all(map(_is_dead, last)):
        return None
    if all(_right(line) >= 1 for line in last):
        return "solved"
    return "no_signal" if any(_right(line) for line in lines) else "never_right"


def end_in_words(end: End, steps: int, rl: Rl) -> str:
    """What the end of RL after so many steps is told as."""
    since = f"in the last {rl.patience} steps (rl.patience)"
    if end == "solved":
        return f"ended at step {steps}: solved, every rollout was right {since}"
    if end == "no_signal":
        return (
            f"ended at step {steps}: no group had signal {since}, so nothing more is learnt; look at the rollouts' "
            "length and entropy, lower rl.learning_rate, or train on other questions"
        )
    rollouts = rl.prompts_per_step * rl.group_size
    return (
        f"no rollout was right in {steps} steps of {rollouts}, so there is nothing to learn from; train on easier "
        "questions, raise rl.max_tokens, or start from a better model"
    )


# --- RL


def _nothing_right(lines: Sequence[Line], rl: Rl) -> Sign | None:
    if len(lines) < IN_A_ROW or any(_right(line) for line in lines):
        return None
    return Sign(
        "nothing_right",
        f"no rollout was right in the first {len(lines)} steps of {rl.prompts_per_step * rl.group_size}; train on "
        "easier questions, raise rl.max_tokens or rl.group_size, or start from a better model",
    )


def _no_signal(lines: Sequence[Line], rl: Rl) -> Sign | None:
    last = lines[-IN_A_ROW:]
    silent = list(_numbers(last, "no_signal"))
    if len(silent) < IN_A_ROW or min(silent) < SILENT or not any(_right(line) for line in lines):
        return None  # where nothing was ever right, that is said above
    right = fmean(map(_right, last))
    if right >= SILENT:
        how, mend = "nearly all rollouts are right", "train on harder questions, or end here (rl.patience)"
    elif right <= 1 - SILENT:
        how, mend = (
            "nearly all rollouts are wrong",
            "lower rl.learning_rate, raise rl.group_size, or ask easier questions",
        )
    else:
        how = f"a question's rollouts are all right or all wrong ({right:.0%} right in all)"
        mend = "raise rl.group_size or rl.temperature, or train on other questions"
    return Sign(
        "no_signal",
        f"{fmean(silent):.0%} of the groups of the last {IN_A_ROW} steps had no signal: {how}; {mend}",
    )


def _entropy(lines: Sequence[Line], rl: Rl) -> Sign | None:
    ends = _ends(lines, "entropy")
    if ends is None or ends[1] >= COLLAPSED * ends[0]:
        return None
    return Sign(
        "entropy",
        f"entropy has fallen from {ends[0]:.3g} to {ends[1]:.3g} nats a token: rollouts of a question become alike; "
        "lower rl.learning_rate, raise rl.epsilon_high (DAPO: 0.28), or end earlier (rl.keep: best)",
    )


def _length(lines: Sequence[Line], rl: Rl) -> Sign | None:
    ends, rewards = _ends(lines, "length"), _ends(lines, "reward")
    if ends is None or ends[1] < LONGER * ends[0] or (rewards and rewards[1] >= RISEN * max(rewards[0], 1e-9)):
        return None
    return Sign(
        "length",
        f"rollouts have grown from {ends[0]:.0f} to {ends[1]:.0f} tokens, and are not more often right; look at some "
        "of them, lower rl.max_tokens, or try rl.shaping.overlong",
    )


def _truncated(lines: Sequence[Line], rl: Rl) -> Sign | None:
    last = list(_numbers(lines[-IN_A_ROW:], "truncated"))
    if len(last) < IN_A_ROW or min(last) < TRUNCATED:
        return None
    return Sign(
        "truncated",
        f"{fmean(last):.0%} of the rollouts of the last {IN_A_ROW} steps are cut off at rl.max_tokens "
        f"({rl.max_tokens}) and get no reward; raise it, or see whether the model has learnt to end (sft.epochs)",
    )


def _broken(lines: Sequence[Line], rl: Rl) -> Sign | None:
    if "reward" in lines[-1] and lines[-1]["reward"] is None:
        return Sign(
            "checks_broken",
            f"no check came back in step {lines[-1]['step']}, so its rollouts are left out; see what the task's "
            "grading needs (`skillfactory tasks NAME`), and its time limit",
        )
    last = [line.get("broken") or 0.0 for line in lines[-IN_A_ROW:]]
    if len(last) < IN_A_ROW or min(last) < BROKEN:
        return None
    return Sign(
        "checks_broken",
        f"checks broke on {fmean(last):.0%} of the rollouts of the last {IN_A_ROW} steps, which are left out; see what "
        "the task's grading needs (`skillfactory tasks NAME`), and its time limit",
    )


_RL: tuple[Callable[[Sequence[Line], Rl], Sign | None], ...] = (
    _nothing_right, _no_signal, _entropy, _length, _truncated, _broken,
    lambda lines, rl: _not_finite(lines, "rl"),
    lambda lines, rl: _exploded(lines, "rl"),
)  # fmt: skip


# --- both


def _not_finite(lines: Sequence[Line], section: str) -> Sign | None:
    """A figure that is no number is written as None (JSON has none for it)."""
    lost = [name for name in ("loss", "grad_norm") if lines and name in lines[-1] and not _is_number(lines[-1][name])]
    if not lost:
        return None
    return Sign(
        "not_finite",
        f"{' and '.join(lost)} of step {lines[-1]['step']} {'is' if len(lost) == 1 else 'are'} no number: training has "
        f"diverged, or its precision does not suffice; lower {section}.learning_rate",
    )


def _exploded(lines: Sequence[Line], section: str) -> Sign | None:
    """Against the median of what came before: one large step is clipped and does no harm, several in a row do."""
    norms = list(_numbers(lines, "grad_norm"))
    last, before = norms[-IN_A_ROW:], [norm for norm in norms[:-IN_A_ROW] if norm > 0]
    if len(before) < USUAL_AFTER or min(last) < EXPLODED * median(before):
        return None
    times = fmean(last) / median(before)
    return Sign(
        "grad_norm",
        f"the norm of the gradient was {fmean(last):.3g} in the last {IN_A_ROW} steps, {times:.0f} times what is usual "
        f"here; lower {section}.learning_rate or {section}.max_grad_norm",
    )


# --- SFT


def _nothing_to_learn(lines: Sequence[Line], learned_tokens: int | None) -> Sign | None:
    zero = [line for line in lines[:IN_A_ROW] if line.get("loss") == 0]
    if learned_tokens != 0 and len(zero) < IN_A_ROW:
        return None
    why = "the traces have no tokens to learn from" if learned_tokens == 0 else "the loss is exactly 0 from the start"
    return Sign(
        "nothing_to_learn",
        f"{why}, so nothing is learnt; see some of them with `skillfactory show RUN`, and whether the model's chat "
        "template keeps the completion",
    )


def _does_not_fall(lines: Sequence[Line]) -> Sign | None:
    """The last quarter's losses against the first's: less of a fall than one standard error is none."""
    losses = list(_numbers(lines, "loss"))
    size = len(losses) // QUARTERS
    if size < FEWEST:
        return None
    first, last = losses[:size], losses[-size:]
    error = math.hypot(stdev(first), stdev(last)) / math.sqrt(size)
    if fmean(first) - fmean(last) > error:
        return None
    return Sign(
        "loss_does_not_fall",
        f"the loss of SFT was {fmean(first):.4g} in its first quarter and {fmean(last):.4g} in its last; raise "
        "sft.learning_rate or sft.epochs",
    )


# --- lines


def _right(line: Line) -> float:
    """The share of right rollouts; 0 where no check came back."""
    return float(line.get("reward") or 0.0)


def _is_dead(line: Line) -> bool:
    """Whether no group of the step had signal; so has none a step of which no check came back."""
    share = line.get("no_signal")
    return (share is not None and share >= 1) or line.get("reward") is None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _numbers(lines: Sequence[Line], name: str) -> Iterator[float]:
    return (float(line[name]) for line in lines if _is_number(line.get(name)))


def _ends(lines: Sequence[Line], name: str) -> tuple[float, float] | None:
    """Means of a figure over the first and the last steps; None before there are enough of both."""
    values = list(_numbers(lines, name))
    if len(values) < 2 * IN_A_ROW:
        return None
    return fmean(values[:IN_A_ROW]), fmean(values[-IN_A_ROW:])
