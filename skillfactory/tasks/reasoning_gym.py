"""The tasks of reasoning-gym, as `reasoning_gym:NAME`: that library's own generators and scorers.

Right is only what its scorer gives full marks. Deviations from the library, each for a reason:

1. Seeds. Its items use Random(seed + index), so neighbouring seeds share items. Ours draw blocks whose seeds are
   derived from the recipe's, drop what came before, and split by the hash of the question's text.
2. Processes. Some of its generators depend on Python's string hashes, and some scorers hand the answer to `eval` or to
   sympy's `parse_expr`, which evaluates it too, without a time limit. So both run in worker processes with a deadline.
   The entry (its metadata as JSON) is kept with the question: another process or another release cannot change it.
3. Hostile answers. Where a scorer evaluates (EVALUATES), an answer must be made of numbers, names, + - * / ** ( ) and
   calls of a few functions of mathematics, with small exponents. No attributes, strings, brackets, keywords, built-in
   names or calls of anything else: without them nothing but arithmetic can be written. Whatever does not fit is wrong
   ("unsafe_text"), unread; so is an integral given back as `Integral(…)`, which the scorer would take for its own
   solution.
4. Lenient scorers. Where they give full marks to answers that are no solutions, reasoning_gym_guards.py says what else
   must hold.
5. References. An entry whose own reference answer does not pass (or that has none) is dropped, and counted in `facts`;
   so is one of propositional_logic whose premises contradict each other. Tasks that have no references cannot be used.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from skillfactory import seeds
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.base import draw_unique, register
from skillfactory.tasks.reasoning_gym_safety import EVALUATES, is_safe

_SCORING = "skillfactory.tasks.reasoning_gym_scoring"
BLOCK = 20  # entries of one seed; a part of what a seed means, for some generators depend on it
DRAW_SECONDS = 120.0
SCORE_SECONDS = 10.0
MISSES = 2000
_EXCLUDED = {
    "boxnet": "the library gives it no reference answers",
    "composite": "it is made of others; name those",
    "rush_hour": "the library gives it no reference answers",
}
_NAME = re.compile(r'register_dataset\(\s*(?:"(\w+)"|DATASET_NAME)')
_CONSTANT = re.compile(r'^DATASET_NAME = "(\w+)"', re.MULTILINE)


@register("reasoning_gym", family=True)
class ReasoningGym:
    """One task of the library; the parameters are those of its own configuration."""

    slow_checks = True

    def __init__(self, member: str, /, **params: Any) -> None:
        self.name = f"reasoning_gym:{member}"
        self.member = member
        self.level = member
        self.params = _checked(member, params)
        self._drawn = self._dropped = 0

    def generate(self, n: int, seed: int, split: str = "") -> list[Question]:
        """`n` different questions whose reference answers pass; see Task.generate."""
        entries = self._entries(seed, split)
        what = f"{self.name} (reasoning-gym)"
        return draw_unique(lambda _: next(entries), n, seeds.rng(seed), split, what, misses=MISSES)

    def make(self, *, question: str, answer: str, metadata: dict[str, Any]) -> Question:
        """The question of one entry of the library, with a reference answer."""
        return Question(
            id=seeds.content_id("reasoning_gym", self.member, question),
            task=self.name,
            level=self.level,
            text=question,
            answer=answer,
            data=json.dumps({"params": self.params, "metadata": packed(metadata)}, ensure_ascii=False),
        )

    def example(self) -> Question:
        """Some question of the task."""
        return self.generate(1, seed=0)[0]

    def grade(self, question: Question, text: str) -> Grade:
        """Right iff the library's scorer gives the last answer full marks, within the deadline."""
        answer = extract_answer(text)
        if answer is None:
            return Grade("no_answer", reason="no_answer")
        if self.member in EVALUATES and not is_safe(answer):
            return Grade("wrong", answer, "unsafe_text")
        row = (self.member, question.text, question.answer, question.data)
        try:
            verdict = self._verdict(*row, answer)
        except deadline.DeadlineError:
            # Left out, it would pay to write answers that take for ever in place of wrong ones.
            reason = "unreadable" if self._reads_reference(question) else "check_timed_out"
            return Grade("wrong" if reason == "unreadable" else "no_answer", answer, reason)
        except Exception:  # whatever it is, it is the check's failure and not the model's
            return Grade("no_answer", answer, "check_failed")
        return Grade("correct", answer) if verdict == "correct" else Grade("wrong", answer, verdict)

    def _verdict(self, *row: str) -> str:
        return str(deadline.call(f"{_SCORING}:verdict", *row, seconds=SCORE_SECONDS))

    def _reads_reference(self, question: Question) -> bool:
        """Whether the scorer does with the reference in time, and so it is the answer that it cannot do."""
        reference = extract_answer(f"<answer>{question.answer}</answer>") or ""
        try:
            return self._verdict(self.member, question.text, question.answer, question.data, reference) == "correct"
        except Exception:
            return False

    def facts(self) -> dict[str, Any]:
        """The library, and how many entries were drawn so far and dropped for their reference answers."""
        return {"library": f"reasoning-gym {version('reasoning-gym')}", "drawn": self._drawn, "dropped": self._dropped}

    def _entries(self, seed: int, split: str) -> Iterator[Question]:
        kept = 0
        for block in count():
            block_seed = seeds.derive(seed, self.name, split, block) % 2**32
            try:
                found: list[dict[str, Any]] = deadline.call(
                    f"{_SCORING}:drawn", self.member, self.params, block_seed, seconds=DRAW_SECONDS
                )
            except deadline.DeadlineError as error:
                raise QuestionError(
                    f"{self.name}: {BLOCK} questions were not made in {DRAW_SECONDS:.0f} s; choose easier parameters."
                ) from error
            except Exception as error:
                raise QuestionError(f"{self.name}: the library failed to make questions: {_line(error)}.") from error
            self._drawn += BLOCK
            self._dropped += BLOCK - len(found)
            kept += len(found)
            if not kept and block >= 4:
                raise QuestionError(
                    f"{self.name}: none of its first {self._drawn} entries has a reference answer that passes its own "
                    "check; choose another task."
                )
            yield from (self.make(**entry) for entry in found)


