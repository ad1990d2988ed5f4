"""Checks of a model's tokenizer and chat template against the texts that this method has it write."""

import re
from collections.abc import Iterator

from skillfactory.checkup.check import Check, failed, ok, problem, warning
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.models import ChatTokenizer
from skillfactory.errors import ModelError, SkillFactoryError
from skillfactory.recipe import Recipe

MARK = "QUESTIONMARKER"
TRACE = (
    "<think>\n<sample>\n1 + 2 = 3.\n<answer>1 + 2</answer>\n</sample>\n<reflect>\nThat is right.\n"
    "<verdict>Correct</verdict>\n</reflect>\n</think>\n\n<answer>\n1 + 2\n</answer>"
)
TAGS = tuple(f"<{end}{tag}>" for tag in ("think", "sample", "reflect", "answer", "verdict") for end in ("", "/"))
_FOLDER = "Change chat_template.jinja in a copy of the model's folder, and name that as the model."


def checks(recipe: Recipe) -> Iterator[Check]:
    """All of them, or why the tokenizer cannot be used."""
    try:
        chat = ChatTokenizer.load(recipe)
    except ModelError as error:
        yield failed("chat template", error)
        return
    yield roles(chat, recipe)
    yield from opening(chat)
    yield ending(chat)
    yield tags(chat)


def roles(chat: ChatTokenizer, recipe: Recipe) -> Check:
    """Whether the template writes every prompt of the recipe: some have a system text, or earlier turns."""
    try:
        prompts = prompts_of(recipe.attempts)
        variants = dict.fromkeys([prompts.train_variant, *recipe.attempts.variants])
        texts = {name: prompts.attempt(name, MARK, "0") for name in variants} | {
            "reflection": prompts.reflection(MARK, "0")
        }
        for name, messages in texts.items():
            try:
                written = chat.write(messages)
            except ModelError as error:
                return problem(
                    "chat template", f"Prompt `{name}`: {error}",
                    "Leave that variant out of attempts.variants, or give attempts.prompts without a system text.",
                )  # fmt: skip
            if MARK not in written:
                return problem(
                    "chat template", f"Prompt `{name}`: the template leaves out what the user says.", _FOLDER
                )
    except SkillFactoryError as error:
        return failed("chat template", error)
    return ok("chat template", f"It writes all {len(texts)} prompts of the recipe.")


def opening(chat: ChatTokenizer) -> Iterator[Check]:
    """What the template puts before the question, and where the model is to answer."""
    bare = chat.write([{"role": "user", "content": MARK}], asks=False)
    asked = chat.write([{"role": "user", "content": MARK}])
    before, after = asked.partition(MARK)[::2]
    if own := _words(before, chat):
        yield ok("system text", f"The template has one of its own, which every prompt without one gets: “{own[:100]}”.")
    if asked == bare:
        yield warning("turn", "The template has no sign that it is the model's turn (add_generation_prompt).", _FOLDER)
    if after.rstrip().endswith("<think>"):
        yield problem("thinking", "The template opens <think> itself, and traces open it again.", _FOLDER)
    elif "<think>" in after:
        yield warning(
            "thinking", "The template puts empty thinking before each answer; traces think after it.", _FOLDER
        )


def _words(text: str, chat: ChatTokenizer) -> str:
    """The words of a text without special tokens and names of roles; "" for fewer than three."""
    for token in sorted({*chat.tokenizer.all_special_tokens, *chat.tokenizer.get_added_vocab()}, key=len, reverse=True):
        text = text.replace(token, " ")
    words = [word for word in text.split() if word.strip("<|>[]:") not in ("system", "user", "human", "assistant")]
    return " ".join(words) if len(words) > 2 else ""


def ending(chat: ChatTokenizer) -> Check:
    """Whether the template ends a turn as sampling and SFT do, by the token of the end (eos)."""
    try:
        text = chat.write([{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}], asks=False)
    except ModelError as error:
        return failed("end of turn", error)
    rest, end = text.partition(MARK)[2].strip(), chat.tokenizer.eos_token
    if rest and not rest.startswith(end):
        shown = re.split(r"(?<=>)", rest)[0][:40]
        return warning(
            "end of turn", f"The template ends a turn by {shown}, but the tokenizer's eos token is {end}.",
            "Set eos_token in tokenizer_config.json to the former, unless generation_config.json names both.",
        )  # fmt: skip
    return ok("end of turn", f"A turn ends by {end}.")


def tags(chat: ChatTokenizer) -> Check:
    """Whether a trace survives being tokens, and how many its tags take."""
    ids = chat.tokenizer(TRACE, add_special_tokens=False)["input_ids"]
    if chat.decode(ids) != TRACE:
        lost = [tag for tag in TAGS if chat.decode(chat.tokenizer(tag, add_special_tokens=False)["input_ids"]) != tag]
        named = f" ({', '.join(lost)} among them)" if lost else ""
        return problem(
            "tags", f"A trace is not the same after it was tokens{named}.",
            "Take a tokenizer that keeps them: its special tokens are left out of what is read.",
        )  # fmt: skip
    taken = dict(zip(TAGS, chat.count_each(TAGS), strict=True))
    pair = sum(n for tag, n in taken.items() if "think" not in tag)
    return ok(
        "tags",
        f"They take {pair} tokens an attempt with its reflection, {sum(taken.values()) - pair} a trace.",
    )
