"""What must hold of an answer besides, where a scorer of reasoning-gym gives full marks to what is no solution.

A guard takes the answer and the library's entry, and is asked before the scorer; both must agree. It may raise: then
the answer is wrong. docs/verifiers.md says what is left.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from skillfactory.tasks import arithmetic
from skillfactory.tasks.reasoning_gym_safety import FUNCTIONS

Guard = Callable[[str, Mapping[str, Any]], bool]

# --- answers of which there is one


def _folded(text: str) -> str:
    return "".join(text.split()).lower()


_NUMBER = r"[-+]?(?:(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"


def _value(text: str) -> Fraction | None:
    """What a plain number is worth."""
    return Fraction(text.replace(",", "")) if re.fullmatch(_NUMBER, text) else None


def _is_reference(answer: str, entry: Mapping[str, Any]) -> bool:
    """The reference answer but for case and blanks, or a number of the same value."""
    if _folded(answer) == _folded(entry["answer"]):
        return True
    value = _value(answer)
    return value is not None and value == _value(entry["answer"])


def _is_same_json(answer: str, entry: Mapping[str, Any]) -> bool:
    return _is_reference(answer, entry) or bool(json.loads(answer) == json.loads(entry["answer"]))


def _is_near(answer: str, wanted: Fraction | None, relative: Fraction) -> bool:
    given = _value(answer)
    return given is not None and wanted is not None and abs(given - wanted) <= abs(wanted) * relative


def _is_probability(answer: str, entry: Mapping[str, Any]) -> bool:
    above, _, below = answer.partition("/")
    given, wanted = _value(above.strip()), _value(entry["answer"])
    if below:
        divisor = _value(below.strip())
        given = given / divisor if given is not None and divisor else None
    return given is not None and wanted is not None and abs(given - wanted) <= min(Fraction(1, 10_000), wanted / 100)


def _is_same_list(answer: str, entry: Mapping[str, Any]) -> bool:
    given, wanted = (json.loads(text.replace("'", '"')) for text in (answer, entry["answer"]))
    return [float(number) for number in given] == [float(number) for number in wanted]


def _are_same_roots(answer: str, entry: Mapping[str, Any]) -> bool:
    given, wanted = ([_value(part.strip()) for part in text.split(",")] for text in (answer, entry["answer"]))
    return None not in given and Counter(given) == Counter(wanted)


def _are_same_roles(answer: str, entry: Mapping[str, Any]) -> bool:
    """`NAME is a ROLE, and …` in any order, and not a word more."""
    given, wanted = (
        [word for word in re.sub(r"[.,()]", " ", text.lower()).split() if word not in ("is", "a", "an", "and")]
        for text in (answer, entry["answer"])
    )
    roles = (Counter(zip(words[::2], words[1::2], strict=True)) for words in (given, wanted))
    return next(roles) == next(roles)


def _is_pooled(answer: str, entry: Mapping[str, Any]) -> bool:
    """The matrix to two decimal places, as asked."""
    given = [[_value(cell) for cell in row.split()] for row in answer.splitlines()]
    wanted = entry["metadata"]["solution"]
    return [len(row) for row in given] == [len(row) for row in wanted] and all(
        cell is not None and abs(float(cell) - exact) < 0.005 + 1e-9
        for row, exacts in zip(given, wanted, strict=True)
        for cell, exact in zip(row, exacts, strict=True)
    )


_DURATION = re.compile(  # digits are counted, or a text of nothing else is split in every way
    r"(?:(-?\d{1,9})(?: days?)?)?(?:, )?(?:(\d{1,9}):(\d\d)(?::(\d\d)(?:\.(\d{3}))?)?)?", re.ASCII
)


def _is_same_duration(answer: str, entry: Mapping[str, Any]) -> bool:
    given, wanted = (_DURATION.fullmatch(text.strip()) for text in (answer, entry["answer"]))
    return (
        given is not None
        and wanted is not None
        and [int(part or 0) for part in given.groups()] == [int(part or 0) for part in wanted.groups()]
    )


# --- answers of which there may be many


def _written(pattern: str) -> Guard:
    """Nothing around what the scorer looks for."""
    compiled = re.compile(pattern)
    return lambda answer, _: compiled.fullmatch(answer.strip()) is not None


def _is_expression_of(answer: str, numbers: list[int], target: int) -> bool:
    try:
        expression = arithmetic.parse(answer)
    except arithmetic.ArithmeticSyntaxError:
        return False
    return sorted(expression.numbers) == sorted(numbers) and expression.value == target


def _is_antiderivative(answer: str, entry: Mapping[str, Any]) -> bool:
    """No names but the variable, a constant and functions: `Cx` is no product."""
    names = set(re.findall(r"[A-Za-z_]\w*", answer))
    return names <= {entry["metadata"]["variable"], "C", "c", "K", "k", "E", "pi", *FUNCTIONS.split("|")}


def _is_formula(answer: str, _: Mapping[str, Any]) -> bool:
    text, before = re.sub(r"[A-Z]", "P", "".join(answer.split())), ""
    while text != before:
        before, text = text, re.sub(r"\(P(?:[∧∨→↔]P)*\)|¬P", "P", text)
    return re.fullmatch(r"P(?:[∧∨→↔]P)*", text) is not None


def _is_mapping(answer: str, _: Mapping[str, Any]) -> bool:
    """`A=1,B=2` without a letter twice."""
    letters = re.findall(r"[A-Z]", answer)
    shape = r"[A-Z]\s*=\s*[0-9](?:\s*,\s*[A-Z]\s*=\s*[0-9])*"
    return len(letters) == len(set(letters)) and re.fullmatch(shape, answer) is not None


def _is_coloring(answer: str, entry: Mapping[str, Any]) -> bool:
    """Each vertex of the graph once, and no other."""
    pairs = json.loads(answer, object_pairs_hook=lambda found: [key for key, _ in found])
    return sorted(pairs) == sorted(str(vertex) for vertex in entry["metadata"]["puzzle"]["vertices"])


def _are_moves(answer: str, _: Mapping[str, Any]) -> bool:
    moves = json.loads(answer)
    return isinstance(moves, list) and all(
        re.fullmatch(r"(?:fill|empty) [A-Z]|pour [A-Z]->[A-Z]", move) is not None for move in moves
    )


def _are_lists(answer: str, _: Mapping[str, Any]) -> bool:
    return all(isinstance(row, list) for row in json.loads(answer))


# Each says which wrong answers the library's scorer gives full marks to.
GUARDS: dict[str, Guard] = dict.fromkeys(
    (
        "binary_matrix", "spiral_matrix", "string_insertion",  # none: but others it evaluates, to give part marks
        "calendar_arithmetic",  # any number, where the right one is below zero
        "chain_sum", "products",  # commas anywhere
        "figlet_font", "letter_jumble", "spell_backward", "word_sorting",  # anything after the right letters or words
        "game_of_life_halting",  # any text
        "gsm_symbolic",  # the wrong sign, and other numbers after the first
        "survo",  # words between the numbers
    ),
    _is_reference,
) | {
    # text around the coordinates; the parentheses and degree sign anywhere
    "advanced_geometry": _written(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)|{_NUMBER}(?:\s*,\s*{_NUMBER}|\s*°)?"),
    # a text for a number in JSON, and other things that its measure of distance does not see
    "codeio": _is_same_json,
    # any beginning of the right number's digits, such as 0, and 0 for all that is small
    "coin_flip": _is_probability,
    # NaN
    "complex_arithmetic": lambda answer, _: "nan" not in answer.lower(),
    # powers, and values that are only near
    "countdown": lambda answer, entry: _is_expression_of(
        answer, entry["metadata"]["numbers"], entry["metadata"]["target"]
    ),
    # a letter with two digits
    "cryptarithm": _is_mapping,
    # values that agree in the first digits, where twelve are asked for (rounding at each step moves the last)
    "decimal_arithmetic": lambda answer, entry: _is_near(answer, _value(entry["answer"]), Fraction(1, 10**11)),
    # anything after the first fraction
    "fraction_simplification": _written(
        r"(\$?)\s*(?:\\[dt]?frac\s*\{\s*[0-9]+\s*\}\s*\{\s*[0-9]+\s*\}|[0-9]+\s*/\s*[0-9]+)\s*\1"
    ),
    # a larger board that begins with the right one
    "game_of_life": _is_same_json,
    # vertices that there are not, or twice
    "graph_color": _is_coloring,
    # names of constants that are read as products, such as Cx
    "intermediate_integration": _is_antiderivative,
    "simple_integration": _is_antiderivative,
    # other words after a move
    "jugs": _are_moves,
    # whatever is no 0 and no 1
    "kakurasu": _written(r"[01\s]+"),
    # other words, and names without a role
    "knights_knaves": _are_same_roles,
    # none: but others it evaluates, to give part marks
    "n_queens": lambda answer, entry: answer in entry["metadata"]["valid_answers"],
    # values off by up to 0.01, which may be those of another candidate
    "number_format": lambda answer, entry: _is_near(
        answer, Fraction(entry["metadata"]["solution"]), Fraction(1, 10**14)
    ),
    # numbers that are each off by up to one
    "number_sorting": _is_same_list,
    # texts in place of lists of letters
    "palindrome_partitioning": _are_lists,
    # whatever is no number
    "polynomial_equations": _are_same_roots,
    # values off by up to one per cent
    "pool_matrix": _is_pooled,
    # signs × without a factor
    "prime_factorization": _written(r"[0-9]+(?:\s*×\s*[0-9]+)*"),
    # text that is no formula, as if it were the name of another variable
    "propositional_logic": _is_formula,
    # any four numbers, and values from 24 to below 25
    "puzzle24": lambda answer, entry: _is_expression_of(answer, entry["metadata"]["numbers"], 24),
    # every character but A, B and C
    "quantum_lock": lambda answer, _: re.fullmatch(r"[a-c](?:(?:→|->|,)?[a-c])*", _folded(answer)) is not None,
    # moves that it does not know; and turns by the million
    "rubiks_cube": _written(r"(?:(?:[LRUDBF]w?|[XYZMES])'?[1-9]?(?:\s+|$))+"),
    # every character but L, D, U and R
    "sokoban": _written(r"[LDUR\s]+"),
    # whatever follows the first word, or the seconds
    "time_intervals": _is_same_duration,
    # text around the moves
    "tower_of_hanoi": lambda answer, _: all(
        re.fullmatch(r"Move disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+", line.strip())
        for line in answer.strip().splitlines()
        if line.strip()
    ),
}  # fmt: skip
