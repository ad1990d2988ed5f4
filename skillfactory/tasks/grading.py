"""How a given answer is compared with the reference answer, for questions that come with one.

The table of docs/howto.md says what each rule takes for equal. `math` and functions of the user's run in worker
processes under a deadline; where such a check breaks, the grade says so and is neither right nor wrong.
"""

import json
import re
import string
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from fractions import Fraction

from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline
from skillfactory.tasks.answers import extract_answer, unwrap
from skillfactory.tasks.arithmetic import LONGEST, sides, value_of

RULES = ("exact", "number", "math", "choice")
SECONDS = 5.0  # deadline of one check
LETTERS = string.ascii_uppercase
_NUMBER = re.compile(r"([-+]?)\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:\s*/\s*([0-9]+))?")
_LONGEST_NUMBER = 100
_INTEGER = re.compile(r"-?[0-9]{1,100}")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_DECIMAL = re.compile(r"([0-9]*)\.([0-9]+)")
_NAME = re.compile(r"(?!not$)[^\W\d_]{1,20}")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed|fbox)\s*\{\s*([^{}\s][^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]+(?:[\s,.'’]+[^\W\d_]+)*")
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm"))
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s+)?(\(?)([A-Za-z])(\)?[.:,]?|\s*[-–—])(?:\s+(.*))?",
    re.I | re.S | re.ASCII,  # otherwise `İ` is a letter between A and Z
)
FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}  # to the same in ASCII
_LONGEST_MESSAGE = 200


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
    returns no bool, "check_failed".
    """
    answer = extract_answer(text)
    if answer is None:
        return Grade("no_answer", reason="no_answer")
    try:
        return compare(rule, question, answer, seconds)
    except deadline.DeadlineError:
        return Grade("no_answer", answer, "check_timed_out")
    except Exception:  # whatever it is, it is the check's failure and not the model's
        return Grade("no_answer", answer, "check_failed")


def compare(rule: str, question: Question, answer: str, seconds: float = SECONDS) -> Grade:
    """As grade_answer, of an answer that has been extracted; raises what the check raises."""
    reference = extract_answer(f"<answer>{question.answer}</answer>") or ""  # so that both lose the same fences and $
    if rule == "exact":
        return _grade(plain(answer) == plain(reference) and reference != "", answer)
    if rule == "number":
        given = number(answer)
        return _grade(given == number(reference), answer) if given is not None else _wrong(answer, "not_a_number")
    if rule == "choice":
        return _compare_choice(question, answer)
    if rule == "math":
        same = _same_at_sight(reference, answer)
        if same is None:
            same = deadline.call("skillfactory.tasks.equality:equal", reference, answer, seconds=seconds)
        return _grade(same, answer)
    module, _, name = rule.rpartition(".")
    args, loads = (module, name, question, answer), (f"{module}:{name}",)
    return _grade(deadline.call("skillfactory.tasks.grading:ask", *args, seconds=seconds, loads=loads), answer)


def _grade(right: bool, answer: str) -> Grade:
    return Grade("correct" if right else "wrong", answer)


def _wrong(answer: str, reason: str) -> Grade:
    return Grade("wrong", answer, reason)


# --- text and numbers


def folded(text: str) -> str:
    """Text without what makes no difference between words: case, spacing, and how a letter is encoded.

    Powers and fractions of one character stay what they are: `10²` is not `102`.
    """
    return " ".join(unicodedata.normalize("NFC", text.translate(FULL_WIDTH)).casefold().split())


def plain(answer: str) -> str:
    """An answer without what `exact` overlooks: case, spacing, a final full stop, how a letter is encoded."""
    return folded(answer).removesuffix(".").rstrip()


def number(text: str) -> Fraction | None:
    """The exact value of a number in plain writing, or None.

    It may be the last side of an equation whose other sides are a short name (`x = 72`) or arithmetic of that value.
    """
    *others, last = sides(text)
    last = last.strip("$ ")
    match = _NUMBER.fullmatch(last) if len(last) <= _LONGEST_NUMBER else None
    if not match or (match[3] and not int(match[3])):
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1)
    value = -value if match[1] == "-" else value
    return value if all(_NAME.fullmatch(side) or _value(side) == value for side in others) else None


def _value(text: str) -> Fraction | int | None:
    """The exact value of arithmetic, also of decimals and sums of money; None where it is none."""
    if len(text) > LONGEST:
        return None
    text = _DECIMAL.sub(lambda found: f"({found[1]}{found[2]}/1{'0' * len(found[2])})", text.replace("$", ""))
    return value_of(text)


def _contradicts(text: str) -> bool:
    """Whether a text equates two values that differ, as `5 = 6`; with decimals by more than 1 %, as `2/3 = 0.5`."""
    first, *others = [Fraction(value) for value in map(_value, sides(text)) if value is not None] or [Fraction(0)]
    slack = abs(first) / 100 if "." in text else Fraction(0)
    return any(abs(value - first) > slack for value in others)


def unwrapped(text: str) -> str:
    """Text without the LaTeX that only sets it: \\boxed, \\text and the like, and dollars, with single spaces.

    What stands inside the text, and not around the whole of it, becomes a word of its own.
    """
    text = text.translate(FULL_WIDTH)
    for _ in range(8):  # they nest
        text, before = unwrap(text), text
        whole = _WRAPPED.fullmatch(text)
        text = whole[1] if whole else _WRAPPED.sub(r" \1 ", text)
        if text == before:
            break
    return " ".join(text.split())


def _same_at_sight(reference: str, answer: str) -> bool | None:
    """Whether two mathematical answers are equal where that needs no algebra; None where it does."""
    if "=" in answer and "=" not in reference and _contradicts(answer):
        return False
    wanted, given = unwrapped(reference), unwrapped(answer)
    if wanted == given:
        return wanted != ""
    if _INTEGER.fullmatch(wanted) and _INTEGER.fullmatch(given):
        return int(wanted) == int(given)
    # Words are compared as words: as algebra, a word is a product of letters, and equal to each of its anagrams.
    words = set(wanted.lower().split()) - _FUNCTIONS
    if _WORDS.fullmatch(wanted) and any(len(word) > 2 or word == "no" for word in words):
        return plain(wanted) == plain(given)
    return None


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
