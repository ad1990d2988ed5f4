"""Budget forcing: texts that go on, budgets that are kept, and answers where there was none."""

import re
from typing import Any

import pytest
from helpers import make_recipe
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import engines
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.engines.base import Completion, Request
from skillfactory.errors import RecipeError
from skillfactory.evaluation import responses
from skillfactory.evaluation.accuracy import forcing
from skillfactory.evaluation.forcing import answered, closed, reopened
from skillfactory.evaluation.talks import Ask, Draft, Drafted, Item, modes_of, talk
from skillfactory.recipe import Forcing, Recipe
from skillfactory.records import Response
from skillfactory.tags import blocks
from skillfactory.tasks import get
from skillfactory.tasks.answers import extract_answer

TASK = get("multiplication", digits=2)
QUESTION = TASK.make(a=12, b=12)  # 144
PAIR = "<sample>\n7\n<answer>7</answer>\n</sample>\n<reflect>\nno\n<verdict>Incorrect</verdict>\n</reflect>"
FORCING = Forcing()
PHRASE = "This is the answer."


# --- texts


def test_end_of_thinking_gives_way_to_the_trigger() -> None:
    text = f"<think>\n{PAIR}\n</think>\n\nSo.\n\n<answer>\n7\n</answer>"
    assert reopened(text, FORCING) == f"<think>\n{PAIR}\n<sample>\n"


def test_half_an_attempt_is_dropped_before_the_trigger() -> None:
    assert reopened(f"<think>\n{PAIR}\nAgain.\n<sample>\n12 *", FORCING) == f"<think>\n{PAIR}\nAgain.\n<sample>\n"
    assert reopened(f"<think>\n{PAIR}\nAga", FORCING) == f"<think>\n{PAIR}\nAga\n<sample>\n"


def test_plain_text_goes_on_after_its_own_trigger() -> None:
    forcing = Forcing(trigger="<sample>", plain_trigger="Wait, let me check.")
    assert reopened("12 * 12 = 134. <answer>134</answer>\n", forcing) == (
        "12 * 12 = 134. <answer>134</answer>\nWait, let me check."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>so <answer>1</answer></think> <answer>2</answer>", None),
        ("plain <answer>2</answer> and on and on", None),
        (f"<think>\n{PAIR}\n<sample>\n12", f"<think>\n{PAIR}\n</think>\n\n{PHRASE}\n\n<answer>\n"),
        (f"<think>\n{PAIR}\nLet me", f"<think>\n{PAIR}\nLet me\n</think>\n\n{PHRASE}\n\n<answer>\n"),
        ("<think>hm</think>\n\nSo", "<think>hm</think>\n\nSo\n\n<answer>\n"),
        ("<think>hm</think>\n\nSo\n\n<answer>\n14", "<think>hm</think>\n\nSo\n\n<answer>\n"),
        ("12 * 12 = <answer>14", "12 * 12 =\n\n<answer>\n"),
        ("", "\n\n<answer>\n"),
    ],
)
def test_a_text_without_answer_is_closed(text: str, expected: str | None) -> None:
    assert closed(text, PHRASE) == expected


TAGS = ["sample", "reflect", "verdict", "answer", "think"]
PARTS = st.sampled_from([f"<{s}{t}>" for t in TAGS for s in ("", "/")] + ["144", "Correct", " ", "\n", "x<"])
TEXTS = st.lists(PARTS, max_size=30).map("".join)


@given(TEXTS, st.one_of(st.just("144</answer> and more"), st.just("144"), TEXTS))
def test_whatever_was_written_a_closed_text_has_an_answer(text: str, said: str) -> None:
    asked = closed(text, PHRASE)
    if asked is None:
        assert extract_answer(text) is not None
    elif "think>" not in said and "answer>" not in said.removesuffix("</answer> and more"):
        given_answer = said.partition("</answer>")[0].strip()
        found = extract_answer(answered(asked, said))
        assert (found or "") == (extract_answer(f"<answer>{given_answer}</answer>") or "")


@given(TEXTS)
def test_thinking_that_was_reopened_is_open_and_ends_on_the_trigger(text: str) -> None:
    found = reopened(text, FORCING)
    if "<think>" in text:
        assert found.endswith("\n<sample>\n")
        kept = found.removesuffix("\n<sample>\n")
        assert text.startswith(kept) or text.rpartition("</think>")[0].rstrip() == kept
        whole = [b for b in blocks(text)[0] if b.kind != "broken" and b.end <= len(kept)]
        assert [b for b in blocks(kept)[0] if b.kind != "broken"] == whole, "no block is cut in two"
    else:
        assert found == f"{text.rstrip()}\nWait,"


# --- talks


