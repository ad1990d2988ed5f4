"""Random draws from all pairs of a question that look at no more samples than they need: curation on demand.

Drawing from a pool is drawing at random from *all* the pairs that the full budget would give: the pool goes through the
attempts in an order that is random and knows nothing of how they came out, so the first one that fits is a uniform
draw, whether the others have been sampled or not. (The question's attempts are exchangeable, and a reflection that
agrees is as good as another, so the first is taken.) Where a sample is not there yet, `LackingError` is raised; once it
is, the same call with the same seed gives the same pairs. So traces do not depend on how much was sampled besides.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from skillfactory import seeds
from skillfactory.recipe import Traces

Kind = Literal["correct", "incorrect", "either"]
ATTEMPT = -1  # in a Want, in place of the number of a reflection
AGREED, NONE = -1, -2  # what Samples.agreed says beside a number
HINTED = "+hint"  # end of the name of a variant's twin that is shown the answer
QUARTER = 4  # see _Order.blocks


@dataclass(frozen=True, slots=True)
class Pair:
    """An attempt (`slot` is its place among the question's) and a reflection whose verdict on it is true."""

    slot: int
    variant: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Want:
    """A sample that is lacking: the attempt of a slot, or reflection number `reflection` on it."""

    slot: int
    reflection: int = ATTEMPT


class LackingError(Exception):
    """A draw needs samples that are not there yet.

    Each of `wants` will be looked at whatever the others turn out to be. So what is drawn in the end does not depend on
    where drawing was interrupted.
    """

    def __init__(self, wants: list[Want]) -> None:
        super().__init__(f"{len(wants)} samples are lacking")
        self.wants = wants


class Samples(Protocol):
    """What is known of one question's attempts and reflections, by slot."""

    @property
    def slots(self) -> int:
        """The number of attempts that the full budget would make."""
        ...

    def fits(self, slot: int, kind: Kind) -> bool | None:
        """Whether the slot's attempt is usable and came out so; None where it has not been drawn."""
        ...

    def agreed(self, slot: int) -> int:
        """AGREED where a reflection is true, NONE where all are drawn and none is; else the next one's number."""
        ...

    def variant(self, slot: int) -> str:
        """The prompt variant of a slot, known before it is drawn."""
        ...

    def answer(self, slot: int) -> str:
        """The answer of a drawn attempt."""
        ...


@dataclass
class _Order:
    """Slots in a random order that is drawn only as far as it is looked at (Fisher-Yates)."""

    slots: int
    rng: random.Random
    known: list[int] = field(default_factory=list)
    moved: dict[int, int] = field(default_factory=dict)

    def blocks(self) -> Iterator[list[int]]:
        """The slots in blocks: one by one at first, then a quarter more at a time.

        All of a block is drawn once any of it is looked at, so that a question of many failures is not asked one
        attempt after the other. Where blocks end does not depend on what comes of them.
        """
        start = 0
        while start < self.slots:
            end = min(self.slots, start + max(1, start // QUARTER))
            while len(self.known) < end:
                position = len(self.known)
                other = position + int(self.rng.random() * (self.slots - position))
                self.known.append(self.moved.get(other, other))
                self.moved[other] = self.moved.get(position, position)
            yield self.known[start:end]
            start = end


class Table:
    """One question's samples while its traces are arranged: what earlier traces took for good."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self.order = _Order(samples.slots, seeds.rng(seed, "order"))  # of the draws that last beyond a trace
        self.spent: set[int] = set()
        self.orders: dict[int, list[int]] = {}
        self.lasting = False  # whether such a draw was made


class Pool:
    """The pairs of one question, to draw one trace from. No pair is drawn twice for a trace.

    `settings` are the recipe's; `number` counts this pattern's traces of the question, from 0.
    """

    def __init__(self, table: Table, rng: random.Random, settings: Traces, number: int, reflect: bool) -> None:
        self.settings, self.number = settings, number
        self._table, self._rng, self.reflect = table, rng, reflect
        self.taken: dict[int, Pair] = {}
        # Draws of correct and of incorrect pairs share an order; draws of either kind need one of their own, since that
        # order gives away how its slots came out.
        self._by_outcome = _Order(table.samples.slots, rng)
        self._either = _Order(table.samples.slots, rng)

    def draw_length(self) -> int:
        """How many pairs a trace is to have, where its pattern leaves it open: traces.pairs, or one of 2..max_pairs."""
        return self.settings.pairs or self._rng.randint(min(2, self.settings.max_pairs), self.settings.max_pairs)

    def order_of(self, n: int) -> list[int]:
        """0..n-1 in a random order that is the same for all traces of the question."""
        orders = self._table.orders
        if n not in orders:
            orders[n] = seeds.rng(self._table.seed, "numbers").sample(range(n), n)
        return orders[n]

    def correct(self, n: int = 1, *, once: bool = False, hinted: bool = True) -> list[Pair]:
        """Up to `n` correct pairs; with `once` also never again in a later trace of the question.

        Without `hinted`, attempts that were shown the answer are not looked at.
        """
        return self._draw("correct", n, once, distinct=False, hinted=hinted)

    def incorrect(self, n: int = 1, *, once: bool = False, distinct: bool = False) -> list[Pair]:
        """Up to `n` incorrect pairs; with `distinct` no two answers in the trace are the same."""
        return self._draw("incorrect", n, once, distinct)

    def either(self, n: int = 1, *, once: bool = False) -> list[Pair]:
        """Up to `n` pairs, whatever came of them: correct ones as often as they are among the question's pairs.

        With `once` never again in a later trace; no pattern may draw by outcome besides.
        """
        return self._draw("either", n, once, distinct=False)

    def holds(self, pair: Pair) -> bool:
        """Whether the pair was drawn from this pool."""
        return self.taken.get(pair.slot) == pair

    def shuffled(self, pairs: list[Pair]) -> list[Pair]:
        """The pairs in a random order."""
        return self._rng.sample(pairs, len(pairs))

    def _draw(self, kind: Kind, n: int, once: bool, distinct: bool, hinted: bool = True) -> list[Pair]:
        samples, table = self._table.samples, self._table
        if once:
            order, table.lasting = table.order, True
        else:
            order = self._either if kind == "either" else self._by_outcome
        walk = _Walk(samples, self, kind, n, table.spent if once else set(), distinct)
        for drawn in order.blocks() if n > 0 else ():
            block = drawn if hinted else [slot for slot in drawn if not is_hinted(samples.variant(slot))]
            walk.wants += [Want(slot) for slot in block if samples.fits(slot, "either") is None]
            if any(walk.is_full_with(slot) for slot in block):
                break
        if walk.wants:
            raise LackingError(walk.wants)
        self.taken |= {pair.slot: pair for pair in walk.found}
        if once:
            table.spent |= {pair.slot for pair in walk.found}
        return walk.found


class _Walk:
    """One draw on its way through an order: what it has found, and what it lacks so far."""

    def __init__(self, samples: Samples, pool: Pool, kind: Kind, n: int, spent: set[int], distinct: bool) -> None:
        self.samples, self.kind, self.n, self.reflect = samples, kind, n, pool.reflect
        self.found: list[Pair] = []
        self.wants: list[Want] = []
        self._left_out = spent | set(pool.taken)
        taken = pool.taken.values()
        self._variants = {pair.variant for pair in taken} if pool.settings.distinct_variants else None
        self._answers = {_plain(pair.answer) for pair in taken} if distinct else None
        self._candidates = 0
        self._unread = False  # whether an attempt before is not there yet: it may turn out to give any answer

    def is_full_with(self, slot: int) -> bool:
        """Look at a slot; whether so many that fit, or may fit, have been found that the walk is over."""
        samples, variant = self.samples, self.samples.variant(slot)
        if slot in self._left_out or (self._variants is not None and variant in self._variants):
            return False
        fits = samples.fits(slot, self.kind)
        if fits is False:
            return False
        if fits is None:
            self._unread = True
        elif not self._takes(slot, variant):
            return False
        if self._variants is not None:
            self._variants.add(variant)
        self._candidates += 1
        return self._candidates == self.n

    def _takes(self, slot: int, variant: str) -> bool:
        """Whether a drawn attempt that fits is, or may become, a pair of this draw."""
        answer, agreed = self.samples.answer(slot), self.samples.agreed(slot) if self.reflect else AGREED
        if agreed == NONE or (self._answers is not None and _plain(answer) in self._answers):
            return False
        if agreed == AGREED:
            right = self.kind == "correct" or (self.kind == "either" and self.samples.fits(slot, "correct") is True)
            self.found.append(Pair(slot, variant, answer, right))
        elif self._answers is None or not self._unread:
            self.wants.append(Want(slot, agreed))
        if self._answers is not None:
            self._answers.add(_plain(answer))
        return True


def is_hinted(variant: str) -> bool:
    """Whether an attempt of this variant is shown the answer."""
    return variant.endswith(HINTED)


def _plain(answer: str) -> str:
    return "".join(answer.split())
