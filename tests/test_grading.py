"""How answers are compared: each rule's decided cases, and checks that hang, crash or come from many threads."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory.records import BROKEN, Grade, Question
from skillfactory.tasks import deadline, own
from skillfactory.tasks.base import check_references
from skillfactory.tasks.grading import RULES, ask_choice, grade_answer, number
from skillfactory.tasks.questions import grade_all

HANGS = "9^{9^{9^{9}}}"
EQUAL = "skillfactory.tasks.equality:equal"
hostile = st.text(max_size=60) | st.text(alphabet="0123456789-+.,/ $=\\{}()^AB<>", max_size=30)


def asked(reference: str, data: str = "{}") -> Question:
    return Question("0" * 16, "jsonl", "", "?", reference, data)


CASES = [
    # rule, reference, answer, outcome
    ("exact", "New York", " new  york. ", "correct"),
    ("exact", "$x$", "x", "correct"),
    ("exact", "New York", "York", "wrong"),
    ("exact", "12", "12.0", "wrong"),
    ("number", "1200", "1,200", "correct"),
    ("number", "0.5", "1/2", "correct"),
    ("number", "-3", "x = −3", "correct"),
    ("number", "3", "$3.00", "correct"),
    ("number", "3", "3 apples", "wrong"),
    ("number", "72", "７２", "correct"),
    # an equation: a name or the same value before the sign, or it says something else
    ("number", "72", "Total = $72.", "correct"),
    ("number", "72", "= 72", "correct"),
    ("number", "72", "x = 36 × 2 = 72", "correct"),
    ("number", "72", "1.5*48 = 72", "correct"),
    ("number", "72", "$30 + $42 = $72", "correct"),
    *(
        ("number", "72", text, "wrong")
        for text in (
            "!= 72",
            "≠ 72",
            "x >= 72",
            "x <= 72",
            "x := 72",
            "x == 72",
            "71=72",
            "72=71",
            "not = 72",
            "maybe 3 or 4, = 72",
            "71 or x = 72",
            "2/3 = 72",
        )
    ),
    # characters that look like others, but are powers or parts
    ("exact", "102", "10²", "wrong"),
    ("exact", "x2", "x²", "wrong"),
    ("exact", "12", "①②", "wrong"),
    ("exact", "10²", "10²", "correct"),
    ("exact", "caf\u00e9 au lait", "ｃafe\u0301\u00a0au lait", "correct"),
    ("math", "23", "2³", "wrong"),
    ("math", "25", "2⁵", "wrong"),
    ("math", "x2", "x²", "wrong"),
    ("math", "12", "①②", "wrong"),
    ("math", "x^2", "x²", "correct"),
    ("math", "x^{-12}", "x⁻¹²", "correct"),
    ("math", "1/2", "½", "correct"),
    ("math", "11/2", "5½", "correct"),
    ("math", "12", "１２", "correct"),
    # letters of another case are other letters
    ("math", r"\Delta", r"\delta", "wrong"),
    ("math", "x", "X", "wrong"),
    ("math", "2n", "2N", "wrong"),
    ("math", "xX", "x^2", "wrong"),
    ("math", "r^2", "R = r^2", "correct"),
    ("math", r"\text{No}", "no", "correct"),
    ("math", "New York", "new york.", "correct"),
    # bases
    ("math", "2516_8", "2516_9", "wrong"),
    ("math", "2516_8", "2516₉", "wrong"),
    ("math", "2516_8", "2516_{8}", "correct"),
    ("math", "2516_8", "2516₈", "correct"),
    # what stands side by side is not one number
    ("math", "12", r"\boxed{1}\boxed{2}", "wrong"),
    ("math", "37", r"\mathrm{3}\textbf{7}", "wrong"),
    ("math", "14", r"\boxed{1}\text{}4", "wrong"),
    ("math", "7", r"\boxed{}7", "wrong"),
    ("math", "37", r"\mathrm{37}", "correct"),
    # equations
    ("math", "6", "5=6", "wrong"),
    ("math", "6", "5.0=6", "wrong"),
    ("math", "6", "2*3=6", "correct"),
    ("math", "0.667", "2/3=0.667", "correct"),
    ("math", "5", r"x \neq 5", "wrong"),
    ("math", "5", r"x \ge 5", "wrong"),
    ("number", "12", "1,2", "wrong"),
    ("number", "1", "1/0", "wrong"),
    # fractions, decimals, per cent
    ("math", r"\frac{1}{2}", "0.5", "correct"),
    ("math", "1/2", r"\frac12", "correct"),
    ("math", "1/3", "0.333333", "correct"),
    ("math", "1/3", "0.33", "wrong"),
    ("math", "3", "3.00001", "wrong"),
    ("math", "50%", r"50\%", "correct"),
    ("math", "50", "50%", "correct"),
    ("math", "0.5", "50%", "correct"),
    ("math", "1,200", "1200", "correct"),
    ("math", "5", "4", "wrong"),
    # what stands around an answer
    ("math", r"\boxed{5}", "5", "correct"),
    ("math", "5", r"\boxed{5}", "correct"),
    ("math", "5", r"\boxed{\text{5}}", "correct"),
    ("math", "5", "x = 5", "correct"),
    ("math", "5", "$5$", "correct"),
    ("math", r"\$5", "5.00", "correct"),
    ("math", "5", r"5\text{ cm}", "correct"),
    ("math", "90", r"90^\circ", "correct"),
    # algebra, LaTeX or plain
    ("math", r"2\sqrt{3}", r"\sqrt{12}", "correct"),
    ("math", r"2\sqrt{3}", "2*sqrt(3)", "correct"),
    ("math", "2sqrt(3)", "2√3", "correct"),
    ("math", r"\frac{\pi}{2}", "π/2", "correct"),
    ("math", r"\pi", "3.14159", "wrong"),
    ("math", "x^2+2x+1", "(x+1)^2", "correct"),
    ("math", "x", "y", "wrong"),
    # intervals, sets, several answers
    ("math", "[0, 2)", "[0,2)", "correct"),
    ("math", "(0,2)", "[0,2]", "wrong"),
    ("math", "x<3", r"(-\infty, 3)", "correct"),
    ("math", r"\{1,2\}", r"\{2,1\}", "correct"),
    ("math", "1, 2", "2, 1", "correct"),
    ("math", r"\pm 2", "2, -2", "correct"),
    ("math", "1, 2", "1", "wrong"),
    ("math", "1", "1, 2", "wrong"),
    ("math", "1", "1 or 2", "wrong"),
    ("math", "(1,2)", "(2,1)", "wrong"),
    ("math", "5", r"\boxed{4}, or $5$", "wrong"),
    ("math", "5", "4\n5", "wrong"),
    # words
    ("math", r"\text{Tuesday}", "tuesday", "correct"),
    ("math", "listen", "silent", "wrong"),
    ("math", "5", "five", "wrong"),
    ("math", "5", "?", "wrong"),
]


@pytest.mark.parametrize(("rule", "reference", "answer", "outcome"), CASES)
def test_decided_cases(rule: str, reference: str, answer: str, outcome: str) -> None:
    question = asked(reference)
    assert grade_answer(rule, question, f"<answer>{reference}</answer>", seconds=60).outcome == "correct"
    grade = grade_answer(rule, question, f"So <answer>{answer}</answer>", seconds=60)
    assert grade.outcome == outcome, grade
    assert grade_answer(rule, question, answer) == Grade("no_answer", reason="no_answer")
    assert grade_answer(rule, question, "<answer>  </answer>") == Grade("no_answer", reason="no_answer")


@given(hostile)
def test_numbers_take_any_text(text: str) -> None:
    value = number(text)
    assert value is None or any(letter.isdigit() for letter in text)


@settings(max_examples=500)
@given(hostile | st.text(alphabet="İıſKßǅ①²½ １ａＢ", max_size=4), st.sampled_from(("exact", "number", "choice")))
def test_quick_checks_never_break(text: str, rule: str) -> None:
    question = asked("B" if rule == "choice" else "7", '{"choices": ["six", "seven"]}')
    assert grade_answer(rule, question, f"<answer>{text}</answer>").reason not in BROKEN
    assert grade_answer(rule, asked(text, '{"choices": ["İ", "ı"]}'), "<answer>K</answer>").reason not in BROKEN


@settings(max_examples=30)
@given(hostile, st.sampled_from(RULES))
def test_no_text_breaks_a_check(text: str, rule: str) -> None:
    question = asked("B" if rule == "choice" else "7", '{"choices": ["six", "seven"]}')
    grade = grade_answer(rule, question, f"<answer>{text}</answer>", seconds=30)
    assert grade.outcome in ("correct", "wrong") or (grade.outcome, grade.answer) == ("no_answer", "")


# --- multiple choice


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        *((text, "correct", "") for text in (
            "B", "b", "(B)", "(b)", "B.", "B)", "B:", "B. red", "B) red", "(B) Red.", "b: red", "Option B", "Answer: B",
            "red", "RED.", r"\boxed{B}", r"\text{(B)}", "**B**", "$B$", r"\text{red}", r"\textbf{(B)} red",
            "B.\u00a0red", "Ｂ",
        )),
        ("A", "wrong", ""), ("blue", "wrong", ""), ("A. blue", "wrong", ""), ("a cat", "wrong", ""),
        ("A. red", "wrong", "letter_and_text_differ"), ("B. blue", "wrong", "letter_and_text_differ"),
        *((text, "wrong", "not_an_option") for text in (
            "A or B", "A, B", "AB", "D", "B. green", "green", "not red", "the red one", "İ", "ſ", "ı. red", "",
        ) if text),
    ],
)  # fmt: skip
def test_choices_by_letter_or_text(answer: str, outcome: str, reason: str) -> None:
    question = asked("B", '{"choices": ["blue", "red", "a cat"]}')
    grade = grade_answer("choice", question, f"<answer>{answer}</answer>")
    assert (grade.outcome, grade.reason) == (outcome, reason)


@given(st.lists(st.text("abcxyz ", min_size=2, max_size=8).map(str.strip).filter(lambda t: len(t) > 1),
                min_size=2, max_size=26, unique=True), st.data())  # fmt: skip
def test_each_option_is_right_by_letter_and_by_text(choices: list[str], data: st.DataObject) -> None:
    task = own.jsonl(path="unread", grade="choice")
    right = data.draw(st.sampled_from(choices))
    question = task.make(question="Which?", answer=right, choices=choices)
    check_references(task, [question])
    assert f"\n{question.answer}. {right}\n" in ask_choice("Which?", choices)
    for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", choices, strict=False):
        for text in (letter, f"{letter}. {choice}", f"({letter})", choice):
            assert (task.grade(question, f"<answer>{text}</answer>").outcome == "correct") == (choice == right)


# --- deadlines


def test_a_hung_check_is_killed_and_the_next_one_works() -> None:
    question = asked("5")
    assert grade_answer("math", question, r"<answer>\frac{10}{2}</answer>", seconds=60).outcome == "correct"
    start = time.monotonic()
    grade = grade_answer("math", question, f"<answer>{HANGS}</answer>", seconds=0.5)
    assert grade == Grade("no_answer", HANGS, "check_timed_out")
    assert time.monotonic() - start < 30  # it would take longer than anyone lives
    assert grade_answer("math", question, r"<answer>\frac{10}{2}</answer>", seconds=60).outcome == "correct"


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
        assert hung.result().reason == "check_timed_out"
    assert alive or finished[0] < 2
    grades = grade_all(task, [(question, text) for text in texts])
    assert [grade.outcome for grade in grades] == ["no_answer", *["correct"] * 39]


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
    hung = [threading.Thread(target=grade_answer, args=("math", asked("5"), f"<answer>{HANGS}</answer>", 2))
            for _ in range(2)]  # fmt: skip
    for thread in hung:
        thread.start()
    time.sleep(0.2)
    assert grade_answer("math", asked("5"), r"<answer>\frac{10}{2}</answer>", 60).outcome == "correct"
    assert all(thread.is_alive() for thread in hung)
    for thread in hung:
        thread.join()


def test_many_short_calls_lose_no_worker() -> None:
    """A worker once could be killed by the very signal that told of its next call."""
    assert all(deadline.call("builtins:abs", -1, seconds=60) == 1 for _ in range(20_000))
