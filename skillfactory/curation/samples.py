"""What is known of each question's attempts and reflections, read from their shards a few questions at a time.

Shards hold rows about in the order of the questions (curation goes through them in that order), so each is in memory
only while its questions pass by: what is needed does not grow with their number. Nothing here is a Python object a row:
a million rows are read in a second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skillfactory.curation.pool import AGREED, NONE, Kind
from skillfactory.curation.sampling import UNUSABLE
from skillfactory.records import Question

if TYPE_CHECKING:
    import pyarrow

    from skillfactory.stage import Stage

CHUNK = 256  # questions at a time
UNDRAWN, USELESS, WRONG, CORRECT = range(4)  # states of a slot
_KINDS: dict[Kind, tuple[int, ...]] = {"correct": (CORRECT,), "incorrect": (WRONG,), "either": (WRONG, CORRECT)}

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Slots:
    """The places of a question's attempts: variant by variant, `per_variant` each.

    With `final` there is no more to come: what has not been drawn counts as if it had given nothing.
    """

    variants: tuple[str, ...]
    per_variant: int
    per_attempt: int
    final: bool = False

    def __len__(self) -> int:
        return len(self.variants) * self.per_variant

    def place(self, slot: int) -> tuple[str, int]:
        """The variant and index of a slot."""
        return self.variants[slot // self.per_variant], slot % self.per_variant

    def slot(self, variant: str, index: int) -> int:
        """The slot of an attempt; -1 for one that the recipe does not ask for."""
        if variant not in self.variants or not 0 <= index < self.per_variant:
            return -1
        return self.variants.index(variant) * self.per_variant + index


@dataclass(slots=True)
class QuestionSamples:
    """See pool.Samples. `state`, `answers` and the bits of `drawn` and `agree` (one a reflection) are by slot."""

    places: Slots
    state: list[int]
    drawn: list[int]
    agree: list[int]
    answers: Any  # indexed by slot

    @classmethod
    def empty(cls, places: Slots) -> "QuestionSamples":
        """Nothing drawn yet."""
        n = len(places)
        return cls(places, [UNDRAWN] * n, [0] * n, [0] * n, [""] * n)

    @property
    def slots(self) -> int:
        return len(self.state)

    def fits(self, slot: int, kind: Kind) -> bool | None:
        state = self.state[slot]
        if state == UNDRAWN and not self.places.final:
            return None
        return state in _KINDS[kind]

    def agreed(self, slot: int) -> int:
        first, following = self.first_agreeing(slot), _lowest(~self.drawn[slot])
        if first is not None and (first < following or self.places.final):
            return AGREED
        return NONE if following >= self.places.per_attempt or self.places.final else following

    def first_agreeing(self, slot: int) -> int | None:
        """The number of the first true reflection on a slot's attempt."""
        agree = self.agree[slot] & ((1 << self.places.per_attempt) - 1)
        return _lowest(agree) if agree else None

    def variant(self, slot: int) -> str:
        return self.places.variants[slot // self.places.per_variant]

    def answer(self, slot: int) -> str:
        return str(self.answers[slot])


def _lowest(bits: int) -> int:
    """The place of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


class Chunk:
    """The rows of some consecutive questions, and where each sample stands among them.

    `attempts` and `reflections` are tables; `attempt_row` [Q, S] and `reflection_row` [Q, S] are rows in them, the
    latter of the first true reflection, -1 for none.
    """

    def __init__(
        self, questions: Sequence[Question], attempts: "pyarrow.Table", reflections: "pyarrow.Table", places: Slots
    ) -> None:
        self.questions, self.attempts, self.reflections, self.places = questions, attempts, reflections, places
        shape = (len(questions), len(places))
        self.state, self.attempt_row = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        self.drawn, self.agree = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.reflection_row = np.full(shape, -1, np.int64)
        self.reflected_row = np.full(reflections.num_rows, -1, np.int64)  # the attempt of each reflection
        ids = [question.id for question in questions]
        at = self._place_attempts(ids) if attempts.num_rows else np.empty(0, np.int64)
        if reflections.num_rows:
            self._place_reflections(at)

    def _place_attempts(self, ids: list[str]) -> Ints:
        """Fill in the attempts; returns the flat place [Q * S] of each row, -1 for one that is not asked for."""
        table, places = self.attempts, self.places
        variant, index = _index_in(table["variant"], list(places.variants)), _numpy(table["index"])
        at = (_index_in(table["question_id"], ids) * len(places.variants) + variant) * places.per_variant + index
        at = np.where((variant >= 0) & (index < places.per_variant), at, -1)
        usable = _equal(table["finish_reason"], "stop") & (_index_in(table["reason"], list(UNUSABLE)) < 0)
        right, wrong = _equal(table["outcome"], "correct"), _equal(table["outcome"], "wrong")
        state = np.where(usable & right, CORRECT, np.where(usable & wrong, WRONG, USELESS))
        rows = np.flatnonzero(at >= 0)
        self.state.flat[at[rows]] = state[rows]
        self.attempt_row.flat[at[rows]] = rows
        return at

    def _place_reflections(self, at: Ints) -> None:
        table = self.reflections
        self.reflected_row = row = self._rows_of(table["attempt_id"])
        place = np.where(row >= 0, at[row], -1) if len(at) else np.full(table.num_rows, -1)
        index, agrees = _numpy(table["index"]), _numpy(table["agrees"]).astype(bool)
        rows = np.flatnonzero((place >= 0) & (index < self.places.per_attempt))
        bits = np.left_shift(1, index[rows])
        np.bitwise_or.at(self.drawn.reshape(-1), place[rows], bits)
        true = rows[agrees[rows]]
        np.bitwise_or.at(self.agree.reshape(-1), place[true], np.left_shift(1, index[true]))
        last_first = true[np.argsort(-index[true], kind="stable")]
        self.reflection_row.flat[place[last_first]] = last_first  # of several the one of the lowest index stays

    def _rows_of(self, attempt_ids: Any) -> Ints:
        return _index_in(attempt_ids, self.attempts["id"]) if self.attempts.num_rows else np.full(len(attempt_ids), -1)

    def samples(self) -> Iterator[QuestionSamples]:
        """The samples of each question in turn."""
        texts = self.attempts["answer"] if self.attempts.num_rows else None
        columns = (each.tolist() for each in (self.attempt_row, self.state, self.drawn, self.agree))
        for rows, state, drawn, agree in zip(*columns, strict=True):
            yield QuestionSamples(self.places, state, drawn, agree, _Answers(rows, texts))


@dataclass(slots=True)
class _Answers:
    """Answers by slot, read from the column when asked for."""

    rows: list[int]
    column: Any

    def __getitem__(self, slot: int) -> str:
        return self.column[self.rows[slot]].as_py() if self.rows[slot] >= 0 else ""


def chunks(
    questions: Sequence[Question], attempts: "Stage", reflections: "Stage", places: Slots, size: int = CHUNK
) -> Iterator[Chunk]:
    """All samples of the questions, in their order. Raises StoreError for a damaged shard."""
    ids = [question.id for question in questions]
    ranges = [(start, min(start + size, len(ids))) for start in range(0, len(ids), size)]
    tables = zip(_in_order(attempts, ids, ranges), _in_order(reflections, ids, ranges), strict=True)
    for (start, end), (some_attempts, some_reflections) in zip(ranges, tables, strict=True):
        yield Chunk(questions[start:end], some_attempts, some_reflections, places)


def _in_order(stage: "Stage", ids: list[str], ranges: Sequence[tuple[int, int]]) -> Iterator["pyarrow.Table"]:
    """The stage's rows of each range of questions. A shard is held while its questions pass by."""
    import pyarrow

    number = {question_id: place for place, question_id in enumerate(ids)}
    spans: list[tuple[int, int, int]] = []  # shard, first and last question
    shards = stage.shards()
    for shard in range(len(shards.paths)):
        table = shards.read(shard, ["question_id"], verify=False)  # all of it is verified below
        places = _places(table["question_id"], number)
        if len(known := places[places >= 0]):
            spans.append((shard, int(known.min()), int(known.max())))
    held: dict[int, tuple[Ints, pyarrow.Table]] = {}
    for start, end in ranges:
        wanted = [shard for shard, first, last in spans if first < end and last >= start]
        held = {shard: held[shard] for shard in wanted if shard in held}
        parts = []
        for shard in wanted:
            if shard not in held:
                held[shard] = _sorted(shards.read(shard), number)
            places, table = held[shard]
            low, high = np.searchsorted(places, [start, end])
            parts.append(table.slice(low, high - low))
        yield pyarrow.concat_tables(parts).combine_chunks() if parts else pyarrow.table({})


def _places(column: "pyarrow.ChunkedArray", number: dict[str, int]) -> Ints:
    """The place of each row's question, -1 for none; a shard has few questions, so each is looked up once."""
    coded = column.combine_chunks().dictionary_encode()
    found = np.array([number.get(each, -1) for each in coded.dictionary.to_pylist()], np.int64)
    places: Ints = found[_numpy(coded.indices)] if len(found) else np.empty(0, np.int64)
    return places


def _sorted(table: "pyarrow.Table", number: dict[str, int]) -> "tuple[Ints, pyarrow.Table]":
    """The rows of a shard in the order of their questions, with the place of each; others are left out."""
    places = _places(table["question_id"], number)
    order = np.argsort(places, kind="stable")
    order = order[places[order] >= 0]
    if not np.array_equal(order, np.arange(table.num_rows)):
        table = table.take(order)
    return places[order], table


def _index_in(column: Any, values: Any) -> Ints:
    """The place of each of a column's values among `values`, -1 for those that are not there."""
    import pyarrow
    import pyarrow.compute

    values = values if hasattr(values, "type") else pyarrow.array(values, pyarrow.string())
    if isinstance(values, pyarrow.ChunkedArray):
        values = values.combine_chunks()
    return _numpy(pyarrow.compute.fill_null(pyarrow.compute.index_in(column, value_set=values), -1))


def _equal(column: Any, value: str) -> Any:
    import pyarrow.compute

    return _numpy(pyarrow.compute.equal(column, value)).astype(bool)


def _numpy(column: Any) -> Ints:
    found: Ints = column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(zero_copy_only=False)
    return found if found.dtype == bool else found.astype(np.int64, copy=False)
