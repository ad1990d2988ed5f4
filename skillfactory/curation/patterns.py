"""How the pairs of one question are arranged into a trace (paper §1c; the authors' code has more than the paper).

A pattern is a function `(pool, rng) -> pairs in order`, [] where the question's pairs do not suffice. It says what it
needs by drawing it from the pool, which samples no more than that. The next pattern is one function here, or in a file
of the user's (`load_pattern`).
"""

import importlib.util
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from skillfactory import seeds
from skillfactory.curation.pool import LackingError, Pair, Pool, Samples, Table, Want
from skillfactory.errors import RecipeError
from skillfactory.recipe import Traces

Closing = Literal["closing", "go_back", "confirmed"]  # banks of phrases that stand before the answer

Arrange = Callable[[Pool, random.Random], list[Pair]]


@dataclass(frozen=True)
class Pattern:
    """A way to arrange pairs.

    `arrange` returns the pairs of one trace in order, [] where the question's pairs do not suffice. `traces` is how
    many a question gives where the recipe does not say: 0 is until `arrange` returns []. `closing` is the bank of
    phrases before the answer. Without `reflect` the attempts stand alone, and no reflection is drawn. With `plain` a
    trace is the text of its one attempt, without tags or phrases, right or wrong.
    """

    name: str
    arrange: Arrange
    traces: int | Literal["max_pairs"] = 1
    closing: Closing = "closing"
    reflect: bool = True
    ends_correct: bool = True
    plain: bool = False


def algorithm1(pool: Pool, rng: random.Random) -> list[Pair]:
    """The paper's Algorithm 1: each pair is used once; more correct than incorrect pairs in every trace.

    While correct pairs remain: n+ = min(Uniform{1..L_max}, |Y+|), n- = min(Uniform{0..n+ - 1}, |Y-|), drawn without
    replacement; the incorrect ones are shuffled together with all correct ones but one, which comes last.
    """
    rights = pool.correct(rng.randint(1, pool.settings.max_pairs), once=True)
    if not rights:
        return []
    wrongs = pool.incorrect(rng.randint(0, len(rights) - 1), once=True)
    return [*pool.shuffled([*rights[1:], *wrongs]), rights[0]]


def single(pool: Pool, rng: random.Random) -> list[Pair]:
    """One correct pair (`0C` in the authors' code)."""
    return pool.correct(once=True)


def ends_correct(pool: Pool, rng: random.Random) -> list[Pair]:
    """N - 1 pairs of any outcome, then a correct one (`*C`)."""
    return _ends_correct(pool, pool.draw_length())


def ladder(pool: Pool, rng: random.Random) -> list[Pair]:
    """`ends_correct` for every N = 1..L_max (`*C_full`): what the authors' released data use."""
    most = pool.settings.max_pairs
    return _ends_correct(pool, pool.order_of(most)[pool.number] + 1) if pool.number < most else []


def _ends_correct(pool: Pool, length: int) -> list[Pair]:
    last = pool.correct()
    others = pool.either(length - 1)
    return [*others, *last] if last and len(others) == length - 1 else []


def backtrack(pool: Pool, rng: random.Random) -> list[Pair]:
    """A correct pair somewhere before, an incorrect one last, then back to the correct one in words (`*C*IC`)."""
    length = max(2, pool.draw_length())
    right, wrong = pool.correct(), pool.incorrect()
    others = pool.either(length - 2) if right and wrong else []
    return [*pool.shuffled([*right, *others]), *wrong] if right and wrong and len(others) == length - 2 else []


def confirm(pool: Pool, rng: random.Random) -> list[Pair]:
    """Ends on two correct pairs, says so, answers (`*CC`)."""
    length = max(2, pool.draw_length())
    rights = pool.correct(2)
    others = pool.either(length - 2) if len(rights) == 2 else []
    return [*others, *rights] if len(rights) == 2 and len(others) == length - 2 else []


