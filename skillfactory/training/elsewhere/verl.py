"""GRPO by verl (Ray, FSDP2, vLLM): on more GPUs and machines than TRL serves (paper §3: verl on four GH200).

verl lives in an environment of its own, and is never imported here. In `rl/verl` it gets its data, its reward and its
command, all written from the recipe; there it leaves its log, the figures of each step and its checkpoints. From these
come metrics.jsonl, progress and, at the end, `rl/model`.

Deviations from GRPO by TRL (rl.py), beside those that verl_settings.py names:

1. A check that breaks gives a reward of 0 (verl_reward.py).
2. SIGTERM and Ctrl-C end verl at once: what it did since its last checkpoint (`rl.save_every`) is done again.
3. Responses to dev questions come from vLLM, and end after `rl.max_tokens`; models are written in bfloat16.
"""

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.recipe import Recipe
from skillfactory.records import Question
from skillfactory.stage import Stage
from skillfactory.store import Run
from skillfactory.training.elsewhere import programs, verl_data, verl_log, verl_reward, verl_settings
from skillfactory.training.elsewhere.verl_settings import FIGURES, ROLLOUTS, Job

if TYPE_CHECKING:
    from skillfactory.training.elsewhere.verl_watch import Watch

ENDED = "ended_early"  # in the stage's manifest: why
VERSION = "0.9"  # whose settings and files are known here
NEEDED = ("verl", "vllm", "transfer_queue", "skillfactory")
_PROBE = f"""
import json, sys
sys.path[:] = [place for place in sys.path if place]
from importlib.metadata import version
from importlib.util import find_spec
missing = [name for name in {NEEDED} if find_spec(name) is None]
print(json.dumps([missing, "" if "verl" in missing else version("verl")]))
"""


def check(recipe: Recipe) -> None:
    """Raises RecipeError where verl is not there, or another version. Asks its Python once."""
    python = recipe.training.verl.python
    if not python:
        raise RecipeError(
            "training.backend is verl, but training.verl.python is not set; give the Python of an environment that has "
            f"verl {VERSION} and this package (docs/many-machines.md)."
        )
    if not _python(recipe).is_file():
        raise RecipeError(f"training.verl.python: there is no {python}.")
    try:
        missing, version = _probe(str(_python(recipe)))
    except SkillFactoryError as error:
        raise RecipeError(f"training.verl.python: {error}") from error
    if missing:
        raise RecipeError(
            f"training.verl.python: {python} has no {' and no '.join(missing)}; docs/many-machines.md says how its "
            "environment is made."
        )
    if not version.startswith(f"{VERSION}."):
        raise RecipeError(
            f"training.verl.python: {python} has verl {version}, whose settings may be others; install "
            f"'verl=={VERSION}.*' there."
        )


@cache
def _probe(python: str) -> tuple[Sequence[str], str]:
    """The packages that an environment lacks, and its verl's version."""
    missing, version = json.loads(programs.ask([python, "-c", _PROBE]).splitlines()[-1])
    return missing, version


def _python(recipe: Recipe) -> Path:
    return Path(recipe.training.verl.python).expanduser().absolute()  # not resolved: an environment's is a link


def run(recipe: Recipe, run: Run) -> None:
    """Train by verl into `rl/model`, and keep the steps in between that the recipe asks for in `rl/steps`."""
    from skillfactory.engines.models import ChatTokenizer
    from skillfactory.training.elsewhere import verl_model

    stage = run.stage("rl")
    sft = run.stage("sft").path / "model"
    start = sft if sft.is_dir() else None
    chat = ChatTokenizer.load(recipe, start)
    rows = run.stage("questions").rows(Question)
    questions, dev = ([row for row in rows if row.split == split] for split in ("rl", "dev"))
    folder = stage.path.absolute() / "verl"  # verl works in another
    folder.mkdir(exist_ok=True)
    longest = verl_data.write(folder, recipe, questions, dev, chat)
    verl_reward.write(folder, recipe, [*questions, *dev])
    name, environment = _logging(recipe, stage, folder)
    done = verl_log.latest(folder)
    job = Job(folder, folder / verl_reward.FILE, _model(recipe, start), longest, done, name, environment)
    watch = _train(recipe, run, job, len(dev))
    facts = watch.facts()
    verl_model.take_over(recipe, stage, folder, chat, start, facts.get("kept_step"))
    stage.finish(**_counts(recipe, stage, watch.metrics.lines(), len(questions)), **facts)
    verl_model.drop(folder)


