"""What makes no difference between answers: case, spacing, and other writings of a word or of a plain number."""

import re
import unicodedata
from fractions import Fraction

from skillfactory.tasks.answers import unwrap
from skillfactory.tasks.arithmetic import LONGEST, sides, value_of

FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}  # to the same in ASCII
_NUMBER = re.compile(r"([-+]?)\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:\s*/\s*([0-9]+))?")
_LONGEST_NUMBER = 100
_DECIMAL = re.compile(r"([0-9]*)\.([0-9]+)")
_NAME = re.compile(r"(?!not$)[^\W\d_]{1,20}")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed|fbox)\s*\{\s*([^{}\s][^{}]*)\}")


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
    value = _plain_number(last)
    if value is None or not others:
        return value
    return value if all(_NAME.fullmatch(side) or exact_value(side) == value for side in others) else None


def is_division(text: str) -> bool:
    """Whether a number in plain writing is a fraction that leaves a division to be done: `48/2`, but not `1/2`."""
    match = _NUMBER.fullmatch(_number_in(sides(text)[-1]))
    value = match and _plain_number(match[0])
    return bool(match and match[3] and int(match[3]) > 1 and value is not None and value.denominator == 1)


def _number_in(side: str) -> str:
    """The side without signs of money; nothing where it is too long for a number."""
    side = side.strip("$ ")
    return side if len(side) <= _LONGEST_NUMBER else ""


def _plain_number(side: str) -> Fraction | None:
    match = _NUMBER.fullmatch(_number_in(side))
    if not match or (match[3] and not int(match[3])):
        return None
    value = Fraction(match[2].replace(",", "")) / int(match[3] or 1)
    return -value if match[1] == "-" else value


def exact_value(text: str) -> Fraction | int | None:
    """The exact value of arithmetic, also of decimals and sums of money; None where it is none."""
    if len(text) > LONGEST:
        return None
    text = _DECIMAL.sub(lambda found: f"({found[1]}{found[2]}/1{'0' * len(found[2])})", text.replace("$", ""))
    return value_of(text)


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
