"""The command line as a user meets it: real processes where exit codes and signals matter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from traces_run import make_run, make_trace
from typer.testing import CliRunner

from skillfactory import catalog, console, demo
from skillfactory.cli import app
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection, Step, Trace
from skillfactory.store import Run, load_run
from skillfactory.tasks import levels, names

RECIPE = """\
name: t
questions:
  task: {name: multiplication}
  sft: 6
  rl: 4
  dev: 2
rl: {prompts_per_step: 4, mini_batch: 0}
evaluation:
  sets:
    easy: {task: {name: multiplication}, n: 3}
"""
HOSTILE = "<sample>\n[bold]\x1b[31mred\x07[/nonsense] \u202e<script>\n</sample><answer>[link=x]4[/link]</answer>"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the recipe r.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def skillfactory(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skillfactory", *args], capture_output=True, text=True, timeout=timeout, check=False
    )


def facts(*args: str) -> object:
    """What a command prints with --json, in this process."""
    result = CliRunner().invoke(app, [*args, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_help_is_quick_and_loads_no_torch() -> None:
    start = time.monotonic()
    done = skillfactory("--help")
    assert done.returncode == 0
    assert "compare" in done.stdout
    assert time.monotonic() - start < 2
    code = "import sys, skillfactory.cli; print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_run_its_status_and_its_resumption(here: Path) -> None:
    done = skillfactory("run", "r.yaml", "--until", "questions")
    assert (done.returncode, done.stderr) == (0, "")
    assert "questions finished: 15 rows" in done.stdout
    stages = {each["stage"]: each for each in facts("status", "runs/t")["stages"]}  # type: ignore[index]
    assert (stages["questions"]["state"], stages["questions"]["rows"]) == ("finished", 15)
    assert stages["rl"]["state"] == "missing"
    assert facts("show", "runs/t")["questions"] == {"sft": 6, "rl": 4, "dev": 2, "eval": 3}  # type: ignore[index]
    before = (here / "runs/t/questions/manifest.json").read_bytes()
    assert skillfactory("run", "r.yaml", "--until", "questions").returncode == 0
    assert (here / "runs/t/questions/manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "no.yaml"], "There is no recipe no.yaml"),
        (["run", "r.yaml", "rl.stepz=3"], "did you mean `steps`"),
        (["run", "r.yaml", "method=stars"], "Unknown method `stars`; did you mean `star`"),
        (["run", "r.yaml", "questions.task.name=sudoku"], "Unknown task `sudoku`"),
        (["run", "r.yaml", "--until", "sfd"], "did you mean `sft`"),
        (["run", "r.yaml", "--fresh", "sfd"], "did you mean `sft`"),
        (["run", "r.yaml", "model=./nowhere"], "There is no model folder ./nowhere"),
        (["run", "r.yaml", "--run", "r.yaml"], "is a file"),
        (["run", "r.yaml", "--run", "."], "neither empty nor a run"),
        (["run", "r.yaml", "--json"], "--json goes with --dry-run"),
        (["status", "nowhere"], "not a run directory"),
        (["status"], "no runs in runs/"),
        (["show", "nowhere"], "not a run directory"),
        (["compare", "nowhere"], "not a run directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(here: Path, args: list[str], words: str) -> None:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (here / "runs").exists()


def test_a_mistake_prints_no_traceback_in_a_real_process(here: Path) -> None:
    done = skillfactory("run", "r.yaml", "rl.stepz=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: command line: unknown key `rl.stepz`; did you mean `steps`?\n"
    assert skillfactory("nonsense").returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_the_same_command_goes_on(here: Path, number: signal.Signals, code: int) -> None:
    # A stage that waits for ever, in the place of the first.
    script = (
        "import dataclasses, sys, time, types; from skillfactory import cli, pipeline\n"
        "m = types.ModuleType('waits'); m.run = lambda *_: (print('waiting', flush=True), time.sleep(60))\n"
        "sys.modules['waits'] = m; s = pipeline.STAGES\n"
        "s['questions'] = dataclasses.replace(s['questions'], module='waits'); cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", "r.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (code, "Stopped; run the same command again to go on.\n")
    assert load_run("runs/t").state("questions") == "partial"
    assert skillfactory("run", "r.yaml", "--until", "questions").returncode == 0


def test_the_dry_run_touches_nothing(here: Path) -> None:
    result = CliRunner().invoke(app, ["run", "r.yaml", "attempts.per_variant=5", "--dry-run"])
    assert result.exit_code == 0
    assert "attempts 120" in result.stdout
    planned = {each["stage"]: each for each in facts("run", "r.yaml", "--dry-run", "--until", "rl")["stages"]}  # type: ignore[index]
    assert list(planned)[-1] == "rl"
    assert planned["rl"]["rollouts"] == 150 * 64
    assert not (here / "runs").exists()


def test_show_gives_the_yield_and_cannot_be_driven_by_model_output(here: Path) -> None:
    task = {"name": "multiplication"}
    recipe = Recipe.model_validate(
        {"name": "t", "questions": {"task": task}, "evaluation": {"sets": {"e": {"task": task}}}}
    )
    outcomes = ("correct", "wrong", "no_answer", "wrong")
    with Run.open(here / "runs/t", recipe) as run:
        run.stage("questions").append([Question(f"q{i}", "t", "l", HOSTILE, "4", "{}", "sft") for i in range(2)])
        run.stage("attempts").append(
            [
                Attempt(f"a{i}", f"q{i % 2}", "original", i, HOSTILE, "4", outcome, "", "stop", 10 * i)  # type: ignore[arg-type]
                for i, outcome in enumerate(outcomes)
            ]
        )
        run.stage("reflections").append(
            [Reflection(f"r{i}", f"q{i % 2}", f"a{i}", 0, "x", "correct", i == 0, "stop", 3) for i in range(4)]
        )
        step = Step("a0", "r0", "")
        prompt = [{"role": "user", "content": HOSTILE}]
        run.stage("traces").append([Trace("t0", "q0", "algorithm1", [step, step], prompt, HOSTILE, 50)])  # type: ignore[list-item]
    found = facts("show", "runs/t")
    assert isinstance(found, dict)
    attempts, verdicts = found["attempts"], found["reflections"]["first_verdicts"]
    assert [attempts[key] for key in ("attempts", "correct", "wrong", "no_answer", "truncated")] == [4, 1, 2, 1, 0]
    assert (attempts["questions_solved"], attempts["questions"]) == (1, 2)
    assert (verdicts["correct_called_correct"], verdicts["incorrect_called_correct"]) == (1, 3)
    assert verdicts["f1_correct"] == 2 / 5
    assert found["traces"]["by_pairs"] == {"2": 1}
    assert found["traces"]["tokens_percentiles"] == dict.fromkeys(["5", "50", "90", "99", "100"], 50)
    shown = CliRunner().invoke(app, ["show", "runs/t"])
    assert shown.exit_code == 0, shown.output
    assert "[bold]\ufffd[31mred\ufffd[/nonsense]" in shown.stdout
    assert not set(shown.stdout) & set("\x1b\x07\u202e")


def test_skills_are_coloured() -> None:
    text = console.trace_text(
        "<think>\n<sample>try</sample>\nglue<reflect>no <verdict>Incorrect</verdict></reflect></think>"
    )
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert (styles["try"], styles["no "], styles["Incorrect"]) == ("cyan", "yellow", "bold magenta")
    assert "\nglue" not in styles


def test_tasks_are_all_listed_at_once() -> None:
    done = skillfactory("tasks")
    assert (done.returncode, done.stderr) == (0, "")
    for name in names():
        assert name in done.stdout
    assert {each["example"]["outcome"] for each in catalog.tasks_in_brief()} == {"correct"}
    assert len(done.stdout.splitlines()) < 120


def test_every_level_of_every_task_has_an_example_that_its_own_check_accepts() -> None:
    found = {each["name"]: each for each in facts("tasks")}  # type: ignore[attr-defined]
    assert set(found) == set(names())
    for name, each in found.items():
        drawn = name in ("acronym", "countdown", "letter_countdown", "multiplication")  # a data set has one row of ours
        assert len(each["examples"]) == (len(levels(name)) if drawn else 1), name
        assert {example["outcome"] for example in each["examples"]} == {"correct"}, name
        assert each["about"]
        assert each["graded_by"]
    assert "count" in [each["parameter"] for each in found["countdown"]["parameters"]]
    assert len(found["reasoning_gym"]["members"]) > 100


def test_one_task_in_full(here: Path) -> None:
    shown = CliRunner().invoke(app, ["tasks", "countdown"])
    assert shown.exit_code == 0
    assert "level 6 numbers: {count: 6}" in shown.stdout
    assert shown.stdout.count("is correct") == len(levels("countdown"))
    member = CliRunner().invoke(app, ["tasks", "reasoning_gym:gcd"])
    assert "min_numbers" in member.stdout
    assert "greatest common divisor" in member.stdout.lower()
    assert "is correct" in member.stdout
    for name, hint in (("countdwon", "countdown"), ("reasoning_gym:chain_sun", "reasoning_gym:chain_sum")):
        wrong = CliRunner().invoke(app, ["tasks", name])
        assert wrong.exit_code == 2
        assert f"did you mean `{hint}`" in wrong.stderr


def test_recipes_lists_those_in_the_working_directory(here: Path) -> None:
    (here / "recipes").mkdir()
    (here / "recipes/mine.yaml").write_text("# My own.\n" + RECIPE)
    mine = next(each for each in facts("recipes") if each["recipe"] == "recipes/mine.yaml")  # type: ignore[attr-defined]
    assert mine["what"] == "My own."


def test_the_demo_stops_both_processes_when_one_fails(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECIPE", str(here / "r.yaml"))
    children: list[demo.Child] = []

    def watch(now: object) -> None:
        children[:] = now  # type: ignore[call-overload]

    # A run directory that cannot be used makes one of the two fail at once.
    (here / "out/rl_only").mkdir(parents=True)
    (here / "out/rl_only/thesis.tex").write_text("years of work")
    with pytest.raises(demo.DemoError, match="rl_only run failed with exit code 2") as caught:
        demo.run_demo(here / "out", small=True, watch=watch, overrides=["attempts.per_variant=10000"])
    assert "neither empty nor a run" in str(caught.value)
    assert [child.process.poll() is not None for child in children] == [True, True]


def test_the_small_demo_is_small_and_valid(here: Path) -> None:
    from skillfactory.recipes import load_recipe

    small = load_recipe("r.yaml", demo.reduced(load_recipe("r.yaml")))
    assert (small.rl.steps, small.evaluation.samples, small.questions.sft) == (3, 1, 6)


def test_modules_run_under_a_closed_terminal(here: Path) -> None:
    """Without HOME, terminal or colours it still works."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        [sys.executable, "-m", "skillfactory", "tasks"], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_export_writes_files_that_others_read(here: Path) -> None:
    make_run(here / "runs/t", [[make_trace(i) for i in range(5)]])
    said = facts("export", "runs/t", "trl", "out")
    assert isinstance(said, dict)
    assert said["traces"] == 5
    rows = pyarrow.parquet.read_table(here / "out/train.parquet").to_pylist()
    assert len(rows) == 5
    assert rows[0]["completion"][0]["role"] == "assistant"
    for words, message in (
        (["trl", "out"], "out is not empty"),
        (["tlr", "other"], "There is no format 'tlr'; there are: trl"),
        (["trl", "other", "--push", "me/it"], "give the format `datasets`"),
    ):
        refused = CliRunner().invoke(app, ["export", "runs/t", *words])
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    assert not (here / "other").exists()


def test_the_dry_run_estimates_from_a_probe(here: Path) -> None:
    """On the embedded model; what it says of a probe of everything is what a run then takes."""
    words = ["demo", "questions.sft=12", "traces.limit=0", "attempts.per_variant=3", "machine.dtype=float32"]
    words += ["questions.rl=1", "questions.dev=0", "machine.threads=1"]
    said = facts("run", *words, "--dry-run", "--probe", "12", "--run", "runs/p")
    assert isinstance(said, dict)
    assert not (here / "runs").exists()
    estimate = said["estimate"]
    assert (estimate["probed"], estimate["questions"]) == (12, 12)
    assert 0 < estimate["tokens"] < estimate["paper_tokens"]
    assert 0 < estimate["attempts"] <= 12 * 12
    assert "estimate" not in facts("run", *words, "--dry-run", "--probe", "0", "--run", "runs/p")  # type: ignore[operator]
