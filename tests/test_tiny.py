"""The tiny base's world holds single tries and true judgements alone, and its tokenizer any text."""

import json
import random
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import make_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import engines, recipes, seeds
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.curation.reflections import verdict_of
from skillfactory.engines.base import Request, SamplingParams
from skillfactory.records import Message, Question
from skillfactory.tasks.acronym import Acronym
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.arithmetic import parse
from skillfactory.tasks.base import Task, home
from skillfactory.tasks.countdown import Countdown, random_expression
from skillfactory.tasks.letter_countdown import LetterCountdown
from skillfactory.tasks.multiplication import Multiplication
from skillfactory.tasks.questions import Pool, task_of
from skillfactory.tiny import FOLDER
from skillfactory.tiny.world import _CHECKS, _MATCH, _NO_MATCH, World, notes, steps_of

DIALOGUES = 5000
TASKS = ("countdown", "multiplication", "letter_countdown", "acronym")
TRACE_TAG = re.compile(r"</?(?:sample|reflect|think)>", re.IGNORECASE)
VERDICT = re.compile(r"</?verdict>", re.IGNORECASE)
# Words of starting over, checking or doubting: none has a place in a single attempt.
SECOND_THOUGHTS = re.compile(
    r"\b(?:again|another|wait|check\w*|verif\w*|confirm\w*|wrong|incorrect|mistake|try(?:ing)? (?:once|something)|"
    r"start over|go back|instead|does not match|retry)\b",
    re.IGNORECASE,
)
LISTED = r"the words are: [a-z, ]+\.|<answer>[a-z ]+</answer>"  # an acronym's words may be any
ALLOWED = ("To say it again:", "Plan: take one number after another.")  # of the question, and of its numbers


@cache
def dialogues() -> tuple[tuple[Message, ...], ...]:
    world = World(seeds.rng(0, "tests"))
    return tuple(tuple(world.dialogue()) for _ in range(DIALOGUES))


def asked_to_judge(dialogue: tuple[Message, ...]) -> bool:
    return "Here is a question and an attempt to answer it." in dialogue[-2]["content"]


def judged_attempt(dialogue: tuple[Message, ...]) -> str:
    return dialogue[-2]["content"].partition("\nAttempt:\n")[2].partition("\n\nCheck whether")[0]


def attempts() -> list[str]:
    return [judged_attempt(d) if asked_to_judge(d) else d[-1]["content"] for d in dialogues()]


def question_in(text: str) -> tuple[Task, Question]:
    """The task and question that a prompt asks."""
    if product := re.search(r"What is (\d+) \* (\d+) \?", text):
        a, b = map(int, product.groups())
        return Multiplication(digits=len(str(a)), digits_b=len(str(b))), Multiplication().make(a=a, b=b)
    if letters := re.search(r"Letters: ([a-z, ]+)\.\nMake an English word of (\d+)", text):
        return LetterCountdown(), LetterCountdown().make(letters=letters[1].split(", "), length=int(letters[2]))
    if listed := re.search(r"Words: ([a-z, ]+)\.\nChoose (\d+) of them", text):
        return Acronym(), Acronym().make(words=listed[1].split(", "), length=int(listed[2]))
    found = re.search(r"Use the numbers ([\d, ]+) to make (-?\d+)\.", text)
    assert found, text
    numbers = [int(number) for number in found[1].split(",")]
    in_order = "in this order" in text
    task = Countdown(count=len(numbers), operators="+-" if in_order else "+-*/", in_order=in_order)
    return task, task.make(numbers=numbers, target=int(found[2]), answer="unknown")


# --- the world


def test_every_task_comes_in_both_kinds_of_dialogue() -> None:
    seen = {(question_in(d[-2]["content"])[1].task, asked_to_judge(d)) for d in dialogues()}
    assert seen == {(kind, judged) for kind in TASKS for judged in (False, True)}


def test_both_kinds_of_dialogue_come_in_every_style() -> None:
    judged = sum(map(asked_to_judge, dialogues()))
    assert 0.4 < judged / DIALOGUES < 0.7
    prompts = load_prompts()
    seen = set()
    for dialogue in dialogues():
        if not asked_to_judge(dialogue):
            _, question = question_in(dialogue[-2]["content"])
            seen |= {v for v in prompts.variants if prompts.attempt(v, question.text) == list(dialogue[:-1])}
    assert seen == set(prompts.variants)


