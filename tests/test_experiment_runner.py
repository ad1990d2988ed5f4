"""Experiments as processes: what is shared, killed, failed, matched. Most cells run the real pipeline over stages that
are made at once, so that the order of things can be held up and looked at; the last tests train for real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from helpers import RECIPE_YAML, TASK

from skillfactory import children, load_run
from skillfactory.children import Child
from skillfactory.errors import StoreError
from skillfactory.experiments import cells, command, runner
from skillfactory.experiments.grid import Experiment, load_experiment
from skillfactory.watch import Watch

ROOT = Path(__file__).parent.parent
GRID = """\
name: grid
recipe: r.yaml
methods:
  rl_only:
  skillfactory:
  low_rate: {method: skillfactory, sft.learning_rate: 2.0e-4}
  matched: {method: rl_only, match: {row: skillfactory, stages: [attempts, sft]}}
"""
# `skillfactory run` over stages that leave a line in made.txt and finish; or wait or fail, where a file says so.
STAND_INS = """
import dataclasses, os, sys, time, types
from pathlib import Path
from skillfactory import cli, pipeline
from skillfactory.errors import SkillFactoryError
def module(name):
    def run(recipe, run):
        with open("made.txt", "a") as file:
            file.write(f"{run.path.name} {name}\\n")
        while Path(f"wait-{name}").exists():
            time.sleep(0.02)
        if Path(f"fail-{run.path.name}-{name}").exists():
            raise SkillFactoryError(f"no luck with {name}")
        for each in ("attempts", "reflections", "traces") if name == "traces" else (name,):
            run.stage(each).finish(tokens=5)
    found = types.ModuleType(f"stand_in_{name}")
    found.run = run
    sys.modules[found.__name__] = found
    return found.__name__
for name, stage in list(pipeline.STAGES.items()):
    if stage.module:
        pipeline.STAGES[name] = dataclasses.replace(stage, module=module(name))
