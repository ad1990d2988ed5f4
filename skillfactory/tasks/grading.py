"""How a given answer is compared with the reference answer, for questions that come with one.

The table of docs/howto/questions.md says what each rule takes for equal. `math` and functions of the user's run in
worker processes under a deadline; where such a check breaks, the grade says so and is neither right nor wrong.
"""

import json
import re
import string
from collections.abc import Sequence
from difflib import get_close_matches

from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.mathematics import refused, same_at_sight, without_lead
from skillfactory.tasks.texts import is_division, number, plain, unwrapped

RULES = ("exact", "number", "math", "choice")
SECONDS = 5.0  # deadline of one check
LETTERS = string.ascii_uppercase
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s+)?(\(?)([A-Za-z])(\)?[.:,]?|\s*[-–—])(?:\s+(.*))?",
    re.I | re.S | re.ASCII,  # otherwise `İ` is a letter between A and Z
)
_LONGEST_MESSAGE = 200
_EQUAL = "skillfactory.tasks.equality:equal"


def is_slow(rule: str) -> bool:
    """Whether checks by this rule wait for another process, so that several should wait at once."""
    return rule not in ("exact", "number", "choice")


def known_rule(rule: str) -> str:
    """The rule itself, where it is one of RULES or looks like a dotted path. Raises ValueError naming the nearest."""
    if rule in RULES or _PATH.fullmatch(rule):
        return rule
    near = get_close_matches(rule, RULES, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(RULES)}, or a path such as `mine.is_right`"
    raise ValueError(f"no way to grade is called `{rule}`; {hint}")


def one_line(error: str | BaseException) -> str:
    """What went wrong, in one line of bounded length."""
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    text = " ".join(error.split()).rstrip(":. ")
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


def check_function(rule: str) -> None:
    """Raises QuestionError where there is no function of two arguments at this dotted path."""
    try:
        problem = deadline.call("skillfactory.tasks.grading:what_is_wrong_with", rule, seconds=deadline.LOADING)
    except deadline.DiedError:
        problem = "the process that imports it died"
    except deadline.DeadlineError:
        problem = f"importing it takes more than {deadline.LOADING:g} s"
    except Exception as error:
        problem = one_line(error)
    if problem:
        raise QuestionError(
            f"The grading function `{rule}` cannot be used: {one_line(problem)}; it must be a function "
            "(question, answer_text) -> bool, in a module that can be imported from here."
        )


def grade_answer(rule: str, question: Question, text: str, seconds: float = SECONDS) -> Grade:
    """The grade of a completion by one of RULES, or by the function that a dotted path names.

    The function gets the question's record and the answer without its tags. A check that takes more than `seconds`
    (importing it does not count), or kills its process, gives "check_timed_out"; one that raises, or a function that
    returns no bool, "check_failed". What `math` cannot read in time, while it reads the reference, is wrong
    ("unreadable"): left out, it would pay to write such answers in place of wrong ones.
    """
    answer = extract_answer(text)
    if answer is None:
        return Grade("no_answer", reason="no_answer")
    try:
        return compare(rule, question, answer, seconds)
    except deadline.DeadlineError:
        if rule == "math" and _reads_reference(question, seconds):
            return _wrong(answer, "unreadable")
        return Grade("no_answer", answer, "check_timed_out")
    except Exception:  # whatever it is, it is the check's failure and not the model's
        return Grade("no_answer", answer, "check_failed")


def _reads_reference(question: Question, seconds: float) -> bool:
    """Whether math-verify has no trouble with the reference: then it is the answer that it cannot do."""
    reference = extract_answer(f"<answer>{question.answer}</answer>") or ""
    try:
        return deadline.call(_EQUAL, reference, reference, seconds=seconds) is True
    except Exception:
        return False


def compare(rule: str, question: Question, answer: str, seconds: float = SECONDS) -> Grade:
    """As grade_answer, of an answer that has been extracted; raises what the check raises."""
    reference = extract_answer(f"<answer>{question.answer}</answer>") or ""  # so that both lose the same fences and $
    if rule == "exact":
        return _grade(plain(answer) == plain(reference) and reference != "", answer)
    if rule == "number":
        given = number(answer)
        if given is None:
            return _wrong(answer, "not_a_number")
        if is_division(answer) and plain(answer) != plain(reference):
            return _wrong(answer, "not_worked_out")
        return _grade(given == number(reference), answer)
    if rule == "choice":
        return _compare_choice(question, answer)
    if rule == "math":
        said = without_lead(answer)
        same = same_at_sight(reference, said)
        if same is None:
            if reason := refused(question.text, reference, said):
                return _wrong(answer, reason)
            same = deadline.call(_EQUAL, reference, said, seconds=seconds)
        return _grade(same, answer)
    module, _, name = rule.rpartition(".")
    args, loads = (module, name, question, answer), (f"{module}:{name}",)
    return _grade(deadline.call("skillfactory.tasks.grading:ask", *args, seconds=seconds, loads=loads), answer)


def _grade(right: bool, answer: str) -> Grade:
    return Grade("correct" if right else "wrong", answer)


def _wrong(answer: str, reason: str) -> Grade:
    return Grade("wrong", answer, reason)


# --- multiple choice


def ask_choice(question: str, choices: Sequence[str]) -> str:
    """The text of a question with its options, one a line, and how to answer."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question.strip()}\n\n{options}\n\nThe answer is the letter of the right option."


def _compare_choice(question: Question, answer: str) -> Grade:
    choices = [plain(unwrapped(choice)) for choice in json.loads(question.data)["choices"]]
    chosen, reason = _chosen(unwrapped(answer), choices)
    return _grade(LETTERS[chosen] == question.answer, answer) if chosen >= 0 else _wrong(answer, reason)


def _chosen(answer: str, choices: Sequence[str]) -> tuple[int, str]:
    """Which option an answer is, or -1 and why it is none. A bare letter is a letter, also where it is a text too."""
    match = _LETTER.fullmatch(answer)
    by_text = choices.index(plain(answer)) if plain(answer) in choices else -1
    if match is None or (by_text >= 0 and match[4]):
        return by_text, "not_an_option"
    letter = LETTERS.index(match[2].upper())
    if letter >= len(choices):
        return by_text, "not_an_option"
    if match[4] and plain(match[4]) != choices[letter]:
        return -1, "letter_and_text_differ" if plain(match[4]) in choices else "not_an_option"
    return letter, ""


# --- in the worker


def what_is_wrong_with(path: str) -> str:
    """Why the function with this dotted path cannot grade; "" where it can."""
    import importlib
    import inspect

    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except BaseException as error:  # its module may raise anything, or exit
        return f"importing {module} gives {one_line(error)}"
    if function is None:
        return f"{module} has no `{name}`"
    if not callable(function):
        return f"`{name}` is a {type(function).__name__}"
    try:
        inspect.signature(function).bind("question", "answer")
    except (TypeError, ValueError) as error:
        return f"it does not take two arguments ({error})"
    return ""


def ask(module: str, name: str, question: Question, answer: str) -> bool:
    """What the user's function says of an answer. Raises TypeError where that is no bool."""
    import importlib

    right = getattr(importlib.import_module(module), name)(question, answer)
    if type(right).__name__ not in ("bool", "bool_"):  # numpy has one of its own
        raise TypeError(f"{module}.{name} returned {type(right).__name__}, not a bool")
    return bool(right)
