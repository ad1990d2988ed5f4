"""Checks under a deadline: hung, dead and many at once."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from skillfactory.records import Question
from skillfactory.tasks import deadline, own
from skillfactory.tasks.grading import grade_answer
from skillfactory.tasks.questions import grade_all

HANGS = "9^{9^{9^{9}}}"
EQUAL = "skillfactory.tasks.equality:equal"
QUESTION = Question("0" * 16, "jsonl", "", "?", "5", "{}")


def test_a_hung_check_is_killed_and_the_next_one_works() -> None:
    assert grade_answer("math", QUESTION, r"<answer>\frac{10}{2}</answer>", seconds=60).outcome == "correct"
    start = time.monotonic()
    grade = grade_answer("math", QUESTION, f"<answer>{HANGS}</answer>", seconds=2)
    assert (grade.outcome, grade.answer) == ("wrong", HANGS)  # whether time or memory ended it
    assert time.monotonic() - start < 30  # it would take longer than anyone lives
    assert grade_answer("math", QUESTION, r"<answer>\frac{10}{2}</answer>", seconds=60).outcome == "correct"


def test_one_hung_check_does_not_hold_up_the_others() -> None:
    task = own.jsonl(path="unread", grade="math", seconds=2)
    question = task.make(question="?", answer="5")
    deadline.call(EQUAL, "1", "2", seconds=60)
    texts = [f"<answer>{HANGS}</answer>", *(rf"<answer>\frac{{{5 * n}}}{{{n}}}</answer>" for n in range(1, 40))]
    finished: list[float] = []
    start = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        hung = thread.submit(task.grade, question, texts[0])
        for text in texts[1:]:
            assert task.grade(question, text).outcome == "correct"
            finished.append(time.monotonic() - start)
        alive = not hung.done()
        assert hung.result().outcome == "wrong"
    assert alive or finished[0] < 2
    grades = grade_all(task, [(question, text) for text in texts])
    assert [grade.outcome for grade in grades] == ["wrong", *["correct"] * 39]


def test_calls_from_many_threads_get_their_own_values() -> None:
    def ask(n: int) -> bool:
        return bool(deadline.call(EQUAL, str(n % 3), "1", seconds=60))

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(ask, range(60))) == [n % 3 == 1 for n in range(60)]


def test_exceptions_of_a_call_come_back() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        deadline.call("builtins:int", "x", seconds=60)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        deadline.call("no_such_module:f", seconds=60)
    with pytest.raises(RuntimeError, match=r"SystemExit: 3"):
        deadline.call("sys:exit", 3, seconds=60)
    with pytest.raises(RuntimeError, match=r"JSONDecodeError: Expecting value"):
        deadline.call("json:loads", "", seconds=60)
    with pytest.raises(MemoryError):
        deadline.call("builtins:bytearray", 10**13, seconds=60)
    with pytest.raises(deadline.DiedError, match="died"):
        deadline.call("os:_exit", 3, seconds=60)
    with pytest.raises(deadline.DeadlineError, match=r"took more than 0\.2 s"):
        deadline.call("time:sleep", 30, seconds=0.2)
    assert deadline.call("os:getcwd", seconds=60) == os.getcwd()


def test_an_idle_worker_that_died_is_replaced() -> None:
    first = deadline.call("os:getpid", seconds=60)
    os.kill(first, 9)
    os.waitpid(first, 0)
    assert deadline.call("os:getpid", seconds=60) != first


def test_workers_are_bare_and_end_with_their_caller(tmp_path: Path) -> None:
    # The script has no guard, and a module that must not be imported again stands for what loads torch.
    (tmp_path / "heavy.py").write_text("print('imported')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import heavy, os, threading, time\n"
        "from skillfactory.tasks import deadline\n"
        "print(deadline.call('os:getpid', seconds=60), flush=True)\n"
        "threading.Thread(target=deadline.call, args=('time:sleep', 60), kwargs={'seconds': 60}, daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=30)
    imported, worker = done.stdout.split()
    assert imported == "imported"
    ends(int(worker))  # long before its 60 seconds


def ends(process: int) -> None:
    """Wait until a process has ended; one that nobody has asked after counts."""
    for _ in range(200):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} goes on")


STARTS = """
import os, subprocess, sys, time