def recipe_of(budgets: list[int], first: int = 10, **more: Any) -> Recipe:
    task = {"name": "multiplication", "params": {"digits": 2}}
    evaluation = {
        "max_tokens": first, "samples": 2, "sets": {"two": {"task": task, "n": 2}},
        "forcing": {"budgets": budgets, "answer_tokens": 3} | more,
    }  # fmt: skip
    return make_recipe(method="evaluate", evaluation=evaluation)


def tell(
    recipe: Recipe, answers: list[tuple[str, int, str]], item: Item | None = None
) -> tuple[list[Request], list[Any]]:
    """Let a talk run on scripted completions (text, tokens, finish reason); its requests and its drafts."""
    ask = Ask("base", "two", "sampled", QUESTION, 0)
    item = item or Item(ask, modes_of(ask, recipe))
    running, asked, drafts, script = talk(item, load_prompts(), recipe), list[Request](), list[Any](), iter(answers)
    completion = None
    while True:
        try:
            given = running.send(completion)
        except StopIteration:
            assert next(script, None) is None, "not all completions were asked for"
            return asked, drafts
        completion = None
        if isinstance(given, Drafted):
            drafts.append(given)
        else:
            asked.append(given)
            text, tokens, finish = next(script)
            error = {"failed": "engine_failed", "full": "prompt_too_long"}.get(finish, "")
            completion = Completion(given.id, text, tokens, "failed" if error else finish, error)  # type: ignore[arg-type]


def test_without_budgets_a_sample_is_one_response() -> None:
    asked, drafts = tell(recipe_of([]), [("<answer>144</answer>", 5, "stop")])
    assert [d.mode for d in drafts] == ["sampled"]
    assert (asked[0].prefix, asked[0].params.max_tokens) == ("", 10)


def test_what_ended_is_forced_on_and_left_alone_on_the_other_line() -> None:
    ended = f"<think>\n{PAIR}\n</think>\n\nSo.\n\n<answer>\n7\n</answer>"
    on = "12 * 12\n<answer>144</answer>\n</sample>\n</think>\n\nSo.\n\n<answer>\n144\n</answer>"
    asked, drafts = tell(
        recipe_of([25, 60]), [(ended, 8, "stop"), (on, 12, "stop"), ("x", 40, "length"), ("5", 1, "stop")]
    )
    assert [d.mode for d in drafts] == [
        "sampled", "unforced-10", "unforced-25", "forced-25", "unforced-60", "forced-60",
    ]  # fmt: skip
    by_mode = {d.mode: d.draft for d in drafts}
    assert {by_mode[mode] for mode in ("sampled", "unforced-10", "unforced-25", "unforced-60")} == {
        Draft(ended, 8, "stop")
    }
    reopened_text = f"<think>\n{PAIR}\n<sample>\n"
    assert asked[1].prefix == reopened_text
    assert asked[1].params.max_tokens == 25 - 8, "what was taken away has been paid for"
    assert by_mode["forced-25"] == Draft(reopened_text + on, 20, "stop", forced=1)
    assert asked[2].params.max_tokens == 60 - 20
    assert asked[2].prefix == f"{reopened_text}12 * 12\n<answer>144</answer>\n</sample>\n<sample>\n"
    last = by_mode["forced-60"]
    assert (last.tokens, last.finish_reason, last.forced) == (61, "length", 2)
    assert asked[3].prefix == last.text[: last.text.rindex("<answer>\n") + len("<answer>\n")]
    assert load_phrases().closing[0] in asked[3].prefix
    assert asked[3].params.max_tokens == 3
    assert last.text.endswith("<answer>\n5\n</answer>")
    assert last.cut == len(asked[3].prefix) - len("<answer>\n")
    assert len({request.seed for request in asked}) == 4


def test_what_was_cut_goes_on_without_a_trigger_on_the_unforced_line() -> None:
    cut, more = (
        f"<think>\n{PAIR}\n<sample>\n12",
        " * 12\n<answer>144</answer>\n</sample>\n</think>\n<answer>144</answer>",
    )
    script = [
        (cut, 10, "length"), ("9</answer>", 2, "stop"),  # the first budget, and an answer asked for
        (more, 9, "stop"),  # unforced
        ("15\n<answer>15</answer>\n</sample>\n</think>\n<answer>15</answer>", 6, "stop"),  # forced
    ]  # fmt: skip
    asked, drafts = tell(recipe_of([30]), script)
    by_mode = {d.mode: d.draft for d in drafts}
    assert by_mode["sampled"].text == cut
    assert by_mode["unforced-10"].text.endswith(
        "</think>\n\n" + load_phrases().closing[0] + "\n\n<answer>\n9\n</answer>"
    )
    assert by_mode["unforced-10"].tokens == 12
    assert asked[2].prefix == cut
    assert asked[2].params.max_tokens == 20
    assert by_mode["unforced-30"] == Draft(cut + more, 19, "stop")
    assert asked[3].prefix == f"<think>\n{PAIR}\n<sample>\n", "the half attempt is gone"
    assert by_mode["forced-30"].forced == 1


