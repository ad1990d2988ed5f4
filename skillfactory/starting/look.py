"""A look into questions of the user's own, whatever their columns are called: a file, a folder, a hub data set."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.tasks import own_rows
from skillfactory.tasks.loading import KINDS, open_rows
from skillfactory.tasks.published import DataSet, HubParams

MOST = 50_000  # rows that are read: several times what the paper trains on
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OWN = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Look:
    """Rows with their numbers, as JSON holds them. `task` is the task that reads such a file as it is; "" for none."""

    source: str
    task: str
    rows: list[tuple[int, dict[str, Any]]]
    cut: bool  # whether there are more than MOST

    @property
    def columns(self) -> list[str]:
        """All columns, in the order in which they first appear."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))

    def values(self, column: str) -> list[Any]:
        """What a column holds, where it is not null."""
        return [row[column] for _, row in self.rows if row.get(column) is not None]


def is_questions(given: str) -> bool:
    """Whether this names a file, a folder or a hub data set, and not a task."""
    if given.partition(":")[0] in tasks.names():
        return False
    return Path(given).expanduser().exists() or bool(HUB_ID.fullmatch(given)) or Path(given).suffix in KINDS


def look(given: str, split: str = "train", config: str = "") -> Look:
    """The rows of a file, a folder or a hub data set. Raises QuestionError naming it, and the row."""
    path = Path(given).expanduser()
    if not path.exists() and not HUB_ID.fullmatch(given):
        raise QuestionError(f"There is no file {given}.")
    task = _OWN.get(path.suffix, "") if path.is_file() else ""
    rows = list(islice(_rows(path, given, task, split, config), MOST + 1))
    if not rows:
        raise QuestionError(f"{given} holds no rows; give one question a row.")
    return Look(given, task, rows[:MOST], len(rows) > MOST)


def _rows(path: Path, given: str, task: str, split: str, config: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if task == "jsonl":
        yield from own_rows.jsonl(str(path))
    elif task:
        yield from (own_rows.table if task == "csv" else own_rows.parquet)(str(path), needed=())
    else:
        local = path.exists()
        where = {"path": str(path)} if local else {"hub_id": given}
        params = HubParams(split=split, config=config, **where)
        about = DataSet(given, "", HubParams, (), "", lambda row, params: "", {})
        source = given if local else f"{given} (split {split})"
        for number, row in enumerate(open_rows(about, params, source, None)[0], start=1):
            try:
                yield number, own_rows.columns(row)
            except QuestionError as error:
                raise QuestionError(f"{source}, row {number}: {error}") from error
