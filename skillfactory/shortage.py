"""Memory that runs out, in the user's words: what to lower, so that the same command goes on."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from skillfactory.characters import one_line
from skillfactory.errors import ShortageError
from skillfactory.rounds import stage_of

# None of these changes a result, so that a run goes on with them.
_LOWER = {
    "traces": "lower machine.batch_size",
    "sft": "lower sft.micro_batch, or set sft.gradient_checkpointing=true",
    "rl": "lower rl.micro_batch and machine.batch_size, or set rl.gradient_checkpointing=true",
    "evaluation": "lower machine.batch_size",
}
# What torch's allocators, those of other compiled libraries and the system say.
_SAID = (
    "can't allocate memory", "out of memory", "cannot allocate memory", "bad_alloc", "bad allocation",
    "can't start new thread", "failed to map segment",
    "could not create a primitive",  # oneDNN
    "error return without exception set",  # there is no room for a MemoryError either
)  # fmt: skip


@contextmanager
def told(stage: str) -> Iterator[None]:
    """Turn memory that has run out in a stage into a ShortageError; other errors pass."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ShortageError) or not is_shortage(error):
            raise
        said = one_line(f"{type(error).__name__}: {error}".rstrip(": "))
        _let_go(error)
        lower = f", or {_LOWER[stage_of(stage)]}" if stage_of(stage) in _LOWER else ""
        raise ShortageError(
            f"{stage}: memory has run out ({said}). Close other programs{lower}, and run the command "
            "again: what is finished is kept."
        ) from None


def _let_go(error: BaseException | None) -> None:
    """Free what the functions that failed still hold, such as a model: there has to be room to say what is wrong."""
    for _ in range(10):
        if error is None:
            return
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, says that there is no memory."""
    for _ in range(10):
        if error is None:
            return False
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        said = str(error).lower() if isinstance(error, RuntimeError | ImportError | SystemError) else ""
        if any(words in said for words in _SAID) and "operation not permitted" not in said:  # of a noexec disk
            return True
        error = error.__cause__ or error.__context__
    return False