def names() -> list[str]:
    """All tasks of the installed library, read from its sources: to import it takes a second or two."""
    spec = find_spec("reasoning_gym")
    if spec is None or spec.origin is None:
        return []
    found = set()
    for path in Path(spec.origin).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        constant = _CONSTANT.search(text)
        found |= {name or (constant[1] if constant else "") for name in _NAME.findall(text)}
    return sorted(found - {"", *_EXCLUDED})


def parameters(member: str) -> dict[str, Any]:
    """The parameters of a task of the library: {name: default}."""
    config = _known(member)()
    return {each.name: getattr(config, each.name) for each in fields(config) if each.name not in ("seed", "size")}


@cache
def _library() -> dict[str, Any]:
    if find_spec("reasoning_gym") is None:
        raise QuestionError(
            "Tasks `reasoning_gym:NAME` need the library; install it with `pip install 'skillfactory[reasoning-gym]'`."
        )
    from reasoning_gym.factory import DATASETS

    return {name: config for name, (_, config) in DATASETS.items() if name not in _EXCLUDED}


def _known(member: str) -> Any:
    known = _library()
    if member in _EXCLUDED:
        raise QuestionError(f"Task `reasoning_gym:{member}` cannot be used: {_EXCLUDED[member]}.")
    if member not in known:
        near = get_close_matches(member, known, n=1)
        hint = f"did you mean `reasoning_gym:{near[0]}`?" if near else "`skillfactory tasks reasoning_gym` lists them."
        raise QuestionError(
            f"Unknown task `reasoning_gym:{member}`; {hint}"
            if member
            else "`reasoning_gym` is a library of tasks; name one, such as `reasoning_gym:chain_sum`."
        )
    return known[member]


def _checked(member: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters, once the library's own configuration accepts them. Raises QuestionError."""
    config = _known(member)
    allowed = [each.name for each in fields(config) if each.name not in ("seed", "size")]
    for key in params:
        if key not in allowed:
            near = get_close_matches(key, allowed, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes: {', '.join(allowed) or 'none'}."
            raise QuestionError(f"Task `reasoning_gym:{member}` has no parameter `{key}`; {hint}")
    try:
        made = config(**params, seed=0, size=BLOCK)
        if hasattr(made, "validate"):
            made.validate()
        json.dumps(params)
    except Exception as error:  # whatever the library raises: assertions, mostly
        raise QuestionError(
            f"Task `reasoning_gym:{member}` cannot take these parameters: {_line(error)}; "
            f"its defaults are {', '.join(f'{key} {value!r}' for key, value in parameters(member).items())}."
        ) from error
    return params


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")


def packed(value: Any) -> Any:
    """Metadata as JSON can hold it: tuples and keys that are no texts keep what they are."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {str(key): packed(each) for key, each in value.items()}
        return {"__items__": [[packed(key), packed(each)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [packed(each) for each in value]}
    if isinstance(value, list):
        return [packed(each) for each in value]
    if isinstance(value, str):
        return str(value)  # numpy's kind of text becomes Python's
    if hasattr(value, "item"):
        return value.item()
    json.dumps(value)  # raises TypeError for what it cannot hold
    return value


def unpacked(value: Any) -> Any:
    """Metadata as it was before `packed`."""
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__tuple__"}:
        return tuple(unpacked(each) for each in value["__tuple__"])
    if value.keys() == {"__items__"}:
        return {unpacked(key): unpacked(each) for key, each in value["__items__"]}
    return {key: unpacked(each) for key, each in value.items()}