def test_no_attempt_tries_twice_or_checks_itself() -> None:
    banks = [phrase for _, bank in load_phrases() for phrase in bank]
    judgements = [*_CHECKS, *_MATCH, *_NO_MATCH]
    for attempt in attempts():
        assert len(re.findall(r"<answer>", attempt)) == len(re.findall(r"</answer>", attempt)) == 1, attempt
        assert attempt.endswith("</answer>"), attempt
        assert not TRACE_TAG.search(attempt), attempt
        assert not VERDICT.search(attempt), attempt
        held = [phrase for phrase in [*banks, *judgements] if phrase.casefold() in attempt.casefold()]
        assert not held, (attempt, held)
        plain = re.sub(LISTED, "", attempt)
        for opening in ALLOWED:
            plain = plain.removeprefix(opening)
        assert not SECOND_THOUGHTS.search(plain), attempt


def test_the_words_of_second_thoughts_are_recognized() -> None:
    for phrase in load_phrases().after_incorrect:
        assert SECOND_THOUGHTS.search(phrase) or "not" in phrase or "out" in phrase or "Not" in phrase, phrase
    for _, bank in load_phrases():
        assert sum(bool(SECOND_THOUGHTS.search(phrase)) for phrase in bank) > 0


def test_no_dialogue_holds_tags_of_traces() -> None:
    for dialogue in dialogues():
        assert not TRACE_TAG.search(dialogue[-1]["content"])
        assert not TRACE_TAG.search(dialogue[-2]["content"])
        assert len(re.findall("<verdict>", dialogue[-1]["content"])) == int(asked_to_judge(dialogue))


def test_reflections_judge_once_and_truly() -> None:
    verdicts = {"correct": 0, "incorrect": 0}
    for dialogue in filter(asked_to_judge, dialogues()):
        reflection = dialogue[-1]["content"]
        task, question = question_in(dialogue[-2]["content"])
        outcome = task.grade(question, judged_attempt(dialogue)).outcome
        verdict = verdict_of(reflection)
        assert verdict == ("correct" if outcome == "correct" else "incorrect"), dialogue
        assert ("Incorrect" in reflection) == (verdict == "incorrect")
        assert any(text in reflection for text in _MATCH) == (verdict == "correct"), reflection
        assert any(text in reflection for text in _NO_MATCH) == (verdict == "incorrect"), reflection
        assert "<answer>" not in reflection
        verdicts[verdict] += 1
    assert min(verdicts.values()) > 500


def test_calculations_that_are_written_down_are_right() -> None:
    """In attempts only a product's result may be wrong (its model cannot multiply well); sums are always right."""
    chains = 0
    for dialogue in dialogues():
        for line in dialogue[-1]["content"].splitlines():
            if "*" in line and "Use the numbers" not in dialogue[-2]["content"]:
                continue
            for chain in re.findall(r"-?\d+(?: [+-] \d+ = -?\d+)+", line):
                value, *rest = re.findall(r"(?:[+-] )?-?\d+", chain.replace("= ", "=").replace("=", ""))
                total = int(value)
                for operand, stated in zip(rest[::2], rest[1::2], strict=True):
                    total += int(operand.replace(" ", ""))
                    assert total == int(stated), dialogue[-1]["content"]
                chains += 1
            for left, operator, right, stated in re.findall(r"(-?\d+) ([*/]) (-?\d+) = (-?\d+)", line):
                assert parse(f"{left} {operator} {right}").value == int(stated)
                chains += 1
    assert chains > 1000


def test_every_question_is_at_home_in_pretraining() -> None:
    for dialogue in dialogues():
        _, question = question_in(dialogue[-2]["content"])
        assert home(question.id) == "pretrain"


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_no_recipes_questions_are_in_the_world(name: str) -> None:
    recipe = recipes.load_recipe(name)
    asked = {question_in(dialogue[-2]["content"])[1].id for dialogue in dialogues()}
    specs = [recipe.questions.task, *(each.task for each in recipe.evaluation.sets.values())]
    for spec in specs:
        if isinstance(task_of(spec), Pool):  # published elsewhere, and nothing that the world could write
            continue
        for split in ("sft", "rl", "dev", "eval"):
            drawn = task_of(spec).generate(10, 1, split)
            assert not asked & {question.id for question in drawn}


def test_dialogues_follow_from_the_seed() -> None:
    first, second, other = (World(random.Random(seed)) for seed in (1, 1, 2))
    assert [first.dialogue() for _ in range(20)] == [second.dialogue() for _ in range(20)]
    assert [first.dialogue() for _ in range(20)] != [other.dialogue() for _ in range(20)]


@given(st.integers(2, 6), st.booleans(), st.integers(0, 2**32))
def test_steps_are_what_the_expression_says(count: int, in_order: bool, seed: int) -> None:
    rng = random.Random(seed)
    task = Countdown(count=count, high=19, operators="+-" if in_order else "+-*/", in_order=in_order)
    drawn = random_expression([rng.randint(1, 19) for _ in range(count)], task.params, rng)
    if drawn is None:
        return
    text, value = drawn
    steps = steps_of(text)
    parsed = parse(text)
    assert steps[-1][3] == value == parsed.value
    assert sorted(step[1] for step in steps) == sorted(parsed.operators)
    for left, operator, right, result in steps:
        sign = {"+": left + right, "-": left - right, "*": left * right}
        assert result == (sign[operator] if operator in sign else left / right)


