"""The published data sets of the paper: where each is, what its columns are, and how a row becomes a question.

A revision is the commit of the set on the hub that other public projects pin too, so that a recipe says the same
questions next year.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

from pydantic import Field, create_model

from skillfactory import seeds
from skillfactory.characters import whole
from skillfactory.errors import QuestionError
from skillfactory.tasks.params import Params

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """What a row says. With `choices`, `answer` is the letter of the right one (A is the first)."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    level: str = ""


class HubParams(Params):
    """Settings of every published data set."""

    path: str = Field(
        "", description="A local copy in place of the hub: a json, jsonl, csv or parquet file, or a folder."
    )
    hub_id: str = Field("", description="The data set on the Hugging Face hub.")
    config: str = Field("", description="Its configuration; empty where it has but one.")
    revision: str = Field("", description="Commit, tag or branch on the hub.")
    split: str = Field("", min_length=1, description="Its split; two splits are two tasks to a recipe.")
    rows: int = Field(0, ge=0, description="Read at most this many rows; 0 is all that are needed.")


class Math500Params(HubParams):
    """Settings of math500."""

    level: int = Field(0, ge=0, le=5, description="Only problems of this level, 1 to 5; 0 is all.")


class OpenThoughtsParams(HubParams):
    """Settings of openthoughts3."""

    domain: str = Field("math", description="Only rows of this domain; empty is all.")
    stream: bool = Field(
        True, description="Read over the network only as far as needed; false downloads the whole set, once."
    )


@dataclass(frozen=True)
class DataSet:
    """A published data set. `read` makes an Item of a row, or gives the reason why the row is no use.

    `rule` is one of tasks.grading.RULES. `reader` are options of `datasets` for its files. `example` is a row of ours
    in the set's own columns. `large` sets are read in a seeded order, and only as far as questions are needed. Those
    with `hints` hold questions too hard to be solved without (paper §4).
    """

    name: str
    about: str
    params: type[HubParams]
    columns: tuple[str, ...]
    rule: str
    read: Callable[[Row, Any], Item | str]
    example: Row
    ask: str = ""
    levels: Mapping[str, Mapping[str, Any]] | None = None
    reader: Mapping[str, Any] | None = None
    large: bool = False
    hints: bool = False

    def default(self, key: str) -> str:
        """The setting `key` where a recipe leaves it out."""
        return str(self.params.model_fields[key].default)


def _at(name: str, base: type[HubParams] = HubParams, **defaults: str) -> type[HubParams]:
    """The settings `base` with these defaults."""
    old = base.model_fields
    fields: dict[str, Any] = {
        key: (str, Field(value, description=old[key].description, min_length=1 if key == "split" else None))
        for key, value in defaults.items()
    }
    return create_model(f"{name}Params", __base__=base, __module__=__name__, **fields)


def text(row: Row, column: str) -> str:
    """A cell as text without spaces around it. Raises QuestionError where there is none."""
    value = as_text(row.get(column))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
        raise QuestionError(f"`{column}` is null or empty.")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise QuestionError(f"`{column}` must be text or a number, not {type(value).__name__}.")
    if whole(str(value)) != str(value):
        raise QuestionError(f"`{column}` holds half a surrogate pair, which is no text.")
    return str(value).strip()


def as_text(value: Any) -> Any:
    """The value; a date as the text which `datasets` took for one, in a column of JSON that holds nothing else."""
    if not isinstance(value, datetime):
        return value
    return value.date().isoformat() if value.time() == time.min else value.isoformat(" ")


def identity(name: str, question: str, choices: tuple[str, ...] = ()) -> str:
    """The id of a question: the same whatever its spacing and the order of its options."""
    return seeds.content_id(name, " ".join(question.split()), *sorted(choices))


def letter(index: int) -> str:
    """The letter of an option: 0 is A."""
    return chr(ord("A") + index)


# --- one function a set


def _gsm8k(row: Row, params: HubParams) -> Item:
    _, mark, answer = text(row, "answer").rpartition("####")
    if not mark or not answer.strip():
        raise QuestionError("`answer` has no number after `####`.")
    return Item(text(row, "question"), answer.strip())


