"""What `show` and the report say of curation: their figures are those of the rows, and hostile text stays text."""

from pathlib import Path

import pytest
from curated import attempt, recipe, reflection
from test_drawing import MANY, Scripted, by_seed, curated

from skillfactory import engines
from skillfactory.overview import overview, some_traces
from skillfactory.records import Attempt, Reflection, Trace
from skillfactory.report.curation import curation_tables
from skillfactory.report.page import show_traces
from skillfactory.report.tables import Table
from skillfactory.store import LoadedRun, load_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedRun:
    from curated import Words

    monkeypatch.setattr(engines, "load", lambda *_: Scripted(by_seed))
    monkeypatch.setattr(engines, "load_tokenizer", lambda *_: Words())
    given = recipe(traces={"pattern": "ladder", "max_pairs": 3, "max_tokens": 60}, attempts={"per_variant": 8})
    return load_run(curated(tmp_path / "run", given).path)


def tables(run: LoadedRun) -> dict[str, Table]:
    return {table.title: table for table in curation_tables(overview(run))}


def test_tables_are_of_the_rows(run: LoadedRun) -> None:
    found = tables(run)
    assert list(found) == [
        "Questions", "Attempts", "Verdicts", "Yield", "Pairs in a trace", "Tokens of one", "Cost of sampling",
    ]  # fmt: skip
    attempts, reflections = run.rows("attempts", Attempt), run.rows("reflections", Reflection)
    traces = run.rows("traces", Trace)
    assert found["Attempts"].rows[-1][1] == f"{len(attempts):,}"
    first = [r for r in reflections if r.index == 0]
    outcomes = {a.id: a.outcome for a in attempts}
    right = sum(outcomes[r.attempt_id] == "correct" and r.verdict == "correct" for r in first)
    assert found["Verdicts"].rows[-1][1] == str(right)
    assert found["Yield"].rows[-1] == ["traces", "", f"{len(traces):,}"]
    dropped = next(row for row in found["Yield"].rows if row[0] == "dropped: too long")
    assert int(dropped[2].split()[0]) > 0
    assert f"{dropped[2].split()[0]} traces did not fit" in found["Tokens of one"].note
    assert max(trace.tokens for trace in traces) <= 60
    pairs = found["Pairs in a trace"]
    assert dict(zip(pairs.columns[1:], pairs.rows[0][1:], strict=True)) == {
        str(n): str(sum(len(t.steps) == n for t in traces)) for n in sorted({len(t.steps) for t in traces})
    }
    tokens = sum(row.tokens for row in (*attempts, *reflections))
    cost = {row[0]: row[1] for row in found["Cost of sampling"].rows}
    assert cost["all"] == f"{tokens:,}"
    assert cost["a trace"] == f"{tokens / len(traces):,.0f}"


def test_lost_questions_add_up(run: LoadedRun) -> None:
    rows = {row[0]: row[1].split()[0] for row in tables(run)["Yield"].rows if row[1]}
    lost = sum(int(n) for name, n in rows.items() if name.startswith("lost"))
    assert int(rows["with a trace"]) + lost == int(rows["questions attempted"]) == len(MANY)


def test_an_unfinished_run_counts_what_is_there(tmp_path: Path) -> None:
    from skillfactory.store import Run

    with Run.open(tmp_path / "run", recipe()) as opened:
        opened.stage("questions").append(MANY)
        made = [attempt(i, i % 2 == 0, question=MANY[0]) for i in range(4)]
        opened.stage("attempts").append(made)
        opened.stage("reflections").append([reflection(each) for each in made])
    facts = overview(load_run(tmp_path / "run"))
    assert (facts["attempts"]["attempts"], facts["reflections"]["agree"]) == (4, 4)
    assert "traces" not in facts
    assert [table.title for table in curation_tables(facts)][:3] == ["Questions", "Attempts", "Verdicts"]


def test_shown_traces_are_drawn_at_random_and_whole(run: LoadedRun) -> None:
    traces = {trace.id: trace for trace in run.rows("traces", Trace)}
    shown = some_traces(run, 10)
    assert len({trace.id for trace in shown}) == min(10, len(traces))
    assert shown == some_traces(run, 10)
    assert all(trace == traces[trace.id] for trace in shown)
    assert len(some_traces(run, 10**6)) == len(traces)
    for page in show_traces([run], [""]):
        assert "".join(piece.text for piece in page.pieces) in {t.completion for t in traces.values()}
