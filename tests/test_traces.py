"""Samples read from shards, traces built from them, and what is counted on the way."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curated import QUESTIONS, TASK, VARIANTS, Words, attempt, recipe, reflection, words
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import engines
from skillfactory.curation import curate
from skillfactory.curation.patterns import PATTERNS
from skillfactory.curation.phrases import Phrases, load_phrases
from skillfactory.curation.pool import AGREED, NONE
from skillfactory.curation.samples import CORRECT, UNDRAWN, USELESS, WRONG, Chunk, QuestionSamples, Slots, chunks
from skillfactory.curation.tally import Tally, percentiles, verdicts
from skillfactory.curation.traces import Builder, Piece, write_trace
from skillfactory.errors import NothingLeftError, StoreError
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection, Trace
from skillfactory.rows import from_parquet, to_parquet
from skillfactory.store import Run
from skillfactory.tasks.answers import extract_answer

PLACES = Slots(tuple(VARIANTS), 4, 2)

TRACE = """<think>
<sample>
Attempt 1.
<answer>1</answer>
</sample>
<reflect>
Check 0.
<verdict>Incorrect</verdict>
</reflect>
Wrong.
<sample>
Attempt 2.
<answer>408</answer>
</sample>
<reflect>
Check 0.
<verdict>Correct</verdict>
</reflect>
</think>

So this is it.

