"""`skillfactory init`: by flags, on a terminal, and what it writes is what a run takes."""

import csv
import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hub_server import hub
from typer.testing import CliRunner

from skillfactory import pipeline
from skillfactory.catalog import recipe_facts
from skillfactory.cli import app
from skillfactory.errors import QuestionError, RecipeError
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.starting import draft
from skillfactory.starting.machines import Machine
from skillfactory.starting.stock import from_task
from skillfactory.store import load_run
from skillfactory.tasks import get

SUMS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(10) for b in range(6)]
REAL = "Qwen/Qwen2.5-1.5B-Instruct"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, on a machine without GPUs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*flags: str, rc: int = 0) -> str:
    """What `init` prints; without a terminal."""
    result = CliRunner().invoke(app, ["init", *flags])
    assert result.exit_code == rc, result.output + repr(result.exception)
    return result.output if rc == 0 else result.stderr


def recipe(file: str = "recipe.yaml") -> Recipe:
    """The recipe that was written, held against all that a run checks before it starts."""
    loaded = load_recipe(file)
    pipeline.check(loaded)
    return loaded


def write_jsonl(file: str, rows: Sequence[dict[str, Any]]) -> None:
    Path(file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


# --- flags


def test_without_a_terminal_defaults_are_taken_and_told() -> None:
    said = init()
    assert "Not asked, so taken: --model tiny --questions countdown --machine cpu --method skillfactory" in said
    for command in ("doctor recipe.yaml", "run recipe.yaml --dry-run", "run recipe.yaml"):
        assert f"skillfactory {command}" in said
    made = recipe()
    demo = load_recipe("demo")
    assert (made.name, made.model, made.questions.task) == ("recipe", "tiny", demo.questions.task)


@pytest.mark.parametrize("machine", [["cpu"], ["gpu"], ["gpus", "--gpus", "4"], ["gpus", "--gpus", "3"], ["server"]])
def test_every_machine(machine: list[str]) -> None:
    init("--model", REAL, "--questions", "countdown", "--machine", *machine)
    made = recipe()
    assert (made.attempts.engine == "openai") == (machine[0] == "server")
    assert made.evaluation.engine == "transformers"
    assert made.training.devices == (int(machine[-1]) if len(machine) > 1 else 1)
    assert made.training.shard == ("fsdp2" if len(machine) > 1 else "none")
    assert [each.task.level for each in made.evaluation.sets.values()] == ["3 numbers", "4 numbers", "5 numbers"]


def test_the_papers_numbers_are_those_of_its_recipe() -> None:
    init("--model", REAL, "--size", "paper", "--machine", "gpu")
    made, paper = recipe(), load_recipe("countdown-qwen2.5-1.5b")
    for split in ("sft", "rl", "dev"):
        assert getattr(made.questions, split) == getattr(paper.questions, split)
    assert made.reflections == paper.reflections
    assert made.attempts.model_copy(update={"hints": "never"}) == paper.attempts
    assert made.traces == paper.traces
    for section, keys in (("sft", "learning_rate epochs batch_size warmup schedule"),
                          ("rl", "learning_rate steps prompts_per_step group_size mini_batch max_tokens beta"),
                          ("evaluation", "samples temperature top_p top_k max_tokens repetition_penalty")):  # fmt: skip
        for key in keys.split():
            assert getattr(getattr(made, section), key) == getattr(getattr(paper, section), key), key


@pytest.mark.parametrize(
    ("flags", "split", "evaluated"),
    [
        (["multiplication", "--param", "digits=3"], None, 3),
        (["gsm8k"], "train", 1),
        (["math500"], None, 1),
        (["aime2025"], None, 1),
        (["openthoughts3"], None, 1),
    ],
)
def test_every_kind_of_task(flags: list[str], split: str | None, evaluated: int) -> None:
    init("--model", REAL, "--questions", *flags)
    made = recipe()
    assert made.questions.task.params.get("split") == split
    assert len(made.evaluation.sets) == evaluated


def test_a_small_task_gets_no_more_than_it_makes() -> None:
    said = init("--model", REAL, "--questions", "multiplication", "--param", "digits=1", "--size", "paper")
    made = recipe()
    assert "too few" in said
    assert made.questions.sft + made.questions.rl + made.questions.dev <= 81
    assert made.rl.prompts_per_step <= made.questions.rl


@pytest.mark.parametrize("method", draft.METHODS)
def test_every_method(method: str) -> None:
    init("--method", method)
    assert recipe().method == method


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "./none"], "There is no model folder ./none"),
        (["--model", "."], "no config.json"),
        (["--questions", "countdwn"], "did you mean `countdown`?"),
        (["--questions", "jsonl"], "reads a file"),
        (["--questions", "countdown", "--param", "cunt=3"], "did you mean `count`?"),
        (["--questions", "countdown", "--param", "count"], "not of the form"),
        (["--questions", "countdown", "--grade", "exact"], "--grade goes with questions of your own"),
        (["--questions", "gone.jsonl"], "There is no file gone.jsonl."),
        (["--questions", "sums.jsonl", "--param", "count=3"], "--param goes with a task"),
        (["--questions", "sums.jsonl", "--grade", "nmber"], "did you mean `number`?"),
        (["--questions", "sums.jsonl", "--grade", "choice"], "--choices names it"),
        (["--questions", "sums.jsonl", "--answer", "anser"], "it has: question, answer"),
        (["--questions", "nine.jsonl"], "only 9 questions"),
        (["--questions", "twice.jsonl"], "twice.jsonl, row 61: the same question as in row 1"),
        (["--questions", "other.jsonl"], "Give --question."),
        (["--machine", "laptop"], "there are: cpu, gpu, gpus, server"),
        (["--machine", "gpus"], "Give --gpus."),
        (["--machine", "cpu", "--gpus", "2"], "--gpus 2 goes with"),
        (["--machine", "cpu", "--server", "http://a/v1"], "--server goes with"),
        (["--server", "localhost:8000"], "is no address"),
        (["--method", "distill"], "a teacher"),
        (["--method", "skilfactory"], "did you mean `skillfactory`?"),
        (["--size", "huge"], "there are quick and paper"),
        (["nowhere/recipe.yaml"], "There is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags: list[str], said: str, here: Path) -> None:
    write_jsonl("sums.jsonl", SUMS)
    write_jsonl("nine.jsonl", SUMS[:9])
    write_jsonl("twice.jsonl", [*SUMS, SUMS[0]])
    write_jsonl("other.jsonl", [{"q": "?", "a": "1"}] * 20)
    before = sorted(here.iterdir())
    error = init(*flags, rc=2)
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(here.iterdir()) == before


def test_nothing_is_overwritten_unless_asked() -> None:
    init("mine.yaml")
    before = Path("mine.yaml").read_bytes()
    assert "mine.yaml is there already" in init("mine.yaml", rc=2)
    assert Path("mine.yaml").read_bytes() == before
    init("mine.yaml", "--force", "--method", "rl_only")
    assert recipe("mine.yaml").method == "rl_only"
    write_jsonl("other.jsonl", [{"problem": row["question"], "result": row["answer"]} for row in SUMS])
    Path("new-questions.jsonl").write_text("mine")
    assert "new-questions.jsonl is there already" in init(
        "new.yaml", "--questions", "other.jsonl", "--answer", "result", rc=2
    )
    assert Path("new-questions.jsonl").read_text() == "mine"


# --- questions of the user's own


def test_a_file_in_our_form_is_used_as_it_is() -> None:
    write_jsonl("sums.jsonl", SUMS)
    said = init("--model", REAL, "--questions", "sums.jsonl", "--size", "paper")
    made = recipe()
    assert made.questions.task.params == {"path": "sums.jsonl", "grade": "number"}
    assert "Questions, of 60" in said
    q, evaluated = made.questions, made.evaluation.sets["same"].n
    assert q.sft + q.rl + q.dev + evaluated == 60
    assert (q.sft, q.rl, q.dev, evaluated) == (36, 9, 3, 12)


def _other_forms() -> dict[str, str]:
    """Files of the same sums in other forms, with the rule that fits."""
    worked = [{"Problem": s["question"], "solution": f"So it is {s['answer']}.\n#### {s['answer']}"} for s in SUMS]
    write_jsonl("worked.jsonl", [*worked, worked[0], {"Problem": "", "solution": "1"}])
    boxed = [{"prompt": s["question"], "response": rf"It is \boxed{{\frac{{{s['answer']}}}{{7}}}}."} for s in SUMS]
    Path("boxed.json").write_text(json.dumps(boxed))
    with Path("words.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Query", "Target"], *([s["question"], f"sum {s['answer']}"] for s in SUMS)])
    counted = [
        {"question": s["question"], "choices": ["five", "six", s["answer"]], "answer": n % 3}
        for n, s in enumerate(SUMS)
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(counted), "counted.parquet")
    labelled = [{**row, "choices": {"label": list("ABC"), "text": row["choices"]}, "answerKey": "C"} for row in counted]
    write_jsonl("labelled.jsonl", [{k: v for k, v in row.items() if k != "answer"} for row in labelled])
    return {"worked.jsonl": "number", "boxed.json": "math", "words.csv": "exact", "counted.parquet": "choice",
            "labelled.jsonl": "choice"}  # fmt: skip


