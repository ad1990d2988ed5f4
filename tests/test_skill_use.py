"""Skill use: what the tags of a response say, whoever wrote them, and the markers of text without tags."""

import math
from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillfactory.evaluation.markers import count_markers, markers
from skillfactory.evaluation.skill_use import SkillUse, aggregate, f1, percentiles, read_skills
from skillfactory.records import Outcome, Question, Response
from skillfactory.tags import blocks, unfinished, verdict_of
from skillfactory.tasks import get

TASK = get("multiplication", digits=2)
QUESTION = TASK.make(a=12, b=12)  # 144


def sample(answer: object) -> str:
    return f"<sample>\nmaybe\n<answer>{answer}</answer>\n</sample>\n"


def reflect(verdict: str) -> str:
    return f"<reflect>\nI checked.\n<verdict>{verdict}</verdict>\n</reflect>\n"


def response(text: str, outcome: Outcome, cut: bool = False, tokens: int = 9) -> Response:
    ended = "length" if cut else "stop"
    return Response(QUESTION.id, "rl", "two", "sampled", 0, text, "", outcome, "", ended, tokens)  # type: ignore[arg-type]


def read(text: str, outcome: Outcome, cut: bool = False) -> SkillUse:
    return read_skills(TASK, QUESTION, response(text, outcome, cut))


def test_skills_of_a_trace() -> None:
    text = (
        "<think>\n" + sample(100) + reflect("Incorrect") + "Try again.\n" + sample(144) + reflect("Incorrect")
        + sample(100) + reflect("Correct") + sample("144") + reflect("Correct") + "</think>\n\n<answer>144</answer>"
    )  # fmt: skip
    use = read(text, "correct")
    assert use == SkillUse(
        answers=4, samples=4, reflections=4, retries=3, distinct_answers=2,
        correct_called_correct=1, correct_called_incorrect=1, incorrect_called_correct=1, incorrect_called_incorrect=1,
        flips_to_correct=2, flips_to_wrong=1,
    )  # fmt: skip


def test_plain_solution_is_one_answer_and_no_skill() -> None:
    plain = read("12 * 12 = 144. <answer>144</answer>", "correct")
    assert plain == SkillUse(answers=1, distinct_answers=1, markers=(0, 0, 0, 0))
    assert not plain.tagged
    assert read("I do not know.", "no_answer") == SkillUse(markers=(0, 0, 0, 0))
    assert read(sample(144), "no_answer").tagged


def test_right_answer_that_is_lost() -> None:
    text = f"<think>{sample(144)}{reflect('Correct')}{sample(7)}</think><answer>7</answer>"
    use = read(text, "wrong")
    assert use.lost
    assert use.flips_to_wrong == 1


def test_sample_without_answer_is_no_explicit_answer_and_no_retry_follows_it() -> None:
    use = read("<sample>hm</sample>" + reflect("Incorrect") + sample(144), "wrong")
    assert (use.samples, use.answers, use.retries) == (2, 1, 0)
    assert use.incorrect_called_incorrect == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (reflect("Correct") + sample(144), {"unmatched": 1, "answers": 1}),
        (sample(144) + "<reflect>no verdict</reflect>", {"no_verdict": 1}),
        (sample(144) + "<sample>open " + reflect("Incorrect"), {"unmatched": 1, "malformed": True, "samples": 1}),
        ("</reflect></sample>" + sample(144), {"malformed": True, "answers": 1}),
        (sample(144) + "<reflect><verdict>Correct</verdict>", {"correct_called_correct": 1, "malformed": True}),
        (sample(144) + "<reflect>Is it", {"reflections": 0, "malformed": True}),
        (sample(144) + reflect("Incorrect</verdict> <verdict>correct"), {"correct_called_correct": 1}),
        ("<sample><sample><answer>144</answer></sample></sample>", {"samples": 1, "answers": 1, "malformed": True}),
    ],
)
def test_tags_in_a_wrong_order(text: str, expected: dict[str, object]) -> None:
    use = read(text, "correct")
    assert {name: getattr(use, name) for name in expected} == expected


TAGS = ["sample", "reflect", "verdict", "answer", "think"]
WORDS = ["144", "Correct", "incorrect", " ", "\n", "x<"]
PARTS = st.sampled_from([f"<{s}{t}>" for t in TAGS for s in ("", "/")] + WORDS)


