"""The reward of GRPO where verl asks for it: the same as TRL gets (reward.py), but for two things that verl has not.

A check that breaks gives 0, since verl cannot leave a rollout out; each is noted, and the run says how many there were.
Rollouts come one by one, in threads of several processes: grading sets no alarms, and its slow checks run in processes
of their own (tasks/deadline.py).

This module is imported by verl's workers, in verl's environment: it needs this package and what the task needs, but
neither TRL nor a newer transformers. `python -m skillfactory.training.elsewhere.verl_reward FOLDER` tries that out.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import BROKEN, Question
from skillfactory.tasks.questions import grade, task_of
from skillfactory.training.reward import well_formed

SETTINGS, QUESTIONS, FILE, BROKEN_FOLDER = "reward.json", "questions.jsonl", "reward.py", "broken"
TRIED = 8  # questions whose reference answers are graded before training
_SOURCE = '''\
"""Written by skillfactory, whose training/elsewhere/verl_reward.py says more: verl calls compute_score a rollout."""

from pathlib import Path

from skillfactory.training.elsewhere.verl_reward import scorer

compute_score = scorer(Path(__file__).parent)
'''

Score = Callable[..., dict[str, float]]


def write(folder: Path, recipe: Recipe, questions: Iterable[Question]) -> None:
    """The reward file, and beside it what it grades with: the task, the questions, the weight of `rl.shaping.form`."""
    settings = {
        "task": recipe.questions.task.model_dump(mode="json"),
        "form": recipe.rl.shaping.form,
        "path": os.getcwd(),  # where functions of the user's may stand
    }
    files.write_json(folder / SETTINGS, settings)
    lines = "".join(json.dumps(asdict(question), ensure_ascii=False) + "\n" for question in questions)
    files.write_atomic(folder / QUESTIONS, lines.encode())
    files.write_atomic(folder / FILE, _SOURCE.encode())


def scorer(folder: Path) -> Score:
    """verl's `compute_score` for what `write` has left in a folder.

    Gives `score`, the reward; `acc`, 1 for a right answer; `broken`, 1 where the check broke. Never raises on a text.
    """
    settings = files.read_json(folder / SETTINGS)
    if settings["path"] not in sys.path:
        sys.path.append(settings["path"])
    task = task_of(TaskSpec.model_validate(settings["task"]))
    questions = {question.id: question for question in _questions(folder)}
    form, note = float(settings["form"]), _Notes(folder)

    def compute_score(
        data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
    ) -> dict[str, float]:
        question = questions.get(str((extra_info or {}).get("question_id")))
        found = grade(task, question, solution_str) if question else None
        if found is None or question is None or found.reason in BROKEN:
            note(question.id if question else "", found.reason if found else "unknown_question")
            return {"score": 0.0, "acc": 0.0, "broken": 1.0}
        right = float(found.outcome == "correct")
        return {"score": right + form * well_formed(solution_str) if form else right, "acc": right, "broken": 0.0}

    return compute_score


def broken(folder: Path) -> int:
    """How many checks have broken so far, in all of verl's processes."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (folder / BROKEN_FOLDER).glob("*.jsonl"))


def _questions(folder: Path) -> Iterator[Question]:
    for line in (folder / QUESTIONS).read_text(encoding="utf-8").split("\n"):
        if line:
            yield Question(**json.loads(line))


class _Notes:
    """One line a check that broke, in a file of this process's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / BROKEN_FOLDER / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self.lock = threading.Lock()

    def __call__(self, question_id: str, reason: str) -> None:
        line = json.dumps({"time": time.time(), "question_id": question_id, "reason": reason})
        with self.lock:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def try_out(folder: Path) -> str:
    """What is wrong with grading in this environment: the first reference answer that is not graded right; "" if none.

    Without this, a package that the task misses would show as a reward of 0 for hours.
    """
    scorer(folder)
    task = task_of(TaskSpec.model_validate(files.read_json(folder / SETTINGS)["task"]))
    for _, question in zip(range(TRIED), _questions(folder), strict=False):
        try:
            found = task.grade(question, f"<answer>{question.answer}</answer>")
            said = "" if found.outcome == "correct" else found.reason or found.outcome
        except Exception as error:  # whatever it is, it is what is to be told
            said = f"{type(error).__name__}: {error}"
        if said:
            return f"question {question.id}: its reference answer {question.answer!r} is not graded right ({said})"
    return ""


if __name__ == "__main__":
    sys.exit(try_out(Path(sys.argv[1])) or 0)