def starts(path, seconds):
    child = subprocess.Popen(["sleep", "600"])
    open(path, "w").write(str(child.pid))
    time.sleep(seconds)

def prints():
    print("HELLO"), print("HELLO", file=sys.stderr), os.system("echo HELLO")
"""


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `starter` in the working directory, and no worker that knows another."""
    (tmp_path / "starter.py").write_text(STARTS)
    monkeypatch.chdir(tmp_path)
    deadline.close()
    yield
    deadline.close()


@pytest.mark.usefixtures("starter")
def test_processes_of_a_function_end_with_its_worker() -> None:
    with pytest.raises(deadline.DeadlineError):
        deadline.call("starter:starts", "killed", 60, seconds=1)
    ends(int(Path("killed").read_text()))
    deadline.call("starter:starts", "closed", 0, seconds=60)
    deadline.close()
    ends(int(Path("closed").read_text()))


@pytest.mark.usefixtures("starter")
def test_what_a_function_prints_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    deadline.call("starter:prints", seconds=60)
    assert capfd.readouterr() == ("", "")


def test_a_forked_child_has_workers_of_its_own() -> None:
    mine = deadline.call("os:getpid", seconds=60)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(deadline.call("os:getpid", seconds=60)).encode())
        deadline.close()
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    assert theirs != mine
    assert deadline.call("os:getpid", seconds=60) == mine


def test_calls_end_when_all_workers_hang() -> None:
    results: list[str] = []

    def hang() -> None:
        try:
            deadline.call("time:sleep", 60, seconds=0.3)
        except deadline.DeadlineError:
            results.append("killed")

    threads = [threading.Thread(target=hang) for _ in range(2 * deadline.WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == ["killed"] * 2 * deadline.WORKERS
    assert deadline.call("builtins:abs", -3, seconds=60) == 3


def test_checks_run_ahead_and_keep_the_order() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for n in range(6):
            made.append(n)
            yield n
        released.set()
        raise OSError("the engine is gone")

    def double(n: int) -> int:
        if n == 0:
            released.wait(timeout=60)
        return 2 * n

    released = threading.Event()
    stream = deadline.ahead(double, items(), lambda n: n % 3 == 0)
    assert next(stream) == 0
    assert made == list(range(6))  # the others were made while the first was checked
    assert [next(stream) for _ in range(5)] == [2, 4, 6, 8, 10]
    with pytest.raises(OSError, match="the engine is gone"):
        next(stream)


def test_quick_checks_are_given_at_once() -> None:
    made: list[int] = []
    stream = deadline.ahead(abs, (made.append(n) or n for n in range(5)), lambda n: False)
    assert next(stream) == 0
    assert made == [0]


@pytest.mark.parametrize("slow", [False, True])
def test_an_error_is_raised_at_its_turn_and_ends_the_rest(slow: bool) -> None:
    begun: list[int] = []
    release = threading.Event()

    def check(n: int) -> int:
        begun.append(n)
        if n == 1:
            raise ValueError("the second")
        if n > 1 and slow:
            release.wait(timeout=60)
        return n

    with closing(deadline.ahead(check, range(100), lambda n: slow)) as stream:
        assert next(stream) == 0
        threading.Timer(0.5, release.set).start()
        with pytest.raises(ValueError, match="the second"):
            next(stream)
    assert len(begun) <= 2 + deadline.WORKERS  # not all the others, which hang


def test_hung_checks_leave_room_for_others() -> None:
    assert deadline.WORKERS >= 4
    deadline.call(EQUAL, "1", "2", seconds=60)
    hung = [threading.Thread(target=grade_answer, args=("math", QUESTION, f"<answer>{HANGS}</answer>", 2))
            for _ in range(2)]  # fmt: skip
    for thread in hung:
        thread.start()
    time.sleep(0.2)
    assert grade_answer("math", QUESTION, r"<answer>\frac{10}{2}</answer>", 60).outcome == "correct"
    assert all(thread.is_alive() for thread in hung)
    for thread in hung:
        thread.join()


def test_many_short_calls_lose_no_worker() -> None:
    """A worker once could be killed by the very signal that told of its next call."""
    assert all(deadline.call("builtins:abs", -1, seconds=60) == 1 for _ in range(20_000))
