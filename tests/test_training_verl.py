"""GRPO by verl: what is written for it, what is refused, and a run with a program that plays verl (fake_verl.py).

tests/interop/test_verl.py holds the same files against verl itself.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from played_verl import Stage, with_verl

from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.models import load_model
from skillfactory.errors import NothingLeftError, RecipeError, SkillFactoryError
from skillfactory.records import Question
from skillfactory.store import load_run
from skillfactory.tasks import deadline
from skillfactory.tasks.questions import make_questions
from skillfactory.training import development
from skillfactory.training.elsewhere import programs, verl, verl_log, verl_reward
from skillfactory.training.elsewhere.verl_log import Steps
from skillfactory.training.order import PromptOrder
from skillfactory.training.reward import make_rewards
from skillfactory.training.skills import skill_use


@pytest.fixture
def stage(tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(programs, "POLL", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    made = Stage(tmp_path, random_model)
    monkeypatch.setenv("SKILLFACTORY_FAKE", str(made.play_file))
    verl._probe.cache_clear()
    yield made
    verl._probe.cache_clear()


def test_an_environment_without_verl_is_told(stage: Stage) -> None:
    with pytest.raises(RecipeError, match=f"{sys.executable} has no verl and no vllm"):
        verl.check(with_verl())  # this one
    stage.play(missing=["transfer_queue"])
    with pytest.raises(RecipeError, match=f"{stage.python} has no transfer_queue; docs/many-machines.md"):
        verl.check(stage.recipe)
    verl._probe.cache_clear()
    stage.play(missing=[], version="0.10.0")
    with pytest.raises(RecipeError, match=r"has verl 0\.10\.0, whose settings may be others; install 'verl==0\.9\.\*'"):
        verl.check(stage.recipe)
    verl._probe.cache_clear()
    stage.play(version="0.9.1")
    verl.check(stage.recipe)


# --- reward


@pytest.mark.parametrize("form", [0.0, 0.25])
def test_the_reward_is_trls(tmp_path: Path, form: float) -> None:
    recipe = with_verl(rl={"shaping": {"form": form}})
    questions = make_questions(recipe).rows
    verl_reward.write(tmp_path, recipe, questions)
    score = verl_reward.scorer(tmp_path)
    tried = []
    for question in questions:
        right, wrong = f"<answer>{question.answer}</answer>", "<answer>1</answer>"
        thought = f"<sample>\n{right}\n</sample>\n<reflect>\nFine. <verdict>Correct</verdict>\n</reflect>"
        tried += [(question, text) for text in (right, wrong, "", "<think>", f"<think>{thought}</think>\n{right}",
                                                f"<think>{thought}</think>\n{wrong}")]  # fmt: skip
    functions, weights = make_rewards({question.id: question for question in questions}, recipe)
    given = {
        "prompts": [[] for _ in tried], "question_id": [question.id for question, _ in tried],
        "completions": [[{"role": "assistant", "content": text}] for _, text in tried], "log_metric": lambda *_: None,
    }  # fmt: skip
    parts = [function(**given) for function in functions]
    theirs = [sum(w * (part or 0.0) for w, part in zip(weights, row, strict=True)) for row in zip(*parts, strict=True)]
    ours = [score("", text, question.answer, {"question_id": question.id}) for question, text in tried]
    assert [each["score"] for each in ours] == theirs
    assert {each["score"] for each in ours} == ({0.0, 1.0, 0.25, 1.25} if form else {0.0, 1.0})
    assert [each["acc"] for each in ours] == parts[0]
    assert verl_reward.broken(tmp_path) == 0


def test_checks_that_break_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads, as verl asks; and by a function of the user's, which is found though verl works elsewhere."""
    (tmp_path / "mine.py").write_text("def is_right(question, answer):\n    return {'1': True, '2': False}[answer]\n")
    (tmp_path / "q.jsonl").write_text('{"question": "One?", "answer": "1"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    deadline.close()
    task = {"name": "jsonl", "params": {"path": "q.jsonl", "grade": "mine.is_right"}}
    recipe = with_verl(questions={"task": task, "sft": 0, "rl": 1, "dev": 0})
    question = Question("q", "jsonl", "", "One?", "1", "{}")
    folder = tmp_path / "verl"
    folder.mkdir()
    verl_reward.write(folder, recipe, [question])
    monkeypatch.chdir("/")
    score, found = verl_reward.scorer(folder), {}

    def ask(text: str) -> None:
        found[text] = score("", f"<answer>{text}</answer>", "1", {"question_id": "q"})

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("1", "2", "3", "4")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[text]["score"] for text in "1234"] == [1.0, 0.0, 0.0, 0.0]
    assert [found[text]["broken"] for text in "1234"] == [0.0, 0.0, 1.0, 1.0]
    assert verl_reward.broken(folder) == 2
    assert score("", "", "", {"question_id": "other"})["broken"] == 1.0
    assert verl_reward.try_out(folder) == ""
    (tmp_path / "mine.py").unlink()
    deadline.close()  # its workers have imported it
    assert "question q: its reference answer '1' is not graded right (check_failed)" in verl_reward.try_out(folder)


