"""Countdown: checks a second of our grader, reasoning-gym's scorer and a plain one on `ast`; questions a second.

All three graders get the same completions, of reasoning-gym's own rule (every number is used): right ones, wrong
values, wrong numbers, garbage and none. Times are of the processor, so that a busy machine does not matter much.
"""

import ast
import operator
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from skillfactory.records import Question
from skillfactory.tasks.countdown import Countdown

QUESTIONS = 200
LONG = 400  # characters of a completion before its answer, in the second figure
GRADING = ("short checks a second", f"checks a second after {LONG} characters")
GENERATION = ("questions a second", "more bytes a question")
SECONDS = 2.0  # at least so long is measured
_PROSE = "so I try to add these and then take the product, which is near the target but not yet right; then "
_GARBAGE = ("I do not know", "3 +", "(((", "__import__('os')", "x = 1", "2 ** 3 + 1")

Item = tuple[Question, str]


def completions(before: int, seed: int = 0) -> list[Item]:
    """Six completions of different kinds for each question, in random order; `before`: characters before the answer."""
    rng = random.Random(seed)
    found = []
    for question in Countdown(count=4, use_all=True).generate(QUESTIONS, seed):
        right = question.answer
        changed = re.sub(r"\d+", lambda match: str(int(match[0]) + 1), right, count=1)
        answers = [
            right, right.replace(" ", ""), f"{right} + 1", changed,
            right.translate(str.maketrans("+-", "-+")), rng.choice(_GARBAGE),
        ]  # fmt: skip
        for answer in answers:
            start = rng.randrange(len(_PROSE))
            text = (_PROSE * (2 + before // len(_PROSE)))[start : start + before]
            found.append((question, f"{text}<answer>{answer}</answer>" if rng.random() < 0.95 else text))
    rng.shuffle(found)
    return found


def by_us() -> Callable[[Item], bool]:
    """Task.grade."""
    task = Countdown(count=4, use_all=True)
    return lambda item: task.grade(*item).outcome == "correct"


def by_reasoning_gym() -> Callable[[Item], bool]:
    """The library's own extraction and scorer, at full score."""
    import json

    import reasoning_gym
    from reasoning_gym.utils import extract_answer

    dataset = reasoning_gym.create_dataset("countdown", size=1, seed=0)
    entries: dict[str, dict[str, Any]] = {}

    def is_right(item: Item) -> bool:
        question, text = item
        if question.id not in entries:
            entries[question.id] = {"metadata": json.loads(question.data)}
        return bool(dataset.score_answer(extract_answer(text), entries[question.id]) == 1.0)

    return is_right


def by_ast() -> Callable[[Item], bool]:
    """What one would write in a few lines: a regular expression, Python's parser and a walk over its tree."""
    import json

    pattern = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
    apply = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node: Any, used: list[int]) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand, used)
        if isinstance(node, ast.BinOp):
            return apply[type(node.op)](value(node.left, used), value(node.right, used))  # type: ignore[index]
        raise ValueError(node)

    def is_right(item: Item) -> bool:
        question, text = item
        found = pattern.findall(text)
        if not found:
            return False
        data, used = json.loads(question.data), list[int]()
        try:
            result = value(ast.parse(found[-1].strip(), mode="eval").body, used)
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError):
            return False
        return sorted(used) == sorted(data["numbers"]) and result == data["target"]

    return is_right


SCORERS = {"ours": by_us, "ast": by_ast, "reasoning-gym": by_reasoning_gym}


def grading(model: str, scorer: str) -> dict[str, float]:
    """Checks a second of one scorer, of bare answers and of answers after LONG characters."""
    is_right = SCORERS[scorer]()
    figures = {}
    for name, before in zip(GRADING, (0, LONG), strict=True):
        items = completions(before)
        right, done, began = 0, 0, time.process_time()
        while time.process_time() - began < SECONDS:
            right = sum(map(is_right, items))
            done += len(items)
        figures[name] = done / (time.process_time() - began)
        figures[f"right of {len(items)}, {before} characters"] = right
    return figures


def generation(model: str, count: int, questions: int = 20_000) -> dict[str, float]:
    """Questions a second of one level at its usual settings, and the memory of drawing besides the questions kept."""
    task = Countdown(count=count)
    began = time.process_time()
    found = task.generate(questions, 0)
    speed = len(found) / (time.process_time() - began)
    del found
    tracemalloc.start()
    found = task.generate(questions, 1)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {GENERATION[0]: speed, GENERATION[1]: (peak - kept) / len(found), "bytes kept a question": kept / len(found)}