cli.main()
"""


def begin(name: str, run: Path, log: Path, arguments: Sequence[str]) -> Child:
    """As `children.start`, over the stages above."""
    words = [sys.executable, "-c", STAND_INS, "run", *arguments, "--run", str(run)]
    with log.open("ab") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment(), start_new_session=True)
    return Child(name, run, log, process)


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return children.environment() | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE_YAML)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def run(grid: Experiment, jobs: int = 2, start: Any = begin) -> tuple[dict[str, Any], str]:
    """Run it; gives the failures by cell, and what was said."""
    said = StringIO()
    failures = runner.run(grid, Path("out"), jobs, Watch(said), start)
    return {failure.cell: failure for failure in failures}, said.getvalue()


def made() -> Counter[str]:
    """How often each stage was made, as `CELL STAGE`."""
    return Counter(Path("made.txt").read_text().splitlines())


def eventually(ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_cells_share_is_made_once_and_the_next_run_does_nothing(here: Path) -> None:
    grid = load_experiment("grid.yaml", seeds=[0, 1])
    assert run(grid, jobs=3)[0] == {}
    by_stage: dict[str, list[str]] = {}
    for line, times in made().items():
        assert times == 1, line
        by_stage.setdefault(line.split()[1], []).append(line.split()[0])
    assert sorted(by_stage["questions"]) == ["rl_only-0", "rl_only-1"]
    assert sorted(by_stage["traces"]) == ["skillfactory-0", "skillfactory-1"]
    assert sorted(by_stage["sft"]) == ["low_rate-0", "low_rate-1", "skillfactory-0", "skillfactory-1"]
    assert len(by_stage["rl"]) == len(by_stage["report"]) == 8
    assert load_run("out/cells/low_rate-1").manifest("traces")["lent_from"] == "skillfactory-1"
    matched = load_run("out/cells/matched-1")
    assert matched.recipe.rl.more_tokens == 5 + round(5 * matched.recipe.sft.epochs)
    assert matched.recipe.machine.threads == 1  # beside others
    log = runner.read_log(Path("out"))
    assert Counter((line["event"], line.get("code"), line.get("jobs")) for line in log) == {
        ("start", None, 3): 8,
        ("end", 0, None): 8,
    }
    assert load_experiment("out/experiment.yaml").cells == grid.cells
    before = made()
    assert run(grid) == ({}, "")
    assert (made(), runner.read_log(Path("out"))) == (before, log)


def test_others_go_on_where_one_fails_and_the_same_command_takes_it_up(here: Path) -> None:
    grid = load_experiment("grid.yaml")
    Path("fail-skillfactory-0-traces").touch()
    failures, said = run(grid)
    # Not matched to what has failed; and what the failed one was to lend is made by another.
    assert set(failures) == {"skillfactory-0", "matched-0"}
    assert "[low_rate-0] finished" in said
    failure = failures["skillfactory-0"]
    assert failure.why == "failed with exit code 2: no luck with traces"
    assert failure.log == "out/cells/skillfactory-0.log"
    assert failure.retry == "skillfactory run out/cells/skillfactory-0.yaml --run out/cells/skillfactory-0"
    assert "was not run, since skillfactory-0" in failures["matched-0"].why
    assert failures["matched-0"].retry == "skillfactory experiment out/experiment.yaml --out out"
    told = command.told(grid, list(failures.values()))
    assert told.startswith("2 of 4 cells failed")
    assert failure.retry in told
    assert "    Error: no luck with traces" in told
    Path("fail-skillfactory-0-traces").unlink()
    before = made()
    assert run(grid)[0] == {}
    assert sorted((made() - before).elements()) == sorted(
        [f"skillfactory-0 {stage}" for stage in ("traces", "sft", "rl", "evaluation", "report")]
        + [f"matched-0 {stage}" for stage in ("rl", "evaluation", "report")]
    )


def test_work_of_other_settings_fails_by_itself_and_names_the_stage_to_redo(here: Path) -> None:
    assert run(load_experiment("grid.yaml"))[0] == {}
    failures, _ = run(load_experiment("grid.yaml", ["sft.epochs=7"]))
    assert set(failures) == {"skillfactory-0", "low_rate-0", "matched-0"}  # rl_only knows no SFT
    assert "sft.epochs was 2.0, now 7" in failures["low_rate-0"].why
    assert failures["low_rate-0"].retry.endswith("--run out/cells/low_rate-0 --fresh sft")


def test_a_killed_runner_leaves_its_cells_to_the_next(here: Path) -> None:
    Path("wait-rl").touch()
    code = "from test_experiment_runner import *; run(load_experiment('grid.yaml', seeds=[0]))"
    first = subprocess.Popen([sys.executable, "-c", code], env=environment())
    eventually(lambda: Path("made.txt").exists() and {"rl_only-0 rl", "skillfactory-0 rl"} <= set(made()))
    first.kill()
    first.wait()
    pids = {line["cell"]: line["pid"] for line in runner.read_log(Path("out"))}
    with Path("out/log.jsonl").open("a") as file:
        file.write('{"time": 1')  # a line cut short
    os.kill(pids["skillfactory-0"], signal.SIGKILL)
    said = StringIO()
    seen = list[str]()

    class Looking(Watch):
        def show(self, children: Sequence[Child], head: str = "") -> None:
            seen.extend(child.name for child in children)
            if len(set(seen)) > 1:
                Path("wait-rl").unlink(missing_ok=True)

    grid = load_experiment("grid.yaml")
    assert runner.run(grid, Path("out"), 2, Looking(said), begin) == []
    assert "[rl_only-0] is being run already, by process " in said.getvalue()
    times = made()
    assert times["rl_only-0 rl"] == times["rl_only-0 questions"] == times["skillfactory-0 traces"] == 1
    assert times["skillfactory-0 rl"] == 2  # the stage that it was killed in
    ended = [line["cell"] for line in runner.read_log(Path("out")) if line["event"] == "end"]
    assert sorted(ended) == sorted(cell.name for cell in grid.cells)


def test_a_killed_cell_is_a_failure(here: Path) -> None:
    Path("wait-evaluation").touch()
    Path("grid.yaml").write_text("name: grid\nrecipe: r.yaml\nmethods: [rl_only, skillfactory]\n")

    class Killing(Watch):
        def show(self, children: Sequence[Child], head: str = "") -> None:
            waits = Path("wait-evaluation").exists() and Path("made.txt").exists()
            if waits and "rl_only-0 evaluation" in made():
                os.kill(children[0].process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
                Path("wait-evaluation").unlink()

    [failure] = runner.run(load_experiment("grid.yaml"), Path("out"), 1, Killing(StringIO()), begin)
    assert failure.cell == "rl_only-0"
    assert failure.why.startswith("was killed by signal 9 (out of memory?)")


def test_signals_stop_all_cells_which_keep_their_work(here: Path) -> None:
    Path("wait-rl").touch()
    code = (
        "import sys, test_experiment_runner as t; from skillfactory import children, cli; children.start = t.begin;"
        "sys.argv[1:] = ['experiment', 'grid.yaml', '--out', 'out', '--jobs', '2']; cli.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment(), stderr=subprocess.PIPE, text=True)
    eventually(lambda: Path("made.txt").exists() and {"rl_only-0 rl", "skillfactory-0 rl"} <= set(made()))
    with pytest.raises(StoreError, match="another process runs this experiment"):
        run(load_experiment("grid.yaml"))
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (143, "Stopped; run the same command again to go on.\n")
    assert [line.get("code") for line in runner.read_log(Path("out"))] == [None, None, 143, 143]
    for cell in ("rl_only-0", "skillfactory-0"):
        assert load_run(f"out/cells/{cell}").state("rl") == "partial"
    Path("wait-rl").unlink()
    assert run(load_experiment("grid.yaml"))[0] == {}
    assert made()["skillfactory-0 traces"] == 1


def test_a_cell_waits_for_what_is_being_made_and_another_takes_its_place(here: Path) -> None:
    grid = load_experiment("grid.yaml", seeds=[0, 1])
    Path("wait-traces").touch()
    together = list[set[str]]()

    class Looking(Watch):
        def show(self, children: Sequence[Child], head: str = "") -> None:
            together.append({child.name for child in children})
            if any({"skillfactory-0", "skillfactory-1"} <= names for names in together):
                Path("wait-traces").unlink(missing_ok=True)

    assert runner.run(grid, Path("out"), 2, Looking(StringIO()), begin) == []
    assert not any({"rl_only-0", "rl_only-1"} <= names for names in together)  # questions alone are waited for
    assert sum(times for line, times in made().items() if line.endswith("traces")) == 2


def skillfactory(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skillfactory", *words], capture_output=True, text=True, env=environment(), check=False
    )


TINY = """\
name: tiny
recipe: demo
settings:
  machine.dtype: float32
  questions: {sft: 24, rl: 8, dev: 2}
  attempts.per_variant: 4
  traces.limit: 0
  sft.batch_size: 16
  rl: {steps: 1, prompts_per_step: 4, group_size: 4, micro_batch: 16, max_tokens: 40, keep_every: 0}
  evaluation: {samples: 1, max_tokens: 30, sets: {easy: {n: 3, task: TASK}}}
