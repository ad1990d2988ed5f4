"""Whether an answer may be evaluated, as some scorers of reasoning-gym do."""

import builtins
import re
from keyword import iskeyword

# Their scorers give the answer to `eval` or to sympy's `parse_expr`.
EVALUATES = frozenset(
    ("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
     "simple_integration", "spiral_matrix", "string_insertion")
)  # fmt: skip
HIGHEST_POWER = 64
FUNCTIONS = "sin|cos|tan|cot|sec|csc|asin|acos|atan|sinh|cosh|tanh|exp|log|ln|sqrt|Abs"
_TOKEN = re.compile(
    r"\s*(?:\*\*\s*(?:[-+]?(?P<power>[0-9]{1,2})|\(\s*[-+]?(?P<root>[0-9]{1,2})\s*/\s*[0-9]{1,2}\s*\))(?![0-9.])"
    rf"|(?P<call>(?:{FUNCTIONS})\s*\()|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<name>[A-Za-z][A-Za-z0-9]*|_(?!_))"
    r"|(?P<open>\()|(?P<close>\))|(?P<operator>\*(?!\*)|[-+/]))"
)


def is_safe(answer: str) -> bool:
    """Whether a text, evaluated, can do nothing but arithmetic that ends.

    It is made of numbers, names, + - * / ** ( ) and calls of a few functions: a parenthesis may only group or follow
    the name of a listed function, so nothing else can be called. An exponent is a number or a fraction, and exponents
    within each other multiply to HIGHEST_POWER at most, so that 9**9**9**9 is never computed; nor is 1e999999999.
    """
    position, before, end = 0, "", len(answer.rstrip())
    inner, groups = 1, [1]  # highest power in what stands before, and in each open group
    while position < end:
        token = _TOKEN.match(answer, position)
        if token is None:
            return False
        kind = str(token.lastgroup)
        if kind in ("power", "root"):
            if before not in ("number", "name", "close"):
                return False
            inner *= max(int(token[kind]), 1)
            groups[-1] = max(groups[-1], inner)
            if inner > HIGHEST_POWER:
                return False
        elif kind in ("open", "call"):
            if kind == "open" and before in ("number", "name", "close", "power", "root"):
                return False
            groups.append(1)
        elif kind == "close":
            if len(groups) == 1:
                return False
            inner = groups.pop()
            groups[-1] = max(groups[-1], inner)
        elif kind == "name" and (before == "number" or hasattr(builtins, token["name"]) or iskeyword(token["name"])):
            return False
        else:
            inner = 1
        position, before = token.end(), kind
    return True
