"""Prompts, phrases, patterns, traces, and the sampling stages with a scripted engine and a real run directory."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import seeds
from skillfactory.curation import attempts as attempts_stage
from skillfactory.curation import patterns, phrases, prompts, reflections, sampling, traces
from skillfactory.curation.patterns import PATTERNS, Pair
from skillfactory.curation.phrases import Phrases, lint, load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.curation.reflections import verdict_of
from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.errors import NothingLeftError, RecipeError
from skillfactory.recipe import Recipe, Traces
from skillfactory.records import Attempt, Message, Question, Reflection
from skillfactory.store import Run, Stage
from skillfactory.tasks.answers import extract_answer
from skillfactory.tasks.multiplication import Multiplication

TASK = Multiplication()
QUESTIONS = [replace(TASK.make(a=a, b=b), split="sft") for a, b in [(12, 34), (56, 78), (90, 21)]]


def recipe(**sections: Any) -> Recipe:
    spec = {"name": "multiplication"}
    given = {"name": "test", "questions": {"task": spec}, "evaluation": {"sets": {"same": {"task": spec}}}}
    return Recipe.model_validate(given | sections)


def words(messages: list[Message], completion: str = "") -> int:
    return len(" ".join(m["content"] for m in messages).split()) + len(completion.split())


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
        ("a: b\nb: [", "line 2 is not YAML"),
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


# --- phrases


def test_built_in_phrases_are_sound() -> None:
    built_in = load_phrases()
    assert lint(built_in) == []
    assert all(len(bank) >= 12 for _, bank in built_in)
    assert set(built_in.glue(True)) & set(built_in.glue(False)) == set(built_in.generic)


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


# --- patterns


def attempt(number: int, right: bool, answer: str = "", question: Question = QUESTIONS[0], **changes: Any) -> Attempt:
    answer = question.answer if right else answer or str(number)
    given = Attempt(
        id=f"{question.id}-{number}", question_id=question.id, variant="original", index=number,
        text=f"Attempt {number}.\n<answer>{answer}</answer>\n", answer=answer, outcome="correct" if right else "wrong",
        reason="", finish_reason="stop", tokens=5,
    )  # fmt: skip
    return replace(given, **changes)


def reflection(on: Attempt, index: int = 0, agrees: bool = True) -> Reflection:
    truth = on.outcome == "correct"
    said = "Correct" if truth == agrees else "Incorrect"
    return Reflection(
        id=f"{on.id}-r{index}", attempt_id=on.id, index=index, text=f"Check {index}.\n<verdict>{said}</verdict>",
        verdict=said.lower(), agrees=agrees, finish_reason="stop", tokens=4,
    )  # fmt: skip


def pairs(n_correct: int, n_wrong: int, answers: int = 100) -> tuple[list[Pair], list[Pair]]:
    def pair(number: int, right: bool) -> Pair:
        on = attempt(number, right, answer=f"{number % answers}")
        return Pair(on, reflection(on))

    return [pair(i, True) for i in range(n_correct)], [pair(1000 + i, False) for i in range(n_wrong)]


pair_counts = st.tuples(st.integers(0, 9), st.integers(0, 9))
pattern_settings = st.builds(Traces, max_pairs=st.integers(1, 7), stop_chance=st.sampled_from([0.1, 0.5, 1.0]))
seeds_ = st.integers(0, 10**6)


@pytest.mark.parametrize("name", list(PATTERNS))
@given(counts=pair_counts, settings=pattern_settings, seed=seeds_)
def test_every_pattern(name: str, counts: tuple[int, int], settings: Traces, seed: int) -> None:
    correct, wrong = pairs(*counts)
    built = PATTERNS[name](correct, wrong, random.Random(seed), settings)
    assert built == PATTERNS[name](correct, wrong, random.Random(seed), settings)
    assert bool(built) == bool(correct)
    for trace in built:
        assert trace[-1].correct
        assert len({pair.attempt.id for pair in trace}) == len(trace)
        assert all(pair in correct or pair in wrong for pair in trace)


@given(pair_counts, pattern_settings, seeds_)
def test_algorithm1(counts: tuple[int, int], settings: Traces, seed: int) -> None:
    correct, wrong = pairs(*counts)
    built = patterns.algorithm1(correct, wrong, random.Random(seed), settings)
    used = [pair.attempt.id for trace in built for pair in trace]
    assert len(used) == len(set(used))
    assert {pair.attempt.id for pair in correct} <= set(used)
    for trace in built:
        right = sum(pair.correct for pair in trace)
        assert len(trace) - right < right <= settings.max_pairs


def test_algorithm1_draws_as_the_paper_says() -> None:
    """With plenty of pairs: n+ uniform in 1..L, n- uniform in 0..n+ - 1, wrong ones anywhere but last."""
    correct, wrong = pairs(3000, 6000, answers=10**6)
    built = patterns.algorithm1(correct, wrong, random.Random(0), Traces(max_pairs=3))
    shapes = Counter((sum(p.correct for p in trace), sum(not p.correct for p in trace)) for trace in built[:-3])
    assert set(shapes) == {(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)}
    total = sum(shapes.values())
    for (right, _), seen in shapes.items():
        assert abs(seen / total - 1 / 3 / right) < 0.04
    places = Counter(i for trace in built if len(trace) == 4 for i, pair in enumerate(trace) if not pair.correct)
    assert set(places) == {0, 1, 2}
    assert max(places.values()) < 1.5 * min(places.values())


@given(pair_counts, pattern_settings, seeds_)
def test_ladder(counts: tuple[int, int], settings: Traces, seed: int) -> None:
    correct, wrong = pairs(*counts)
    built = patterns.ladder(correct, wrong, random.Random(seed), settings)
    longest = min(settings.max_pairs, sum(counts)) if correct else 0
    assert [len(trace) for trace in built] == list(range(1, longest + 1))


@given(pair_counts, pattern_settings, seeds_, st.integers(1, 5))
def test_fail_first(counts: tuple[int, int], settings: Traces, seed: int, answers: int) -> None:
    correct, wrong = pairs(*counts, answers=answers)
    built = patterns.fail_first(correct, wrong, random.Random(seed), settings)
    assert sorted(trace[-1].attempt.id for trace in built) == sorted(pair.attempt.id for pair in correct)
    for trace in built:
        said = [pair.attempt.answer for pair in trace[:-1]]
        assert not any(pair.correct for pair in trace[:-1])
        assert len(said) == len(set(said)) <= settings.max_pairs - 1


def test_fail_first_is_long_tailed() -> None:
    correct, wrong = pairs(4000, 50)
    built = patterns.fail_first(correct, wrong, random.Random(0), Traces(max_pairs=16, stop_chance=0.25))
    failures = Counter(len(trace) - 1 for trace in built)
    for n in range(6):
        assert abs(failures[n] / 4000 - 0.25 * 0.75**n) < 0.03
    assert max(failures) == 15
    assert abs(failures[15] / 4000 - 0.75**15) < 0.01


# --- traces

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

BANKS = Phrases(generic=["Wrong."], after_correct=["Fine."], after_incorrect=["Wrong."], closing=["So this is it."])


def test_a_trace_has_the_papers_format() -> None:
    two = [Pair(on, reflection(on)) for on in (attempt(1, False), attempt(2, True))]
    text, steps = traces.write_trace(two, BANKS, random.Random(0))
    assert text == TRACE
    assert [(s.attempt_id, s.reflection_id, s.phrase) for s in steps] == [
        (two[0].attempt.id, two[0].reflection.id, "Wrong."),
        (two[1].attempt.id, two[1].reflection.id, "So this is it."),
    ]


def samples(per_question: list[tuple[int, int]], reflections_each: int = 2) -> tuple[list[Attempt], list[Reflection]]:
    made = [
        attempt(i, i < right, question=question)
        for question, (right, wrong) in zip(QUESTIONS, per_question, strict=True)
        for i in range(right + wrong)
    ]
    return made, [reflection(on, i, agrees=i != 1) for on in made for i in range(reflections_each)]


counts_each = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=3)


@settings(max_examples=40)
@given(counts_each.filter(lambda counts: any(right for right, _ in counts)), st.sampled_from(list(PATTERNS)), seeds_)
def test_built_traces(counts: list[tuple[int, int]], pattern: str, seed: int) -> None:
    made, reflected = samples(counts, 3)
    given = recipe(seed=seed, traces={"pattern": pattern})
    built = traces.build(given, QUESTIONS, made, reflected, TASK, words)
    again = traces.build(given, QUESTIONS, made[::-1], reflected[::-1], TASK, words)
    assert built == again  # whatever order the completions came in
    by_attempt, by_reflection = {a.id: a for a in made}, {r.id: r for r in reflected}
    answers = {question.id: question.answer for question in QUESTIONS}
    bank = load_phrases()
    for trace in built.traces:
        assert by_attempt[trace.steps[-1].attempt_id].outcome == "correct"
        assert extract_answer(trace.completion) == answers[trace.question_id]
        assert trace.tokens == words(trace.prompt, trace.completion)
        for tag in ("think", "sample", "reflect", "answer", "verdict"):
            openings, closings = trace.completion.count(f"<{tag}>"), trace.completion.count(f"</{tag}>")
            assert openings == closings == {"think": 1, "answer": len(trace.steps) + 1}.get(tag, len(trace.steps))
        for step in trace.steps:
            on = by_attempt[step.attempt_id]
            assert on.question_id == trace.question_id
            assert by_reflection[step.reflection_id].attempt_id == on.id
            assert by_reflection[step.reflection_id].agrees
            expected = bank.closing if step is trace.steps[-1] else bank.glue(on.outcome == "correct")
            assert step.phrase in expected
    assert built.counts["traces"] == len(built.traces) == len({trace.id for trace in built.traces})
    assert built.counts["tokens_percentiles"]["100"] == max(trace.tokens for trace in built.traces)


def test_another_seed_builds_other_traces() -> None:
    made, reflected = samples([(4, 4)] * 3)
    first, second = (traces.build(recipe(seed=s), QUESTIONS, made, reflected, TASK, words).traces for s in (1, 2))
    assert [trace.completion for trace in first] != [trace.completion for trace in second]


def test_limits_drop_whole_traces_and_count_them() -> None:
    made, reflected = samples([(5, 5)] * 3)

    def build(**settings: Any) -> traces.Built:
        return traces.build(recipe(traces={"pattern": "ladder", **settings}), QUESTIONS, made, reflected, TASK, words)

    everything = build()
    assert everything.counts["traces"] == 15
    middle = sorted(trace.tokens for trace in everything.traces)[7]
    short = build(max_tokens=middle)
    assert short.traces == [trace for trace in everything.traces if trace.tokens <= middle]
    assert short.counts["too_long"] == 15 - len(short.traces) > 0
    few = build(limit=4)
    assert len(few.traces) == 4
    assert few.counts["over_limit"] == 11
    assert all(trace in everything.traces for trace in few.traces)
    two = build(per_question=2)
    assert Counter(trace.question_id for trace in two.traces) == {question.id: 2 for question in QUESTIONS}
    assert {len(trace.steps) for trace in two.traces} != {1, 2}  # drawn, not the first rungs


def test_percentiles_are_of_the_data() -> None:
    assert traces.percentiles(range(1, 101)) == {"5": 5, "50": 50, "90": 90, "99": 99, "100": 100}
    assert traces.percentiles([7]) == dict.fromkeys(["5", "50", "90", "99", "100"], 7)
    assert traces.percentiles([]) == {}


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ("wrong attempts", {}, "traces: nothing is left to train on: none of 9 attempts is correct and usable; try"),
        ("cut attempts", {}, "none of 9 attempts is correct and usable"),
        ("no agreement", {}, "no reflection agrees on a correct attempt; try a larger reflections.per_attempt"),
        (
            "none",
            {"max_tokens": 10},
            r"all \d+ traces are longer than traces.max_tokens = 10 \(the shortest has \d+ tokens\)",
        ),
        ("broken check", {}, r"none of \d+ traces passes its task's check"),
    ],
)
def test_nothing_left_says_where(changes: str, settings: dict[str, Any], message: str) -> None:
    made, reflected = samples([(2, 1)] * 3)
    questions = QUESTIONS
    if changes == "wrong attempts":
        made = [replace(a, outcome="wrong") for a in made]
    elif changes == "cut attempts":
        made = [replace(a, finish_reason="length") for a in made]
    elif changes == "no agreement":
        reflected = [replace(r, agrees=False) for r in reflected]
    elif changes == "broken check":
        questions = [replace(question, answer="not a number") for question in QUESTIONS]
    with pytest.raises(NothingLeftError, match=message):
        traces.build(recipe(traces=settings), questions, made, reflected, TASK, words)


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


# --- the sampling stages


class Scripted:
    """An engine that answers by a function of the request, last request first; it can be cut short."""

    def __init__(self, script: Callable[[Request], Completion], stop_after: int = 10**9) -> None:
        self.script = script
        self.stop_after = stop_after
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        assert params.temperature == 0.7
        for number, request in enumerate(reversed(requests)):
            if number == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            yield self.script(request)

    def count_tokens(self, messages: list[Message], completion: str = "") -> int:
        return words(messages, completion)


ANSWERS = {str(question.text): question.answer for question in QUESTIONS}


def answer_by_seed(request: Request) -> Completion:
    """Right, wrong, silent, malformed or cut, as the seed says."""
    right = next(answer for text, answer in ANSWERS.items() if text in request.messages[-1]["content"])
    text, finish = [
        (f"I think <answer>{right}</answer>", "stop"),
        ("I think <answer>5</answer>", "stop"),
        ("I do not know.", "stop"),
        (f"<sample>a</sample> <answer>{right}</answer>", "stop"),
        (f"<answer>{right}</answer> <verdict>Correct</verdict>", "stop"),
        (f"<answer>{right}</answer> and so on", "length"),
        ("", "failed"),
    ][request.seed % 7]
    return Completion(request.id, text, len(text.split()), finish)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Run.open(tmp_path / "run", recipe()) as run:
        yield run.begin("attempts", {}, {})


def sample(stage: Stage, engine: Scripted, given: Recipe) -> list[Attempt]:
    return attempts_stage.sample_attempts(given, stage, QUESTIONS, load_prompts(), lambda: engine)


def test_attempts_are_graded_and_resumed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHARD_ROWS", 10)
    given = recipe(attempts={"per_variant": 5, "variants": ["original", "rephrase"]})
    with pytest.raises(KeyboardInterrupt):
        sample(stage, Scripted(answer_by_seed, stop_after=13), given)
    assert len(stage.rows(Attempt)) == 13  # one full shard, and what there was when it stopped
    engine = Scripted(answer_by_seed)
    made = sample(stage, engine, given)
    assert len(engine.asked) == 17
    assert sorted(made, key=lambda a: a.id) == sorted(stage.rows(Attempt), key=lambda a: a.id)
    assert len({a.id for a in made}) == 30
    assert Counter(a.variant for a in made) == {"original": 15, "rephrase": 15}
    kinds = {
        (a.outcome, a.reason, a.finish_reason, a.answer == ANSWERS[q.text], sampling.usable(a))
        for a in made
        for q in QUESTIONS
        if q.id == a.question_id
    }
    assert kinds <= {
        ("correct", "", "stop", True, True), ("wrong", "", "stop", False, True),
        ("no_answer", "no_answer", "stop", False, False), ("correct", "malformed", "stop", True, False),
        ("correct", "", "length", True, False), ("no_answer", "failed", "failed", False, False),
    }  # fmt: skip
    assert len(kinds) >= 5
    counts = attempts_stage.counts_of(made)
    assert counts["attempts"] == counts["correct"] + counts["wrong"] + counts["no_answer"] == 30
    assert 0 < counts["usable_correct"] < counts["correct"]

    def never() -> Scripted:
        raise AssertionError("nothing is missing")

    assert len(attempts_stage.sample_attempts(given, stage, QUESTIONS, load_prompts(), never)) == 30


def test_requests_are_independent(stage: Stage) -> None:
    engine = Scripted(answer_by_seed)
    sample(stage, engine, recipe(attempts={"per_variant": 3}))
    assert len({request.seed for request in engine.asked}) == len(engine.asked) == 36
    assert len({json.dumps(request.messages) for request in engine.asked}) == 12


def test_no_attempt_correct_says_so(stage: Stage) -> None:
    silent = Scripted(lambda request: Completion(request.id, "Hm.", 1, "length"))
    counts = attempts_stage.counts_of(sample(stage, silent, recipe(attempts={"per_variant": 1})))
    message = (
        r"attempts: none of 12 attempts at 3 questions .* 12 without an answer, 12 truncated.*try easier questions"
    )
    with pytest.raises(NothingLeftError, match=message):
        attempts_stage.require_correct(counts)


def test_reflections_are_kept_when_true(stage: Stage) -> None:
    def critic(request: Request) -> Completion:
        said = ["Correct", "Incorrect", "Perhaps"][request.seed % 3]
        return Completion(
            request.id, f"Hm. <verdict>{said}</verdict>", 3, "length" if request.seed % 5 == 0 else "stop"
        )

    made, _ = samples([(2, 3), (0, 4), (1, 0)])
    made.append(attempt(77, True, reason="malformed"))
    made.append(attempt(78, True, finish_reason="length"))
    made.append(replace(attempt(79, False), outcome="no_answer", answer=""))
    worth = reflections.worth_reflecting(made)
    assert len(worth) == 6  # all of the first and the last question, none of the one nobody solved
    engine = Scripted(critic)
    texts = {question.id: question.text for question in QUESTIONS}
    given = recipe(reflections={"per_attempt": 6})
    reflected = reflections.sample_reflections(given, stage, texts, worth, load_prompts(), lambda: engine)
    assert len(reflected) == len(stage.rows(Reflection)) == 36
    outcomes = {a.id: a.outcome for a in made}
    for one in reflected:
        truth = {"correct": "correct", "wrong": "incorrect"}[outcomes[one.attempt_id]]
        assert one.agrees == (one.verdict == truth and one.finish_reason == "stop")
    assert {one.verdict for one in reflected} == {"correct", "incorrect", ""}
    counts = reflections.counts_of(reflected, worth)
    assert counts["agree"] == counts["agree_on_correct"] + counts["agree_on_wrong"] > 0
    assert counts["on_correct"] == 18
    asked = engine.asked[0].messages[-1]["content"]
    assert "Attempt" in asked
    assert "What is 90 * 21 ?" in asked


def test_no_reflection_agrees_says_so(stage: Stage) -> None:
    naysayer = Scripted(lambda request: Completion(request.id, "<verdict>Incorrect</verdict>", 1, "stop"))
    worth, _ = samples([(2, 3), (1, 1), (1, 0)])
    texts = {question.id: question.text for question in QUESTIONS}
    reflected = reflections.sample_reflections(recipe(), stage, texts, worth, load_prompts(), lambda: naysayer)
    with pytest.raises(NothingLeftError, match=r"none of 16 reflections on correct attempts .*16 of 16 agree on wrong"):
        reflections.require_agreement(reflections.counts_of(reflected, worth))


def test_attempt_ids_are_known_before_they_are_made() -> None:
    planned = attempts_stage.plan(QUESTIONS, ["original"], 2)
    assert seeds.content_id("attempt", QUESTIONS[0].id, "original", 1) in planned
    assert len(planned) == 6
    assert prompts.load_prompts() is prompts.load_prompts()
    assert phrases.load_phrases().closing
