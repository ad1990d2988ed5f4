"""Responses of a teacher, as chat data have them: `messages`, `conversations`, or a prompt and a completion.

Of a row the first reply is taken, with the user's message before it; what a system prompt says is left out, since the
question is put to our model in its own prompt. Further replies of a conversation are counted, not learnt.

What is brought into our form: thinking that has a field of its own, OpenThoughts' marks, or no opening tag, is put
into `<think>`; a first or last paragraph of the question that speaks of `<answer>` is left out, since the train prompt
asks for that.
"""

import re
from collections.abc import Iterator
from typing import Any

from skillfactory.characters import whole
from skillfactory.errors import QuestionError
from skillfactory.formats.raw import Form, RawRow, RowError, is_raw, raw_form, read_rows
from skillfactory.formats.source import Row, kind_of
from skillfactory.reading import parse_json

TEACHER = "teacher"  # the variant of all such attempts

_CHATS = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "question", "problem", "instruction")
_REPLIES = ("completion", "response", "output", "generation")
_CORRECT = ("correct", "is_correct")
REFERENCES = (
    "answer", "reference_answer", "ground_truth", "expected_answer", "final_answer", "reference", "solution",
)  # fmt: skip
_KNOWN = (*_CHATS, *_PROMPTS, *_REPLIES, *_CORRECT, *REFERENCES)
_ROLES = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "bot": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # fields of a message
_MARKS = (
    (re.compile(r"<\|begin_of_thought\|>"), "<think>"),
    (re.compile(r"<\|end_of_thought\|>"), "</think>"),
    (re.compile(r"<\|(?:begin|end)_of_solution\|>\s*"), ""),
)
_LONGEST_REFERENCE = 2000

Turn = tuple[str, str]  # role, text


def read_given(source: str, revision: str = "") -> Iterator[RawRow]:
    """Samples made elsewhere, see read_rows: the authors' raw data, or responses of a teacher.

    Of the latter `correct` is None and `answer` "" where the file does not say. Raises QuestionError.
    """
    return read_rows(source, revision, _form)


def _form(place: str, names: list[str]) -> Form:
    if is_raw(names):
        return raw_form(place, names)
    chat = any(name in _CHATS for name in names)
    if not chat and not (any(name in _PROMPTS for name in names) and any(name in _REPLIES for name in names)):
        raise QuestionError(
            f"{place} has no column `messages` or `conversations`, no `prompt` with a `completion`, and not the "
            f"columns of the authors' raw data (it has: {', '.join(names) or 'none'})."
        )
    return Form([name for name in names if name in _KNOWN], _responses)


def _responses(row: Row, number: int) -> Iterator[RawRow]:
    """The first reply of a row. Raises RowError naming the column."""
    column = next((name for name in _CHATS if row.get(name) is not None), "")
    if column:
        turns, reply, further = _exchange(_turns(row[column], column), column)
    else:
        turns, reply, further = _pair(row)
    question = _question(next(text for role, text in reversed(turns) if role == "user"))
    yield RawRow(
        question, _reference(row), TEACHER, _marked(reply), _correct(row), "", [], number, chat=True, further=further
    )


def _exchange(turns: list[Turn], column: str) -> tuple[list[Turn], str, int]:
    """What stands before the first reply, the reply, and how many follow."""
    place = next((n for n, (role, _) in enumerate(turns) if role == "assistant"), -1)
    if place < 0:
        raise RowError(f"no reply of an assistant in `{column}`; leave the row out")
    before = turns[:place]
    if not any(role == "user" for role, _ in before):
        raise RowError(f"nothing that a user says before the reply in `{column}`; leave the row out")
    return before, turns[place][1], sum(role == "assistant" for role, _ in turns[place + 1 :])


def _pair(row: Row) -> tuple[list[Turn], str, int]:
    """The same of a prompt and a completion, each a text or messages."""
    asked = next((name for name in _PROMPTS if row.get(name) is not None), "")
    said = next((name for name in _REPLIES if row.get(name) is not None), "")
    for found, names in ((asked, _PROMPTS), (said, _REPLIES)):
        if not found:
            known = next((name for name in names if name in row), names[0])
            raise RowError(f"`{known}` is missing or null; it must be text or messages")
    before = _turns(row[asked], asked, "user")
    replies = [text for role, text in _turns(row[said], said, "assistant") if role == "assistant"]
    if not replies:
        raise RowError(f"no reply of an assistant in `{said}`; leave the row out")
    if not any(role == "user" for role, _ in before):
        raise RowError(f"nothing that a user says in `{asked}`; leave the row out")
    return before, replies[0], len(replies) - 1 + sum(role == "assistant" for role, _ in before)


