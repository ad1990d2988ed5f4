"""Budget forcing (paper §4): thinking that ends is made to go on, by a trigger in the place of its end.

A response to the first budget (`evaluation.max_tokens`) goes on along two lines, to each larger budget in turn:

- forced: the end of its thinking is taken away, with all that follows, and the trigger stands there instead. Where the
  budget cut its thinking off, the unfinished attempt or reflection is dropped before the trigger.
- unforced: as much room, but left to itself. Only what was cut off goes on; what had ended stays as it is. Without this
  line one could not tell what forcing gives from what more room gives.

Where either line comes to a budget's end, or to its own, without an answer, its thinking is closed and an answer asked
for. The tokens of that answer come on top of the budget, `forcing.answer_tokens` at most.

Deviations: the paper forces once, at one budget; here each budget forces once more what has ended again.
"""

from skillfactory.recipe import Forcing
from skillfactory.tags import unfinished
from skillfactory.tasks.answers import extract_answer

THINK, END = "<think>", "</think>"
_OPEN, _CLOSE = "<answer>", "</answer>"


def reopened(text: str, forcing: Forcing) -> str:
    """The text of a response whose thinking goes on: its end replaced by the trigger."""
    if THINK not in text:
        return f"{text.rstrip()}\n{forcing.plain_trigger}"
    kept, ended, _ = text.rpartition(END)
    if not ended:
        kept = text[: unfinished(text)]
    return f"{kept.rstrip()}\n{forcing.trigger}\n"


def closed(text: str, phrase: str) -> str | None:
    """A response without an answer, up to where one is to stand; None where it has one.

    `phrase` is what leads to the answer where thinking is closed, as in the traces.
    """
    if extract_answer(text) is not None:
        return None
    rest = text.rpartition(END)[2]
    if THINK in rest:
        kept = text[: unfinished(text)].rstrip()
        return f"{kept}\n{END}\n\n{phrase}\n\n{_OPEN}\n"
    if _OPEN in rest and _CLOSE not in rest.rpartition(_OPEN)[2]:  # it was about to say it
        text = text[: text.rindex(_OPEN)]
    return f"{text.rstrip()}\n\n{_OPEN}\n"


def answered(text: str, completion: str) -> str:
    """A closed text with the answer that the model gave it, whose tag is closed, too."""
    said, _, _ = completion.partition(_CLOSE)
    return f"{text}{said.strip()}\n{_CLOSE}"