def test_a_failure_is_one_in_every_mode_that_follows() -> None:
    _, drafts = tell(recipe_of([20]), [("", 0, "failed")])
    assert [d.draft.error for d in drafts] == ["engine_failed"] * 4
    rows = [responses.response_of(d, TASK) for d in drafts]
    assert {(r.outcome, r.reason) for r in rows} == {("no_answer", "engine_failed")}


def test_what_fills_the_models_context_has_come_to_its_end() -> None:
    recipe = recipe_of([30])
    cut = f"<think>\n{PAIR}\nHm, 12"
    script = [(cut, 10, "length"), ("", 0, "full"), ("", 0, "full"), ("", 0, "full"), ("", 0, "full"), ("", 0, "full")]
    _, drafts = tell(recipe, script)
    by_mode = {d.mode: d.draft for d in drafts}
    assert by_mode["unforced-10"] == by_mode["unforced-30"] == by_mode["sampled"]
    assert not any(d.draft.error for d in drafts), "they are scored: as they are, without an answer"
    assert responses.response_of(drafts[-1], TASK).outcome == "no_answer"


def test_a_talk_taken_up_again_goes_on_from_its_first_budget() -> None:
    ended = "<think>\n</think>\n<answer>7</answer>"
    recipe = recipe_of([20])
    ask = Ask("base", "two", "sampled", QUESTION, 0)
    item = Item(ask, ("forced-20",), Draft(ended, 8, "stop"))
    asked, drafts = tell(recipe, [("</think><answer>144</answer>", 9, "stop")], item)
    assert [d.mode for d in drafts] == ["forced-20"]
    assert asked[0].prefix == "<think>\n<sample>\n"
    fresh, _ = tell(recipe, [(ended, 8, "stop"), ("</think><answer>144</answer>", 9, "stop")])
    assert asked[0] == fresh[1], "the same request, with the same seed"


@pytest.mark.parametrize(("budgets", "said"), [([10], "10 is no more than"), ([30, 20], "20 is no more than")])
def test_budgets_must_rise(budgets: list[int], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        responses.check(recipe_of(budgets))
    responses.check(recipe_of([20, 30]))


# --- on the tiny model


@pytest.fixture(scope="module")
def forced() -> tuple[Recipe, list[Response]]:
    task = {"name": "countdown", "params": {"count": 3, "high": 19}}
    recipe = make_recipe(
        method="evaluate",
        evaluation={
            "max_tokens": 20, "samples": 2, "sets": {"three": {"task": task, "n": 6}},
            "forcing": {"budgets": [40, 60], "answer_tokens": 15, "plain_trigger": "Let me try again."},
        },
    )  # fmt: skip
    members = get("countdown", count=3, high=19).generate(6, 0, "eval")
    items = [Item(ask, modes_of(ask, recipe)) for ask in responses.asks("base", {"three": members}, recipe)]
    engine = engines.load(recipe)
    return recipe, list(responses.respond(engine, items, recipe))


def test_the_tiny_model_keeps_its_budgets(forced: tuple[Recipe, list[Response]]) -> None:
    recipe, rows = forced
    assert len(rows) == 12 * 6
    most = {"sampled": 20, "unforced-20": 35, "unforced-40": 55, "forced-40": 55, "unforced-60": 75, "forced-60": 75}
    for row in rows:
        assert 0 < row.tokens <= most[row.mode]
        assert row.forced == {"forced-40": 1, "forced-60": 2}.get(row.mode, 0)
        assert len(re.findall("Let me try again", row.text)) >= row.forced
        if row.mode != "sampled":
            assert "</answer>" in row.text, "every line comes to an answer"
    figures = forcing({("base", "three", mode): [r for r in rows if r.mode == mode] for mode in most}, 20, [40, 60])
    cell = figures["base"]["three"]
    assert cell["budgets"] == [40, 60]
    assert set(cell["unforced"]) == {"20", "40", "60"}
    assert cell["forced_minus_standard"]["60"]["mean"] == pytest.approx(
        cell["forced"]["60"]["mean"] - cell["standard"]["mean"]
    )
    assert recipe.evaluation.forcing.budgets == [40, 60]


def test_the_tiny_model_answers_alike_whatever_else_is_asked(forced: tuple[Recipe, list[Response]]) -> None:
    recipe, rows = forced
    members = get("countdown", count=3, high=19).generate(6, 0, "eval")
    first = responses.asks("base", {"three": members}, recipe)[5]
    alone = list(responses.respond(engines.load(recipe), [Item(first, modes_of(first, recipe))], recipe))
    beside = {r.mode: r for r in rows if (r.question_id, r.sample) == (first.question.id, first.sample)}
    assert {r.mode: r for r in alone} == beside
