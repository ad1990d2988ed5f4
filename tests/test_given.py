"""Traces from the authors' raw data, in both namings, through the whole of curation and the command line."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from raw_files import write_raw as write_rows
from typer.testing import CliRunner

from skillfactory.cli import app
from skillfactory.curation import given as given_samples
from skillfactory.formats.raw import RawRow
from skillfactory.records import Attempt, Question, Reflection, Trace
from skillfactory.store import load_run
from skillfactory.tasks import get

VARIANTS = ("original", "plan_and_execute", "alternatively", "rephrase")


def raw_rows(questions: int, each: int = 2, seed: int = 0) -> list[RawRow]:
    rng, rows = random.Random(seed), []
    for q in range(questions):
        for variant in VARIANTS:
            for _ in range(each):
                right = rng.random() < 0.5
                answer = f"{q} + 1" if right else f"{q} - {rng.randrange(100)}"
                verdicts = [
                    f"Check.\n<verdict>{'Correct' if right == (rng.random() < 0.8) else 'Incorrect'}</verdict>"
                    for _ in range(3)
                ]
                text = f"Try {rng.randrange(10**6)}.\n<answer>{answer}</answer>"
                rows.append(RawRow(f"Make {q + 1}.", str(q + 1), variant, text, right, answer, verdicts, len(rows) + 1))
    return rows


def write_raw(path: Path, rows: list[RawRow], naming: str = "code") -> None:
    named = [
        {
            "question": row.question, "answer": row.answer, "variant": row.variant, "texts": [row.text],
            "correct": [row.correct], "extracted": [row.extracted], "reflections": row.reflections,
        }
        for row in rows
    ]  # fmt: skip
    write_rows(path, named, naming)


def recipe_file(folder: Path, **traces: Any) -> Path:
    task = {"name": "multiplication"}
    data = {
        "name": "given", "questions": {"task": task, "sft": 1000, "rl": 4, "dev": 1},
        "evaluation": {"sets": {"same": {"task": task, "n": 2}}}, "traces": traces,
    }  # fmt: skip
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def imported(folder: Path, source: Path, **traces: Any) -> Path:
    done = CliRunner().invoke(
        app, ["import", str(source), str(recipe_file(folder, **traces)), "--run", str(folder / "run")]
    )
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.mark.parametrize("naming", ["code", "readme"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_raw_data_become_traces(tmp_path: Path, naming: str, shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_samples, "BLOCK", 3)
    monkeypatch.setattr(given_samples, "WAITING", 50_000)
    rows = raw_rows(20)
    if shuffled:
        random.Random(1).shuffle(rows)
    write_raw(tmp_path / "raw.parquet", rows, naming)
    run = load_run(imported(tmp_path, tmp_path / "raw.parquet", pattern="ladder", max_pairs=3))
    asked = {q.id: q for q in run.rows("questions", Question) if q.split == "sft"}
    attempts, reflections = run.rows("attempts", Attempt), run.rows("reflections", Reflection)
    assert sorted(a.text for a in attempts) == sorted(row.text for row in rows)
    assert len({a.id for a in attempts}) == len(attempts) == 160
    assert len(reflections) == 3 * 160
    by_text = {row.text: row for row in rows}
    for attempt in attempts:
        row = by_text[attempt.text]
        assert (asked[attempt.question_id].text, attempt.variant) == (row.question, row.variant)
        assert (attempt.outcome == "correct", attempt.answer) == (row.correct, row.extracted)
        assert attempt.tokens > 0
    traces = run.rows("traces", Trace)
    assert {len(trace.steps) for trace in traces} == {1, 2, 3}
    assert len({trace.question_id for trace in traces}) > 15
    task = get("raw_data", path=str(tmp_path / "raw.parquet"))
    for trace in traces:
        assert task.grade(asked[trace.question_id], trace.completion).outcome == "correct"
        assert trace.prompt[-1]["content"].startswith(asked[trace.question_id].text)
    rl = [q for q in run.rows("questions", Question) if q.split == "rl"]
    assert {q.task for q in rl} == {"multiplication"}


def test_another_pattern_uses_what_was_imported(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw.jsonl", raw_rows(6), "code")
    run = imported(tmp_path, tmp_path / "raw.jsonl", pattern="single")
    shards = {path: path.stat().st_mtime_ns for path in (run / "attempts").glob("part-*")}
    recipe = recipe_file(tmp_path, pattern="confirm", pairs=2)
    words = ["run", str(recipe), f"attempts.given={tmp_path / 'raw.jsonl'}", "--run", str(run), "--until", "traces"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    done = CliRunner().invoke(app, [*words, "--fresh", "traces"])
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in (run / "attempts").glob("part-*")} == shards
    assert {trace.pattern for trace in load_run(run).rows("traces", Trace)} == {"confirm"}


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw.jsonl", raw_rows(6), "code")
    imported(tmp_path, tmp_path / "raw.jsonl")
    write_raw(tmp_path / "raw.jsonl", raw_rows(6, seed=5), "code")
    again = CliRunner().invoke(
        app, ["import", str(tmp_path / "raw.jsonl"), str(tmp_path / "r.yaml"), "--run", str(tmp_path / "run")]
    )
    assert again.exit_code == 2
    assert "attempts.given (content) was" in again.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("prompt_variant"), "no column `prompt_variant`"),
        (lambda row: row["model_responses__mutated_prompts__eval_is_correct"].append(True), "row 1: 2 in"),
    ],
)
def test_bad_raw_data_are_one_sentence(tmp_path: Path, change: Any, message: str) -> None:
    write_raw(tmp_path / "raw.jsonl", raw_rows(2), "code")
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    for row in rows:
        change(row)
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["import", str(tmp_path / "raw.jsonl"), str(recipe_file(tmp_path)), "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
