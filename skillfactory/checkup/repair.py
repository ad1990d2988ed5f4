"""What is damaged in a run directory, and its repair: `skillfactory doctor RUN`.

Repair takes away what is bad and opens the stages that it was taken from, so that the next `skillfactory run` makes
what is missing and nothing else. What may be of worth is moved to RUN/damaged, not deleted. Nothing is redone here.
"""

from functools import partial
from pathlib import Path

from skillfactory import files, methods, pipeline, store
from skillfactory.checkup.damage import ASIDE, Fault, Finding, Looked, aside, bad_lines, drop_bad_lines
from skillfactory.errors import SkillFactoryError, StoreError
from skillfactory.recipe import Recipe

__all__ = ["Finding", "examine", "repair"]


def examine(path: Path) -> list[Finding]:
    """What is wrong in a run directory. Changes nothing. Raises StoreError where there is no run.

    Of a run that another process is writing only finished stages are looked at.
    """
    return [fault.finding for fault in _faults(_run(path), busy=bool(store.writer(path)))]


def repair(path: Path) -> list[Finding]:
    """Mend what can be mended, and say what was. Raises StoreError where there is no run, or another process holds it.

    It looks again after mending: a manifest that was written anew tells of more.
    """
    mended: list[Finding] = []
    with store.held(_run(path)):
        while faults := [f for f in _faults(path, busy=False) if f.mend is not None and f.finding not in mended]:
            for fault in faults:
                assert fault.mend is not None
                with files.told(str(path)):
                    fault.mend()
                mended.append(fault.finding)
    return mended


def _run(path: Path) -> Path:
    if not store.is_run(path):
        raise StoreError(f"{path} is not a run directory (it has no {store.RECIPE}).")
    return path


def _faults(run: Path, busy: bool) -> list[Fault]:
    recipe, found = _recipe(run)
    log = run / store.LOG
    if bad := bad_lines(log):
        finding = Finding("", log.name, f"{len(bad)} of its lines are no JSON", "is rid of them")
        found.append(Fault(finding, partial(drop_bad_lines, run, log)))
    wanted: dict[str, pipeline.Identity] = {}
    try:
        wanted = pipeline.identities(recipe) if recipe else {}
    except (SkillFactoryError, OSError) as error:
        found.append(Fault(Finding("", store.RECIPE, str(error), "mend what it names", by_hand=True)))
    for name in methods.stages(recipe) if recipe else [name for name in pipeline.STAGES if (run / name).is_dir()]:
        found += Looked(run, name, wanted).faults(busy)
    return found


def _recipe(run: Path) -> tuple[Recipe | None, list[Fault]]:
    """The run's recipe, where it can be read."""
    path = run / store.RECIPE
    again = (
        "run the recipe that it was made from once more, with this directory as --run: that writes it anew, and every "
        "stage that was made with the same settings is kept"
    )
    if not path.exists():
        return None, [Fault(Finding("", path.name, "is missing", again, by_hand=True))]
    try:
        return store.load_run(run).recipe, []
    except SkillFactoryError as error:
        problem = str(error).partition(" `skillfactory doctor")[0]
        return None, [
            Fault(Finding("", path.name, problem, f"is moved to {ASIDE}/; {again}"), partial(aside, run, path))
        ]
