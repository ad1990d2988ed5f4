"""Hostile texts: what the tests and the coverage-guided fuzzer feed to graders, and who reads it."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.curation import reflections
from skillfactory.records import Question
from skillfactory.tags import bare, blocks, missing_tags, plain_answers, unfinished, verdict_of
from skillfactory.tasks import grading
from skillfactory.tasks.answers import extract_answer, has_trace_tags
from skillfactory.tasks.arithmetic import sides, value_of
from skillfactory.tasks.base import Task
from skillfactory.tasks.grading import grade_answer
from skillfactory.tasks.mathematics import refused, same_at_sight, without_lead
from skillfactory.tasks.reasoning_gym_safety import is_safe
from skillfactory.tasks.texts import number, plain, unwrapped
from skillfactory.training.reward import well_formed
from skillfactory.training.skills import skill_use

TAGS = [f"<{mark}{tag}>" for tag in ("think", "sample", "reflect", "verdict", "answer") for mark in ("", "/")]
PIECES = [
    *TAGS, "<answer", "answer>", "</", "<ANSWER>", "<answer >", "&lt;answer&gt;", "<script>alert(1)</script>", "<b>",
    "<!--", "-->", "<img src=x onerror=alert(1)>", "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066",
    "\u200b", "\u2060", "\ufeff", "\u00ad", "\0", "\ud800", "\udfff", "\uffff", "\U0010ffff", "e\u0301", "\u0301" * 9,
    "(", ")", "[", "]", "{", "}", "}{", "\\", "$", "$$", "`", "```", "**", "*", "=", "==", "^", "_", "%", "#", "&",
    "~", "|", ";", ":", ",", ".", "..", "'", '"', "!", "?", "+", "-", "/", "//", "x", "X", "i", "e", "0x", "1e9",
    "1e999999", "9" * 30, "9" * 400, "0." + "3" * 50, "10^10^10", "10^{10^{10}}", "9**9**9", "99999!", "1,000", "1/0",
    "0/0", "nan", "inf", "-inf", "None", "True", "\\frac{", "\\frac12", "\\sqrt{", "\\boxed{", "\\fbox{", "\\text{",
    "\\text{ or ", "\\left(", "\\right)", "\\times", "\\cdot", "\\pm", "\\infty", "\\begin{pmatrix}",
    "\\end{pmatrix}", "\\\\", "\\sum_{", "\\approx", "Correct", "incorrect", "The answer is ", " or ", " and ",
    "not ", "A", "B.", "(B)", "option ", "red", "1", "2", "3", "12", "24", "408", "table",
    "trees apple baker lemon eagle", "٣", "３", "³", "③", "½", "Ⅷ", "×", "÷", "−", "＝", "（", "İ", "ı", "ſ", "K", "ﬁ",
    "\n", "\r", "\t", " ", "\u00a0", "\u2028", "\x85", "C:\\", "{0}", "%s",
]  # fmt: skip
text = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=40).map("".join)
pumped = st.tuples(text, st.sampled_from(PIECES), st.integers(2, 800), text).map(lambda t: t[0] + t[1] * t[2] + t[3])
hostile = text | pumped
answers = hostile.map(lambda inside: f"<answer>{inside}</answer>")
completions = hostile | answers | st.tuples(hostile, answers, hostile).map("".join)


def _question(answer: str, data: str = "{}") -> Question:
    return Question("0" * 16, "jsonl", "", r"What is $\frac{1}{2} + \sqrt{2}$?", answer, data)


CHOICES = '{"choices": ["blue", "red", "İ"]}'
MADE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("countdown", {"count": 4}, {"numbers": [3, 5, 7, 25], "target": 24}),
    ("countdown", {"operators": "+-", "in_order": True}, {"numbers": [12, 4, 2], "target": 10}),
    ("multiplication", {}, {"a": 12, "b": 34}),
    ("letter_countdown", {"length": 5}, {"letters": "tbale", "length": 5}),
    ("acronym", {"length": 5}, {"words": ["trees", "apple", "baker", "lemon", "eagle", "onion"], "length": 5}),
    ("mixture", {}, {"member": 1, "a": 12, "b": 34}),
    ("raw_data", {"path": "unread"}, {"question": "?", "answer": "24", "right": ["3 * 8"]}),
    ("gsm8k", {}, {"question": "How many?", "answer": "#### 72"}),
    ("jsonl", {"path": "unread", "grade": "exact"}, {"question": "Who?", "answer": "New York"}),
    ("jsonl", {"path": "unread", "grade": "number"}, {"question": "How many?", "answer": "72"}),
    ("jsonl", {"path": "unread", "grade": "choice"}, {"question": "?", "answer": "B", "choices": ["blue", "red", "a"]}),
]
GRADED: list[tuple[Task, Question]] = []


def graders() -> list[tuple[Task, Question]]:
    """A question of every task that is graded in this process, with its task."""
    if not GRADED:
        for name, params, data in MADE:
            task = tasks.get(name, **params)
            GRADED.append((task, task.make(**data)))
    return GRADED


REFERENCES = ("72", "1/2", r"2\sqrt{3}", r"\text{Tuesday}", "1, 2", "[0,2)", "x^2 + 1", r"5\text{ cm}", "2516_8")
# Everything that reads a completion, and everything that reads an answer out of one.
READERS: dict[str, Callable[[str], Any]] = {
    "extract_answer": extract_answer,
    "has_trace_tags": has_trace_tags,
    "blocks": blocks,
    "missing_tags": lambda text: (missing_tags(text, True), missing_tags(text, False)),
    "plain_answers": plain_answers,
    "unfinished": unfinished,
    "bare": bare,
    "verdict_of": verdict_of,
    "reflections.verdict_of": reflections.verdict_of,
    "well_formed": lambda text: (well_formed(text), well_formed(text, reflect=False)),
    "skill_use": lambda text: skill_use([text]),
}
PARTS: dict[str, Callable[[str], Any]] = {
    "sides": sides,
    "value_of": value_of,
    "number": number,
    "plain": plain,
    "unwrapped": unwrapped,
    "is_safe": is_safe,
    "mathematics": lambda answer: [
        (same_at_sight(each, said), refused("What is $1/2$?", each, said))
        for each in REFERENCES
        for said in (answer, without_lead(answer))
    ],
    "mathematics, as references": lambda answer: (same_at_sight(answer, "72"), refused(answer, answer, "1/2 + 1")),
    "choices": lambda answer: grading.compare("choice", _question("B", CHOICES), answer),
    "references": lambda answer: [grade_answer(rule, _question(answer, CHOICES), "<answer>1</answer>") for rule in
                                  ("exact", "number", "choice")],
}  # fmt: skip
# What a guard of reasoning_gym may raise at an answer, which is wrong then.
MAY_RAISE = (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, OverflowError, RecursionError)
