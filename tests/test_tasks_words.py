"""Letter Countdown and Acronym: any dictionary word that fits is right, and nothing else is."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.tasks import words

LETTERS = tasks.get("letter_countdown")
ACRONYM = tasks.get("acronym")
STOP = LETTERS.make(letters="tpos", length=4)
LIST = ["ten", "sun", "old", "pig", "egg", "air", "sky"]
WORDS = ACRONYM.make(words=LIST, length=4)
ALL = [
    ("letter_countdown", {"length": 4}),
    ("letter_countdown", {"length": 5, "extra": 3}),
    ("letter_countdown", {"length": 7, "common": 300, "extra": 1}),
    ("acronym", {"length": 4}),
    ("acronym", {"length": 5, "extra": 0, "listed": 500}),
]


def outcome(task: tasks.Task, question: object, answer: str) -> tuple[str, str]:
    grade = task.grade(question, f"I think so.\n<answer>{answer}</answer>")  # type: ignore[arg-type]
    return grade.outcome, grade.reason


@pytest.mark.parametrize(("name", "params"), ALL)
def test_every_question_has_an_answer_that_passes_and_its_own_split(name: str, params: dict[str, int]) -> None:
    task = tasks.get(name, **params)
    drawn = {split: task.generate(60, 7, split) for split in ("sft", "rl", "eval")}
    for split, questions in drawn.items():
        assert len({question.id for question in questions}) == 60
        for question in questions:
            assert tasks.home(question.id) == split
            assert outcome(task, question, question.answer) == ("correct", "")
            data = json.loads(question.data)
            found = task.make(**data)  # which looks for an answer itself
            assert (found.id, found.text, found.data) == (question.id, question.text, question.data)
            assert outcome(task, question, found.answer) == ("correct", "")
    assert task.generate(60, 7, "rl") == drawn["rl"]
    assert task.generate(60, 8, "rl") != drawn["rl"]


@pytest.mark.parametrize(
    ("answer", "graded"),
    [
        ("stop", ("correct", "")),
        ("spot", ("correct", "")),
        ("opts", ("correct", "")),
        ("Pots.", ("correct", "")),
        ('"TOPS"', ("correct", "")),
        ("**post**", ("correct", "")),
        ("ptos", ("wrong", "not_a_word")),
        ("step", ("wrong", "letter_not_available")),
        ("toot", ("wrong", "letter_not_available")),
        ("top", ("wrong", "wrong_length")),
        ("stop!", ("correct", "")),
        ("s t o p", ("wrong", "not_one_word")),
        ("stop spot", ("wrong", "not_one_word")),
        ("stop or spot", ("wrong", "not_one_word")),
        ("4", ("wrong", "not_one_word")),
        ("ｓｔｏｐ", ("wrong", "letter_not_available")),
        ("", ("no_answer", "no_answer")),
    ],
)
def test_words_of_letters(answer: str, graded: tuple[str, str]) -> None:
    assert outcome(LETTERS, STOP, answer) == graded


@pytest.mark.parametrize(
    ("answer", "graded"),
    [
        ("sun ten old pig", ("correct", "")),
        ("sky, ten, old, pig", ("correct", "")),
        ("Pig\nOld\nSun\nTen", ("correct", "")),
        ("ten old egg sky", ("correct", "")),  # toes
        ("(sun, ten, old, pig)", ("correct", "")),
        ("1. sun 2. ten 3. old 4. pig", ("correct", "")),
        ("sun/ten/old/pig", ("correct", "")),
        ("sun ten old pig: stop", ("wrong", "wrong_length")),
        ("sun sun old pig", ("wrong", "word_not_available")),
        ("sun tin old pig", ("wrong", "word_not_available")),
        ("sun ten old", ("wrong", "wrong_length")),
        ("stop", ("wrong", "wrong_length")),
        ("pig ten sun sky", ("wrong", "not_a_word")),
        ("", ("no_answer", "no_answer")),
    ],
)
def test_words_of_first_letters(answer: str, graded: tuple[str, str]) -> None:
    assert outcome(ACRONYM, WORDS, answer) == graded


@given(st.text(max_size=60))
def test_no_text_is_too_strange(answer: str) -> None:
    assert outcome(LETTERS, STOP, answer)[0] in ("correct", "wrong", "no_answer")
    assert outcome(ACRONYM, WORDS, answer)[0] in ("correct", "wrong", "no_answer")


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_a_changed_letter_or_word_is_right_only_where_it_fits(seed: int) -> None:
    rng = random.Random(seed)
    letters = list(STOP.answer)
    letters[rng.randrange(4)] = rng.choice("abcdefghijklmnopqrstuvwxyz")
    changed = "".join(letters)
    fits = Counter(changed) == Counter("stop") and words.is_word(changed)
    assert (outcome(LETTERS, STOP, changed)[0] == "correct") == fits
    chosen = rng.sample(LIST, 4)
    spelled = "".join(word[0] for word in chosen)
    assert (outcome(ACRONYM, WORDS, " ".join(chosen))[0] == "correct") == words.is_word(spelled)


def test_words_are_those_of_the_dictionary() -> None:
    assert all(map(words.is_word, ("stop", "trees", "going", "axes")))
    assert not any(map(words.is_word, ("ptos", "Paris", "paris", "", "a-b", "st op", "1st", "naïve", "x" * 100_000)))
    assert words.common(4, 4, 3) == ("that", "this", "with")
    assert {len(word) for word in words.common(5, 5)} == {5}
    assert len(words._unwelcome()) > 10
    assert not words._unwelcome() & set(words.common(2, 12))
    assert "porn" not in words.common(4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LETTERS.make(letters="zzzz", length=4), "no word of 4 letters can be made"),
        (lambda: LETTERS.make(letters="ab1", length=2), "must be letters"),
        (lambda: LETTERS.make(letters="abc", length="2"), "must be letters"),
        (lambda: LETTERS.make(letters="tac", length=3, answer="dog"), "fails its own check"),
        (lambda: ACRONYM.make(words=["too", "ant", "cat"], length=3, answer="too ant dog"), "fails its own check"),
        (lambda: ACRONYM.make(words=["zoo", "zip", "zen"], length=3), "no English word of 3 letters"),
        (lambda: ACRONYM.make(words=["to do"], length=1), "must be words"),
        (lambda: tasks.get("letter_countdown", length=4).generate(100_000, 0), "different questions"),
        (lambda: tasks.get("acronym", lenght=4), "did you mean `length`"),
    ],
)
def test_questions_that_cannot_be(make: object, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        make()  # type: ignore[operator]


def test_the_dictionary_is_named_for_the_manifest() -> None:
    assert set(words.facts()) == {"dictionary", "frequencies"}
    assert "spylls" in LETTERS.facts()["dictionary"]  # type: ignore[attr-defined]
