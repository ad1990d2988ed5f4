"""Math checks a second: in worker processes under a deadline, beside math-verify called directly in this process.

`python benchmarks/bench_math.py`; a minute on two cores. The answers are ones that need algebra: where text or
whole numbers settle it, no worker is asked. All expressions differ, so that no cache of a library answers for it.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from skillfactory.records import Question
from skillfactory.tasks import deadline
from skillfactory.tasks.grading import grade_answer

FORMS = (
    (r"\frac{{{a}}}{{{b}}}", "{a}/{b}"),
    (r"{a}\sqrt{{{b}}}", r"\sqrt{{{b}}} \cdot {a}"),
    ("{a}x + {b}", "{b} + x*{a}"),
    (r"[{b}, \infty)", r"x \ge {b}"),
    ("({a}, {b})", "({a}, {b}.5)"),
)


def pairs(n: int, start: int = 0) -> list[tuple[str, str]]:
    """`n` different references and answers, of which four in five are equal."""
    found = []
    for i in range(start, start + n):
        reference, answer = FORMS[i % len(FORMS)]
        a, b = 2 + i, 3 + 2 * i
        found.append((reference.format(a=a, b=b), answer.format(a=a, b=b)))
    return found


def direct(n: int) -> tuple[float, int]:
    """Seconds and equal answers by calling the library here, without any deadline."""
    from skillfactory.tasks.equality import equal

    for reference, answer in pairs(20, start=10**6):  # what it loads and builds at first use
        equal(reference, answer)
    start = time.perf_counter()
    right = sum(equal(reference, answer) for reference, answer in pairs(n))
    return time.perf_counter() - start, right


def in_workers(n: int, threads: int) -> tuple[float, int]:
    """The same by grade_answer, from so many threads."""

    def right(pair: tuple[str, str]) -> bool:
        question = Question("", "", "", "", pair[0], "{}")
        return grade_answer("math", question, f"<answer>{pair[1]}</answer>", seconds=60).outcome == "correct"

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(right, pairs(20 * threads, start=10**6)))
        start = time.perf_counter()
        found = sum(pool.map(right, pairs(n)))
        return time.perf_counter() - start, found


def overhead(n: int) -> float:
    """Seconds that one call into a worker takes beyond what it does there."""
    deadline.call("builtins:abs", -1, seconds=60)
    start = time.perf_counter()
    for _ in range(n):
        deadline.call("builtins:abs", -1, seconds=60)
    return (time.perf_counter() - start) / n


def main(n: Annotated[int, typer.Option(help="Answers to check in each way.")] = 1000) -> None:
    """Print checks a second for each way, and the ratio to calling math-verify directly."""
    seconds, expected = direct(n)
    figures = {"direct": n / seconds}
    for threads in sorted({1, deadline.WORKERS}):
        seconds, right = in_workers(n, threads)
        assert right == expected
        figures[f"{threads} worker{'s' if threads > 1 else ''}"] = n / seconds
    for way, speed in figures.items():
        print(f"{way:12} {speed:8,.0f} checks a second   {speed / figures['direct']:.2f} of direct")
    cost = overhead(5 * n)
    print(f"a call into a worker costs {1e6 * cost:.0f} µs")
    print(json.dumps({**{way: round(speed) for way, speed in figures.items()}, "call_us": round(1e6 * cost, 1)}))


if __name__ == "__main__":
    typer.run(main)