def test_files_in_other_forms_are_copied() -> None:
    for file, rule in _other_forms().items():
        said = init("new.yaml", "--force", "--model", REAL, "--questions", file)
        assert "are copied to new-questions.jsonl" in said
        assert ("2 rows are left out; the first, row 61: the same question" in said) == (file == "worked.jsonl")
        made = recipe("new.yaml").questions.task
        assert made.params == {"path": "new-questions.jsonl", "grade": rule}
        questions = get("jsonl", **made.params).questions  # type: ignore[attr-defined]
        assert len(questions) == 60
        assert questions[0].text.startswith("What is 0 + 0?")
    assert {question.answer for question in questions} == {"C"}


def test_a_hub_data_set_is_copied(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "hub" / "someone" / "sums"
    folder.mkdir(parents=True)
    write_jsonl(str(folder / "train.jsonl"), SUMS)
    with hub(here / "hub") as address:
        done = subprocess.run(
            [sys.executable, "-m", "skillfactory", "init", "--model", REAL, "--questions", "someone/sums"],
            capture_output=True, text=True, env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(here / "cache")},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "60 questions of someone/sums are copied to recipe-questions.jsonl" in done.stdout
    assert recipe().questions.task.params == {"path": "recipe-questions.jsonl", "grade": "number"}


def test_a_grading_function_sees_the_other_columns(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "near.py").write_text(
        "def near(question, answer):\n    return abs(float(answer) - float(question.answer)) < 1\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(here))
    write_jsonl("sums.jsonl", [{"problem": s["question"], "answer": s["answer"], "unit": "m"} for s in SUMS])
    init("--model", REAL, "--questions", "sums.jsonl", "--grade", "near.near")
    question = get("jsonl", **recipe().questions.task.params).questions[0]  # type: ignore[attr-defined]
    assert json.loads(question.data)["columns"] == {"unit": "m"}


def test_hostile_names_stay_values_and_comments(here: Path) -> None:
    name = 'a: b # "c"\u202e.jsonl'
    write_jsonl(name, SUMS)
    said = init("--model", REAL, "--questions", name)
    assert "\u202e" not in said
    assert recipe().questions.task.params["path"] == name
    with pytest.raises(RecipeError):
        draft.refuse([here], force=True)


# --- what it writes


def test_every_line_is_commented_or_plain_and_the_schema_knows_it() -> None:
    import jsonschema

    init("--model", REAL, "--machine", "server")
    text = Path("recipe.yaml").read_text()
    first = text.partition("\n")[0]
    assert first.startswith("# yaml-language-server: $schema=file://")
    schema = json.loads(Path(first.partition("file://")[2]).read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text.replace("1.0e-06", "0.000001")))
    settings = [line for line in text.splitlines() if ": " in line and not line.lstrip().startswith("#")]
    assert sum("#" in line for line in settings) > 0.7 * len(settings)


@pytest.mark.parametrize("task", ["countdown", "multiplication"])
def test_names_say_where_the_run_goes(task: str) -> None:
    stock = from_task(task, {}, "tiny")
    text = draft.render(draft.Choices("n", "tiny", stock, Machine("cpu", 0)), Path("n.yaml"))
    assert "runs/n" in text
    assert yaml.safe_load(text)["questions"]["task"]["name"] == task
    with pytest.raises(QuestionError):
        from_task("reasoning_gym", {}, "tiny")


# --- on a terminal


def converse(flags: list[str], answers: list[str], seconds: float = 60) -> tuple[int, str]:
    """Exit code and screen of `init` on a pseudo-terminal where these lines are typed, each once it is asked for."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "skillfactory", "init", *flags], stdin=child, stdout=child, stderr=child,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C there is one
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(child)
    screen, left, end = b"", list(answers), time.monotonic() + seconds
    while time.monotonic() < end:
        if not select.select([parent], [], [], 1)[0]:
            continue
        try:
            new = os.read(parent, 4096)
        except OSError:  # the other side is gone
            break
        if not new:
            break
        screen += new
        if left and screen.rstrip(b" ").endswith(b":") and screen.endswith(b" "):
            os.write(parent, f"{left.pop(0)}\n".encode())
    os.close(parent)
    return process.wait(timeout=10), screen.decode(errors="replace")


def test_a_session_on_a_terminal() -> None:
    write_jsonl("sums.jsonl", [{"problem": s["question"], "result": s["answer"]} for s in SUMS])
    typed = ["", "sums.jsn", "sums.jsonl", "", "reslt", "result", "", "gpuu", "server", "", "", "star", ""]
    code, screen = converse(["mine.yaml"], typed)
    assert code == 0, screen
    for said in ("sums.jsonl: 60 rows", "it has: problem, result", "did you mean `gpu`?", "Written: mine.yaml"):
        assert said in screen
    made = recipe("mine.yaml")
    assert (made.model, made.method, made.attempts.engine) == ("tiny", "star", "openai")
    assert made.questions.task.params["grade"] == "number"


def test_ctrl_c_and_the_end_of_input_leave_nothing(here: Path) -> None:
    code, screen = converse([], ["", "\x03"])
    assert (code, list(here.iterdir())) == (130, [])
    code, screen = converse([], ["", "\x04"])
    assert (code, list(here.iterdir())) == (2, []), screen
    assert "give --questions" in screen


# --- it runs


def test_it_runs_as_written_up_to_the_questions() -> None:
    write_jsonl("sums.jsonl", SUMS)
    init("--questions", "sums.jsonl")
    result = CliRunner().invoke(app, ["run", "recipe.yaml", "--until", "questions"])
    assert result.exit_code == 0, result.output
    q, counts = recipe().questions, load_run(Path("runs/recipe")).manifest("questions")["counts"]
    assert (counts["sft"], counts["rl"], counts["dev"]) == (q.sft, q.rl, q.dev)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_as_written_to_its_report() -> None:
    spec = load_recipe("demo").questions.task
    sums = get(spec.name, **spec.params).generate(150, seed=3)
    write_jsonl("mine.jsonl", [{"question": each.text, "answer": each.answer} for each in sums])
    init("--questions", "mine.jsonl")
    done = subprocess.run([sys.executable, "-m", "skillfactory", "run", "recipe.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("runs/recipe/report.html").is_file()
    assert load_run(Path("runs/recipe")).manifest("traces")["rows"] > 5


def test_the_list_of_recipes_shows_what_a_recipe_is_for(here: Path) -> None:
    (here / "recipes").mkdir()
    init("recipes/mine.yaml")
    [mine] = [each for each in recipe_facts() if each["recipe"] == "recipes/mine.yaml"]
    assert mine["what"].startswith("mine: written by")