def _commonsense_qa(row: Row, params: HubParams) -> Item:
    """Flat as on the hub, or with question.stem and question.choices as its authors gave it out."""
    inner = row["question"] if isinstance(row.get("question"), Mapping) else None
    question = text(inner, "stem") if inner else text(row, "question")
    options = _json((inner or row).get("choices"))
    pairs: list[tuple[Any, Any]] = []
    if isinstance(options, list):  # [{label, text}, …]
        pairs = [(option.get("label"), option.get("text")) for option in options if isinstance(option, Mapping)]
    elif isinstance(options, Mapping) and isinstance(options.get("label"), list):  # {label: […], text: […]}
        pairs = list(zip(options["label"], options.get("text") or [], strict=False))
    pairs = [(as_text(label), as_text(option)) for label, option in pairs]
    if len(pairs) < 2 or not all(isinstance(part, str) and part.strip() for pair in pairs for part in pair):
        raise QuestionError("`choices` must have a `label` and a `text` for each of at least two options.")
    try:
        key = text(row, "answerKey")
    except QuestionError as error:
        raise QuestionError("`answerKey` is null or empty; the test split is published without keys.") from error
    labels = [label.strip() for label, _ in pairs]
    if key not in labels:
        raise QuestionError(f"`answerKey` {key!r} is none of the labels {', '.join(labels)}.")
    return Item(question, letter(labels.index(key)), tuple(" ".join(option.split()) for _, option in pairs))


