"""The run directory: what survives a kill, a full disk, a second process, other settings and damage."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillfactory import files, rows, store
from skillfactory.errors import StoreError
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Response, Step, Trace
from skillfactory.store import Run, load_run


def recipe(**changes: object) -> Recipe:
    task = {"name": "countdown", "params": {"count": 3}}
    data = {"name": "t", "questions": {"task": task}, "evaluation": {"sets": {"easy": {"task": task, "n": 5}}}}
    return Recipe.model_validate(data | changes)


def attempt(i: int, text: str = "a") -> Attempt:
    return Attempt(f"a{i}", "q", "original", i, text, "1", "correct", "", "stop", 7)


def python(code: str, *args: object, **kwargs: object) -> subprocess.Popen[str]:
    """A real second process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip


texts = st.text()
traces = st.builds(
    Trace, id=texts, question_id=texts, pattern=texts, steps=st.lists(st.builds(Step, texts, texts, texts)),
    prompt=st.lists(st.fixed_dictionaries({"role": texts, "content": texts})), completion=texts,
    tokens=st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip


@given(st.lists(traces, min_size=1, max_size=4))
def test_nested_records_come_back_as_they_were(records: list[Trace]) -> None:
    assert rows.to_records(rows.from_parquet(rows.to_parquet(records)), Trace, "here") == records


def test_rows_keep_the_order_of_shards_beyond_ten(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {}, {})
        for i in range(12):
            stage.append([attempt(2 * i), attempt(2 * i + 1)])
        stage.append([])
        stage.finish(correct=24)
    loaded = load_run(tmp_path / "run")
    assert [each.index for each in loaded.rows("attempts", Attempt)] == list(range(24))
    assert loaded.table("attempts").num_rows == loaded.manifest("attempts")["rows"] == 24
    assert loaded.state("attempts") == "finished"
    assert loaded.manifest("attempts")["counts"] == {"correct": 24}
    assert loaded.manifest("attempts")["libraries"]["pyarrow"]
    assert loaded.recipe == recipe()


def test_a_new_field_with_a_default_reads_old_rows_and_a_needed_one_is_named(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        run.stage("x").append([Question("q", "t", "l", "text", "1", "{}")])
        assert run.stage("x").rows(Question)[0].split == ""
        with pytest.raises(StoreError, match="no column `question_id`"):
            run.stage("x").rows(Response)


KILLED = """
    import sys, time
    from pathlib import Path
    from skillfactory.store import Run
    sys.path.insert(0, sys.argv[2])
    from test_store import attempt, recipe
    with Run.open(Path(sys.argv[1]), recipe()) as run:
        stage = run.begin("attempts", {"n": 1}, {})
        done = len(stage.rows(type(attempt(0))))
        with stage.track(40, "attempts", done=done) as advance:
            for i in range(done, 40):
                stage.append([attempt(i, "word " * 2000)])
                advance(1, tokens=5)
                print(i, flush=True)
                time.sleep(0.01)
        stage.finish()
"""


def test_killed_again_and_again_it_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    for n in (3, 7, 5):
        process = python(KILLED, tmp_path / "run", Path(__file__).parent)
        assert process.stdout
        for _ in range(n):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        loaded = load_run(tmp_path / "run")
        assert loaded.state("attempts") == "partial"
        kept = [each.index for each in loaded.rows("attempts", Attempt)]
        assert kept == list(range(len(kept)))
        shards = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/attempts").glob("part-*")}
        assert len(shards) >= len(seen) + n
        assert shards.items() >= seen.items(), "finished shards were written again"
        seen = shards
    process = python(KILLED, tmp_path / "run", Path(__file__).parent)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    loaded = load_run(tmp_path / "run")
    assert [each.index for each in loaded.rows("attempts", Attempt)] == list(range(40))
    assert loaded.state("attempts") == "finished"
    assert not (tmp_path / "run/attempts/progress.json").exists()


def test_leftovers_of_a_kill_are_no_rows_and_are_cleared(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        run.begin("attempts", {}, {}).append([attempt(0)])
    half = tmp_path / "run/attempts" / f"{files.TEMPORARY}1-part-00001.parquet"
    half.write_bytes(b"PAR1 half of it")
    (tmp_path / "run/attempts/progress.json").write_text('{"stage_seconds": 100.0}')
    (tmp_path / "run/log.jsonl").write_text('{"torn')
    assert len(load_run(tmp_path / "run").rows("attempts", Attempt)) == 1
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {}, {})
        assert not half.exists()
        stage.append([attempt(1)])
        stage.finish()
        run.log("attempts", "finished")
    assert load_run(tmp_path / "run").manifest("attempts")["seconds"] >= 100
    assert json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])["event"] == "finished"


def test_other_settings_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {"attempts.top_k": 20, "seed": 0, "attempts.old": 1}, {"questions": "abc"})
        stage.append([attempt(0)])
        with pytest.raises(StoreError) as caught:
            run.begin("attempts", {"attempts.top_k": 50, "seed": 0}, {"questions": "abc"})
        message = str(caught.value)
        assert "attempts.top_k was 20, now 50" in message
        assert "attempts.old was 1, now not there" in message
        assert "seed" not in message
        assert "--fresh attempts" in message
        with pytest.raises(StoreError, match="made from other questions"):
            run.begin("attempts", {"attempts.top_k": 20, "seed": 0, "attempts.old": 1}, {"questions": "abd"})


HOLDER = """
    import sys, time
    from pathlib import Path
    from skillfactory.store import Run
    sys.path.insert(0, sys.argv[2])
    from test_store import recipe
    with Run.open(Path(sys.argv[1]), recipe()) as run:
        run.begin("attempts", {}, {})
        print("open", flush=True)
        time.sleep(60)
"""