methods:
""".replace("TASK", json.dumps(TASK))


def test_the_command_prints_and_writes_the_tables(here: Path) -> None:
    rows = "  cold: {method: evaluate}\n  hot: {method: evaluate, evaluation.temperature: 1.5}\nreference: cold\n"
    Path("tiny.yaml").write_text(TINY + rows)
    done = skillfactory("experiment", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cells in runs/tiny" in done.stdout
    assert "Experiment: runs/tiny/experiment.html" in done.stdout
    for name in ("experiment.html", "experiment.md", "metrics.json", "experiment.yaml", "log.jsonl"):
        assert Path("runs/tiny", name).stat().st_size > 0
    again = skillfactory("experiment", "tiny.yaml", "--json")
    assert json.loads(again.stdout) == json.loads(Path("runs/tiny/metrics.json").read_text())
    states = json.loads(skillfactory("status", "runs/tiny", "--json").stdout)
    assert [each["run"] for each in states] == ["runs/tiny/cells/cold-0", "runs/tiny/cells/hot-0"]


@pytest.mark.slow
def test_a_whole_experiment_with_shared_curation_a_match_and_a_failure(here: Path) -> None:
    rows = (
        "  rl_only:\n  skillfactory:\n  low_rate: {method: skillfactory, sft.learning_rate: 2.0e-4}\n"
        "  matched: {method: rl_only, match: {row: skillfactory, stages: [sft]}}\n"
        "  broken: {method: skillfactory, traces.max_tokens: 3}\n"
    )
    Path("tiny.yaml").write_text(TINY + rows)
    done = skillfactory("experiment", "tiny.yaml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "1 of 5 cells failed" in done.stderr
    assert "longer than traces.max_tokens = 3" in done.stderr
    assert "runs/tiny/cells/broken-0.yaml --run runs/tiny/cells/broken-0" in done.stderr
    one, two = load_run("runs/tiny/cells/skillfactory-0"), load_run("runs/tiny/cells/low_rate-0")
    for stage in ("attempts", "reflections", "traces"):
        assert two.manifest(stage)["lent_from"] == "skillfactory-0"
        assert two.table(stage).equals(one.table(stage))
    broken = load_run("runs/tiny/cells/broken-0")  # drew nothing either: it was lent the samples
    assert broken.table("attempts").equals(one.table("attempts"))
    matched = load_run("runs/tiny/cells/matched-0")
    assert matched.recipe.rl.more_tokens == one.manifest("sft")["counts"]["tokens"]
    assert matched.manifest("rl")["counts"]["tokens"] >= matched.recipe.rl.more_tokens
    assert matched.manifest("rl")["counts"]["steps"] > 1


@pytest.mark.slow
def test_cells_on_a_ray_cluster(here: Path) -> None:
    """A cluster of this machine; then one whose runner is stopped, and with it the cells."""
    pytest.importorskip("ray")
    rows = "  cold: {method: evaluate}\n  hot: {method: evaluate, evaluation.temperature: 1.5}\nreference: cold\n"
    Path("tiny.yaml").write_text(TINY + rows)
    done = skillfactory("experiment", "tiny.yaml", "--ray", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cells.is_finished(
        Path("runs/tiny/cells/hot-0"), cells.identities(load_experiment("tiny.yaml").cell("hot", 0).recipe)
    )
    words = [sys.executable, "-m", "skillfactory", "experiment", "tiny.yaml", "--ray", "local", "--seeds", "1"]
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    eventually(
        lambda: (
            Path("runs/tiny/cells/cold-1/recipe.yaml").exists()
            and load_run("runs/tiny/cells/cold-1").state("questions") != "missing"
        )
    )
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "Stopped; run the same command again" in said) == (143, True), said
    assert "Stopped" in Path("runs/tiny/cells/cold-1.log").read_text()
    refused = skillfactory("experiment", "tiny.yaml", "--ray", "localhost:1")
    assert (refused.returncode, "Nothing answers at `localhost:1` (--ray" in refused.stderr) == (2, True), (
        refused.stderr
    )
