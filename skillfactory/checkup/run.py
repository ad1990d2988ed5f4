"""Checks of a run directory: what repair.py finds there, and what it mended."""

from collections.abc import Iterator
from pathlib import Path

from skillfactory.checkup import repair
from skillfactory.checkup.check import Check, ok, problem
from skillfactory.checkup.damage import Finding


def checks(path: Path, mends: bool = False) -> Iterator[Check]:
    """What is wrong with a run; with `mends` what can be mended is. Raises StoreError where there is no run."""
    mended = repair.repair(path) if mends else []
    for finding in mended:
        yield ok(_name(finding), f"Mended: {_text(finding)}; it {finding.mend}.{_redone(finding)}")
    left = repair.examine(path)
    for finding in left:
        how = finding.mend if finding.by_hand else f"`skillfactory doctor {path} --repair`: it {finding.mend}."
        yield problem(_name(finding), f"{_text(finding)}.{_redone(finding)}", how)
    if not left:
        again = "; now `skillfactory run` makes what is missing" if mended else ""
        yield ok("run", f"Nothing is damaged in {path}{again}.")


def _name(finding: Finding) -> str:
    return finding.stage or "run"


def _text(finding: Finding) -> str:
    """What is wrong: of a run's own file, of a stage's, or of the stage."""
    return f"{finding.file}: {finding.problem}" if finding.file else finding.problem


def _redone(finding: Finding) -> str:
    return f" Then {finding.redo}." if finding.redo else ""
