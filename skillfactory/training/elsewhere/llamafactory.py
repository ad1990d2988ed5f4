"""SFT by LLaMA-Factory, as the paper's (paper §2): for those who have it running, or want what only it has.

It lives in an environment of its own, and is never imported here. In `sft/llamafactory` it gets the traces, as
`skillfactory export` writes them for it, and its settings, both from the recipe; its log and its figures become
metrics.jsonl and progress, and what it trained becomes `sft/model`.

Deviations from SFT by TRL (sft.py):

1. Its own chat templates and order of traces. Where `training.llamafactory.options` names no `template`, it takes the
   tokenizer's own apart; with some, what follows the end-of-turn token is learnt too.
2. SIGTERM and Ctrl-C end it at once: what it did since its last checkpoint (`sft.save_every`) is done again.
3. It measures no dev questions.
"""

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skillfactory import files
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.formats.export import export
from skillfactory.recipe import Recipe
from skillfactory.stage import Stage
from skillfactory.store import LoadedRun, Run
from skillfactory.training.elsewhere import programs
from skillfactory.training.elsewhere.llamafactory_settings import DATA, DEEPSPEED, OUT, deepspeed, settings, total_steps

VERSION = "0.9"  # whose settings are known here
TRAIN, EXPORT, _MERGED = "train.yaml", "export.yaml", f"{files.TEMPORARY}merged"
_FINISHED = "train_results.json"  # it writes that after the model


def check(recipe: Recipe) -> None:
    """Raises RecipeError where its command is not there, or another version; asks it once."""
    name = recipe.training.llamafactory.command
    if shutil.which(_command(recipe)) is None:
        raise RecipeError(
            f"training.llamafactory.command: there is no command {name}; give its path in the environment that has "
            "LLaMA-Factory (docs/many-machines.md)."
        )
    try:
        said = _said_of_version(_command(recipe))
    except SkillFactoryError as error:
        raise RecipeError(f"training.llamafactory.command: {error}") from error
    if f"version {VERSION}." not in said:
        raise RecipeError(
            f"training.llamafactory.command: {name} is no LLaMA-Factory {VERSION}, whose settings are known here; "
            f"install 'llamafactory=={VERSION}.*' in its environment."
        )


@cache
def _said_of_version(command: str) -> str:
    return programs.ask([command, "version"])


def _command(recipe: Recipe) -> str:
    """The command, with its place where that is given: it is run from another folder."""
    given = Path(recipe.training.llamafactory.command).expanduser()
    return str(given.absolute()) if given.parent != Path() else str(given)


def run(recipe: Recipe, run: Run) -> None:
    """Fine-tune the base model on the run's traces into `sft/model`."""
    from skillfactory.engines.models import ChatTokenizer, load_model
    from skillfactory.training import common
    from skillfactory.training.policy import SamplingCopy
    from skillfactory.training.sft import tokenize, traces_of

    stage = run.stage("sft")
    traces = traces_of(run)
    folder = stage.path.absolute() / "llamafactory"  # it works in another
    folder.mkdir(exist_ok=True)
    if not (folder / DATA).is_dir():
        export(_OfRound(run, recipe), "llamafactory", folder / DATA)
    chat = ChatTokenizer.load(recipe)
    examples = [tokenize(chat, trace) for trace in traces]
    lengths, learned = ([len(e["input_ids"]) for e in examples], sum(sum(e["completion_mask"]) for e in examples))
    chosen = settings(recipe, stage, len(traces), max(lengths))
    _write_yaml(folder / TRAIN, chosen)
    if chosen.get("deepspeed") == DEEPSPEED:
        files.write_json(folder / DEEPSPEED, deepspeed(recipe))
    steps = _train(recipe, run, folder, total_steps(chosen, len(traces), recipe.training.devices), learned)
    trained = load_model(recipe, _whole(recipe, stage, folder))
    common.save_model(trained, SamplingCopy(lambda: load_model(recipe)), chat.tokenizer, stage.path)
    stage.finish(traces=len(traces), steps=steps, tokens=sum(lengths), learned_tokens=learned)
    common.drop_checkpoints(stage.path)
    shutil.rmtree(folder / _MERGED, ignore_errors=True)


class _OfRound(LoadedRun):
    """The run as one that is read from, whose stages are those of the round that is trained."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        super().__init__(run.path, recipe)
        self.run = run

    def stage(self, name: str) -> Stage:
        return self.run.stage(name)


def _write_yaml(path: Path, data: dict[str, Any]) -> None:
    files.write_atomic(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())


def _environment(recipe: Recipe) -> dict[str, str]:
    devices, command = recipe.training.devices, shutil.which(_command(recipe))
    found = {"NPROC_PER_NODE": str(devices)}  # else it takes all GPUs that it sees
    if devices > 1:
        found["FORCE_TORCHRUN"] = "1"
    if command:  # it calls torchrun by name
        found["PATH"] = f"{Path(command).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return found


def _train(recipe: Recipe, run: Run, folder: Path, steps: int, learned: int) -> int:
    """Run it to its last step, from its last checkpoint where there is one; gives the steps that are done then."""
    from skillfactory.training import common, signs
    from skillfactory.training.metrics import MetricsFile
    from skillfactory.training.watching import SignsTold

    stage = run.stage("sft")
    _, done = common.last_checkpoint(stage.path)
    with stage.track(steps, "SFT steps", done=done) as advance:
        metrics = MetricsFile(stage.path, _line, advance, done)
        told = SignsTold(run, stage, metrics, signs.of_sft)
        if not (folder / OUT / _FINISHED).exists():
            log = _Log(folder / OUT / "trainer_log.jsonl")

            def look(ended: bool) -> None:
                for figures in log.new():
                    metrics.on_log(None, None, None, figures)
                told.tell(signs.of_sft(metrics.lines(), ended, learned))

            words = [_command(recipe), "train", TRAIN]
            programs.run(programs.Program("LLaMA-Factory", words, folder, _environment(recipe)), look)
    return metrics.step


class _Log:
    """The lines that are added to its log of figures from now on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = path.stat().st_size if path.exists() else 0

    def new(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            new, ended, _ = file.read().rpartition(b"\n")
        self.read += len(new) + len(ended)
        return [json.loads(line) for line in new.splitlines()]


def _line(logs: dict[str, Any]) -> dict[str, Any] | None:
    if "loss" not in logs:
        return None
    return {"loss": float(logs["loss"]), "learning_rate": float(logs["lr"])}


def _whole(recipe: Recipe, stage: Stage, folder: Path) -> Path:
    """The folder of the trained model, adapters added to it by LLaMA-Factory's own export."""
    if not recipe.sft.lora.rank:
        return stage.path / "checkpoints"
    chosen = yaml.safe_load((folder / TRAIN).read_text(encoding="utf-8"))
    kept = ("model_name_or_path", "model_revision", "trust_remote_code", "template", "finetuning_type")
    merge = {name: chosen[name] for name in kept if name in chosen}
    _write_yaml(folder / EXPORT, merge | {"adapter_name_or_path": OUT, "export_dir": _MERGED, "export_device": "cpu"})
    shutil.rmtree(folder / _MERGED, ignore_errors=True)
    words = [_command(recipe), "export", EXPORT]
    programs.run(programs.Program("LLaMA-Factory's export", words, folder, _environment(recipe)))
    return folder / _MERGED
