"""Published data sets in files, as tests read them."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skillfactory import tasks
from skillfactory.records import Question
from skillfactory.tasks.hub import Published
from skillfactory.tasks.published import SETS

NAMES = [about.name for about in SETS]
EXAMPLES = {about.name: about.example for about in SETS}

Row = Mapping[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    """The rows as a file of the kind that its name says; nested cells of a csv file are JSON."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(row) for row in rows]), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def published(name: str, **params: Any) -> Published:
    task = tasks.get(name, **{key: str(value) if isinstance(value, Path) else value for key, value in params.items()})
    assert isinstance(task, Published)
    return task


def outcome(task: Published, question: Question, answer: str) -> str:
    return task.grade(question, f"<answer>{answer}</answer>").outcome


def thoughts(reply: str, question: str = "How many?", domain: str = "math") -> Row:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
    return {"difficulty": 5, "source": "test", "domain": domain, "conversations": turns}


def sums(numbers: range) -> list[Row]:
    return [{"question": f"What is {n} + {n}?", "answer": f"#### {2 * n}"} for n in numbers]