def _json(value: Any) -> Any:
    """The value, read as JSON where it is text (a cell of a csv file)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _math500(row: Row, params: Any) -> Item | str:
    level = text(row, "level")
    if params.level and level != str(params.level):
        return "other_level"
    return Item(text(row, "problem"), text(row, "answer"), level=f"level {level}")


def _aime2025(row: Row, params: HubParams) -> Item:
    return Item(text(row, "problem"), text(row, "answer"))


def _amc2023(row: Row, params: HubParams) -> Item:
    return Item(text(row, "question"), text(row, "answer").removesuffix(".0"))


def _gpqa(row: Row, params: HubParams) -> Item:
    """Options in an order that hangs on the question alone, so that it is the same in every run."""
    question = text(row, "Question")
    options = [" ".join(text(row, column).split()) for column in _GPQA_OPTIONS]
    order = list(range(len(options)))
    seeds.rng(0, "gpqa", identity("gpqa", question, tuple(options))).shuffle(order)
    return Item(question, letter(order.index(0)), tuple(options[i] for i in order))


_GPQA_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def _openthoughts3(row: Row, params: Any) -> Item | str:
    """The reference answer is the last boxed one after the thinking (paper §4)."""
    if params.domain and row.get("domain") != params.domain:
        return "other_domain"
    turns = _json(row.get("conversations"))
    said: dict[str, str] = {}
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping):
            who, words = turn.get("from") or turn.get("role"), turn.get("value") or turn.get("content")
            said.setdefault({"human": "user", "gpt": "assistant"}.get(str(who), str(who)), str(words or ""))
    question, reply = said.get("user", "").strip(), said.get("assistant", "")
    if not question:
        return "no_question"
    _, closed, after = reply.rpartition("</think>")
    if not closed and "<think>" in reply:
        return "thinking_cut"
    answers = [answer for answer in boxed(after) if answer]
    if not answers:
        return "no_boxed_answer"
    if len({re.sub(r"[\s$]", "", answer) for answer in answers}) > 1:
        return "several_boxed_answers"
    return Item(question, answers[-1])


_BRACE = re.compile(r"(\\boxed\s*\{)|\\.|[{}]", re.DOTALL)


def boxed(latex: str) -> Iterator[str]:
    r"""What stands in each closed, outermost \boxed{…}, from left to right; braces may nest, \{ and \} do not count."""
    starts: list[int] = []  # of each open brace: where its box begins, or -1
    for brace in _BRACE.finditer(latex):
        if brace[1]:
            starts.append(brace.end())
        elif brace[0] == "{":
            starts.append(-1)
        elif brace[0] == "}" and starts:
            start = starts.pop()
            if start >= 0 and max(starts, default=-1) < 0:
                yield latex[start : brace.start()].strip()


SETS = (
    DataSet(
        name="gsm8k",
        about="Grade-school word problems (GSM8K).",
        params=_at("Gsm8k", hub_id="openai/gsm8k", config="main", split="test",
                   revision="740312add88f781978c0658806c59bc2815b9866"),
        columns=("question", "answer"),
        rule="number",
        read=_gsm8k,
        ask="The answer is a number.",
        example={
            "question": "A baker fills 6 trays with 12 rolls each and sells 50 rolls. How many rolls are left?",
            "answer": "There are 6 * 12 = <<6*12=72>>72 rolls.\nThen 72 - 50 = <<72-50=22>>22 are left.\n#### 22",
        },
    ),
    DataSet(
        name="commonsense_qa",
        about="Everyday knowledge in five options (CommonsenseQA).",
        params=_at("CommonsenseQa", hub_id="tau/commonsense_qa", config="default", split="validation",
                   revision="94630fe30dad47192a8546eb75f094926d47e155"),
        columns=("question", "answerKey"),
        rule="choice",
        read=_commonsense_qa,
        example={
            "id": "example",
            "question": "Where would you most likely keep milk so that it stays fresh?",
            "question_concept": "milk",
            "choices": {
                "label": ["A", "B", "C", "D", "E"],
                "text": ["oven", "window sill", "refrigerator", "bookshelf", "garage"],
            },
            "answerKey": "C",
        },
    ),
    DataSet(
        name="math500",
        about="Competition mathematics in five levels (MATH500).",
        params=_at("Math500", Math500Params, hub_id="HuggingFaceH4/MATH-500", config="default", split="test",
                   revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
        columns=("problem", "answer", "level"),
        rule="math",
        read=_math500,
        ask="The answer is a number or a mathematical expression.",
        levels={f"level {level}": {"level": level} for level in range(1, 6)},
        example={
            "problem": "What is $\\frac{1}{2} + \\frac{1}{3}$?",
            "solution": "Over a common denominator this is $\\frac{3}{6} + \\frac{2}{6} = \\boxed{\\frac{5}{6}}$.",
            "answer": "\\frac{5}{6}",
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": "example.json",
        },
    ),
    DataSet(
        name="aime2025",
        about="American Invitational Mathematics Examination of 2025, both parts.",
        params=_at("Aime2025", hub_id="math-ai/aime25", config="default", split="test",
                   revision="563bb8404243c5f09de6ec262f2db674fe5bce9b"),
        columns=("problem", "answer"),
        rule="math",
        read=_aime2025,
        ask="The answer is a whole number.",
        example={
            "problem": "Find the number of positive integers $n \\le 100$ that are divisible by neither $2$ nor $5$.",
            "answer": "40",
            "id": "0",
        },
    ),
    DataSet(
        name="amc2023",
        about="American Mathematics Competitions of 2023.",
        params=_at("Amc2023", hub_id="math-ai/amc23", config="default", split="test",
                   revision="80815d37005feb82cd7f8fbc6901d5d3eff43057"),
        columns=("question", "answer"),
        rule="math",
        read=_amc2023,
        ask="The answer is a number.",
        example={
            "id": 0,
            "answer": "36",
            "url": "https://example.org",
            "question": "Two buses leave a stop every $12$ and every $18$ minutes. After how many minutes do they next "
            "leave together?",
        },
    ),
    DataSet(
        name="gpqa",
        about="Graduate-level science in four options (GPQA).",
        params=_at("Gpqa", hub_id="Idavidrein/gpqa", config="gpqa_diamond", split="train",
                   revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd"),
        columns=("Question", *_GPQA_OPTIONS),
        rule="choice",
        read=_gpqa,
        reader={"keep_default_na": False, "na_values": [""]},  # "None" is the text of an option
        example={
            "Question": "Which of these particles has no electric charge?",
            "Correct Answer": "neutron",
            "Incorrect Answer 1": "proton",
            "Incorrect Answer 2": "electron",
            "Incorrect Answer 3": "positron",
            "Record ID": "example",
            "High-level domain": "Physics",
            "Subdomain": "Physics (general)",
        },
    ),
    DataSet(
        name="openthoughts3",
        about="Questions with a reasoning model's replies (OpenThoughts3-1.2M).",
        params=_at("OpenThoughts3", OpenThoughtsParams, hub_id="open-thoughts/OpenThoughts3-1.2M", config="default",
                   split="train", revision="61bcf9d4eb38b30295efc2021227a63cc5bb34c8"),
        columns=("conversations", "domain"),
        rule="math",
        read=_openthoughts3,
        ask="The answer is a number or a mathematical expression.",
        large=True,
        hints=True,
        example={
            "difficulty": 4,
            "source": "example",
            "domain": "math",
            "conversations": [
                {"from": "human", "value": "Simplify $\\sqrt{50} - \\sqrt{8}$."},
                {
                    "from": "gpt",
                    "value": "<think>\nMaybe \\boxed{4}? No: $5\\sqrt{2} - 2\\sqrt{2}$.\n</think>\n\n"
                    "It is $5\\sqrt{2} - 2\\sqrt{2}$, so the answer is $\\boxed{3\\sqrt{2}}$.",
                },
            ],
        },
    ),
)  # fmt: skip