def random_order(pool: Pool, rng: random.Random) -> list[Pair]:
    """Ablation (`random`): the pairs of `ends_correct` in any order, so that a trace may end on a wrong one."""
    return pool.shuffled(ends_correct(pool, rng))


def fail_first(pool: Pool, rng: random.Random) -> list[Pair]:
    """Ours: a long-tailed number of incorrect pairs, then a correct one; one trace for each correct pair.

    The number of failures is geometric (another one follows with chance 1 - stop_chance), at most max_pairs - 1.

    Deviations: the paper's traces hold few failures, and may repeat a wrong answer. Here the answers of a trace are
    distinct, since a trace that gives the same wrong answer twice teaches repeating.
    """
    failures = 0
    while failures < pool.settings.max_pairs - 1 and rng.random() >= pool.settings.stop_chance:
        failures += 1
    last = pool.correct(once=True)
    return [*pool.incorrect(failures, distinct=True), *last] if last else []


def solution(pool: Pool, rng: random.Random) -> list[Pair]:
    """One correct attempt as it is (STaR, BOLT, distillation); where there is none, one that was shown the answer."""
    return pool.correct(once=True, hinted=False) or (pool.correct(once=True) if pool.number == 0 else [])


def any_solution(pool: Pool, rng: random.Random) -> list[Pair]:
    """One attempt as it is, right or wrong (distillation without a filter)."""
    return pool.either(once=True)


PATTERNS: dict[str, Pattern] = {
    pattern.name: pattern
    for pattern in (
        Pattern("algorithm1", algorithm1, traces=0),
        Pattern("single", single),
        Pattern("ends_correct", ends_correct),
        Pattern("ladder", ladder, traces="max_pairs"),
        Pattern("backtrack", backtrack, closing="go_back", ends_correct=False),
        Pattern("confirm", confirm, closing="confirmed"),
        Pattern("random_order", random_order, ends_correct=False),
        Pattern("no_reflections", algorithm1, traces=0, reflect=False),
        Pattern("fail_first", fail_first, traces=0),
        Pattern("solution", solution, traces=0, reflect=False, plain=True),
        Pattern("any_solution", any_solution, traces=0, reflect=False, ends_correct=False, plain=True),
    )
}


def patterns_of(settings: Traces) -> dict[str, tuple[Pattern, float]]:
    """The recipe's patterns with their weights, by name. Raises RecipeError where one is unknown or has no weight."""
    mix = settings.pattern if isinstance(settings.pattern, dict) else {settings.pattern: 1.0}
    if len(mix) > 1 and not settings.per_question:
        raise RecipeError(
            "traces.pattern is a mix, so traces.per_question must say how many traces to draw from it for a question."
        )
    if not mix or min(mix.values()) <= 0:
        raise RecipeError("traces.pattern: every pattern of a mix needs a weight above 0.")
    return {name: (_varied(load_pattern(name), settings), weight) for name, weight in mix.items()}


def _varied(pattern: Pattern, settings: Traces) -> Pattern:
    """The pattern with what the recipe leaves out of it: its order, its reflections."""
    if settings.order == "random" and not pattern.plain:
        arranged = pattern.arrange
        pattern = replace(
            pattern, arrange=lambda pool, rng: pool.shuffled(arranged(pool, rng)), ends_correct=False, closing="closing"
        )
    return replace(pattern, reflect=pattern.reflect and settings.reflect)


