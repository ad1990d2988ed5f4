"""The authors' raw data sets (`SkillFactory/RAW_DATA-…`): attempts with their grades and reflections, from anywhere.

A row of theirs holds lists of responses, of whether each is right and of the answer found in each, and the reflections:
a list of texts where there is one response, a list of lists where there are several. Their README and their code name
the columns differently, so both names are taken. All else is strict: what is not as expected is said, never guessed.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skillfactory.errors import QuestionError
from skillfactory.formats.source import Row, batches, data_files, is_hub_id, kind_of

_PREFIX = r"model_responses_+(?:mutated_prompts|example_annotation)"
_COLUMNS = {  # what a column may be called, and how it is called in messages
    "question": ("question", "question"),
    "answer": ("answer", "answer"),
    "variant": ("prompt_variant|prompt_type", "prompt_variant"),
    "texts": (_PREFIX, "model_responses__mutated_prompts"),
    "correct": (_PREFIX + "_+eval_is_correct", "model_responses__mutated_prompts__eval_is_correct"),
    "extracted": (_PREFIX + "_+eval_extracted_answers", "model_responses__mutated_prompts__eval_extracted_answers"),
    "reflections": (_PREFIX + "_+reflection", "model_responses__mutated_prompts_reflection"),
}


@dataclass(frozen=True, slots=True)
class RawRow:
    """One response of a raw data set. `row` counts the rows of all files, from 1; several responses may share it.

    Of a chat (`dialogues`): `chat` is true, `correct` None and `answer` "" where the file does not say, `further`
    counts replies that are left out, and `where` names file and row.
    """

    question: str
    answer: str
    variant: str
    text: str
    correct: bool | None
    extracted: str
    reflections: list[str]
    row: int
    chat: bool = False
    further: int = 0
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Form:
    """How a file is read: which of its columns, and the responses of a row, given its number in all files.

    What reads a row raises RowError.
    """

    columns: list[str]
    read: Callable[[Row, int], Iterator[RawRow]]


def read_raw(source: str, revision: str = "") -> Iterator[RawRow]:
    """The responses of the authors' raw data, see read_rows. A null among extracted answers is ""."""
    return read_rows(source, revision, raw_form)


def read_rows(source: str, revision: str, find: Callable[[str, list[str]], Form]) -> Iterator[RawRow]:
    """The responses in a Parquet file, a file of JSON lines, a folder of either, or a data set on the hub, in order.

    The revision is of the hub. `find` gives the form of a file by its name and its columns. Raises QuestionError naming
    file, row and column.
    """
    number, known = 0, ""
    for place, first, rows in batches(source, revision, lambda file, names: find(file, names).columns):
        if place != known:
            known, form = place, find(place, list(rows[0]))
        for offset, row in enumerate(rows):
            number += 1
            try:
                for response in form.read(row, number):
                    yield replace(response, where=f"{place}, row {first + offset}")
            except RowError as wrong:
                raise QuestionError(f"{place}, row {first + offset}: {wrong}.") from None
    if not number:
        raise QuestionError(f"{source} holds no rows.")


def split_revision(given: str) -> tuple[str, str]:
    """A source as a recipe names it, and the revision after its `@`, which only a hub id has."""
    source, at, revision = given.rpartition("@")
    return (source, revision) if at and is_hub_id(source) else (given, "")


def raw_digest(source: str) -> str:
    """What the local file or folder holds, as 32 hex digits, whatever its place; "" for a data set on the hub."""
    path = Path(source).expanduser()
    if not path.exists() and is_hub_id(source):
        return ""
    hashed = hashlib.blake2b(digest_size=16)
    for file in data_files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.suffix
        with file.open("rb") as opened:
            hashed.update(f"{name}\0{hashlib.file_digest(opened, 'blake2b').hexdigest()}\n".encode())
    return hashed.hexdigest()


class RowError(Exception):
    """What is wrong with a row; whoever knows where it stands adds that."""


def is_raw(given: list[str]) -> bool:
    """Whether columns look like the authors' raw data: there are responses."""
    return any(re.fullmatch(_PREFIX + ".*", name) for name in given)


def raw_form(place: str, given: list[str]) -> Form:
    """The form of the authors' raw data. Raises QuestionError where a column is missing or there twice."""
    names = _names(place, given)
    return Form(list(names.values()), lambda row, number: _responses(row, names, number))


def _names(place: str, given: list[str]) -> dict[str, str]:
    """What each of our columns is called there."""
    names = {}
    for ours, (pattern, usual) in _COLUMNS.items():
        found = list(dict.fromkeys(name for name in given if re.fullmatch(pattern, name)))
        if len(found) > 1:
            raise QuestionError(f"{place} has both `{found[0]}` and `{found[1]}`; leave out one of them.")
        if not found:
            raise QuestionError(f"{place} has no column `{usual}` (it has: {', '.join(given) or 'none'}).")
        names[ours] = found[0]
    return names


def _responses(row: dict[str, Any], names: dict[str, str], number: int) -> Iterator[RawRow]:
    """Raises RowError naming the column and what is expected there."""
    if missing := next((name for name in names.values() if name not in row), None):
        raise RowError(f"no column `{missing}`, which the rows before have")
    question = _text(row[names["question"]], names["question"])
    variant = _text(row[names["variant"]], names["variant"])
    answer = _answer(row[names["answer"]], names["answer"])
    texts = row[names["texts"]]
    if isinstance(texts, str):  # as the authors' README describes it
        texts = [texts]
    texts = _list(texts, str, names["texts"], "texts")
    if not texts:
        raise RowError(f"no response in `{names['texts']}`; leave the row out")
    correct = _list(row[names["correct"]], bool, names["correct"], "true or false")
    extracted = _list(row[names["extracted"]], str, names["extracted"], "texts", null="")
    reflections = _reflections(row[names["reflections"]], len(texts), names)
    for name, values in ((names["correct"], correct), (names["extracted"], extracted)):
        if len(values) != len(texts):
            raise RowError(f"{len(values)} in `{name}` but {len(texts)} in `{names['texts']}`; give one a response")
    for text, right, found, judged in zip(texts, correct, extracted, reflections, strict=True):
        yield RawRow(question, answer, variant, text, right, found, judged, number)


def _reflections(given: Any, responses: int, names: dict[str, str]) -> list[list[str]]:
    """The reflections on each response."""
    name = names["reflections"]
    flat = isinstance(given, list) and (not given or isinstance(given[0], str))
    if responses == 1 and flat:
        return [_list(given, str, name, "texts")]
    lists: list[list[str]] = [_list(each, str, name, "texts") for each in _list(given, list, name, "lists of texts")]
    if len(lists) != responses:
        raise RowError(f"{len(lists)} in `{name}` but {responses} in `{names['texts']}`; give one list a response")
    return lists


def _list(values: Any, kind: type, name: str, expected: str, null: Any = None) -> list[Any]:
    if not isinstance(values, list):
        raise RowError(f"`{name}` is {kind_of(values)}; it must be a list of {expected}")
    for place, value in enumerate(values, start=1):
        if type(value) is not kind:
            if value is None and null is not None:
                return _list([null if each is None else each for each in values], kind, name, expected)
            raise RowError(f"number {place} in `{name}` is {kind_of(value)}; it must be a list of {expected}")
    return values


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"`{name}` is {kind_of(value)}; it must be text")
    return value


def _answer(value: Any, name: str) -> str:
    """Numbers are taken as they are written, a whole one without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) in (int, float) and value == value else _text(value, name)
