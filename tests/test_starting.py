"""What `skillfactory init` guesses of answers, and the numbers that it takes for the questions there are."""

import pytest

from skillfactory.starting import guess
from skillfactory.starting.look import Look
from skillfactory.starting.numbers import numbers_of
from skillfactory.starting.stock import Set, Stock


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        (["1", "-2,000", "1/2"], "number"),
        (["1", "x^2", r"\frac{1}{2}"], "math"),
        (["Paris", "Rome"], "exact"),
        (["so 3\n#### 3", "so 4\n#### 4"], "number"),
        ([r"\boxed{\sqrt{2}}", "3"], "math"),
        (["a long answer in many words that says what is so and what is not"] * 3, "exact"),
    ],
)
def test_the_way_to_compare_is_guessed_by_the_answers(answers: list[str], rule: str) -> None:
    seen = Look("x", "jsonl", [(n, {"question": "?", "answer": a}) for n, a in enumerate(answers)], False)
    columns = guess.columns_of(seen)
    assert columns == guess.Columns("question", "answer")
    assert guess.rule_of(seen, columns) == rule
    assert ("letters in the middle" in guess.doubts(seen, columns, rule)) == answers[0].startswith("a long")


def test_the_splits_fit_every_number_of_rows() -> None:
    params = {"path": "x", "grade": "number"}
    for rows in [*range(10, 300), 5_000, 5_700, 6_000, 20_000]:
        stock = Stock("jsonl", params, (Set("same", "in_domain", "jsonl", params),), rows=rows)
        for size in ("quick", "paper"):
            for devices in (0, 1, 3, 8):
                n = numbers_of(size, False, devices, stock)  # type: ignore[arg-type]
                assert n.sft + n.rl + n.dev + n.evaluated <= rows
                assert min(n.sft, n.rl, n.evaluated, n.prompts, n.micro_batch) >= 1
                assert n.prompts <= n.rl or n.rl < devices
