"""What tasks with a given stock of questions share: a file or a data set, of which there is no more than it holds.

Generated tasks decide by hash in which split a question may be used; a file of 300 rows cannot afford that. So a stock
is put in a seeded order and dealt out in consecutive blocks of exactly the sizes that a recipe asks for (`allot`).
"""

from collections.abc import Collection, Sequence

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Question
from skillfactory.tasks.base import SHARES

_HOMES = [split for split, share in SHARES.items() if split != "pretrain" for _ in range(share)]


def ordered(questions: Sequence[Question], seed: int) -> list[Question]:
    """A seeded order that depends on the questions' content, not on their order in the file."""
    order = sorted(questions, key=lambda question: question.id)
    seeds.rng(seed, "jsonl").shuffle(order)  # one name for every kind of stock, so that a file may change its format
    return order


def generate(questions: Sequence[Question], source: str, n: int, seed: int, split: str = "") -> list[Question]:
    """`n` questions in a seeded order; with a split, of those at home in it by hash. Recipes use `allot`.

    `source` is the name of the file or data set. Raises QuestionError saying how many it has.
    """
    found = [q for q in questions if not split or _HOMES[int(q.id, 16) % len(_HOMES)] == split]
    if n > len(found):
        where = f" that belong to the {split} split" if split else ""
        raise QuestionError(f"{source} holds {len(found)} questions{where}, {n} wanted; ask for fewer or add some.")
    return ordered(found, seed)[:n]


def allot(
    questions: Sequence[Question], source: str, counts: dict[str, int], seed: int, exclude: Collection[str] = ()
) -> dict[str, list[Question]]:
    """Disjoint questions for each name in `counts`, in the order given, none with an id in `exclude`.

    "dev" is served last and gets what is left where that is less: it chooses settings, no result rests on it.
    `source` is the name of the file or data set. Raises QuestionError saying how many it has.
    """
    free = ordered([q for q in questions if q.id not in exclude], seed)
    needed = sum(n for name, n in counts.items() if name != "dev")
    if needed > len(free):
        shared = len(questions) - len(free)
        asked = ", ".join(f"{name} {n}" for name, n in counts.items() if name != "dev")
        raise QuestionError(
            f"{source} has {len(free)} questions to give"
            + (f" ({shared} more are in other evaluation sets)" if shared else "")
            + f", but the recipe asks for {needed} ({asked}); ask for fewer or add questions."
        )
    allotted: dict[str, list[Question]] = {}
    start = 0
    for name in sorted(counts, key=lambda name: name == "dev"):
        allotted[name] = free[start : start + counts[name]]
        start += counts[name]
    return allotted