<answer>
408
</answer>"""

BANKS = Phrases(
    generic=["Wrong."], after_correct=["Fine."], after_incorrect=["Wrong."], closing=["So this is it."],
    go_back=["Back."], confirmed=["Twice."],
)  # fmt: skip


def pieces() -> list[Piece]:
    return [
        Piece("a1", "Attempt 1.\n<answer>1</answer>\n", "1", False, "r1", "Check 0.\n<verdict>Incorrect</verdict>"),
        Piece("a2", " Attempt 2.\n<answer>408</answer>", "408", True, "r2", "Check 0.\n<verdict>Correct</verdict>"),
    ]


def test_a_trace_has_the_papers_format() -> None:
    text, steps = write_trace(pieces(), BANKS, "closing", random.Random(0))
    assert text == TRACE
    assert [(s.attempt_id, s.reflection_id, s.phrase) for s in steps] == [
        ("a1", "r1", "Wrong."), ("a2", "r2", "So this is it."),
    ]  # fmt: skip


def test_a_trace_may_go_back_or_do_without_reflections() -> None:
    text, steps = write_trace(pieces()[::-1], BANKS, "go_back", random.Random(0))
    assert text.endswith("</think>\n\nBack.\n\n<answer>\n408\n</answer>")
    assert steps[0].phrase in BANKS.glue(True)
    alone = [replace(piece, reflection=None, reflection_id="") for piece in pieces()]
    text, steps = write_trace(alone, BANKS, "closing", random.Random(0))
    assert "<reflect>" not in text
    assert [(step.reflection_id, step.phrase) for step in steps] == [("", "Wrong."), ("", "So this is it.")]


# --- samples


def table(rows: Sequence[Any]) -> Any:
    import pyarrow

    return from_parquet(to_parquet(rows)) if rows else pyarrow.table({})


def chunk_of(attempts: Sequence[Attempt], reflections: Sequence[Reflection], places: Slots = PLACES) -> Chunk:
    return Chunk(QUESTIONS, table(attempts), table(reflections), places)


def test_samples_are_placed_by_variant_and_index() -> None:
    made = [
        attempt(0, True), attempt(1, False, "9"), attempt(6, True, finish_reason="length"),
        attempt(7, True, reason="malformed"), attempt(2, True, question=QUESTIONS[2], reason="leaked"),
        replace(attempt(3, False), outcome="no_answer", answer=""), replace(attempt(3, True), id="x", variant="gone"),
        replace(attempt(3, True), id="y", index=4),
    ]  # fmt: skip
    reflections = [
        reflection(made[0], 1), reflection(made[0], 0, agrees=False), reflection(made[1], 0, agrees=False),
        reflection(made[1], 2), replace(reflection(made[1]), attempt_id="nobody"),
    ]  # fmt: skip
    for order in (made, made[::-1]):
        first, second, third = chunk_of(order, reflections).samples()
        assert first.state == [CORRECT, WRONG, UNDRAWN, USELESS, UNDRAWN, UNDRAWN, USELESS, USELESS]
        assert second.state == [UNDRAWN] * 8
        assert third.state[2] == USELESS
        assert [first.fits(slot, "either") for slot in range(4)] == [True, True, None, False]
        assert (first.fits(0, "incorrect"), first.fits(1, "incorrect")) == (False, True)
        assert (first.answer(0), first.answer(1)) == (QUESTIONS[0].answer, "9")
        assert (first.agreed(0), first.agreed(1)) == (AGREED, 1)  # the third on it is one too many
        assert (first.variant(0), first.variant(7)) == ("original", "rephrase")
    final = next(chunk_of(made, reflections, replace(PLACES, final=True)).samples())
    assert final.fits(2, "either") is False
    assert (final.agreed(0), final.agreed(1)) == (AGREED, NONE)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8), st.integers(1, 6))
def test_the_first_reflection_that_agrees_is_taken(drawn: list[tuple[int, bool]], per_attempt: int) -> None:
    made = attempt(0, True)
    unique = dict(drawn)
    reflections = [reflection(made, i, agrees) for i, agrees in unique.items()]
    chunk = chunk_of([made], reflections, Slots(tuple(VARIANTS), 4, per_attempt))
    samples = next(chunk.samples())
    expected: int = NONE
    for i in range(per_attempt):
        if unique.get(i) is not False:
            expected = AGREED if i in unique else i
            break
    assert samples.agreed(0) == expected
    agreeing = [i for i, agrees in unique.items() if agrees and i < per_attempt]
    row = int(chunk.reflection_row[0, 0])
    assert (row >= 0) == bool(agreeing)
    if agreeing:
        assert chunk.reflections["index"][row].as_py() == min(agreeing) == samples.first_agreeing(0)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.open(tmp_path / "run", recipe()) as opened:
        for name in ("questions", "attempts", "reflections", "traces"):
            opened.begin(name, {}, {})
        yield opened


def test_rows_come_by_question_from_shards_in_any_order(run: Run) -> None:
    questions = [replace(TASK.make(a=a, b=11), split="sft") for a in range(11, 61)]
    made = [attempt(i, i % 3 == 0, question=question) for question in questions for i in range(8)]
    reflected = [reflection(each, 0, agrees=each.index % 2 == 0) for each in made]
    random.Random(0).shuffle(made)
    random.Random(1).shuffle(reflected)
    for start in range(0, 400, 64):
        run.stage("attempts").append(made[start : start + 64])
        run.stage("reflections").append(reflected[start : start + 64])
    seen = []
    for chunk in chunks(questions[5:], run.stage("attempts"), run.stage("reflections"), PLACES, size=7):
        assert len(chunk.questions) <= 7
        for question, samples in zip(chunk.questions, chunk.samples(), strict=True):
            seen.append(question.id)
            assert samples.state == [CORRECT if i % 3 == 0 else WRONG for i in range(8)]
            assert [samples.agreed(i) for i in range(8)] == [AGREED if i % 2 == 0 else 1 for i in range(8)]
    assert seen == [question.id for question in questions[5:]]
    shard = sorted(run.stage("attempts").path.glob("part-*"))[2]
    run.stage("attempts").finish()
    shard.write_bytes(shard.read_bytes()[:-9] + b"xxxxxxxxx")
    with pytest.raises(StoreError, match=r"part-00002\.parquet is damaged"):
        list(chunks(questions, run.stage("attempts"), run.stage("reflections"), PLACES))


# --- traces


def samples(per_question: list[tuple[int, int]], each: int = 2) -> tuple[list[Attempt], list[Reflection]]:
    """So many right and wrong attempts at each question; the second reflection on each is false."""
    made = [
        attempt(i, i < right, question=question)
        for question, (right, wrong) in zip(QUESTIONS, per_question, strict=True)
        for i in range(right + wrong)
    ]
    return made, [reflection(on, i, agrees=i != 1) for on in made for i in range(each)]


def build(given: Recipe, made: Sequence[Attempt], reflected: Sequence[Reflection]) -> tuple[list[Trace], Builder]:
    builder = Builder(given, TASK, Words())
    places = Slots(tuple(VARIANTS), 4, 2, final=True)
    return [trace for traces in builder.build([chunk_of(made, reflected, places)]) for trace in traces], builder


counts_each = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=3)


@settings(max_examples=80)
@given(counts_each, st.sampled_from([name for name, each in PATTERNS.items() if not each.plain]), st.integers(0, 10**6))
def test_built_traces(counts: list[tuple[int, int]], pattern: str, seed: int) -> None:
    made, reflected = samples(counts)
    given = recipe(seed=seed, traces={"pattern": pattern})
    traces, builder = build(given, made, reflected)
    again, _ = build(given, made[::-1], reflected[::-1])
    assert traces == again  # whatever order the completions came in
    by_attempt, by_reflection = {a.id: a for a in made}, {r.id: r for r in reflected}
    answers = {question.id: question.answer for question in QUESTIONS}
    bank = load_phrases()
    for trace in traces:
        on = [by_attempt[step.attempt_id] for step in trace.steps]
        assert {each.question_id for each in on} == {trace.question_id}
        assert len({each.id for each in on}) == len(on)
        assert on[-1].outcome == "correct" or not PATTERNS[pattern].ends_correct
        assert extract_answer(trace.completion) == answers[trace.question_id]
        assert trace.completion.endswith(f"<answer>\n{[a.answer for a in on if a.outcome == 'correct'][-1]}\n</answer>")
        assert trace.tokens == words(trace.prompt, trace.completion) + 1
        reflect = PATTERNS[pattern].reflect
        expected = {"think": 1, "answer": len(on) + 1, "sample": len(on)}
        for tag in ("think", "sample", "reflect", "answer", "verdict"):
            openings, closings = trace.completion.count(f"<{tag}>"), trace.completion.count(f"</{tag}>")
            assert openings == closings == expected.get(tag, len(on) * reflect)
        assert re.findall(r"Attempt (\d+)", trace.completion) == [
            str(each.index + 4 * VARIANTS.index(each.variant)) for each in on
        ]
        for step, attempted in zip(trace.steps, on, strict=True):
            if reflect:
                judged = by_reflection[step.reflection_id]
                assert (judged.attempt_id, judged.agrees) == (attempted.id, True)
            truth = attempted.outcome == "correct" if reflect else None
            last = step is trace.steps[-1]
            assert step.phrase in (bank.before_answer(PATTERNS[pattern].closing) if last else bank.glue(truth))
    found = builder.counts()
    assert found["traces"] == len(traces) == len({trace.id for trace in traces})
    assert found["built"] - found["repeated"] == len(traces)
    assert found["questions"] == 3 == found["questions_with_traces"] + sum(found["lost"].values())
    assert found["by_pairs"] == {str(n): c for n, c in sorted(Counter(len(t.steps) for t in traces).items())}


@settings(max_examples=40)
@given(counts_each, st.sampled_from([name for name, each in PATTERNS.items() if each.plain]), st.integers(0, 10**6))
def test_plain_traces_are_attempts_as_they_are(counts: list[tuple[int, int]], pattern: str, seed: int) -> None:
    made, reflected = samples(counts)
    traces, builder = build(recipe(seed=seed, traces={"pattern": pattern}), made, reflected)
    wanted = [a for a in made if a.outcome == "correct" or pattern == "any_solution"]
    assert sorted(t.steps[0].attempt_id for t in traces) == sorted(a.id for a in wanted)
    texts = {a.id: a.text.strip() for a in made}
    assert all(t.completion == texts[t.steps[0].attempt_id] for t in traces)
    assert builder.counts()["traces"] == len(traces)


def test_another_seed_builds_other_traces_and_the_same_seed_the_same_bytes() -> None:
    made, reflected = samples([(4, 4)] * 3)
    first, second, third = (build(recipe(seed=s), made, reflected)[0] for s in (1, 2, 1))
    assert [trace.completion for trace in first] != [trace.completion for trace in second]
    assert to_parquet(first) == to_parquet(third)


def test_too_long_traces_are_dropped_whole_and_counted() -> None:
    made, reflected = samples([(4, 4)] * 3)

    def with_(**changes: Any) -> tuple[list[Trace], Builder]:
        return build(recipe(traces={"pattern": "ladder", **changes}), made, reflected)

    everything, _ = with_()
    assert len(everything) == 15
    middle = sorted(trace.tokens for trace in everything)[7]
    short, builder = with_(max_tokens=middle)
    assert short == [trace for trace in everything if trace.tokens <= middle]
    counts = builder.counts()
    assert counts["too_long"] == 15 - len(short) > 0
    assert counts["shortest_dropped"] == min(trace.tokens for trace in everything if trace.tokens > middle)
    _, builder = with_(max_tokens=10)
    assert builder.counts()["lost"] == {"too_long": 3}
    few, builder = with_(limit=4)
    assert few == everything[:4]
    assert builder.full
    two, _ = with_(per_question=2)
    assert Counter(trace.question_id for trace in two) == {question.id: 2 for question in QUESTIONS}


def test_what_is_lost_is_counted_at_its_step() -> None:
    made, reflected = samples([(1, 1), (0, 2), (0, 0)])
    assert build(recipe(), made, reflected)[1].counts()["lost"] == {"no_attempt": 1, "no_correct_attempt": 1}
    deaf = [replace(each, agrees=False) for each in reflected]
    assert build(recipe(), made, deaf)[1].counts()["lost"]["no_true_reflection"] == 1
    confirm = recipe(traces={"pattern": "confirm"})
    assert build(confirm, made, reflected)[1].counts()["lost"]["not_enough_pairs"] == 1
    other = [replace(each, answer="12") if each.outcome == "correct" else each for each in made]
    assert build(recipe(), other, reflected)[1].counts()["lost"]["answer_lost"] == 1


# --- counts


def test_tally_counts_attempts_and_first_verdicts() -> None:
    made, reflected = samples([(2, 3), (0, 4), (1, 0)], each=1)
    made.append(attempt(7, True, reason="malformed", tokens=50))
    made.append(replace(attempt(6, False, text=""), outcome="no_answer", reason="no_answer"))
    reflected[0] = reflection(made[0], 0, agrees=False)
    reflected.append(reflection(made[0], 1))
    tally = Tally()
    tally.add(chunk_of(made, reflected))
    counts, said = tally.attempt_counts(), tally.reflection_counts()
    assert [counts[key] for key in ("attempts", "correct", "wrong", "no_answer", "malformed", "usable_correct")] == [
        12, 4, 7, 1, 1, 3,
    ]  # fmt: skip
    assert (counts["empty"], counts["questions"], counts["questions_solved"]) == (1, 3, 2)
    assert counts["tokens"] == 11 * 5 + 50
    assert counts["tokens_percentiles"]["100"] == 50
    assert {v: c["attempts"] for v, c in counts["by_variant"].items()} == {"original": 9, "rephrase": 3}
    first = said["first_verdicts"]
    assert (first["correct_called_correct"], first["correct_called_incorrect"]) == (2, 1)
    assert (first["incorrect_called_incorrect"], first["incorrect_called_correct"]) == (7, 0)
    assert first["f1_correct"] == pytest.approx(2 * 2 / (2 * 2 + 0 + 1))
    assert first["f1_incorrect"] == pytest.approx(2 * 7 / (2 * 7 + 1 + 0))
    assert (said["reflections"], said["agree"]) == (11, 10)
    assert verdicts([])["f1_correct"] is None


@given(st.lists(st.integers(0, 30), min_size=1))
def test_percentiles_are_of_the_data(values: list[int]) -> None:
    found = percentiles(Counter(values))
    ordered = sorted(values)
    for p in (5, 50, 90, 99, 100):
        assert found[str(p)] == ordered[max(0, -(-len(ordered) * p // 100) - 1)]
    assert percentiles(Counter()) == {}


# --- nothing left


@pytest.mark.parametrize(
    ("changes", "settings_", "message"),
    [
        ("wrong", {}, r"none of 9 attempts at 3 questions is correct and usable \(9 wrong, .*try easier questions"),
        ("cut", {}, "is correct and usable .* 9 truncated"),
        ("no agreement", {}, "none of 12 reflections on correct attempts says that they are correct .*per_attempt"),
        (
            "none",
            {"max_tokens": 10},
            r"all \d+ traces are longer than traces.max_tokens = 10 \(the shortest has \d+ tok",
        ),
        ("broken check", {}, r"none of \d+ traces passes its task's check"),
        ("none", {"pattern": "confirm", "pairs": 5}, "the pattern built none from the pairs of 3 questions .*pattern"),
    ],
)
def test_nothing_left_says_where(
    run: Run, changes: str, settings_: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, reflected = samples([(2, 1)] * 3)
    questions: list[Question] = QUESTIONS
    if changes == "wrong":
        made = [replace(a, outcome="wrong") for a in made]
    elif changes == "cut":
        made = [replace(a, finish_reason="length") for a in made]
    elif changes == "no agreement":
        reflected = [replace(r, agrees=False) for r in reflected]
    elif changes == "broken check":
        questions = [replace(question, answer="not a number") for question in QUESTIONS]
    run.stage("questions").append(questions)
    run.stage("attempts").append(made)
    run.stage("reflections").append(reflected)
    everything = Slots(tuple(VARIANTS), 4, 2, final=True)
    monkeypatch.setattr(curate, "slots_of", lambda recipe: everything)
    monkeypatch.setattr(curate, "draw_lacking", lambda *_: None)
    monkeypatch.setattr(engines, "load_tokenizer", lambda *_: Words())
    given = recipe(traces=settings_)
    with pytest.raises(NothingLeftError, match=message):
        curate.run(given, run)
    assert not run.stage("traces").is_finished()


def test_no_questions_is_told(run: Run) -> None:
    with pytest.raises(NothingLeftError, match=r"no SFT questions to attempt; set questions\.sft above 0"):
        curate.questions_of(recipe(), run.stage("questions"))


def test_empty_samples_know_nothing() -> None:
    assert QuestionSamples.empty(PLACES).fits(0, "either") is None
    assert [PLACES.slot(*PLACES.place(slot)) for slot in range(8)] == list(range(8))
    assert PLACES.slot("gone", 0) == PLACES.slot("original", 4) == -1
