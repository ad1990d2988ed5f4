"""The rows that pass between stages. Each is one row of a Parquet file; its identity is a hash of its content."""

from dataclasses import dataclass
from typing import Literal, TypedDict

Outcome = Literal["correct", "wrong", "no_answer"]
Split = Literal["sft", "rl", "dev", "eval"]
FinishReason = Literal["stop", "length", "failed"]
# Reasons that are no fault of the model: what has one is left out of accuracy and reward, and counted.
BROKEN = frozenset(("engine_failed", "prompt_too_long", "check_failed", "check_timed_out"))


class Message(TypedDict):
    """One turn of a chat, as chat templates take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer can be checked.

    `id` is a hash of its content, `level` a label for tables, `answer` the reference. `data` is JSON: what the task's
    verifier needs besides the answer. `split` is what it is drawn for, "" where it is made by hand.
    """

    id: str
    task: str
    level: str
    text: str
    answer: str
    data: str
    split: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """What a verifier says of a completion. `answer` is what it was read to answer, "" for nothing.

    `reason` is a short code for anything but a plain right or wrong answer, such as "number_not_available"; those in
    BROKEN are no fault of the model.
    """

    outcome: Outcome
    answer: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sampled solution. `variant` is the prompt, `index` counts its samples, `tokens` are those generated.

    `outcome` and `reason` are those of its Grade. `reason` is "malformed" where the text holds tags of ours: counted,
    never used. So is "leaked", where an attempt that was shown the answer (a variant `…+hint`) speaks of the hint.
    """

    id: str
    question_id: str
    variant: str
    index: int
    text: str
    answer: str
    outcome: Outcome
    reason: str
    finish_reason: FinishReason
    tokens: int


@dataclass(frozen=True, slots=True)
class Reflection:
    """One sampled critique of an attempt. `verdict` is "correct", "incorrect" or "" (none found, or malformed).

    `agrees`: the verdict is what the verifier says of the attempt. `index` counts the attempt's reflections.
    """

    id: str
    question_id: str
    attempt_id: str
    index: int
    text: str
    verdict: str
    agrees: bool
    finish_reason: FinishReason
    tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of a trace: an attempt, the reflection on it and the phrase that follows ("" for none)."""

    attempt_id: str
    reflection_id: str
    phrase: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A silver trace: what SFT learns from. `pattern` names what arranged its `steps`.

    `tokens` counts the prompt, as the chat template writes it, too.
    """

    id: str
    question_id: str
    pattern: str
    steps: list[Step]
    prompt: list[Message]
    completion: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Response:
    """One graded sample of a model under evaluation.

    `model` is "base", "sft", "rl", "rl@STEP" or a name of `evaluation.models`; `set` is one of `evaluation.sets`, and
    `sample` counts the samples of a question.

    `mode` is "sampled", "greedy", "forced-N" (budget forcing to N tokens in all) or "unforced-N" (as much room, but
    left to itself). `forced` counts the times that the end of thinking was taken away. `cut`: where an answer was asked
    for because there was none, the number of characters before that; else 0.
    """

    question_id: str
    model: str
    set: str
    mode: str
    sample: int
    text: str
    answer: str
    outcome: Outcome
    reason: str
    finish_reason: FinishReason
    tokens: int
    forced: int = 0
    cut: int = 0