def _turns(value: Any, column: str, alone: str = "") -> list[Turn]:
    """The turns of a chat, up to what is not understood after the first reply; a bare text is one turn of `alone`."""
    if isinstance(value, str):
        if alone:
            return [(alone, _said(value, column))]
        try:
            value = parse_json(value)  # some files hold the list as text
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise RowError(f"`{column}` is {kind_of(value)}; it must be a list of messages")
    turns: list[Turn] = []
    answered = False
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise RowError(f"number {number} in `{column}` is {kind_of(message)}; it must be a message")
        given = message.get("role") if message.get("role") is not None else message.get("from")
        role = _ROLES.get(given.lower() if isinstance(given, str) else "", "")
        if not role and not answered:
            named = repr(given)[:40] if isinstance(given, str) else kind_of(given)
            raise RowError(
                f"number {number} in `{column}` has the role {named}, which is none of {', '.join(_ROLES)}; leave the "
                "row out"
            )
        if answered:
            turns.append((role, ""))
            continue
        where = f"number {number} in `{column}`"
        text = _content(message, where)
        if role == "assistant":
            text, answered = _said(_with_thoughts(message, text), where), True
        elif role == "user":
            text = _said(text, where)
        turns.append((role, text))
    return turns


def _content(message: Row, where: str) -> str:
    """The text of a message, which may come in parts."""
    content = message.get("content") if message.get("content") is not None else message.get("value")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return "".join(texts)
    if content is None and any(isinstance(message.get(name), str) for name in _THOUGHTS):
        return ""
    if not isinstance(content, str):
        raise RowError(f"{where} says {kind_of(content)}; it must be text")
    return content


def _with_thoughts(message: Row, text: str) -> str:
    thoughts = next((message[name] for name in _THOUGHTS if isinstance(message.get(name), str)), "").strip()
    return f"<think>\n{thoughts}\n</think>\n\n{text.lstrip()}" if thoughts and "</think>" not in text else text


def _said(text: str, where: str) -> str:
    if not text.strip():
        raise RowError(f"{where} is empty; leave the row out")
    if whole(text) != text:  # of a list as text, which JSON spelled
        raise RowError(f"{where} holds half a surrogate pair, which is no text; write the letter itself")
    return text.strip()


def _marked(reply: str) -> str:
    if "<|" in reply:
        for mark, ours in _MARKS:
            reply = mark.sub(ours, reply)
    reply = reply.strip()
    return f"<think>\n{reply}" if "</think>" in reply and "<think>" not in reply else reply


def _question(text: str) -> str:
    """The question without how its answer is to be given."""
    parts = re.split(r"\n\s*\n", text)
    if len(parts) > 1 and "<answer>" in parts[-1]:
        text = text[: text.rindex(parts[-1])]
    elif len(parts) > 1 and "<answer>" in parts[0]:
        text = text[text.index(parts[0]) + len(parts[0]) :]
    return text.strip()


def _correct(row: Row) -> bool | None:
    name = next((name for name in _CORRECT if row.get(name) is not None), "")
    if name and not isinstance(row[name], bool):
        raise RowError(f"`{name}` is {kind_of(row[name])}; it must be true or false")
    return row[name] if name else None


def _reference(row: Row) -> str:
    """The right answer, "" where the row has none: the text of a column, or the last box or `####` of a longer one."""
    for name in REFERENCES:
        value = row.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) in (int, float) and value == value:
            return str(value)
        if isinstance(value, str) and (found := short_answer(value)):
            return found
    return ""


def short_answer(text: str) -> str:
    """What a solution gives as its answer: the last box, what follows the last `####`, or a line that stands alone."""
    from skillfactory.tasks.published import boxed  # the tasks know of this module

    boxes = [box for box in boxed(text) if box]
    found = boxes[-1] if boxes else text.rpartition("####")[2].strip()
    return found if "\n" not in found and len(found) <= _LONGEST_REFERENCE else ""