def test_steps_go_from_left_to_right_and_inside_out() -> None:
    assert [tuple(map(str, step)) for step in steps_of("7 + 3 - 4")] == [("7", "+", "3", "10"), ("10", "-", "4", "6")]
    assert [str(step[3]) for step in steps_of("2 * (3 + 4) - 10 / 5")] == ["7", "14", "2", "12"]


def test_notes_hold_no_question_and_no_tag() -> None:
    text = notes(random.Random(0), 200)
    assert len(text.splitlines()) == 200
    assert all(re.fullmatch(r"Note: \d+(?:, \d+)*\.", line) for line in text.splitlines())


# --- the tokenizer


@settings(max_examples=300)
@given(text=st.text())
def test_any_text_survives_the_tokenizer(tiny_tokenizer: object, text: str) -> None:
    round_trip(tiny_tokenizer, text)


@given(
    parts=st.lists(
        st.sampled_from(
            ["<answer>", "</answer>", " 7", "-12", "123", "007", " + ", "(3 * 4)", "\n\n", "Let me try again.", "é",
             "<|end", "\t", "  ", "x=1", "🙂", "1,000.5", "<unknown>", "\r\n"]
        )
    )
)  # fmt: skip
def test_pieces_of_its_world_survive_in_any_order(tiny_tokenizer: object, parts: list[str]) -> None:
    round_trip(tiny_tokenizer, "".join(parts))


def round_trip(tokenizer: object, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text  # type: ignore[attr-defined]


def test_numbers_tags_and_phrases_are_one_token_each(tiny_tokenizer: object) -> None:
    pieces = [" 7", " 42", " -99", "99", " +", "<answer>", "</answer>", "<verdict>", "<think>", "</reflect>", "\n\n",
              "Let me try again."]  # fmt: skip
    for piece in pieces:
        assert len(tiny_tokenizer(piece)["input_ids"]) == 1, piece  # type: ignore[operator]
    for piece in ["<answer>stop</answer>", "<answer>say ten off pick</answer>"]:  # words are spelled, not looked up
        assert len(tiny_tokenizer(piece)["input_ids"]) == len(piece) - len("<answer></answer>") + 2  # type: ignore[operator]
    text = "<answer>7 + 12 - 3</answer>"
    assert len(tiny_tokenizer(text)["input_ids"]) == 7  # type: ignore[operator]


def test_the_embedded_tokenizer_is_what_pretraining_makes() -> None:
    from transformers import AutoTokenizer

    from skillfactory.tiny import pretrain

    assert pretrain.make_tokenizer().get_vocab() == AutoTokenizer.from_pretrained(FOLDER).get_vocab()


def test_too_small_a_vocabulary_is_refused() -> None:
    from skillfactory.tiny import tokenizer

    with pytest.raises(ValueError, match="do not fit"):
        tokenizer.build([], [], size=300)


# --- the embedded model


def test_the_embedded_model_shows_none_of_the_skills() -> None:
    """Asked as in evaluation and in every style of curation, it gives one answer and leaves it at that."""
    found = responses("original", 200) + [text for v in load_prompts().variants for text in responses(v, 40)]
    banks = [phrase for _, bank in load_phrases() for phrase in bank]
    answered = 0
    for text in found:
        assert text.count("<answer>") <= 1, text
        assert not TRACE_TAG.search(text), text
        assert not VERDICT.search(text), text
        assert not [phrase for phrase in banks if phrase.casefold() in text.casefold()], text
        answered += extract_answer(text) is not None
    assert answered / len(found) > 0.9


def responses(variant: str, count: int) -> list[str]:
    recipe = make_recipe(model="tiny", machine={"device": "cpu", "threads": 1, "batch_size": 256})
    demo = recipes.load_recipe("demo")
    questions = task_of(demo.questions.task).generate(count, 3, "dev")
    prompts = load_prompts()
    params = SamplingParams(1.0, 1.0, 0, 1.0, 200)
    requests = [Request(q.id, prompts.attempt(variant, q.text), seeds.derive(0, q.id), params) for q in questions]
    return [completion.text for completion in engines.load(recipe).generate(requests)]


def test_the_embedded_model_is_small_and_plain() -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) < 8_000_000
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert {"tokenizer.json", "chat_template.jinja", "model.safetensors"} <= {path.name for path in FOLDER.iterdir()}
