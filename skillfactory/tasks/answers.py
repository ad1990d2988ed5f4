"""One answer extraction for every task (see docs/reference.md for the table of decided cases)."""

import re

_OURS = re.compile(r"</?(?:sample|reflect|think)>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)  # the innermost: no tag inside
_FENCE = re.compile(r"^```[a-zA-Z]*\s*\n?(.*?)\n?```$", re.DOTALL)
LONGEST_ANSWER = 2000


def extract_answer(text: str) -> str | None:
    """The final answer of a completion, or None.

    Where the text thinks, only what follows the last `</think>` counts, and a text cut inside its thinking has none.
    There the last complete `<answer>…</answer>` is taken; code fences and `$` around it are stripped.
    """
    if "<think>" in text or "</think>" in text:
        _, closed, text = text.rpartition("</think>")
        if not closed or "<think>" in text:
            return None
    answers = _ANSWER.findall(text)
    if not answers:
        return None
    answer: str = answers[-1].strip()
    if len(answer) > LONGEST_ANSWER:
        return None
    fenced = _FENCE.match(answer)
    if fenced:
        answer = fenced.group(1).strip()
    answer = answer.strip("`").strip()
    while len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer or None


def has_trace_tags(text: str) -> bool:
    """Whether a text holds tags that only traces may hold: such an attempt or reflection is malformed."""
    return _OURS.search(text) is not None
