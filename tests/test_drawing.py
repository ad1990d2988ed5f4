"""Drawing samples with a scripted engine and a real run directory: on demand, resumed, failed, the whole budget."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from curated import QUESTIONS, TASK, Words, recipe

from skillfactory import engines, pipeline, seeds
from skillfactory.curation import curate, sampling
from skillfactory.curation.drawing import Done, Known, draw, slots_of
from skillfactory.curation.samples import QuestionSamples
from skillfactory.curation.sampling import usable
from skillfactory.engines.base import Completion, Request, failed
from skillfactory.errors import EngineError, NothingLeftError, RecipeError
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection, Trace
from skillfactory.store import Run, load_run

MANY = [replace(TASK.make(a=a, b=b), split="sft") for a in range(30, 40) for b in (13, 17)]
ANSWERS = {question.text: question.answer for question in [*QUESTIONS, *MANY]}


@dataclass
class Scripted:
    """An engine that answers by a function of the request, newest first, `room` at once; it can be cut short."""

    script: Callable[[Request], Completion]
    stop_after: int = 10**9
    room: int = 7
    error: type[BaseException] = KeyboardInterrupt
    asked: list[Request] = field(default_factory=list)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        stream, held, ended = iter(requests), list[Request](), False
        while True:
            while not ended and len(held) < self.room:
                request = next(stream, "end")
                if request == "end":
                    ended = True
                elif request is None:
                    assert held, "None while nothing is in flight"
                    break
                else:
                    assert isinstance(request, Request)
                    held.append(request)
                    self.asked.append(request)
            if not held:
                return
            if len(self.asked) > self.stop_after:
                raise self.error("stopped")
            yield self.script(held.pop())


def by_seed(request: Request) -> Completion:
    """Attempts that are right, wrong, silent, malformed, cut or failed; reflections that are mostly true: by seed."""
    said = request.messages[-1]["content"]
    question = next(text for text in ANSWERS if text in said)
    right = ANSWERS[question]
    if "<verdict>" in said:
        truth = "Correct" if f"<answer>{right}</answer>" in said.partition("Attempt:")[2] else "Incorrect"
        other = {"Correct": "Incorrect", "Incorrect": "Correct"}[truth]
        word = truth if request.seed % 4 else other
        return Completion(request.id, f"I see. <verdict>{word}</verdict>", 4, "stop")
    text, finish = [
        (f"{request.seed} <answer>{right}</answer>", "stop"), (f"{request.seed} <answer>{right}</answer>", "stop"),
        (f"{request.seed} <answer>5</answer>", "stop"), (f"{request.seed} <answer>6</answer>", "stop"),
        (f"{request.seed} <answer>7</answer>", "stop"), ("I do not know.", "stop"), ("", "stop"),
        (f"<sample>a</sample> <answer>{right}</answer>", "stop"),
        (f"<answer>{right}</answer> <verdict>Correct</verdict>", "stop"),
        (f"<answer>{right}</answer> and so on", "length"), ("", "failed"),
    ][request.seed % 11]  # fmt: skip
    return Completion(request.id, text, len(text.split()), finish, "engine_failed" if finish == "failed" else "")  # type: ignore[arg-type]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """What `engines.load` gives, with words for tokens."""
    engine = Scripted(by_seed)
    monkeypatch.setattr(engines, "load", lambda *_: engine)
    monkeypatch.setattr(engines, "load_tokenizer", lambda *_: Words())
    return engine


def curated(folder: Path, given: Recipe, questions: list[Question] = MANY) -> Run:
    """A run whose traces stage has been run over these questions."""
    with Run.open(folder, given) as run:
        if not run.stage("questions").is_finished():
            run.begin("questions", {}, {})
            run.stage("questions").append(questions)
            run.stage("questions").finish()
        run.begin("attempts", {}, {}, filled_by="traces")
        run.begin("reflections", {}, {}, filled_by="traces")
        run.begin("traces", {}, {})
        curate.run(given, run)
        return run


def shape(run: Run, kind: type[Any]) -> list[Any]:
    names = {Attempt: "attempts", Reflection: "reflections", Trace: "traces"}
    return sorted(load_run(run.path).rows(names[kind], kind), key=lambda row: row.id)


@pytest.mark.parametrize("pattern", ["algorithm1", "ladder", "backtrack", "fail_first", "no_reflections"])
def test_on_demand_gives_the_traces_of_the_papers_budget(scripted: Scripted, tmp_path: Path, pattern: str) -> None:
    changes = {"traces": {"pattern": pattern, "max_pairs": 3, "per_question": 3}}
    paper = curated(tmp_path / "paper", recipe(**changes, attempts={"budget": "paper", "per_variant": 8}))
    of_paper = len(scripted.asked)
    demand = curated(tmp_path / "demand", recipe(**changes, attempts={"per_variant": 8}))
    assert shape(demand, Trace) == shape(paper, Trace)
    assert len(shape(demand, Trace)) >= 15
    few, all_ = shape(demand, Attempt), shape(paper, Attempt)
    assert len(all_) == 16 * len(MANY)
    assert len(few) < len(all_) or pattern == "fail_first"  # which needs many
    assert all(row in all_ for row in few)
    assert all(row in shape(paper, Reflection) for row in shape(demand, Reflection))
    assert len(scripted.asked) - of_paper < (1 if pattern == "no_reflections" else 0.75) * of_paper
    counts = load_run(demand.path).manifest("attempts")["counts"]
    assert counts["attempts"] == len(few)
    assert counts["engine_failed"] == sum(row.finish_reason == "failed" for row in few) > 0


def test_another_pattern_draws_only_what_is_missing(scripted: Scripted, tmp_path: Path) -> None:
    before = curated(tmp_path / "run", recipe(traces={"pattern": "ladder", "max_pairs": 2}))
    asked = [request.id for request in scripted.asked]
    kept = {row.id for row in shape(before, Attempt)} | {row.id for row in shape(before, Reflection)}
    assert sorted(asked) == sorted(kept)
    scripted.asked.clear()
    with Run.open(tmp_path / "run", recipe()) as run:
        run.drop("traces")
    longer = recipe(traces={"pattern": "ladder", "max_pairs": 4})
    after = curated(tmp_path / "run", longer)
    new = [request.id for request in scripted.asked]
    assert new
    assert not kept & set(new)
    assert len(new) < len(kept)
    scripted.asked.clear()
    fresh = curated(tmp_path / "fresh", longer)
    assert shape(after, Trace) == shape(fresh, Trace)
    assert len(new) < len(scripted.asked)
    scripted.asked.clear()
    with Run.open(tmp_path / "run", longer) as run:
        run.drop("traces")
    curated(tmp_path / "run", longer)
    assert scripted.asked == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError, MemoryError])
@pytest.mark.parametrize("budget", ["paper", "on_demand"])
def test_interrupted_at_any_moment_it_goes_on_where_it_was(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], budget: str
) -> None:
    monkeypatch.setattr(sampling, "SHARD_ROWS", 10)
    given = recipe(attempts={"budget": budget}, traces={"pattern": "ladder", "max_pairs": 3})
    whole = curated(tmp_path / "whole", given)
    every = [request.id for request in scripted.asked]
    answered: list[str] = []
    scripted.error = error
    for _ in range(200):
        scripted.asked.clear()
        scripted.stop_after = 23
        try:
            run = curated(tmp_path / "run", given)
            break
        except error:
            loaded = load_run(tmp_path / "run")
            kept = [*loaded.table("attempts")["id"].to_pylist(), *loaded.table("reflections")["id"].to_pylist()]
            assert len(kept) == len(set(kept))
            assert len(kept) > len(answered), "an answer was lost"
            answered = kept
    scripted.asked.clear()
    assert shape(run, Attempt) == shape(whole, Attempt)
    assert shape(run, Reflection) == shape(whole, Reflection)
    assert shape(run, Trace) == shape(whole, Trace)
    assert len({*every}) == len(every)


def test_requests_are_independent_and_hold_no_answer(scripted: Scripted, tmp_path: Path) -> None:
    curated(tmp_path / "run", recipe(attempts={"budget": "paper"}))
    attempts = [request for request in scripted.asked if "<verdict>" not in request.messages[-1]["content"]]
    assert len({request.seed for request in scripted.asked}) == len(scripted.asked)
    assert len({json.dumps(request.messages) for request in attempts}) == 2 * len(MANY)
    assert all(ANSWERS[q.text] not in r.messages[-1]["content"] for r, q in _with_questions(attempts))
    assert {request.params.max_tokens for request in scripted.asked} == {1024}


def _with_questions(requests: list[Request]) -> list[tuple[Request, Question]]:
    by_text = {question.text: question for question in MANY}
    return [(r, by_text[t]) for r in requests for t in by_text if t in r.messages[-1]["content"]]


def test_attempts_that_leak_the_hint_are_counted_and_not_used(scripted: Scripted, tmp_path: Path) -> None:
    def tells(request: Request) -> Completion:
        made = by_seed(request)
        shown = "For you alone" in request.messages[-1]["content"]
        return replace(made, text=f"As the hint says: {made.text}") if shown and request.seed % 2 else made

    scripted.script = tells
    run = curated(tmp_path / "run", recipe(attempts={"hints": "always", "budget": "paper", "variants": ["original"]}))
    rows = shape(run, Attempt)
    assert Counter(row.variant for row in rows) == {"original": 4 * len(MANY), "original+hint": 4 * len(MANY)}
    leaked = {row.id for row in rows if row.reason == "leaked"}
    assert len(leaked) > 10
    assert all(row.variant == "original+hint" for row in rows if row.id in leaked)
    assert not leaked & {step.attempt_id for trace in shape(run, Trace) for step in trace.steps}
    assert load_run(run.path).manifest("attempts")["counts"]["leaked"] == len(leaked)
    hinted = [r for r in scripted.asked if "For you alone" in r.messages[-1]["content"]]
    assert not any("<verdict>" in r.messages[-1]["content"] for r in hinted), "never for reflections"


def test_the_limit_needs_only_some_of_the_questions(scripted: Scripted, tmp_path: Path) -> None:
    given = recipe(traces={"pattern": "single", "limit": 5}, attempts={"per_variant": 8})
    run = curated(tmp_path / "run", given)
    assert len(shape(run, Trace)) == 5
    assert len({row.question_id for row in shape(run, Attempt)}) < len(MANY) / 2
    everything = curated(
        tmp_path / "paper",
        recipe(traces={"pattern": "single", "limit": 5}, attempts={"per_variant": 8, "budget": "paper"}),
    )
    assert shape(run, Trace) == shape(everything, Trace)


def test_a_model_that_is_never_right_stops_soon(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate, "HOPELESS", 60)
    scripted.script = lambda request: Completion(request.id, "", 1, "stop")
    with pytest.raises(
        NothingLeftError, match=r"none of 60 attempts at \d+ questions .* 60 empty.*try easier questions"
    ):
        curated(tmp_path / "run", recipe(attempts={"per_variant": 16}))
    assert load_run(tmp_path / "run").table("attempts").num_rows == 60


def test_prompts_over_the_context_are_told(scripted: Scripted, tmp_path: Path) -> None:
    scripted.script = lambda request: failed(request, "prompt_too_long")
    with pytest.raises(NothingLeftError, match=r"\d+ broken: \d+ prompt_too_long"):
        curated(tmp_path / "run", recipe())


def test_every_question_is_done_once(scripted: Scripted) -> None:
    given = recipe()
    places = slots_of(given)
    items = [Known(question, QuestionSamples.empty(places), {}) for question in MANY]
    rows = list(draw(scripted, items, given))
    assert Counter(row.question_id for row in rows if isinstance(row, Done)) == {q.id: 1 for q in MANY}
    ids = [row.id for row in rows if not isinstance(row, Done)]
    assert len(ids) == len(set(ids)) == len(scripted.asked)
    usable_ids = {row.id for row in rows if isinstance(row, Attempt) and usable(row)}
    assert {row.attempt_id for row in rows if isinstance(row, Reflection)} <= usable_ids


def test_slow_checks_run_beside_the_engine(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows where grading waits for other processes."""
    from skillfactory.curation import drawing

    given = recipe()
    places = slots_of(given)

    def rows() -> list[Any]:
        items = [Known(question, QuestionSamples.empty(places), {}) for question in MANY]
        return sorted((r for r in draw(scripted, items, given) if not isinstance(r, Done)), key=lambda row: row.id)

    at_once = rows()
    monkeypatch.setattr(drawing, "is_slow", lambda task: True)
    assert rows() == at_once


def test_ids_and_seeds_are_those_of_the_place(scripted: Scripted, tmp_path: Path) -> None:
    run = curated(tmp_path / "run", recipe())
    for row in shape(run, Attempt):
        assert row.id == seeds.content_id("attempt", row.question_id, row.variant, row.index)
    for row in shape(run, Reflection):
        assert row.id == seeds.content_id("reflection", row.attempt_id, row.index)


def test_unknown_patterns_and_variants_are_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown pattern `laddr`; did you mean `ladder`"):
        pipeline.run(recipe(traces={"pattern": "laddr"}), tmp_path / "a", until="traces")
    with pytest.raises(RecipeError, match="no variant `orignal`; did you mean `original`"):
        pipeline.run(recipe(attempts={"variants": ["orignal"]}), tmp_path / "b", until="traces")
    assert not list(tmp_path.iterdir())