def _model(recipe: Recipe, start: Path | None) -> str:
    """The folder or hub id that verl is to load. A hub id's revision is fetched: verl knows of none."""
    from skillfactory.engines.models import locate

    name = locate(recipe, start)
    if Path(name).is_dir():
        return str(Path(name).absolute())
    if not recipe.revision:
        return name
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name, revision=recipe.revision))


def _logging(recipe: Recipe, stage: Stage, folder: Path) -> tuple[str, dict[str, str]]:
    """The name to log under, and what verl's loggers find in their environment."""
    from skillfactory.training import loggers

    name, place = str(loggers.settings(recipe, stage)["run_name"] or recipe.name), stage.path.absolute()
    found = {"VERL_FILE_LOGGER_PATH": str(folder / FIGURES)}
    if "tensorboard" in recipe.report_to:
        found["TENSORBOARD_DIR"] = str(place / "tensorboard")
    if "wandb" in recipe.report_to:
        found |= {"WANDB_RUN_ID": name, "WANDB_RESUME": "allow", "WANDB_DIR": str(place)}
    return name, found


def _train(recipe: Recipe, run: Run, job: Job, dev: int) -> "Watch":
    """Run verl to its last step, from its last checkpoint where there is one; gives what has watched it."""
    from skillfactory.training.elsewhere.verl_watch import EndedError, Watch
    from skillfactory.training.metrics import METRICS, MetricsFile, last_step

    rl, stage = recipe.rl, run.stage("rl")
    chosen = verl_settings.settings(recipe, job)
    given, own = chosen["trainer.rollout_data_dir"], str(job.folder / ROLLOUTS)

    def steps() -> verl_log.Steps:
        return verl_log.Steps(job.folder, rl, Path(given) if given else None, ours=given == own)

    with stage.track(rl.steps, "GRPO steps", done=job.done) as advance:
        known = min(job.done, last_step(stage.path / METRICS))
        metrics = MetricsFile(stage.path, lambda logs: logs, advance, known)
        watch = Watch(run, stage, rl, steps(), metrics, dev)
        watch.catch_up(job.done)
        if job.done >= rl.steps or stage.manifest.get(ENDED):
            return watch
        _try_reward(recipe, job.folder)
        (job.folder / FIGURES).unlink(missing_ok=True)  # verl begins it anew
        watch.steps = steps()
        shutil.rmtree(own, ignore_errors=True)
        words = [str(_python(recipe)), "-m", "verl.trainer.main_ppo", *verl_settings.overrides(chosen)]
        environment = {"HYDRA_FULL_ERROR": "1", **job.environment}
        try:
            programs.run(programs.Program("verl", words, job.folder, environment), watch)
        except EndedError as end:
            stage.note(**{ENDED: str(end)})
            return watch
    if verl_log.latest(job.folder) < rl.steps:
        raise SkillFactoryError(
            f"verl ended without an error, but before step {rl.steps}; see {job.folder / programs.LOG}."
        )
    return watch


def _try_reward(recipe: Recipe, folder: Path) -> None:
    try:
        programs.ask([str(_python(recipe)), "-m", verl_reward.__name__, str(folder)], folder)
    except SkillFactoryError as error:
        raise RecipeError(
            f"verl's environment (training.verl.python) cannot grade task {recipe.questions.task.name}: {error}; "
            "install there what the task needs."
        ) from error


def _counts(recipe: Recipe, stage: Stage, lines: Sequence[dict[str, Any]], questions: int) -> dict[str, Any]:
    rollouts = recipe.rl.prompts_per_step * recipe.rl.group_size
    ended = stage.manifest.get(ENDED)
    return {
        "questions": questions,
        "steps": len(lines),
        "rollouts": len(lines) * rollouts,
        "tokens": round(sum(line["length"] or 0.0 for line in lines) * rollouts),
        "broken_checks": verl_reward.broken(stage.path / "verl"),
        **({ENDED: ended} if ended else {}),
    }
