"""An undisturbed small run, made once, and copies of it to damage."""

import shutil
from collections.abc import Callable
from pathlib import Path

import kills
import pytest


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> kills.Reference:
    """A finished run that nobody disturbed, and how long its parts took."""
    return kills.reference(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def whole(known: kills.Reference) -> Path:
    """The directory of that run."""
    return known.run


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of that run; with stages left out it is one that was stopped before them."""

    def copy(*left_out: str) -> Path:
        run = tmp_path / "disturbed"
        shutil.copytree(whole, run, ignore=lambda folder, names: left_out if folder == str(whole) else ())
        return run

    return copy
