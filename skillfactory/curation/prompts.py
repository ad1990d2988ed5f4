"""The prompts of curation, training and evaluation: plain data in `prompts.yaml`, or in the user's own file.

Every question is put to the model through this one file, so that attempts, SFT, RL and evaluation agree to the letter.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skillfactory import recipes
from skillfactory.curation.pool import HINTED, is_hinted
from skillfactory.errors import RecipeError
from skillfactory.recipe import Attempts
from skillfactory.records import Message

_FIELD = re.compile(r"\{(question|attempt|answer)\}")


class Example(BaseModel):
    """A worked example: what the user would say, and what the model is to answer. Nothing in it is filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str
    assistant: str


class Prompt(BaseModel):
    """A system text ("" for none), worked examples as earlier turns, and a user text with fields to fill in.

    The fields are `{question}`, for reflections `{attempt}`, and in the hint `{answer}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = ""
    examples: tuple[Example, ...] = ()
    user: str

    def fill(self, **texts: str) -> list[Message]:
        """The chat; all fields in one pass, so that a `{question}` inside an attempt stays what it is."""

        def filled(template: str) -> str:
            return _FIELD.sub(lambda field: texts.get(field[1], field[0]), template)

        system: list[Message] = [{"role": "system", "content": filled(self.system)}] if self.system else []
        turns: list[Message] = []
        for example in self.examples:
            turns += [{"role": "user", "content": example.user}, {"role": "assistant", "content": example.assistant}]
        return [*system, *turns, {"role": "user", "content": filled(self.user)}]


class Prompts(BaseModel):
    """A prompts file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: dict[str, Prompt] = Field(min_length=1)
    train_variant: str
    reflection_prompt: Prompt = Field(alias="reflection")
    instruction: Prompt | None = None  # of the ablation without SFT: asks for attempts and reflections in tags
    hint: str = ""  # follows the user text of a hinted variant
    leaks: tuple[str, ...] = ()  # words that a hinted attempt must not use

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, prompt in self.variants.items():
            if "{question}" not in prompt.user:
                raise ValueError(f"the user text of variant `{name}` lacks {{question}}")
        for field in ("{question}", "{attempt}"):
            if field not in self.reflection_prompt.user:
                raise ValueError(f"the user text of `reflection` lacks {field}")
        if self.instruction and "{question}" not in self.instruction.user:
            raise ValueError("the user text of `instruction` lacks {question}")
        if self.hint and ("{answer}" not in self.hint or not self.leaks):
            raise ValueError("`hint` needs the field {answer}, and a list `leaks` of words that give it away")
        if self.train_variant not in self.variants:
            raise ValueError(f"train_variant `{self.train_variant}` is none of: {', '.join(self.variants)}")
        return self

    def check(self, variants: Iterable[str]) -> None:
        """Raise RecipeError for the first variant that this file lacks, or that is named twice."""
        seen: set[str] = set()
        for name in variants:
            if name not in self.variants:
                near = get_close_matches(name, self.variants, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(self.variants)}."
                raise RecipeError(f"attempts.variants: the prompts have no variant `{name}`; {hint}")
            if name in seen:
                raise RecipeError(f"attempts.variants: `{name}` is listed twice; raise attempts.per_variant instead.")
            seen.add(name)

    def asked(self, settings: Attempts, task: object) -> list[str]:
        """The recipe's variants, each followed by its hinted twin where hints are wanted. Raises RecipeError."""
        self.check(settings.variants)
        if settings.hints == "never" or (settings.hints == "auto" and not getattr(task, "hints", False)):
            return settings.variants
        if not self.hint:
            raise RecipeError("attempts.hints: the prompts file has no `hint`; add one, or say attempts.hints=never.")
        return [name for variant in settings.variants for name in (variant, variant + HINTED)]

    def attempt(self, variant: str, question_text: str, answer: str = "") -> list[Message]:
        """The chat that asks for an attempt in the style of `variant`; `answer` is for hinted ones."""
        prompt = self.variants[variant.removesuffix(HINTED)]
        if is_hinted(variant):
            prompt = prompt.model_copy(update={"user": f"{prompt.user}\n\n{self.hint}"})
        return prompt.fill(question=question_text, answer=answer)

    def leaks_hint(self, variant: str, text: str) -> bool:
        """Whether a hinted attempt speaks of what it was shown: one of `leaks` at the beginning of a word."""
        return is_hinted(variant) and _leak(self.leaks).search(text) is not None

    def reflection(self, question_text: str, attempt_text: str) -> list[Message]:
        """The chat that asks for a critique of an attempt."""
        return self.reflection_prompt.fill(question=question_text, attempt=attempt_text)

    def train(self, question_text: str) -> list[Message]:
        """The chat of SFT, RL and evaluation."""
        return self.attempt(self.train_variant, question_text)


@cache
def _leak(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})", re.IGNORECASE)


def prompts_of(settings: Attempts) -> Prompts:
    """The prompts that a recipe asks for. Raises RecipeError for what is missing: file, instruction, examples."""
    prompts = load_prompts(settings.prompts)
    if settings.instruct:
        if prompts.instruction is None:
            raise RecipeError(
                f"{settings.prompts or 'prompts.yaml'} has no `instruction`, which attempts.instruct (method "
                "instruction_prompt) asks for; add one."
            )
        variants = {**prompts.variants, prompts.train_variant: prompts.instruction}
        prompts = prompts.model_copy(update={"variants": variants})
    if settings.examples:
        from skillfactory.curation.examples import load_examples, with_examples

        prompts = with_examples(prompts, load_examples(settings.examples))
    return prompts


@cache
def load_prompts(path: str = "") -> Prompts:
    """The prompts of a file, or the built-in ones. Raises RecipeError naming the file and what is wrong with it."""
    data = read_yaml(path, "prompts.yaml")
    try:
        return Prompts.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"Prompts file {path or 'prompts.yaml'}: {first_problem(error)}.") from error


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints in one phrase, with the key it is about."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"`{key}`: {message}" if key else message


def read_yaml(path: str, built_in: str) -> Any:
    """A YAML file of the user's, or ours of that name. Raises RecipeError naming file and line."""
    return recipes.read_yaml(Path(path) if path else Path(str(files("skillfactory.curation") / built_in)))[0]
