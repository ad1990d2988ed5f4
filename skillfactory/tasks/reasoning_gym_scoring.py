"""What of reasoning-gym runs in worker processes: its generators, its scorers, and what we ask besides.

See `skillfactory.tasks.reasoning_gym` for the reasons. Imported in workers alone: it loads the library.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import reasoning_gym

from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.reasoning_gym import BLOCK, packed, unpacked
from skillfactory.tasks.reasoning_gym_guards import GUARDS
from skillfactory.tasks.reasoning_gym_safety import EVALUATES, is_safe


def drawn(member: str, params: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """The block of entries of a seed, as arguments of `make`, without those whose reference answer does not pass."""
    found = []
    with _quiet():
        dataset = _create(member, {**params, "seed": seed, "size": BLOCK})
        for index in range(BLOCK):
            try:
                entry = _checked(member, dataset, dataset[index])
            except Exception:  # the library could not make this one, read its answer, or we not keep it
                continue
            if entry:
                found.append(entry)
    return found


def _checked(member: str, dataset: Any, entry: dict[str, Any]) -> dict[str, Any] | None:
    reference = _reference(entry)
    answer = extract_answer(f"<answer>{reference}</answer>")
    if reference is None or answer is None or (member in EVALUATES and not is_safe(answer)):
        return None
    metadata = unpacked(json.loads(json.dumps(packed(entry["metadata"]))))  # as it will be when it is read again
    kept = {"question": entry["question"], "answer": reference, "metadata": metadata}
    if member == "propositional_logic" and _judged(member, dataset, kept, f"¬{answer}") == "correct":
        return None  # its premises contradict each other, so that whatever is said follows from them
    return kept if _judged(member, dataset, kept, answer) == "correct" else None


def verdict(member: str, question: str, reference: str, data: str, answer: str) -> str:
    """`correct`, `unreadable` (the scorer broke on this text, though not on the reference) or "" for wrong."""
    kept = json.loads(data)
    entry = {"question": question, "answer": reference, "metadata": unpacked(kept["metadata"])}
    with _quiet():
        dataset = _dataset(member, json.dumps(kept["params"], sort_keys=True))
        try:
            return _judged(member, dataset, entry, answer)
        except (MemoryError, OSError, ImportError):
            raise
        except Exception:
            own = extract_answer(f"<answer>{reference}</answer>") or ""
            if _judged(member, dataset, entry, own) != "correct":
                raise  # it is not the text
            return "unreadable"


def _judged(member: str, dataset: Any, entry: dict[str, Any], answer: str) -> str:
    guard = GUARDS.get(member)
    if guard is not None and not guard(answer, entry):
        return ""
    return "correct" if float(dataset.score_answer(answer, entry)) >= 1.0 else ""


def _reference(entry: dict[str, Any]) -> str | None:
    """The entry's answer; where many are right the library keeps one in the metadata, or none."""
    answer, metadata = entry["answer"], entry["metadata"]
    for key in ("example_answer", "example_correct_answer", "possible_answer"):
        if answer is None:
            answer = metadata.get(key)
    return answer if answer is None or isinstance(answer, str) else json.dumps(answer)


@lru_cache(maxsize=32)
def _dataset(member: str, params: str) -> Any:
    return _create(member, {**json.loads(params), "seed": 0, "size": BLOCK})


def _create(member: str, params: dict[str, Any]) -> Any:
    return reasoning_gym.create_dataset(member, **params)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library prints and warns."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
