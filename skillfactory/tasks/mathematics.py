r"""What is told of a mathematical answer without algebra: that it is the reference, or that it is no answer.

math-verify reads what it can and overlooks the rest, so that `5\text{ is wrong}` and `\boxed{5} or 6` are 5 to it; and
it takes all that is equal for right, also a question given back. What would be paid for without an answer is refused.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from skillfactory.tasks.answers import unwrap
from skillfactory.tasks.arithmetic import sides
from skillfactory.tasks.texts import exact_value, is_division, number, plain, unwrapped

LONGEST = 300  # characters; math-verify takes seconds for lists of hundreds of numbers
ROUNDED = 6  # decimals from which on a rounded number may stand for an exact one
_WORDS = re.compile(r"[^\W\d_]+(?:[\s,.'’]+[^\W\d_]+)*")
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm"))
ABOUT = re.compile(r"\\(?:approx|simeq|sim|cong)(?![A-Za-z])|≈")
_DECIMALS = re.compile(r"\.([0-9]+)")
_LATEX_FRACTION = re.compile(r"-?\s*\\[dt]?frac\s*\{\s*[0-9]+\s*\}\s*\{\s*[0-9]+\s*\}")
_LEAD = re.compile(r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:final\s+)?answer\s*(?:is\b|:|=)?\s*:?\s*", re.I)


def without_lead(answer: str) -> str:
    """The answer without a `The answer is` before it."""
    lead = _LEAD.match(answer)
    return (answer[lead.end() :] if lead else "") or answer


def same_at_sight(reference: str, answer: str) -> bool | None:
    """Whether two mathematical answers are equal where that needs no algebra; None where it does."""
    if "=" not in reference and _contradicts(answer):
        return False
    wanted, given = unwrapped(reference), unwrapped(answer)
    if wanted == given:
        return wanted != ""
    if is_number(reference):
        exact, value = (number(_bare_number(text)) for text in (wanted, given))
        if exact is not None and value is not None and not is_division(given):
            return exact == value or _is_rounded(abs(exact - value), wanted, given)
    # Words are compared as words: as algebra, a word is a product of letters, and equal to each of its anagrams.
    words = set(wanted.lower().split()) - _FUNCTIONS
    if _WORDS.fullmatch(wanted) and any(len(word) > 2 or word == "no" for word in words):
        return plain(wanted) == plain(given)
    return None


def refused(question: str, reference: str, answer: str) -> str:
    """Why an answer that is not the reference at sight is wrong whatever it is worth; "" where it is not.

    `too_long`: much longer than the reference, as is a list of all that may be right. `says_more`: words that are no
    unit, a box beside other things, one quantity after another. `copied`: a formula of the question, which was to be
    worked out. `not_worked_out`: arithmetic where a number is asked for.
    """
    if len(answer) > max(LONGEST, 3 * len(reference)):
        return "too_long"
    if unboxed(answer) is None or _says_more(reference, answer):
        return "says_more"
    if _is_copied(question, reference, answer):
        return "copied"
    return "not_worked_out" if is_number(reference) and _is_unfinished(reference, answer) else ""


def is_number(reference: str) -> bool:
    """Whether a reference is a number in plain writing or a fraction, and so a number is asked for."""
    bare = _bare_number(unwrapped(reference))
    return "=" not in bare and (number(bare) is not None or _LATEX_FRACTION.fullmatch(bare) is not None)


def _bare_number(text: str) -> str:
    return text.replace("\\$", "").replace("{,}", ",")


def _is_rounded(difference: Fraction, *texts: str) -> bool:
    places = max(len(found) for text in texts for found in ["", *_DECIMALS.findall(text)])
    return places >= ROUNDED and 2 * difference <= Fraction(1, 10**places)


def _contradicts(text: str) -> bool:
    """Whether a text equates two values that differ, as `5 = 6`; where it rounds by more than 1 %, as `2/3 = 0.5`."""
    same = ABOUT.sub("=", text)
    if "=" not in same:
        return False
    first, *others = [Fraction(value) for value in map(exact_value, sides(same)) if value is not None] or [Fraction(0)]
    slack = abs(first) / 100 if "." in text or same != text else Fraction(0)
    return any(abs(value - first) > slack for value in others)


# --- boxes and words

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOXES = re.compile(r"(?:[^□]*=\s*)?□(?:\s*(?:,|and|or|,\s*(?:and|or))\s*□)*[\s.]*")  # `x = □`, `□, □ and □`


def unboxed(text: str) -> str | None:
    r"""The text without \boxed{…} around its parts; None where it has something beside its boxes."""
    text, parts, end = unwrap(text), [], 0
    if not _BOX.search(text):
        return text
    for inner, start, after in _groups(_BOX, text):
        parts += [text[end:start].replace("□", " "), inner]
        end = after
    around = "□".join([*parts[::2], text[end:]])
    return "".join([*parts, text[end:]]) if _BOXES.fullmatch(around) else None


def _groups(opening: re.Pattern[str], text: str) -> Iterator[tuple[str, int, int]]:
    """What stands in each outermost group that `opening` begins, with where it starts and ends; one may be unclosed."""
    position = 0
    while found := opening.search(text, position):
        depth, position = 1, len(text)
        for brace in re.compile("[{}]").finditer(text, found.end()):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                position = brace.end()
                break
        yield text[found.end() : position].removesuffix("}"), found.start(), position


_TEXT = re.compile(r"\\(?:text[a-z]*|math(?:rm|bf|it|sf|tt)|[mh]box|operatorname\*?)\s*\{")
_POWER = re.compile(r"\s*\^\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])")  # of a unit
_LONGEST_UNIT = 4  # words
_TAKEN_BACK = frozenset(
    ("not", "no", "non", "never", "nor", "neither", "either", "wrong", "incorrect", "false", "except", "unless",
     "maybe", "perhaps", "possibly", "probably", "if", "but", "instead", "guess", "isn", "isnt", "aint")
)  # fmt: skip
_SEVERAL = re.compile(r"[,;]|\\(?:cup|pm|mp|lor|vee)(?![a-z])|\b(?:or|and)\b")


def _says_more(reference: str, answer: str) -> bool:
    """Whether the words of an answer do more than name a unit, or another number follows them."""
    said = {inner for inner, _, _ in _groups(_TEXT, reference)}
    several = _SEVERAL.search(reference) is not None
    last = max(answer.rfind("="), 0)
    for inner, start, end in _groups(_TEXT, answer):
        words = re.findall(r"[^\W_]+", inner.lower())
        if not words or inner in said:
            continue
        if len(words) > _LONGEST_UNIT or _TAKEN_BACK.intersection(words) or any(map(str.isdigit, "".join(words))):
            return True
        if several:
            continue
        if "or" in words or "and" in words:
            return True
        power = _POWER.match(answer, end)
        rest = answer[power.end() if power else end :]
        is_vector = len(inner.strip()) == 1 and answer.startswith("\\math", start)
        if start >= last and not is_vector and any(map(str.isdigit, rest)):
            return True
    return False


# --- formulas given back


_SET = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![a-z])|\\[,;:! ()\[\]]|[\s${}]")
_SIGN = re.compile(r"[-+*^<>=!|]|\\[a-z]|/")
_FRACTION = re.compile(r"-?(?:\\frac[0-9a-z]+|[0-9a-z.]+/[0-9a-z.]+|[0-9a-z.]+)")
_LONGEST_FORMULA = 400


def _bare(text: str, gap: str = "") -> str:
    """A formula without how it is set, or with a `gap` where that was."""
    text = re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\(?:cdot|times)(?![a-z])|×|·", "*", text))
    return _SET.sub(gap, text.replace("−", "-"))


def _is_copied(question: str, reference: str, answer: str) -> bool:
    """Whether a formula of the question is given back; a single fraction may be there by chance."""
    given, wanted = _bare(answer).rstrip("."), _bare(reference)
    if wanted in (given, given.rpartition("=")[2]) or len(given) < 3 or not _SIGN.search(given, 1):
        return False
    if _FRACTION.fullmatch(given.replace("\\pi", "p")) and not re.fullmatch("-?[0-9]+", wanted):
        return False
    asked = _bare(question, gap=" ")
    return _holds(asked, given) and not (_SIGN.search(wanted, 1) and _holds(asked, wanted))


def _holds(text: str, formula: str) -> bool:
    """Whether the text has the formula as one of its own and not as a part of another."""
    if len(formula) > _LONGEST_FORMULA:
        return False
    written = " *".join(map(re.escape, formula))
    return any(
        not re.search(r"\w$|[-+*/^.] *$", text[: found.start()][-20:])
        and not re.match(r"\w| *[-+*/^]|\.[0-9]", text[found.end() :][:20])
        for found in re.finditer(written, text)
    )


_WORK = re.compile(
    r"\\(?:sum|prod|int|lim|[dt]?binom|gcd|lcm|max|min|det|lfloor|lceil|log|ln|sin|cos|tan|cot|sec|csc|exp)(?![a-z])"
)
_SUM = re.compile(
    r"[0-9)}\]]\s*(?:[-+*·⋅×÷−–]|\\(?:cdot|times|div|ast|pm|mp)(?![a-z]))\s*(?!10\s*[\^⁻⁰¹²³⁴-⁹])[0-9(\\{.√]"
)
_SHORT = 12  # digits; a longer number may be written as 2^{100} - 1


def _is_unfinished(reference: str, answer: str) -> bool:
    """Whether the last side of an answer leaves something to work out."""
    flat = re.sub(r"\{[^{}]*\}", lambda group: group[0].replace("=", " "), answer)  # `\sum_{i=1}^5 i` is one side
    last = ABOUT.sub("=", flat).rpartition("=")[2]
    for _, start, end in reversed(list(_groups(_TEXT, last))):
        last = last[:start] + last[end:]
    return _WORK.search(last) is not None or (len(reference) <= _SHORT and _SUM.search(last) is not None)
