"""Coverage-guided fuzzing of everything that reads what a model wrote, for a developer to run for minutes:

    pip install atheris
    python tests/fuzz/guided.py answers --seconds 300        # or: expressions, mathematics, verifiers, rows

A text that makes something raise, or takes it more than LONGEST seconds of the processor, ends the run and is printed.
Put it into tests/fuzz/test_fuzz_grading.py (FOUND) with the mend.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-not-found,unused-ignore]

with atheris.instrument_imports(include=["skillfactory"], exclude=["skillfactory.tiny", "skillfactory.report"]):
    from hostile import MAY_RAISE, PARTS, PIECES, READERS, graders

    from skillfactory import tasks
    from skillfactory.errors import SkillFactoryError
    from skillfactory.tasks import equality, own, reasoning_gym_guards
    from skillfactory.tasks.published import SETS

LONGEST = 1.0  # seconds; instrumented code is some times slower than the 0.1 that are promised


def read(text: str) -> None:
    for function in READERS.values():
        function(text)


def parts(text: str) -> None:
    for function in PARTS.values():
        function(text[:2000])


def verifiers(text: str) -> None:
    for task, question in graders():
        for said in (text, f"<answer>{text}</answer>"):
            assert task.grade(question, said).outcome in ("correct", "wrong", "no_answer")


def mathematics(text: str) -> None:
    """As in a worker, whose deadline is not ours to wait for: texts are short."""
    for reference in ("72", r"2\sqrt{3}", "x^2+1"):
        equality.equal(reference, text[:60])


def rows(text: str) -> None:
    """Rows of questions, and answers to be read as JSON."""
    entry = {"answer": "[1, 2]", "metadata": {"solution": [[1.0]], "numbers": [1, 2], "target": 3, "variable": "x"}}
    for guard in reasoning_gym_guards.GUARDS.values():
        with contextlib.suppress(*MAY_RAISE):
            guard(text, entry)
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError):
        row = {"question": text, "answer": text[::-1], "choices": [text, "1"]}
    for rule in ("exact", "number", "choice"):
        ours(own.jsonl(path="unread", grade=rule).make, **(row if isinstance(row, dict) else {"question": row}))
    for each in SETS:
        given = dict.fromkeys(each.columns, row) | (row if isinstance(row, dict) else {})
        ours(tasks.get(each.name).make, **given)


def ours(function: Callable[..., Any], *args: Any, **named: Any) -> None:
    with contextlib.suppress(SkillFactoryError):
        function(*args, **named)


TARGETS = {"answers": read, "expressions": parts, "mathematics": mathematics, "verifiers": verifiers, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", default="", help="a folder that keeps what was found from run to run")
    given = parser.parse_args()
    target = TARGETS[given.target]

    def one(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        began = time.thread_time()
        try:
            target(text)
        except BaseException:
            print(f"\n{given.target}: {text!r}", file=sys.stderr)
            raise
        if (spent := time.thread_time() - began) > LONGEST and given.target != "mathematics":
            print(f"\n{given.target}: {spent:.2f} s for {text!r}", file=sys.stderr)
            raise TimeoutError

    target("<answer>1</answer>")  # imports are not to be counted
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "dictionary"
        lines = ("".join(f"\\x{byte:02x}" for byte in piece.encode("utf-8", "surrogatepass")) for piece in PIECES)
        words.write_text("".join(f'"{line}"\n' for line in lines))
        options = ["-max_len=4000", f"-dict={words}", "-rss_limit_mb=4096", "-timeout=60"]
        options.append(f"-max_total_time={given.seconds}")
        atheris.Setup([sys.argv[0], *options, *([given.corpus] if given.corpus else [])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
