"""A run that is killed at random moments and taken up again ends as one that nobody disturbed (see kills.py)."""

from pathlib import Path

import kills
import pytest


def check(number: int, operations: bool, folder: Path, known: kills.Reference) -> None:
    """So many kills, of which none leaves a trace."""
    chains = kills.attack(number, 6, 1, folder, known, operations)
    assert [each for chain in chains for each in chain.wrong] == []
    assert sum(len(chain.kills) for chain in chains) >= number


@pytest.mark.timeout(600)
def test_a_run_killed_in_every_stage_ends_as_one_that_was_not(tmp_path: Path, known: kills.Reference) -> None:
    check(6, False, tmp_path, known)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operations", [False, True], ids=["moments", "operations"])
def test_killed_thirty_times(operations: bool, tmp_path: Path, known: kills.Reference) -> None:
    check(30, operations, tmp_path, known)