# --- a whole training


def test_a_training(stage: Stage) -> None:
    stage.play(pattern=[0, 2, 4])
    stage.train()
    lines = stage.lines()
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["reward"] for line in lines] == [0.0, 0.5, 1.0, 1.0]
    assert [line["no_signal"] for line in lines] == [1.0, 0.0, 1.0, 1.0]
    first = {name: value for name, value in lines[0].items() if name not in ("step", "reward", "no_signal")}
    assert first == skill_use(["<answer>none</answer>"]) | {
        "length": 9.5, "entropy": 0.5, "truncated": 0.25, "loss": 0.125, "grad_norm": 2.0, "learning_rate": 1e-6,
        "rollout_seconds": 1.5, "seconds": 3.25,
    }  # fmt: skip
    assert stage.counts() == {"questions": 8, "steps": 4, "rollouts": 32, "tokens": 304, "broken_checks": 0}
    assert stage.merged() == ["global_step_4"]
    assert sorted(path.name for path in (stage.rl / "model").glob("*.safetensors")) == ["model.safetensors"]
    wanted, found = (dict(load_model(stage.recipe, m).named_parameters()) for m in (stage.model, stage.rl / "model"))
    assert all((wanted[name] == found[name]).all() for name in wanted)
    left = {path.name for path in (stage.rl / "verl").iterdir()}
    assert not left & {"checkpoints", "rollouts", "merge", ".tmp-merged"}
    assert {"train.parquet", "dev.parquet", "reward.py", "command.sh", "log.txt", "figures.jsonl"} <= left


def test_its_data(stage: Stage) -> None:
    stage.train()
    questions = [q for q in load_run(stage.folder / "run").rows("questions", Question) if q.split == "rl"]
    rows = pq.read_table(stage.rl / "verl" / "train.parquet").to_pylist()
    order = [questions[number] for number in PromptOrder(8, 4, 2, 1, 1, stage.recipe.seed)]
    assert [row["extra_info"]["question_id"] for row in rows] == [question.id for question in order]
    prompts = prompts_of(stage.recipe.attempts)
    assert [row["prompt"] for row in rows] == [prompts.train(question.text) for question in order]
    assert rows[3]["reward_model"] == {"style": "rule", "ground_truth": order[3].answer}
    assert rows[3]["extra_info"] == {"split": "train", "index": 3, "question_id": order[3].id}
    dev = pq.read_table(stage.rl / "verl" / "dev.parquet").to_pylist()
    assert [row["extra_info"]["split"] for row in dev] == ["dev", "dev"]
    assert not {row["extra_info"]["question_id"] for row in dev} & {question.id for question in questions}


def test_failing_and_going_on(stage: Stage) -> None:
    stage.play(fail_at=4)
    with pytest.raises(SkillFactoryError, match=r"(?s)verl failed with exit code 1\..*CUDA out of memory\.\nMend"):
        stage.train()
    assert [line["step"] for line in stage.lines()] == [1, 2, 3]
    assert not (stage.rl / "model").exists()
    stage.play(fail_at=0)
    stage.train()
    assert [line["step"] for line in stage.lines()] == [1, 2, 3, 4]  # the third was done twice
    log = (stage.rl / "verl" / "log.txt").read_text().splitlines()
    assert [line for line in log if line.startswith("begins")] == ["begins after step 0", "begins after step 2"]
    assert stage.counts()["steps"] == 4