def test_other_settings_are_fine_where_nothing_was_made_of_the_old_ones(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", recipe()) as run:
        run.begin("attempts", {"path": "broken.jsonl"}, {})
        run.begin("attempts", {"path": "mended.jsonl"}, {}).append([attempt(0)])
        with pytest.raises(StoreError, match="mended"):
            run.begin("attempts", {"path": "other.jsonl"}, {})


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    process = python(HOLDER, tmp_path / "run", Path(__file__).parent)
    try:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"process {process.pid} is writing"):
            Run.open(tmp_path / "run", recipe())
        assert load_run(tmp_path / "run").state("attempts") == "running"
    finally:
        process.kill()
        process.wait()
    assert load_run(tmp_path / "run").state("attempts") == "partial"
    with Run.open(tmp_path / "run", recipe()) as run:
        assert not run.stage("attempts").is_finished()


FULL = """
    import resource, sys
    from pathlib import Path
    from skillfactory.errors import StoreError
    from skillfactory.store import Run
    sys.path.insert(0, sys.argv[2])
    import random
    from test_store import attempt, recipe
    with Run.open(Path(sys.argv[1]), recipe()) as run:
        stage = run.begin("attempts", {}, {})
        stage.append([attempt(0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        try:
            stage.append([attempt(1, random.Random(0).randbytes(60_000).hex())])
        except StoreError as error:
            print(error)
"""


def test_a_full_disk_is_told_and_costs_nothing_that_was_there(tmp_path: Path) -> None:
    process = python(FULL, tmp_path / "run", Path(__file__).parent)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert out.startswith("Disk full while writing")
    assert "part-00001.parquet" in out
    assert "run the same command again" in out
    assert sorted(path.name for path in (tmp_path / "run/attempts").iterdir()) == [
        "manifest.json",
        "part-00000.parquet",
    ]
    assert load_run(tmp_path / "run").rows("attempts", Attempt) == [attempt(0)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_recognised_behind_a_librarys_own_error() -> None:
    def save() -> None:
        try:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")
        except OSError as error:
            raise RuntimeError("serialization failed") from error

    with pytest.raises(StoreError, match="Disk full while writing the model"), files.told("the model"):
        save()
    with pytest.raises(StoreError, match="Disk full"), files.told("the model"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(FileNotFoundError), files.told("the model"):
        Path("/no/such/file").read_bytes()


def test_damage_names_the_file_and_the_mend(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {}, {})
        stage.append([attempt(0)])
        stage.append([attempt(1)])
        stage.finish()
    shard = tmp_path / "run/attempts/part-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(rows.to_parquet([attempt(2)]))  # readable, but not what the stage wrote
    with pytest.raises(StoreError, match=r"part-00001\.parquet is damaged .*--fresh attempts"):
        load_run(tmp_path / "run").table("attempts")
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"part-00001\.parquet is damaged"):
        load_run(tmp_path / "run").table("attempts")
    shard.unlink()
    with pytest.raises(StoreError, match=r"part-00001\.parquet is missing"):
        load_run(tmp_path / "run").table("attempts")
    (tmp_path / "run/attempts/manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        load_run(tmp_path / "run").state("attempts")


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="neither empty nor a run"):
        Run.open(tmp_path, recipe())
    with pytest.raises(StoreError, match="is a file"):
        Run.open(tmp_path / "thesis.tex", recipe())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="not a run directory"):
        load_run(tmp_path)
    Run.open(tmp_path / "new", recipe()).close()
    with pytest.raises(StoreError, match="method `skillfactory`, not `rl_only`"):
        Run.open(tmp_path / "new", recipe(method="rl_only"))


def test_progress_is_there_for_others_while_it_lasts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {}, {})
        with stage.track(10, "attempts", done=4) as advance:
            assert load_run(tmp_path / "run").progress("attempts")["done"] == 4
            advance(6, correct=0.25)
        assert load_run(tmp_path / "run").progress("attempts") == {}
    assert "attempts: 10 / 10 attempts" in capsys.readouterr().err


def test_a_fingerprint_follows_content_not_dates(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345678weights")
    before = files.model_fingerprint(tmp_path)
    os.utime(tmp_path / "config.json", (1, 1))
    assert files.model_fingerprint(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"12345678weightz")
    assert files.model_fingerprint(tmp_path) != before


def test_a_fingerprint_tells_large_checkpoints_of_one_shape_apart(tmp_path: Path) -> None:
    weights, size, header = tmp_path / "model.safetensors", 150_000_000, b'{"a": 1}'
    with weights.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(size)  # zeros that take no room
    before = files.model_fingerprint(tmp_path)
    assert files.model_fingerprint(tmp_path) == before
    with weights.open("rb+") as file:
        file.seek(size // 2)
        file.write(b"trained" * 1_000_000)
    assert files.model_fingerprint(tmp_path) != before


def test_interrupted_time_counts(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe()) as run:
        run.begin("attempts", {}, {})
        time.sleep(0.2)
    with Run.open(tmp_path / "run", recipe()) as run:
        stage = run.begin("attempts", {}, {})
        stage.finish()
    assert load_run(tmp_path / "run").manifest("attempts")["seconds"] >= 0.2
    assert store.load_run(tmp_path / "run").state("rl") == "missing"


def test_a_stage_written_anew_misses_none_of_its_old_shards(tmp_path: Path) -> None:
    with Run.open(tmp_path / "a", recipe()) as run:
        stage = run.begin("traces", {}, {})
        for _ in range(3):
            stage.append([attempt(1)])
        stage.finish()
        stage.reopen()
        stage.clear_rows()
        assert stage.table().num_rows == 0
        stage.append([attempt(2)])
        stage.finish()
        assert stage.table().num_rows == stage.manifest["rows"] == 1
