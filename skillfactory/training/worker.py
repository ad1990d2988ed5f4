"""One process of several that train a stage, started by launch.py: `python -m …training.worker RUN STAGE`."""

import sys
from contextlib import ExitStack
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import filelock

from skillfactory import files
from skillfactory.errors import SkillFactoryError, StoppedError
from skillfactory.machine import pick_device
from skillfactory.rounds import recipe_of, stage_of, suffix_of
from skillfactory.store import Run, load_run
from skillfactory.training import processes
from skillfactory.training.launch import LOCK, RESULT


def main(path: Path, name: str) -> int:
    """Train a stage of the run at `path`; the main process leaves its result for launch.py. Gives the exit code."""
    import torch
    from accelerate import PartialState

    recipe = recipe_of(name, load_run(path).recipe, path)
    stage = import_module(f"skillfactory.training.{stage_of(name)}")
    run = Run.joined(path).of_round(suffix_of(name))
    run.stage(stage_of(name)).join()
    # Joins the others, and takes the process's own GPU. Rollouts of one may take long, while the others wait for them.
    PartialState(cpu=pick_device(recipe.machine.device) == "cpu", timeout=timedelta(hours=2))
    with ExitStack() as stack:
        if processes.is_main():
            stack.enter_context(filelock.FileLock(path / name / LOCK, timeout=30))
        try:
            with files.told(str(path / name)):
                result = stage.train(recipe, run)
        except SkillFactoryError as error:
            result = {"error": str(error), "stopped": isinstance(error, StoppedError)}
        if processes.is_main():
            files.write_json(path / name / RESULT, result)
    if "error" in result and not result["stopped"]:
        return 0  # others may not know of it, and the group not end: launch.py sees to them
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