@given(st.lists(PARTS, max_size=40).map("".join))
def test_any_order_of_tags_is_read(text: str) -> None:
    found, stray = blocks(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(block.text in text[block.start : block.end] for block in found)
    use = read(text, "no_answer")
    verdicts = (
        use.correct_called_correct + use.correct_called_incorrect + use.incorrect_called_correct
        + use.incorrect_called_incorrect + use.no_verdict + use.unmatched
    )  # fmt: skip
    assert verdicts == use.reflections
    assert use.distinct_answers <= use.answers
    assert use.retries <= use.samples
    assert use.malformed == (stray > 0 or unfinished(text) < len(text))


@pytest.mark.parametrize(
    "piece",
    ["<sample>", "</sample>", "<sample></sample>", "<verdict>", "<verdict>  ", "<verdict>Correct", "<answer>", "<"],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = "<reflect>" + piece * (400_000 // len(piece))
    start = perf_counter()
    read(text, "no_answer")
    verdict_of(text)
    assert perf_counter() - start < 5  # seconds; quadratic time would take minutes


def test_aggregate_and_f1() -> None:
    uses = [
        SkillUse(answers=2, reflections=2, correct_called_correct=1, incorrect_called_incorrect=1, lost=True),
        SkillUse(answers=1, reflections=1, incorrect_called_correct=1, early_stop=True),
    ]
    found = aggregate(uses, [response("", "wrong", tokens=10), response("", "correct", tokens=30)])
    assert found["answers"] == 1.5
    assert found["f1_correct"] == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert found["f1_incorrect"] == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert (found["lost"], found["early_stops"], found["late_stops"]) == (0.5, 0.5, 0.0)
    assert found["by_answers"] == {"1": {"responses": 1, "correct": 1}, "2": {"responses": 1, "correct": 0}}
    assert (found["tokens_right"]["50"], found["tokens_wrong"]["50"]) == (30, 10)
    assert (found["tagged"], found["markers"]) == (1.0, {})
    assert aggregate([], []) == {}
    assert f1(0, 0, 0) is None
    assert f1(0, 3, 0) == 0


def test_aggregate_counts_many_answers_together_and_markers_of_plain_texts_alone() -> None:
    uses = [SkillUse(answers=9), SkillUse(answers=20), SkillUse(markers=(2, 0, 1, 0)), SkillUse(markers=(0, 0, 0, 4))]
    found = aggregate(uses, [response("", "correct")] * 4)
    assert found["by_answers"] == {"0": {"responses": 2, "correct": 2}, "8+": {"responses": 2, "correct": 2}}
    assert found["tagged"] == 0.5
    assert found["markers"] == {"verify": 1.0, "retry": 0.0, "backtrack": 0.5, "subgoal": 2.0}
    assert found["tokens_wrong"] == {}


def test_percentiles() -> None:
    assert percentiles(list(range(101))) == {"5": 5, "25": 25, "50": 50, "75": 75, "95": 95}
    assert percentiles([]) == {}


# --- when it stops


@pytest.mark.parametrize(
    ("text", "early", "late"),
    [
        (sample(1) + reflect("Incorrect"), True, False),  # it sees the mistake, and ends
        (sample(1) + reflect("Incorrect") + sample(2), False, False),
        (sample(144) + reflect("Incorrect"), True, False),  # by its own verdict; that the verdict is false counts there
        (sample(144) + reflect("Correct"), False, False),
        (sample(144) + reflect("Correct") + sample(144), False, True),
        (sample(1) + reflect("Correct") + sample(144), False, False),  # going on was right
        (sample(144) + reflect("Incorrect") + sample(144) + reflect("Correct"), False, False),
        (sample(144), False, False),
        ("<answer>144</answer>", False, False),
    ],
)
def test_stops_too_early_or_too_late(text: str, early: bool, late: bool) -> None:
    use = read(text, "correct")
    assert (use.early_stop, use.late_stop) == (early, late)
    assert not read(text, "correct", cut=True).early_stop, "it did not stop, it was stopped"


# --- tags that are missing


def test_attempt_without_its_opening_tag_is_read_and_malformed() -> None:
    use = read("<think>\n" + sample(144).removeprefix("<sample>") + reflect("Correct") + "</think>", "correct")
    assert (use.answers, use.correct_called_correct, use.unmatched, use.malformed) == (1, 1, 0, True)


def test_attempt_without_its_closing_tag_is_read_and_malformed() -> None:
    use = read(sample(144).replace("</sample>", "") + reflect("Correct"), "correct")
    assert (use.answers, use.correct_called_correct, use.malformed) == (1, 1, True)


def test_reflection_without_its_opening_tag_is_read() -> None:
    use = read(sample(7) + reflect("Incorrect").removeprefix("<reflect>") + sample(144), "correct")
    assert (use.answers, use.reflections, use.incorrect_called_incorrect, use.malformed) == (2, 1, 1, True)


def test_attempt_that_the_end_of_thinking_closes_is_read_and_malformed() -> None:
    use = read("<think><sample>a <answer>144</answer></think><answer>144</answer>", "correct")
    assert (use.answers, use.samples, use.retries, use.malformed, use.tagged) == (1, 1, 0, True, True)
    more = sample(7) + reflect("Incorrect") + "<sample>b <answer>144</answer>"
    use = read(f"<think>{more}</think><answer>144</answer>", "correct")
    assert (use.answers, use.retries, use.early_stop, use.malformed) == (2, 1, False, True)
    assert not read(f"<think>{more}", "no_answer", cut=True).malformed, "it was cut: no closing tag is owed"
    assert read(f"<think>{sample(7)}<sample>half</think>", "no_answer").answers == 1


def test_attempt_around_the_end_of_thinking_keeps_its_answer() -> None:
    use = read("<think><sample><answer>144</answer></think>" + reflect("Correct"), "correct")
    assert (use.answers, use.correct_called_correct) == (1, 1)


def test_plain_answers_are_no_retries() -> None:
    use = read("<answer>7</answer> no, <answer>144</answer>", "correct")
    assert (use.answers, use.distinct_answers, use.retries, use.flips_to_correct) == (2, 2, 0, 1)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (sample(1) + "Again.\n<sample>\nhalf", "<sample>\nhalf"),
        (sample(1) + "<reflect>hm</sample>", "<reflect>hm</sample>"),
        (sample(1), ""),
        ("", ""),
        ("<sample><sample>", "<sample>"),
    ],
)
def test_where_an_unfinished_block_begins(text: str, rest: str) -> None:
    assert text[unfinished(text) :] == rest


# --- markers


def test_markers_are_whole_words_of_any_case() -> None:
    kinds = list(markers())
    assert kinds == ["verify", "retry", "backtrack", "subgoal"]

    def count(text: str) -> dict[str, int]:
        return dict(zip(kinds, count_markers(text), strict=True))

    text = "First, I add. LET ME  check: it doesn’t match. Wait, that’s wrong. Alternatively I try again."
    assert count(text) == {"verify": 2, "retry": 2, "backtrack": 2, "subgoal": 1}
    assert count("waiter, await, factually, checking") == dict.fromkeys(kinds, 0)
    assert count("break it down; break the big problem down; break a b c d down")["subgoal"] == 2  # three words at most


@pytest.mark.parametrize("piece", ["check ", "break a ", "wait", "- ", "check\n\n"])
def test_markers_take_linear_time(piece: str) -> None:
    start = perf_counter()
    count_markers(piece * (400_000 // len(piece)))
    assert perf_counter() - start < 5  # seconds; quadratic time would take minutes


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean(hits: int, false_alarms: int, misses: int) -> None:
    found = f1(hits, false_alarms, misses)
    if hits:
        precision, recall = hits / (hits + false_alarms), hits / (hits + misses)
        assert found == pytest.approx(2 * precision * recall / (precision + recall))
    assert found is None or (0 <= found <= 1 and not math.isnan(found))


def test_broken_verifier_does_not_stop_the_reading() -> None:
    class Broken:
        name = level = "broken"

        def grade(self, question: Question, text: str) -> None:
            raise RuntimeError("no dictionary")

    use = read_skills(Broken(), QUESTION, response(sample(144) + reflect("Correct"), "no_answer"))  # type: ignore[arg-type]
    assert (use.samples, use.answers, use.reflections) == (1, 0, 1)
