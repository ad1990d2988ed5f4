"""Nothing is sent anywhere unless the recipe says so: runs in which every try to reach another machine is noted."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import almost_nothing, make_recipe

from skillfactory import load_run
from skillfactory.machine import _NO_REPORTS, report_nothing

ROOT = Path(__file__).parents[1]
# Python tells its audit hooks of every connection and look-up, whatever library makes it.
WATCH = """
import os, sys, traceback

def here(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "0.0.0.0", "::", "::1") or str(host).startswith("127.")

def watch(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = given[1]
        host = address[0] if isinstance(address, tuple) else None  # others are paths of this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = given[0]
    else:
        return
    if not here(host):
        with open(os.environ["TRIED"], "a") as file:
            file.write(f"{event} {host}\\n{''.join(traceback.format_stack()[-12:])}\\n")
        raise OSError("this test has no network")

sys.addaudithook(watch)
"""


def run(tmp_path: Path, *words: object) -> tuple[subprocess.CompletedProcess[str], str]:
    """A Python of its own that is watched: what it gave, and whom it tried to reach."""
    (tmp_path / "watch").mkdir(exist_ok=True)
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    tried = tmp_path / "tried"
    paths = [str(tmp_path / "watch"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {key: value for key, value in os.environ.items() if key not in _NO_REPORTS and not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=kept | {
            "PYTHONPATH": os.pathsep.join(paths), "TRIED": str(tried), "OMP_NUM_THREADS": "1",
            "HF_HOME": str(tmp_path / "cache"),  # with nothing in it that could make a question to the hub needless
        },
    )  # fmt: skip
    return done, tried.read_text() if tried.exists() else ""


def recipe_file(folder: Path, **sections: Any) -> Path:
    """Few questions, one step of RL, almost nothing to evaluate, on the tiny model."""
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump(make_recipe(**almost_nothing() | sections).model_dump(mode="json")))
    return file


def test_the_watch_sees_who_is_reached_for(tmp_path: Path) -> None:
    for code in (
        "import urllib.request as r; r.urlopen('http://example.com')",
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 80))",
        "import huggingface_hub as h; h.HfApi().model_info('org/model')",
    ):
        (tmp_path / "tried").unlink(missing_ok=True)
        done, tried = run(tmp_path, "-c", code)
        assert done.returncode == 1
        assert tried.startswith("socket."), done.stderr


@pytest.mark.parametrize("until", ["traces", pytest.param(None, marks=pytest.mark.slow)])
def test_a_run_reaches_nobody(tmp_path: Path, until: str | None) -> None:
    recipe_file(tmp_path)
    said = []
    commands = [["run", "r.yaml", "--run", "x", *(["--until", until] if until else [])], ["show", "x"]]
    if not until:  # what else there is
        commands += [
            ["status", "x"], ["tasks", "countdown"], ["recipes"], ["export", "x", "datasets", "out"],
            ["run", "r.yaml", "--run", "y", "--dry-run"], ["doctor", "x"],
        ]  # fmt: skip
    for words in commands:
        done, tried = run(tmp_path, "-m", "skillfactory", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert tried == ""
        said.append(done.stdout)
    assert load_run(tmp_path / "x").state(until or "report") == "finished"
    assert all(said)


def test_libraries_are_told_to_report_nothing_unless_the_user_has_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NO_REPORTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    report_nothing()
    assert {name: os.environ[name] for name in _NO_REPORTS} == _NO_REPORTS | {"HF_HUB_DISABLE_TELEMETRY": "0"}


def test_the_command_line_tells_them_before_they_are_there(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['skillfactory', '--version']\nfrom skillfactory.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import huggingface_hub.constants as c\nassert c.HF_HUB_DISABLE_TELEMETRY"
    )
    done, tried = run(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert tried == ""
    done, _ = run(tmp_path, "-c", "import huggingface_hub.constants as c\nassert not c.HF_HUB_DISABLE_TELEMETRY")
    assert done.returncode == 0, done.stderr
