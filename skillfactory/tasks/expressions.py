"""Expressions over given numbers: a random one, and all distinct ones.

Two are distinct when they still differ after reordering and regrouping sums and products.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import combinations, islice, permutations, product
from typing import Any, Protocol

from skillfactory.tasks.arithmetic import Value, divide

Term = tuple[str, Value, str]  # text, value, the operator that is applied last ("" for a number)
Step = tuple[int, int, str]  # indices of the left and right term, operator


class Rules(Protocol):
    """Which expressions are wanted; CountdownParams says what each means."""

    @property
    def operators(self) -> str: ...
    @property
    def uses_all(self) -> bool: ...
    @property
    def in_order(self) -> bool: ...
    @property
    def additive(self) -> bool: ...


# --- random ones


def random_expression(numbers: Sequence[int], rules: Rules, rng: random.Random) -> tuple[str, Value] | None:
    """A random expression over `numbers` (or some, where not all are needed) and its value; None for a bad division.

    Unless it is a pattern of signs: all numbers or all but one, then two random terms at a time are joined by a random
    operator; a division that leaves a rest, or by zero, is bad.
    """
    if rules.additive:
        order = list(numbers)
        if not rules.in_order:
            rng.shuffle(order)
        signs = [rng.choice(rules.operators) for _ in order[1:]]
        value = order[0] + sum(n if s == "+" else -n for s, n in zip(signs, order[1:], strict=True))
        return " ".join([str(order[0]), *(f"{s} {n}" for s, n in zip(signs, order[1:], strict=True))]), value
    chosen = list(numbers)
    if not rules.uses_all and len(chosen) > 2 and rng.random() < 0.5:
        chosen.pop(rng.randrange(len(chosen)))
    drawn = random_steps(chosen, rules.operators, rules.in_order, rng)
    return None if drawn is None else (written(chosen, drawn[0], rules.in_order), drawn[1])


def random_steps(
    numbers: Sequence[int], operators: str, in_order: bool, rng: random.Random
) -> tuple[list[Step], int] | None:
    """How random terms are joined until one is left, and its value; None as soon as a division is bad.

    Most draws are thrown away, so this computes with ints and writes nothing.
    """
    values = list(numbers)
    steps: list[Step] = []
    draw = rng.random
    for choices in _choices(len(values), operators, in_order):
        step = i, j, operator = choices[int(draw() * len(choices))]
        if operator == "+":
            values[i] += values[j]
        elif operator == "-":
            values[i] -= values[j]
        elif operator == "*":
            values[i] *= values[j]
        else:
            right = values[j]
            if right == 0 or values[i] % right:
                return None
            values[i] //= right
        steps.append(step)
        if in_order:
            del values[j]
        else:  # the last fills the gap
            last = values.pop()
            if j < len(values):
                values[j] = last
    return steps, values[0]


@lru_cache(maxsize=64)
def _choices(count: int, operators: str, in_order: bool) -> list[list[Step]]:
    """For `count` terms, then one less and so on to two: all steps that can be taken, each as likely as another."""
    found = []
    for left in range(count, 1, -1):
        pairs = [(i, i + 1) for i in range(left - 1)] if in_order else list(permutations(range(left), 2))
        found.append([(i, j, operator) for i, j in pairs for operator in operators])
    return found


def written(numbers: Sequence[int], steps: Sequence[Step], in_order: bool) -> str:
    """The text of joined terms, with the parentheses that it needs and no others."""
    terms = [(str(number), "") for number in numbers]
    for i, j, operator in steps:
        terms[i] = (_join(terms[i], operator, terms[j]), operator)
        if in_order:
            del terms[j]
        else:
            last = terms.pop()
            if j < len(terms):
                terms[j] = last
    return terms[0][0]


def _join(left: tuple[str, str], operator: str, right: tuple[str, str]) -> str:
    """Write `left operator right`; each is a text and the operator that is applied last in it."""
    a = f"({left[0]})" if operator in "*/" and left[1] in ("+", "-") else left[0]
    tight = right[1] and (operator == "/" or (operator in "*-" and right[1] in "+-"))
    return f"{a} {operator} ({right[0]})" if tight else f"{a} {operator} {right[0]}"


# --- all of them, or one of a given value

_FEW = 3  # numbers of which all expressions are soon listed


def solve(numbers: Sequence[int], target: Value, rules: Rules) -> str | None:
    """The text of some expression of this value, of as few numbers as can be, or None. Well under a second for six."""
    if rules.additive or len(numbers) <= _FEW:
        return next((text for text, value in solutions(numbers, rules) if value == target), None)
    operators, in_order = rules.operators, rules.in_order

    @cache
    def listed(given: tuple[int, ...]) -> dict[Value, Term]:
        return {term[1]: term for term in _trees(given, operators, in_order).values()}

    @cache
    def reach(given: tuple[int, ...], wanted: Value) -> Term | None:
        """From above: the last operator splits the numbers, the smaller part is listed, the other must do the rest."""
        if len(given) <= _FEW:
            return listed(given).get(wanted)
        for left, right in _halves(given, in_order):
            small, large = (right, left) if len(right) <= len(left) else (left, right)
            for value, term in listed(small).items():
                for operator in operators:
                    for rest in _completions(value, operator, wanted, small is left, partial(listed, large)):
                        other = reach(large, rest)
                        if other is not None:
                            a, b = (term, other) if small is left else (other, term)
                            return _join((a[0], a[2]), operator, (b[0], b[2])), wanted, operator
        return None

    sizes = [len(numbers)] if rules.uses_all else range(1, len(numbers) + 1)
    found = (reach(chosen, target) for size in sizes for chosen in combinations(numbers, size))
    return next((term[0] for term in found if term is not None), None)


def _completions(
    known: Value, operator: str, wanted: Value, known_is_left: bool, others: Callable[[], Iterable[Value]]
) -> Iterable[Value]:
    """Values of the other operand with which `known` makes `wanted`; `others` are all that it can have."""
    if operator == "+":
        return (wanted - known,)
    if operator == "-":
        return (known - wanted,) if known_is_left else (wanted + known,)
    if operator == "*":
        return (divide(wanted, known),) if known else () if wanted else islice(others(), 1)
    if not known_is_left:
        return (wanted * known,) if known else ()
    if not known:
        return () if wanted else islice(filter(None, others()), 1)
    return (divide(known, wanted),) if wanted else ()


def count_solutions(numbers: Sequence[int], target: int, rules: Rules) -> int:
    """How many of `solutions` have this value."""
    if rules.additive and rules.in_order:
        sums = [numbers[0]]
        for number in numbers[1:]:
            more = [value + number for value in sums]
            sums = [*more, *(value - number for value in sums)] if "-" in rules.operators else more
        return sums.count(target)
    return sum(1 for _, value in solutions(numbers, rules) if value == target)


def solutions(numbers: Sequence[int], rules: Rules) -> Iterator[tuple[str, Value]]:
    """Every distinct expression over `numbers` under these rules, with its value (any value, not only a target)."""
    if rules.additive and rules.in_order:
        for signs in product(rules.operators, repeat=len(numbers) - 1):
            total = numbers[0] + sum(n if s == "+" else -n for s, n in zip(signs, numbers[1:], strict=True))
            text = " ".join([str(numbers[0]), *(f"{s} {n}" for s, n in zip(signs, numbers[1:], strict=True))])
            yield text, total
        return
    if rules.additive:
        seen = set()
        for signs in product(rules.operators, repeat=len(numbers)):
            pairs = tuple(sorted(zip(signs, numbers, strict=True)))  # "+" sorts before "-"
            if pairs[0][0] == "-" or pairs in seen:
                continue
            seen.add(pairs)
            text = str(pairs[0][1]) + "".join(f" {s} {n}" for s, n in pairs[1:])
            yield text, sum(n if s == "+" else -n for s, n in pairs)
        return
    sizes = [len(numbers)] if rules.uses_all else range(1, len(numbers) + 1)
    seen_keys: set[Any] = set()
    for size in sizes:
        for chosen in combinations(range(len(numbers)), size):
            trees = _trees(tuple(numbers[i] for i in chosen), rules.operators, rules.in_order)
            for key, (text, value, _) in trees.items():
                if key not in seen_keys:
                    seen_keys.add(key)
                    yield text, value


def _trees(numbers: tuple[int, ...], operators: str, in_order: bool) -> dict[Any, Term]:
    """All distinct expressions that use exactly `numbers`, by canonical form."""
    if len(numbers) == 1:
        return {("n", numbers[0]): (str(numbers[0]), numbers[0], "")}
    found: dict[Any, Term] = {}
    for left, right in _halves(numbers, in_order):
        for left_key, a in _trees(left, operators, in_order).items():
            for right_key, b in _trees(right, operators, in_order).items():
                for operator in operators:
                    if operator == "/" and b[1] == 0:
                        continue
                    key = _canonical(left_key, operator, right_key)
                    if key not in found:
                        text = _join((a[0], a[2]), operator, (b[0], b[2]))
                        found[key] = (text, _apply(a[1], operator, b[1]), operator)
    return found


def _apply(left: Value, operator: str, right: Value) -> Value:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return divide(left, right)


def _halves(numbers: tuple[int, ...], in_order: bool) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    if in_order:
        yield from ((numbers[:i], numbers[i:]) for i in range(1, len(numbers)))
        return
    for size in range(1, len(numbers)):
        for chosen in combinations(range(len(numbers)), size):
            yield (
                tuple(numbers[i] for i in chosen),
                tuple(n for i, n in enumerate(numbers) if i not in chosen),
            )


def _canonical(left: Any, operator: str, right: Any) -> Any:
    """A key that is equal for expressions that differ only in the order and grouping of sums and of products."""
    kind = "sum" if operator in "+-" else "product"
    sign = 1 if operator in "+*" else -1
    parts: Counter[Any] = Counter()

    def add(key: Any, direction: int) -> None:
        if key[0] == kind:
            for part, part_sign, times in key[1]:
                parts[(part, part_sign * direction)] += times
        else:
            parts[(key, direction)] += 1

    add(left, 1)
    add(right, sign)
    return kind, tuple(sorted(((part, s, times) for (part, s), times in parts.items()), key=repr))
