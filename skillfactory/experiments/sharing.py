"""What one cell has made and another would make just so is lent, not made again.

A stage is lent by hard links: files of a finished stage are only ever replaced by a rename, so that what becomes of a
stage here changes nothing there. What a stage depends on is in its digest, in which those of its inputs are; so equal
digests mean equal work, also where the stage goes by another name (`sft` here, the first round's `sft-1` there).
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillfactory import files, methods
from skillfactory.errors import StoreError
from skillfactory.pipeline import STAGES, Identity, filled_by
from skillfactory.recipe import Recipe
from skillfactory.rounds import stage_of
from skillfactory.stage import MANIFEST
from skillfactory.store import Run

Wanted = Mapping[str, Identity]
LAST = "report"  # is about one run, and never lent


@dataclass(frozen=True, slots=True)
class Loan:
    """A finished stage of another cell, and the cell."""

    cell: str
    folder: Path
    manifest: dict[str, Any]


def lend(recipe: Recipe, path: Path, donors: Mapping[str, Path], wanted: Wanted) -> dict[str, str]:
    """Put into the run at `path` what it has not begun and a donor (by name: its run directory) has finished.

    Returns the stages that were lent with their donors. Attempts and reflections are lent together with the traces, or
    without them: the curation goes on from there. Raises StoreError where the directory cannot be used.
    """
    lent: dict[str, str] = {}
    with Run.open(path, recipe) as run:
        there = manifests(path)
        if any(manifest.get("digest") != _digest(wanted, stage) for stage, manifest in there.items()):
            return {}  # of other settings: the run itself says so
        known = {donor: manifests(folder) for donor, folder in donors.items()}
        for group in groups(methods.stages(recipe)):
            if not is_open(group, path, there):
                continue
            loans = _best(group, wanted, donors, known)
            if set(loans) <= set(there):
                continue
            for stage in group:
                run.drop(stage)  # a loan that a kill has cut short
            for stage, loan in loans.items():
                _copy(loan, stage, run)
                lent[stage] = loan.cell
    return lent


def groups(stages: Iterable[str]) -> list[tuple[str, ...]]:
    """The stages in order, those that are filled by another together with it; without the report."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        if stage != LAST:
            found.setdefault(filled_by(stage) or stage, []).append(stage)
    return [tuple(group) for group in found.values()]


def is_open(group: tuple[str, ...], path: Path, there: Mapping[str, dict[str, Any]]) -> bool:
    """Whether nothing of a group is the run's own work, so that it may be lent."""
    begun = [stage for stage in group if (path / stage).exists()]
    return group[-1] not in begun and all("lent_from" in there.get(stage, {}) for stage in begun)


def lacks(stages: Iterable[str], path: Path) -> Iterator[str]:
    """The stages that a run could still be lent."""
    there = manifests(path)
    for group in groups(stages):
        if is_open(group, path, there):
            yield from group


def unfinished(stages: Iterable[str], path: Path) -> Iterator[str]:
    """The stages that a run is still to finish; with one of a group, all of it."""
    there = manifests(path)
    for group in groups(stages):
        if not _all_finished(group, there):
            yield from group


def manifests(path: Path) -> dict[str, dict[str, Any]]:
    """The manifests in a run directory by stage; those that cannot be read are left out."""
    found = {}
    for file in sorted(path.glob(f"[!.]*/{MANIFEST}")):
        if stage_of(file.parent.name) in STAGES:
            with contextlib.suppress(StoreError):
                found[file.parent.name] = dict(files.read_json(file))
    return found


def _best(
    group: tuple[str, ...], wanted: Wanted, donors: Mapping[str, Path], known: Mapping[str, dict[str, dict[str, Any]]]
) -> dict[str, Loan]:
    """The first stages of the group from the donor that has most of them, and most rows."""
    best: dict[str, Loan] = {}
    for donor, there in known.items():
        for theirs in groups(there):
            if not _all_finished(theirs, there):
                continue
            loans: dict[str, Loan] = {}
            for stage, other in zip(group, theirs, strict=False):
                if stage_of(stage) != stage_of(other) or there[other].get("digest") != _digest(wanted, stage):
                    break
                loans[stage] = Loan(donor, donors[donor] / other, there[other])
            if _worth(loans) > _worth(best):
                best = loans
    return best


def _worth(loans: dict[str, Loan]) -> tuple[int, int]:
    return len(loans), sum(int(loan.manifest.get("rows", 0)) for loan in loans.values())


def _all_finished(group: tuple[str, ...], there: Mapping[str, dict[str, Any]]) -> bool:
    return all(there.get(stage, {}).get("finished") for stage in group)


def _digest(wanted: Wanted, stage: str) -> str:
    return wanted[stage].digest if stage in wanted else ""


def _copy(loan: Loan, stage: str, run: Run) -> None:
    """The stage, whole or not at all; its manifest says where it comes from and what it had cost by then."""
    temporary = run.path / f"{files.TEMPORARY}{stage}"  # `Run.open` clears what a kill leaves
    with files.told(str(run.path / stage)):
        shutil.copytree(loan.folder, temporary, symlinks=True, copy_function=_link, ignore=_hidden)
        cost = {
            "seconds": loan.manifest.get("seconds", 0.0),
            "tokens": loan.manifest.get("counts", {}).get("tokens", 0),
        }
        manifest = loan.manifest | {"lent_from": loan.cell, "lent": cost}
        if filler := filled_by(stage):
            manifest["filled_by"] = filler
        files.write_json(temporary / MANIFEST, manifest)
        temporary.rename(run.path / stage)
    run.log(stage, "lent", by=loan.cell)


def _hidden(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(files.TEMPORARY)]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no hard links
        shutil.copy2(source, target)
