"""Prompts, phrases and verdicts."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skillfactory.curation.phrases import Phrases, lint, load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.curation.reflections import verdict_of
from skillfactory.errors import RecipeError
from skillfactory.recipe import Attempts

# --- prompts


def test_prompts_fill_without_touching_the_texts() -> None:
    built_in = load_prompts()
    assert list(built_in.variants) == ["original", "plan_and_execute", "alternatively", "rephrase"]
    assert built_in.train("Why {attempt} {0}?") == built_in.attempt("original", "Why {attempt} {0}?")
    [message] = built_in.reflection("Why {attempt}?", "Because {question} {x}")
    assert "Why {attempt}?" in message["content"]
    assert "Because {question} {x}" in message["content"]
    assert [m["role"] for m in built_in.attempt("rephrase", "?")] == ["system", "user"]
    with pytest.raises(RecipeError, match="no variant `orignal`; did you mean `original`"):
        built_in.check(["orignal"])
    with pytest.raises(RecipeError, match="`original` is listed twice"):
        built_in.check(["original", "original"])


def test_worked_examples_are_earlier_turns_and_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    examples = "[{user: 'What is {question}?', assistant: '4'}]"
    path.write_text(
        f"variants: {{a: {{system: Be brief., examples: {examples}, user: '{{question}}'}}}}\n"
        "train_variant: a\nreflection: {user: '{question} {attempt}'}",
        "utf-8",
    )
    assert [(m["role"], m["content"]) for m in load_prompts(str(path)).train("1 + 1 ?")] == [
        ("system", "Be brief."), ("user", "What is {question}?"), ("assistant", "4"), ("user", "1 + 1 ?"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: {a: {user: no field}}", "lacks {question}|Field required"),
        (
            "variants: {a: {user: '{question}'}}\ntrain_variant: b\nreflection: {user: '{question} {attempt}'}",
            "`b` is none of: a",
        ),
        ("variants: {a: {user: '{question}'}}\ntrain_variant: a\nreflection: {user: '{question}'}", "lacks {attempt}"),
        ("a: b\nb: [", "line 2: not valid YAML"),
        ("just text", "mine.yaml"),
    ],
)
def test_broken_prompts_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=message):
        load_prompts(str(path))
    with pytest.raises(RecipeError, match=r"gone\.yaml cannot be read"):
        load_prompts(str(tmp_path / "gone.yaml"))


def test_hints_are_twins_that_show_the_answer_and_must_not_speak_of_it() -> None:
    class Hard:
        hints = True

    built_in = load_prompts()
    plain = Attempts(variants=["original", "rephrase"])
    assert built_in.asked(plain, object()) == ["original", "rephrase"]
    twins = ["original", "original+hint", "rephrase", "rephrase+hint"]
    assert built_in.asked(plain, Hard()) == twins
    assert built_in.asked(plain.model_copy(update={"hints": "always"}), object()) == twins
    assert built_in.asked(plain.model_copy(update={"hints": "never"}), Hard()) == ["original", "rephrase"]
    shown = built_in.attempt("original+hint", "Why {answer}?", "42")[-1]["content"]
    assert shown.startswith(built_in.attempt("original", "Why {answer}?", "42")[-1]["content"])
    assert "42" in shown
    assert "42" not in built_in.attempt("original", "Why?", "42")[-1]["content"]
    assert "42" not in built_in.reflection("Why?", "Because.")[-1]["content"]
    assert built_in.leaks_hint("original+hint", "By the HINT, it is 42.")
    assert built_in.leaks_hint("original+hint", "As hinted above")
    assert not built_in.leaks_hint("original+hint", "The chintz is 42.")
    assert not built_in.leaks_hint("original", "By the hint, it is 42.")


def test_hints_need_a_text_and_words_that_give_them_away(tmp_path: Path) -> None:
    prompts = "variants: {a: {user: '{question}'}}\ntrain_variant: a\nreflection: {user: '{question} {attempt}'}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(prompts)
    with pytest.raises(RecipeError, match="the prompts file has no `hint`"):
        load_prompts(str(path)).asked(Attempts(variants=["a"], hints="always"), object())
    path = tmp_path / "other.yaml"
    path.write_text(prompts + "hint: It is {answer}.")
    with pytest.raises(RecipeError, match=r"`hint` needs the field \{answer\}, and a list `leaks`"):
        load_prompts(str(path))


# --- phrases


def test_built_in_phrases_are_sound() -> None:
    built_in = load_phrases()
    assert lint(built_in) == []
    assert all(len(bank) >= 12 for _, bank in built_in)
    assert set(built_in.glue(True)) & set(built_in.glue(False)) == set(built_in.generic) == set(built_in.glue(None))


def test_a_bank_that_a_pattern_needs_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{generic: [Again.], after_correct: [Fine.], after_incorrect: [Wrong.], closing: [This is it.]}")
    assert load_phrases(str(path)).before_answer("closing") == ["This is it."]
    with pytest.raises(RecipeError, match="no phrases `go_back`, which the pattern needs"):
        load_phrases(str(path)).before_answer("go_back")


@pytest.mark.parametrize(
    ("phrase", "problem"),
    [
        ("Let me try again.Here is another.", "run together"),
        ("Let me try againHere is another.", "run together"),
        ("let me try again.", "capital"),
        ("Let me try again", "end a sentence"),
        ("Let me <think> again.", "holds <"),
        ("Two  blanks.", "blanks"),
        ("  ", "is empty"),
        ("A " + "very " * 50 + "long one.", "longer than"),
        ("So this is it.", "already"),
        ("So this is it. And more of it.", "is made of 'So this is it.' and more"),
    ],
)
def test_phrase_lint_finds(tmp_path: Path, phrase: str, problem: str) -> None:
    banks = {
        "generic": ["Again."],
        "after_correct": ["Fine."],
        "after_incorrect": ["Wrong."],
        "closing": ["So this is it."],
    }
    assert lint(Phrases.model_validate(banks)) == []
    banks["generic"].append(phrase)
    assert any(problem in found for found in lint(Phrases.model_validate(banks)))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(banks), "utf-8")
    with pytest.raises(RecipeError, match=r"mine\.yaml: "):
        load_phrases(str(path))


# --- verdicts


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Fine. <verdict>Correct</verdict>", "correct"),
        ("<VERDICT> incorrect\n</verdict>.", "incorrect"),
        ("<verdict>Correct</verdict> yes, <verdict>correct</verdict>", "correct"),
        ("<verdict>Correct</verdict> no, <verdict>Incorrect</verdict>", ""),
        ("<verdict>Perhaps</verdict>", ""),
        ("<verdict>Correct</verdict><verdict>", ""),
        ("<verdict>Correct", ""),
        ("Correct", ""),
        ("</think><verdict>Correct</verdict>", ""),
        ("It should be <answer>4</answer>. <verdict>Incorrect</verdict>", ""),
    ],
)
def test_verdicts(text: str, verdict: str) -> None:
    assert verdict_of(text) == verdict


@given(st.lists(st.sampled_from(["<verdict>", "</verdict>", "Correct", "Incorrect", "<answer>", "<sample>", " x "])))
def test_verdicts_of_any_text(parts: list[str]) -> None:
    text = "".join(parts)
    verdict = verdict_of(text)
    if verdict:
        assert re.search(f"<verdict>{verdict}</verdict>", text, re.IGNORECASE)
        assert text.count("<verdict>") == text.count("</verdict>")
        assert "<answer>" not in text
        assert "<sample>" not in text
