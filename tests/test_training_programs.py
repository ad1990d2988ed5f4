"""Programs of other people's as child processes: their logs, their ends, and ours while they run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from skillfactory.errors import SkillFactoryError, StoreError
from skillfactory.training.elsewhere import programs
from skillfactory.training.elsewhere.programs import COMMAND, LOG, Program

ROOT = Path(__file__).parents[1]
# Writes its process id and that of a child of its own, and waits.
FAMILY = (
    "import os, pathlib, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "pathlib.Path('pids.part').write_text(f'{os.getpid()} {child.pid}'); os.rename('pids.part', 'pids')\n"
    "time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "POLL", 0.02)


def python(folder: Path, code: str, **environment: str) -> Program:
    return Program("it", [sys.executable, "-c", code], folder, environment)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)
    return path.read_text()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_is_looked_at_while_it_runs_and_once_it_has_ended(tmp_path: Path) -> None:
    looks: list[tuple[bool, bool]] = []
    code = "import os, pathlib, time; time.sleep(.2); pathlib.Path('here').write_text(os.environ['SAID']); print('Ä')"
    programs.run(
        python(tmp_path, code, SAID="a 'b'"), lambda ended: looks.append((ended, (tmp_path / "here").exists()))
    )
    assert looks[0] == (False, False)
    assert looks[-1] == (True, True)
    assert [ended for ended, _ in looks].count(True) == 1
    assert (tmp_path / "here").read_text() == "a 'b'"
    assert (tmp_path / LOG).read_text() == "Ä\n"
    (tmp_path / "here").unlink()  # the command that is left does the same
    assert (
        subprocess.run(["sh", tmp_path / COMMAND], cwd="/", capture_output=True, text=True, check=True).stdout == "Ä\n"
    )
    assert (tmp_path / "here").read_text() == "a 'b'"


def test_failing_shows_the_end_of_its_log_and_how_to_go_on(tmp_path: Path) -> None:
    code = "import sys; print('\\n'.join(map(str, range(100)))); sys.exit('out of memory')"
    with pytest.raises(
        SkillFactoryError, match=r"(?s)it failed with exit code 1\..*\n  99\n  out of memory\n"
    ) as error:
        programs.run(python(tmp_path, code))
    assert "\n  10\n" not in str(error.value)
    assert str(tmp_path / COMMAND) in str(error.value)
    with pytest.raises(SkillFactoryError, match="it was killed by signal 9"):
        programs.run(python(tmp_path, "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(SkillFactoryError, match=r"it: `/none/such` cannot be run: No such file"):
        programs.run(Program("it", ["/none/such"], tmp_path))


def test_what_is_raised_meanwhile_ends_it_and_its_children(tmp_path: Path) -> None:
    def look(ended: bool) -> None:
        if (tmp_path / "pids").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        programs.run(python(tmp_path, FAMILY), look)
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_children_of_one_that_ends_at_once_have_time_to_end(tmp_path: Path) -> None:
    slow = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): time.sleep(.5); pathlib.Path('ended').touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); pathlib.Path('ready').touch(); time.sleep(60)\n"
    )
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {slow!r}]); time.sleep(60)"

    def look(ended: bool) -> None:
        if (tmp_path / "ready").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        programs.run(python(tmp_path, code), look)
    assert (tmp_path / "ended").exists()


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    def press() -> None:
        wait_for(tmp_path / "pids")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        programs.run(python(tmp_path, FAMILY))
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skillfactory.children.GRACE", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY

    def look(ended: bool) -> None:
        if (tmp_path / "pids").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        programs.run(python(tmp_path, deaf), look)
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_one_that_outlives_us_is_noticed(tmp_path: Path) -> None:
    driver = (
        "import sys; from pathlib import Path; from skillfactory.training.elsewhere import programs\n"
        f"programs.run(programs.Program('it', [sys.executable, '-c', {FAMILY!r}], Path({str(tmp_path)!r})))"
    )
    ours = subprocess.Popen([sys.executable, "-c", driver], cwd=ROOT)
    pids = [int(pid) for pid in wait_for(tmp_path / "pids").split()]
    try:
        ours.kill()
        ours.wait()
        assert all(map(is_alive, pids))
        with pytest.raises(StoreError, match=r"it, started by an earlier command that was killed, still runs"):
            programs.run(python(tmp_path, "pass"))
    finally:
        os.killpg(pids[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    programs.run(python(tmp_path, "pass"))


def test_a_short_answer(tmp_path: Path) -> None:
    assert programs.ask([sys.executable, "-c", "print(1)"]) == "1\n"
    with pytest.raises(SkillFactoryError, match="says: ModuleNotFoundError: No module named 'none_such'"):
        programs.ask([sys.executable, "-c", "import none_such"])
    with pytest.raises(SkillFactoryError, match="cannot be run"):
        programs.ask(["/none/such"])
