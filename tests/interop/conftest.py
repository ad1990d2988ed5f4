"""Exports of one run, for the libraries that are to read them. Made by whatever environment runs the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from traces_run import make_run, make_trace

from skillfactory.formats.export import export
from skillfactory.records import Trace

TRACES = [make_trace(i, system=i % 2 == 0) for i in range(6)]


@pytest.fixture(scope="session")
def traces() -> list[Trace]:
    """The traces of the run; half of them have a system prompt."""
    return TRACES


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an export in a format."""
    folder = tmp_path_factory.mktemp("interop")
    run = make_run(folder / "run", [TRACES[:4], TRACES[4:]])

    def make(format: str) -> Path:
        if not (folder / format).exists():
            export(run, format, folder / format)
        return folder / format

    return make