@cache
def load_pattern(name: str) -> Pattern:
    """A pattern by its name, or from a Python file of the user's with a function `arrange(pool, rng)`.

    The file may set TRACES, CLOSING, REFLECT and ENDS_CORRECT, which are the fields of Pattern. Raises RecipeError.
    """
    if not name.endswith(".py"):
        if name not in PATTERNS:
            near = get_close_matches(name, PATTERNS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(PATTERNS)}, or a .py file."
            raise RecipeError(f"traces.pattern: unknown pattern `{name}`; {hint}")
        return PATTERNS[name]
    path = Path(name).expanduser()
    if not path.is_file():
        raise RecipeError(f"traces.pattern: there is no file {name}; paths start in the working directory.")
    spec = importlib.util.spec_from_file_location(f"skillfactory_pattern_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"traces.pattern: {name} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RecipeError(f"traces.pattern: importing {name} gives {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, "arrange", None)):
        raise RecipeError(f"traces.pattern: {name} has no function `arrange(pool, rng)`.")
    return _from_module(name, path.stem, module)


def _from_module(name: str, stem: str, module: Any) -> Pattern:
    pattern = Pattern(
        stem, module.arrange, getattr(module, "TRACES", 1), getattr(module, "CLOSING", "closing"),
        getattr(module, "REFLECT", True), getattr(module, "ENDS_CORRECT", True),
    )  # fmt: skip
    if pattern.closing not in get_args(Closing):
        raise RecipeError(f"traces.pattern: {name}: CLOSING must be one of {', '.join(get_args(Closing))}.")
    if pattern.traces != "max_pairs" and (type(pattern.traces) is not int or pattern.traces < 0):
        raise RecipeError(f"traces.pattern: {name}: TRACES must be a number, 0 for as many as there are, or max_pairs.")
    return pattern


@dataclass(slots=True)
class Arranged:
    """What a question's samples give: `traces` as (pattern, pairs, randomness for the rest), and what is lacking.

    `short` counts traces for which the pairs did not suffice. While anything is lacking the traces are not final.
    """

    traces: list[tuple[Pattern, list[Pair], random.Random]] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    short: int = 0


def arrange(samples: Samples, patterns: dict[str, tuple[Pattern, float]], settings: Traces, seed: int) -> Arranged:
    """The traces of one question. `seed` is the question's own; nothing else is random.

    Raises RecipeError where a pattern of the user's raises, or returns what is no trace.
    """
    found = Arranged()
    table = Table(samples, seed)
    names, weights = list(patterns), [weight for _, weight in patterns.values()]
    most = settings.per_question or _natural(patterns[names[0]][0], settings, samples)
    counts = dict.fromkeys(names, 0)
    for number in range(most):
        rng = seeds.rng(seed, number)
        name = names[0] if len(names) == 1 else rng.choices(names, weights)[0]
        pattern = patterns[name][0]
        pool = Pool(table, rng, settings, counts[name], pattern.reflect)
        counts[name] += 1
        try:
            pairs = _checked(pattern, name, pattern.arrange(pool, rng), pool)
        except LackingError as lacking:
            found.wants += lacking.wants
            if table.lasting:  # what the next traces may draw depends on this one
                break
            continue
        except RecipeError:
            raise
        except Exception as error:
            if name in PATTERNS:
                raise
            raise RecipeError(f"Pattern {name}: `arrange` raised {type(error).__name__}: {error}.") from error
        if pairs:
            found.traces.append((pattern, pairs, rng))
        elif pattern.traces == 0 and len(names) == 1:
            break  # the pairs are used up
        else:
            found.short += 1
    found.wants = list(dict.fromkeys(found.wants))
    return found


def _natural(pattern: Pattern, settings: Traces, samples: Samples) -> int:
    return settings.max_pairs if pattern.traces == "max_pairs" else pattern.traces or samples.slots


def _checked(pattern: Pattern, name: str, pairs: list[Pair], pool: Pool) -> list[Pair]:
    """The pairs, if they can be a trace: of this pool, each once, a correct one among them, last where promised."""
    if not pairs:
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, Pair) and pool.holds(pair) for pair in pairs):
        raise RecipeError(f"Pattern {name}: `arrange` must return a list of pairs that it drew from the pool.")
    if len({pair.slot for pair in pairs}) < len(pairs):
        raise RecipeError(f"Pattern {name}: `arrange` returned a pair twice in one trace.")
    if pattern.plain:
        return pairs[:1]
    if not any(pair.correct for pair in pairs):
        return []
    if pattern.ends_correct and not pairs[-1].correct:
        raise RecipeError(
            f"Pattern {name}: a trace ends on an incorrect pair; put a correct one last, or say ENDS_CORRECT = False."
        )
    return pairs
