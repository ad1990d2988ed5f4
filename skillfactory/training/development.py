"""Accuracy on the questions of `dev` while a model trains, and the model of the step at which it was best.

One response a question, drawn by our sampler as the evaluation draws it. Its random stream is named after the question
alone: steps differ by nothing but the model, and training goes on as if nothing had been measured.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from transformers import TrainerCallback

from skillfactory import files, seeds
from skillfactory.curation.prompts import prompts_of
from skillfactory.engines.base import Completion, Request, SamplingParams
from skillfactory.engines.models import ChatTokenizer
from skillfactory.engines.transformers import TransformersEngine
from skillfactory.recipe import Recipe, Training
from skillfactory.records import BROKEN, Grade, Question
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.tasks.questions import grade_all, task_of
from skillfactory.training import common, processes
from skillfactory.training.metrics import MetricsFile, keep_steps
from skillfactory.training.policy import SamplingCopy

FILE = "dev.jsonl"
NOTE = "dev.json"  # in that folder: the line of dev.jsonl that it is of


@dataclass(frozen=True, slots=True)
class Measured:
    """A line of dev.jsonl. Shares are of the `questions` that were graded, and None where none was.

    `truncated` are cut off at `evaluation.max_tokens`; `tokens` are a response's, on average.
    """

    step: int
    accuracy: float | None
    se: float | None
    answered: float | None
    truncated: float | None
    tokens: float | None
    questions: int
    seconds: float


def dev_questions(run: Run, section: Training) -> list[Question]:
    """The questions of split `dev`, not those that an evaluation set on `dev` has besides; none where none is asked."""
    if not section.dev_every:
        return []
    stage = run.stage("questions")
    ids = set(stage.read_json("sets.json")["dev"])
    return [question for question in stage.rows(Question) if question.id in ids]


class DevAccuracy(TrainerCallback):
    """Measures a model every `dev_every` steps, before the first and, by `end`, after the last; never where that is 0.

    `copy` is what is sampled: rl.py's own, so that measuring costs no memory there. With `keep: best` the best so far
    is kept as `best/`; of equally good ones the earlier. What a kill threw away (steps after `done`, the checkpoint's)
    is measured again. Of several processes each asks its part of the questions.
    """

    def __init__(
        self,
        recipe: Recipe,
        section: Training,
        stage: Stage,
        chat: ChatTokenizer,
        copy: SamplingCopy,
        questions: Sequence[Question],
        per_step: int,
        metrics: MetricsFile,
    ) -> None:
        self.recipe, self.chat, self.copy, self.questions = recipe, chat, copy, questions
        self.folder, self.per_step, self.metrics = stage.path, per_step, metrics
        self.every, self.keeps = section.dev_every, section.keep == "best"
        self.lines: list[Measured] = []
        if self.every:
            self._take_up(done=metrics.step)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.every and state.global_step == 0 and not self.lines:
            self.measure(model, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step, rest = divmod(state.global_step, self.per_step)
        if self.every and not rest and step % self.every == 0:
            self.measure(model, step)

    def end(self, policy: Any, step: int) -> None:
        """Measure what training ended with, unless that was a step to measure at."""
        if self.every and (not self.lines or self.lines[-1].step != step):
            self.measure(policy, step)

    def measure(self, policy: Any, step: int) -> None:
        """Add a line for the policy as it is now, and keep it if it is the best. All processes have to call this."""
        began = time.monotonic()
        self.copy.follow(policy)
        found = _gathered(self._responses(self.questions[processes.rank() :: processes.count()]))
        measured = summary(step, found, time.monotonic() - began)
        self.lines.append(measured)
        if processes.is_main():
            if self.keeps and _is_better(measured, self.best()):
                common.write_model(
                    self.copy.model, self.chat.tokenizer, self.folder, common.BEST, {NOTE: asdict(measured)}
                )
            with files.told(str(self.folder / FILE)), (self.folder / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(measured)) + "\n")
            if measured.accuracy is not None:
                self.metrics.advance(0, dev=measured.accuracy)
        self.metrics.last += time.monotonic() - began  # no time of the step's

    def best(self) -> dict[str, Any] | None:
        """The line of the model in `best/`; None where none is kept."""
        note = self.folder / common.BEST / NOTE
        return dict(files.read_json(note)) if note.exists() else None

    def promote(self) -> bool:
        """Make the best model `model`, by links. False where none is kept: the last is to be saved.

        All processes have to call this.
        """
        if not processes.any_of(processes.is_main() and self.keeps and self.best() is not None):
            return False
        if processes.is_main():
            temporary, place = self.folder / f"{files.TEMPORARY}model", self.folder / "model"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(self.folder / common.BEST, temporary, copy_function=os.link)
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
        return True

    def facts(self) -> dict[str, Any]:
        """For the manifest, once training has ended: the last accuracy, and with `keep: best` the step of the model."""
        facts: dict[str, Any] = {"dev_accuracy": self.lines[-1].accuracy} if self.lines else {}
        note = self.folder / "model" / NOTE
        if self.keeps and note.exists():
            kept = files.read_json(note)
            facts = {
                "kept_step": kept["step"],
                "dev_accuracy": kept["accuracy"],
                "last_dev_accuracy": facts["dev_accuracy"],
            }
        return facts

    def _take_up(self, done: int) -> None:
        path = self.folder / FILE
        if processes.is_main():
            lost = done == 0 and self.keeps and not (self.folder / common.BEST).exists()
            keep_steps(path, -1 if lost else done)  # step 0 is measured again, for the sake of its model
        processes.any_of(False)  # all wait until the main one has done so
        if path.exists():
            self.lines = [Measured(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def _responses(self, questions: Sequence[Question]) -> list[tuple[Completion, Grade]]:
        section, prompts = self.recipe.evaluation, prompts_of(self.recipe.attempts)
        engine = TransformersEngine(self.copy.model, self.chat, self.recipe.machine.batch_size)
        params = SamplingParams.of(section)
        requests = [
            Request(str(i), prompts.train(q.text), seeds.derive(self.recipe.seed, "dev", q.id), params)
            for i, q in enumerate(questions)
        ]
        done = sorted(engine.generate(requests), key=lambda each: int(each.id))
        grades = grade_all(
            task_of(self.recipe.questions.task), [(q, d.text) for q, d in zip(questions, done, strict=True)]
        )
        return [
            (each, Grade("no_answer", reason=each.error) if each.error else grade)
            for each, grade in zip(done, grades, strict=True)
        ]


def summary(step: int, found: Sequence[tuple[Completion, Grade]], seconds: float) -> Measured:
    """The line for a step's responses. Those that could not be made or graded are left out, as in the evaluation."""
    graded = [(done, grade) for done, grade in found if grade.reason not in BROKEN]
    right = [float(grade.outcome == "correct") for _, grade in graded]
    n = len(graded)

    def share(flags: Sequence[float]) -> float | None:
        return fmean(flags) if flags else None

    return Measured(
        step=step,
        accuracy=share(right),
        se=stdev(right) / math.sqrt(n) if n > 1 else None,
        answered=share([grade.outcome != "no_answer" for _, grade in graded]),
        truncated=share([done.finish_reason == "length" for done, _ in graded]),
        tokens=share([done.tokens for done, _ in graded]),
        questions=n,
        seconds=round(seconds, 3),
    )


def _is_better(measured: Measured, best: dict[str, Any] | None) -> bool:
    if measured.accuracy is None:
        return False
    return best is None or best["accuracy"] is None or measured.accuracy > best["accuracy"]


def _gathered(mine: list[tuple[Completion, Grade]]) -> list[tuple[Completion, Grade]]:
    if processes.count() == 1:
        return mine
    from accelerate.utils import gather_object

    return list(gather_object(mine))