def test_ctrl_c_ends_verl(stage: Stage) -> None:
    stage.play(hang_at=4)

    def press() -> None:
        while not (stage.rl / "metrics.jsonl").exists() or len(stage.lines()) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        stage.train()
    stage.play(hang_at=0)
    stage.train()  # no lock is held any more
    assert stage.counts()["steps"] == 4


def test_a_kill_before_verls_model_is_taken_over_costs_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("skillfactory.training.elsewhere.verl_model.merged", killed)
        with pytest.raises(ZeroDivisionError):
            stage.train()
    stage.play(fail_at=1)  # it is not run again
    stage.train()
    assert stage.merged() == ["global_step_4"]
    assert stage.counts()["steps"] == 4


def test_what_verl_did_after_its_starter_was_killed_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("skillfactory.training.elsewhere.verl_model.merged", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stage.train()
    told = stage.rl / "metrics.jsonl"
    told.write_text(told.read_text().splitlines()[0] + "\n")
    stage.play(fail_at=1)  # it is not run again
    stage.train()
    assert [line["step"] for line in stage.lines()] == [1, 2, 3, 4]
    assert stage.counts()["steps"] == 4


def test_the_best_model_on_dev_questions_is_kept(stage: Stage) -> None:
    stage.recipe = stage.make(steps=5, keep="best", dev_every=1, save_every=5)
    stage.play(dev={"1": 0.5, "2": 1.0, "3": 0.5, "4": 1.0, "5": 0.0})
    stage.train()
    assert stage.merged() == ["global_step_2"]
    assert stage.counts() | {"kept_step": 2, "dev_accuracy": 1.0, "last_dev_accuracy": 0.0} == stage.counts()
    measured = [development.Measured(**line) for line in stage.lines("dev.jsonl")]
    assert [(line.step, line.accuracy, line.questions) for line in measured][:2] == [(1, 0.5, 2), (2, 1.0, 2)]
    assert measured[0].se == pytest.approx(0.5)


def test_steps_in_between_are_kept(stage: Stage) -> None:
    stage.recipe = stage.make(steps=5, keep_every=2, save_every=1)
    stage.train()
    assert stage.merged() == ["global_step_2", "global_step_4", "global_step_5"]
    assert sorted(path.name for path in (stage.rl / "steps").iterdir()) == ["2", "4"]
    load_model(stage.recipe, stage.rl / "steps" / "4")


def test_it_ends_once_nothing_is_left_to_learn(stage: Stage) -> None:
    stage.recipe = stage.make(steps=40, patience=3, save_every=4)
    stage.play(pattern=[2, 2, 2, 4], hang_at=9)
    stage.train()
    assert "solved" in stage.counts()["ended_early"]
    assert stage.merged() in (["global_step_4"], ["global_step_8"])  # both hold all that was learnt


def test_where_all_is_solved_from_the_first_step_the_start_is_kept(stage: Stage) -> None:
    stage.recipe = stage.make(steps=40, patience=3, save_every=40)
    stage.play(pattern=[4], hang_at=4)
    stage.train()
    assert "solved" in stage.counts()["ended_early"]
    assert not (stage.folder / "merged").exists()
    load_model(stage.recipe, stage.rl / "model")


def test_it_ends_where_nothing_is_ever_right(stage: Stage) -> None:
    stage.recipe = stage.make(steps=40, patience=3)
    stage.play(pattern=[0], hang_at=5)
    with pytest.raises(NothingLeftError, match="no rollout was right in"):
        stage.train()


def test_a_task_that_cannot_be_graded_there_is_told_before_training(stage: Stage) -> None:
    broken = stage.folder / "elsewhere"
    (broken / "skillfactory").mkdir(parents=True)
    (broken / "skillfactory" / "__init__.py").write_text("raise ImportError('no module named symspellpy')")
    os.environ["PYTHONPATH"] = str(broken)
    with pytest.raises(RecipeError, match=r"cannot grade task multiplication: .*no module named symspellpy; install"):
        stage.train()
    assert not (stage.rl / "verl" / "log.txt").exists()


# --- its log


def record(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": data}) + "\n"


def test_steps_wait_for_their_rollouts(tmp_path: Path) -> None:
    rl = with_verl().rl
    rollouts = tmp_path / "rollouts"
    rollouts.mkdir()
    steps = Steps(tmp_path, rl, rollouts, ours=True)
    assert list(steps.new(False)) == []
    row = json.dumps({"output": "", "score": 0.0, "uid": "a_0_0"}) + "\n"
    figures = tmp_path / "figures.jsonl"
    figures.write_text(record(0, **{"val-core/t/acc/mean@1": 0.25}) + record(1, **{"timing_s/step": 1.0})[:-9])
    assert [(seen.step, seen.line, seen.accuracy) for seen in steps.new(False)] == [(0, None, 0.25)]
    figures.write_text(record(0, **{"val-core/t/acc/mean@1": 0.25}) + record(1, **{"timing_s/step": 1.0}))
    (rollouts / "1.jsonl").write_text(row * 7)
    assert list(steps.new(False)) == []
    padding = json.dumps({"output": "", "score": 0.0, "uid": "pad7_0_0"}) + "\n"
    (rollouts / "1.jsonl").write_text(row * 7 + row.replace("0.0", "1.0") + padding)
    (seen,) = steps.new(False)
    assert seen.line is not None
    assert seen.line["reward"] == 1 / 8
    assert not (rollouts / "1.jsonl").exists()
    with figures.open("a") as file:
        file.write(record(2, **{"timing_s/step": 1.0, "critic/score/mean": 0.5}))
    assert list(steps.new(False)) == []
    (seen,) = steps.new(True)  # they will not come any more
    assert seen.line is not None
    assert seen.line["reward"] == 0.5


def test_checkpoints_that_nobody_knows_yet_are_left(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        verl_log.checkpoint(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")  # the fifth is being written
    verl_log.prune(tmp_path, {1}, known=2)
    assert verl_log.checkpoints(tmp_path) == [1, 3, 4]
    verl_log.prune(tmp_path, set(), known=4)
    assert verl_log.checkpoints(tmp_path) == [4]
    assert verl_log.checkpoint(tmp_path, 5).exists()


def test_only_full_length_is_truncated(tmp_path: Path) -> None:
    steps = Steps(tmp_path, with_verl().rl, None, ours=False)
    for longest, share in ((11, 0.0), (12, 0.25)):  # of at most 12
        given = {"timing_s/step": 1.0, "response_length/max": longest, "response_length/clip_ratio": 0.25}
        with (tmp_path / "figures.jsonl").open("a") as file:
            file.write(record(longest, **given))
        (seen,) = steps.new(False)
        assert seen.line is not None
        assert seen.line["truncated"] == share


# --- by the command line


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on(stage: Stage) -> None:
    recipe = stage.make().model_copy(update={"method": "rl_only", "report_to": []})
    (stage.folder / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    words = [
        sys.executable,
        "-m",
        "skillfactory",
        "run",
        str(stage.folder / "r.yaml"),
        "--run",
        str(stage.folder / "run"),
    ]
    stage.play(hang_at=3)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
        deadline = time.monotonic() + 120
        while not (stage.rl / "metrics.jsonl").exists() or len(stage.lines()) < 2:
            assert command.poll() is None, command.stderr and command.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        command.terminate()
        assert command.wait(60) == 143
    stage.play(hang_at=0)
    subprocess.run(words, check=True, capture_output=True)
    assert stage.counts()["steps"] == 4
    log = (stage.rl / "verl" / "log.txt").read_text().splitlines()
    assert [line for line in log if line.startswith("begins")] == ["begins after step 0", "begins after step 2"]
    assert set(load_run(stage.folder / "run").table("evaluation", ["model"])["model"].to_pylist()) == {"base", "rl"}
