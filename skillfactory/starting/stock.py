"""Where a new recipe's questions come from: a registered task, or questions of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.recipes import read_recipe, shipped
from skillfactory.starting import guess
from skillfactory.starting.guess import Columns
from skillfactory.starting.look import MOST, Look, is_questions
from skillfactory.tasks import grading
from skillfactory.tasks.grading import LETTERS
from skillfactory.tasks.hub import Published
from skillfactory.tasks.overlap import text_key
from skillfactory.tasks.own import Own

# Rows of published sets that are of use at least: some fail their own check and are left out.
_ROWS = {
    ("gsm8k", "train"): 7_000, ("gsm8k", "test"): 1_200, ("commonsense_qa", "train"): 9_000,
    ("commonsense_qa", "validation"): 1_100, ("math500", "test"): 450, ("aime2025", "test"): 28,
    ("amc2023", "test"): 36, ("gpqa", "train"): 180,
}  # fmt: skip
_FILES = {"jsonl", "csv", "parquet", "raw_data"}  # tasks that read a file of the user's
_LEVEL = 40  # of the smallest level of math500
_HARDER = 2  # levels beyond the trained one that are evaluated


@dataclass(frozen=True)
class Set:
    """An evaluation set."""

    name: str
    kind: str
    task: str
    params: dict[str, Any]
    level: str = ""


@dataclass(frozen=True)
class Stock:
    """A task to train on, and sets to evaluate on, of which the first is of the same kind.

    `rows` is how many questions there are, 0 where they are made without end; `held_out` of the first set, where that
    does not draw on the same rows. `copied` are questions in our own form that are still to be written to `path`.
    `is_remote` where they have to be fetched.
    """

    task: str
    params: dict[str, Any]
    sets: tuple[Set, ...]
    level: str = ""
    rows: int = 0
    held_out: int = 0
    notes: tuple[str, ...] = ()
    copied: list[dict[str, Any]] = field(default_factory=list)
    is_remote: bool = False


def from_task(name: str, params: Mapping[str, Any], model: str) -> Stock:
    """The stock of a registered task. Raises QuestionError for one that is none, or wants other parameters."""
    if name in _FILES - {"raw_data"}:
        raise QuestionError(f"`{name}` reads a file: give the file itself, such as --questions mine.{name}.")
    if name == "raw_data":
        raise QuestionError("`raw_data` is for samples made elsewhere; see `skillfactory import`.")
    if name == "reasoning_gym":
        raise QuestionError("`reasoning_gym` is many tasks: name one, such as reasoning_gym:chain_sum.")
    if model == "tiny" and name == "countdown" and not params:
        return _demo()
    try:
        task = tasks.get(name, **params)
    except TypeError as error:  # a parameter that the task cannot do without
        raise QuestionError(f"Task `{name}`: {error}.") from error
    except ValueError as error:
        mend = "" if isinstance(error, QuestionError) else "; mend --param."
        raise QuestionError(f"Task `{name}`: {error}{mend}" if mend else str(error)) from error
    return _published(task, dict(params)) if isinstance(task, Published) else _made(name, dict(params))


def _demo() -> Stock:
    """Questions that the embedded model was made for: those of the recipe `demo`."""
    demo = read_recipe(shipped()["demo"])
    spec = demo.questions.task
    sets = [
        Set(name, each.kind, each.task.name, each.task.params, each.task.level)
        for name, each in demo.evaluation.sets.items()
        if each.kind != "other"
    ]
    note = (
        "The embedded model knows sums of five numbers with + and -, so these are the questions of the recipe `demo`."
    )
    return Stock(spec.name, spec.params, tuple(sets), spec.level, notes=(note,))


def _made(name: str, params: dict[str, Any]) -> Stock:
    """A task that makes its questions: the usual levels that are harder are evaluated, too."""
    levels = {label: dict(each) for label, each in tasks.levels(name.partition(":")[0]).items()}
    label, params = next(iter(levels.items())) if levels and not params else ("", params)
    same = [n for n, each in enumerate(levels.values()) if each == params]
    label = list(levels)[same[0]] if same else label
    beyond = list(levels.items())[same[0] + 1 :][:_HARDER] if same else []
    sets = [Set("same", "in_domain", name, params, label)]
    sets += [Set(f"harder{n}", "harder", name, each, other) for n, (other, each) in enumerate(beyond, start=1)]
    return Stock(name, params, tuple(sets), label)


def _published(task: Published, params: dict[str, Any]) -> Stock:
    """A published set: trained on its training split where it has one, evaluated on the usual one."""
    name, own = task.name, Set("same", "in_domain", task.name, params)
    if params.get("path"):
        return Stock(name, params, (own,), rows=0 if task.lazy else len(task.questions))
    if "split" not in params and (name, "train") in _ROWS and task.params.split != "train":
        usual = task.params.split
        held = Set("same", "in_domain", name, {**params, "split": usual})
        rows, held_out = (min(_ROWS[name, split], task.params.rows or MOST) for split in ("train", usual))
        return Stock(name, {**params, "split": "train"}, (held,), rows=rows, held_out=held_out, is_remote=True)
    rows = 0 if task.lazy else _LEVEL if params.get("level") else _ROWS.get((name, task.params.split), 0)
    if task.params.rows:
        rows = min(rows or MOST, task.params.rows)
    return Stock(name, params, (own,), rows=rows, is_remote=True)


def from_look(look: Look, columns: Columns, rule: str, copy: Path) -> Stock:
    """The stock of questions of the user's own. Those that are not in our form are to be copied to a file.

    Raises QuestionError naming the row where a file in our form has one that is no good; in a copy such rows are left
    out and counted. The rule is a function of the user's or one of grading's.
    """
    for role, column in (("question", columns.question), ("answer", columns.answer), ("choices", columns.choices)):
        if column and column not in look.columns:
            raise QuestionError(
                f"{look.source} has no column `{column}` (--{role}); it has: {', '.join(look.columns)}."
            )
    if rule == "choice" and not columns.choices:
        raise QuestionError(
            f"{look.source}: multiple choice needs a column with the options of each row; --choices names it."
        )
    doubt = guess.doubts(look, columns, rule)
    if _is_ours(look, columns, rule):
        params = {"path": look.source, "grade": rule}
        stock = len(Own(look.task, **params).questions)
        own = Set("same", "in_domain", look.task, params)
        return Stock(look.task, params, (own,), rows=stock, notes=(doubt,) if doubt else ())
    rows, (row, message) = _copied(look, columns, rule)
    if not rows:
        raise QuestionError(f"{look.source}: no row is of use; the first, row {row}: {message}")
    params = {"path": str(copy), "grade": rule}
    said = [f"{len(rows):,} questions of {look.source} are copied to {copy}, with the columns `question` and `answer`."]
    said.append(doubt)
    if look.cut:
        said.append(f"Only the first {MOST:,} rows were read.")
    if left := len(look.rows) - len(rows):
        said.append(f"{left:,} rows are left out; the first, row {row}: {message}")
    own = Set("same", "in_domain", "jsonl", params)
    return Stock("jsonl", params, (own,), rows=len(rows), notes=tuple(filter(None, said)), copied=rows)


def _is_ours(look: Look, columns: Columns, rule: str) -> bool:
    """Whether a task reads the file as it is: with our columns, bare answers and plain options."""
    if not look.task or look.cut or (columns.question, columns.answer) != ("question", "answer"):
        return False
    if "." in rule:
        return True
    if rule == "choice" and (columns.choices != "choices" or _counted_from_zero(look, columns)):
        return False
    for _, row in look.rows:
        answer, choices = row.get("answer"), row.get("choices")
        if isinstance(answer, str) and guess.bare(answer) != answer and rule != "choice":
            return False
        if rule == "choice" and isinstance(choices, dict):
            return False
    return True


def _copied(look: Look, columns: Columns, rule: str) -> tuple[list[dict[str, Any]], tuple[int, str]]:
    """Rows in our form, each question once; and the first row that is left out, with the reason."""
    task, is_function = Own("jsonl", path="-", grade=rule), "." in rule
    from_zero = rule == "choice" and _counted_from_zero(look, columns)
    found: dict[str, dict[str, Any]] = {}
    first = (0, "")
    ids: set[str] = set()
    for number, row in look.rows:
        others = {key: value for key, value in row.items() if key not in (columns.question, columns.answer)}
        kept = {key: value for key, value in others.items() if is_function or key in ("level", "id")}
        kept |= {"question": row.get(columns.question), "answer": row.get(columns.answer)}
        if rule == "choice":
            kept |= _choice(row, columns, from_zero)
        elif isinstance(kept["answer"], str) and not is_function:
            kept["answer"] = guess.bare(kept["answer"])
        if kept.get("id") in ids:
            del kept["id"]  # the task wants different ones, and does without
        try:
            key = text_key(task.make(**kept).text)
            if key in found:
                raise QuestionError("the same question as in an earlier row.")
        except QuestionError as error:
            first = first if first[0] else (number, str(error))
            continue
        found[key] = kept
        ids.add(str(kept.get("id")))
    return list(found.values()), first


def _counted_from_zero(look: Look, columns: Columns) -> bool:
    """Whether answers are the numbers of options, from 0: all are numbers that there are, and 0 is among them."""
    answers = [(row.get(columns.answer), guess.options_of(row.get(columns.choices))) for _, row in look.rows]
    numbered = all(
        isinstance(answer, str) and answer.isascii() and answer.isdecimal() and int(answer) < len(options)
        for answer, options in answers
    )
    return numbered and any(answer == "0" for answer, _ in answers)


def _choice(row: Mapping[str, Any], columns: Columns, from_zero: bool) -> dict[str, Any]:
    """The options of a row as a list, and its answer as a letter where it was a label or a number."""
    cell, answer = row.get(columns.choices), row.get(columns.answer)
    options, labels = guess.options_of(cell), guess.labels_of(cell)
    at = int(str(answer)) if from_zero else labels.index(answer) if answer in labels else -1
    return {"choices": options, "answer": LETTERS[at] if 0 <= at < len(LETTERS) else answer}


def known_rule(rule: str) -> str:
    """A way to compare answers. Raises QuestionError for one that is none."""
    try:
        return grading.known_rule(rule)
    except ValueError as error:
        raise QuestionError(f"--grade: {error}.".replace("?.", "?")) from error


def known_task(given: str) -> None:
    """Raises QuestionError for what is neither a task nor questions of the user's own."""
    if not is_questions(given):
        family = given.partition(":")[0]
        if family not in tasks.names():
            near = get_close_matches(given, tasks.names(), n=1)
            hint = (
                f"did you mean `{near[0]}`?" if near else f"tasks are: {', '.join(sorted({*tasks.names()} - _FILES))}."
            )
            raise QuestionError(f"--questions {given} is neither a task nor a file, and no hub id (OWNER/NAME); {hint}")
