"""A machine that fails a run: a full disk, one that is read only, too little memory, a clock that goes back."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import same
import small
import torch

from skillfactory.checkup import repair
from skillfactory.checkup.damage import ASIDE
from skillfactory.errors import ShortageError
from skillfactory.shortage import told

Copied = Callable[..., Path]
AFTER = {
    "questions": (*same.ROWS, "sft", "rl"),
    "traces": ("attempts", "reflections", "traces", "sft", "rl", "evaluation"),
    "sft": ("sft", "rl", "evaluation"),
    "rl": ("rl", "evaluation"),
    "evaluation": ("evaluation",),
    "report": (),
}
REPORT = ("report", "report.html", "report.md", "metrics.json", "tables")


def mount(*words: str) -> bool:
    """Whether `mount` did it."""
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() or not mount("-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)):
        pytest.skip("a small disk wants Linux, root and the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, free: int) -> None:
    """Leave so many bytes free."""
    known = os.statvfs(disk)
    used = (known.f_blocks - known.f_bfree) * known.f_frsize
    assert mount("-o", f"remount,size={used + free}", str(disk))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "free"),
    [("questions", 8), ("questions", 16), ("traces", 24), ("traces", 48), ("sft", 300), ("sft", 2000), ("sft", 6000),
     ("rl", 300), ("rl", 6000), ("evaluation", 16), ("evaluation", 60), ("report", 60), ("report", 400)],
)  # fmt: skip
def test_a_full_disk_is_told_and_once_there_is_room_the_run_goes_on(
    stage: str, free: int, disk: Path, copied: Copied, whole: Path
) -> None:
    run = disk / "disturbed"
    shutil.move(copied(*AFTER[stage], *REPORT), run)
    before = {path: path.read_bytes() for path in run.rglob("part-*.parquet")}
    resize(disk, free * 1024)
    said = small.said(*small.words(run), code=2)
    assert said.splitlines()[-1].startswith("Error: Disk full while writing"), said
    assert "free some space and run the same command again" in said
    assert all(path.read_bytes() == content for path, content in before.items()), "what was there stays"
    assert all(finding.problem.startswith("is left over") for finding in repair.examine(run))
    resize(disk, 200 << 20)
    small.said(*small.words(run))
    assert same.differences(run, whole) == []


def test_a_read_only_disk_is_told_before_anything_is_done_and_can_be_looked_at(disk: Path, copied: Copied) -> None:
    run = disk / "disturbed"
    shutil.move(copied(*REPORT), run)
    assert mount("-o", "remount,ro", str(disk))
    said = small.said(*small.words(run), code=2)
    assert said.startswith("Error: No permission to write"), said
    said = small.said(*small.words(disk / "new"), code=2)
    assert said.startswith("Error: No permission to write"), said
    shown = json.loads(small.skillfactory("status", str(run), "--json"))
    assert {stage["state"] for stage in shown["stages"]} == {"finished", "missing"}
    small.skillfactory("show", str(run))
    assert repair.examine(run) == []
    mount("-o", "remount,rw", str(disk))


@pytest.mark.parametrize(
    "allocate", [lambda: bytearray(1 << 60), lambda: torch.empty(1 << 58)], ids=["python", "torch"]
)
def test_memory_that_is_not_to_be_had_says_what_to_lower(allocate: Callable[[], object]) -> None:
    wanted = r"^sft: memory has run out \(.+\)\. .* lower sft\.micro_batch, .* is kept\.$"
    with pytest.raises(ShortageError, match=wanted), told("sft"):
        allocate()
    with pytest.raises(RuntimeError, match="size"), told("sft"):  # any other error
        torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(ImportError, match="not permitted"), told("sft"):  # a disk that code may not run from
        raise ImportError("libx.so: failed to map segment from shared object: Operation not permitted")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="wants Linux' limit on address space")
@pytest.mark.parametrize("stage", ["traces", "sft", "rl", "evaluation"])
def test_too_little_memory_is_told_with_what_to_lower_or_ends_like_a_kill(
    stage: str, copied: Copied, whole: Path
) -> None:
    run = copied(*AFTER[stage], *REPORT)
    said_so = []  # with less, the libraries do not even load
    for megabytes in (1500, 1750, 2000, 2500):
        limited = f'ulimit -v {megabytes * 1024}; exec "$@"'
        done = subprocess.run(
            ["bash", "-c", limited, "bash", *small.words(run, "--until", stage)], cwd=small.ROOT,
            env=small.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = (done.stdout + done.stderr).partition("Exception ignored")[0]  # what libraries say as they are unloaded
        aborted = done.returncode < 0 or "libgomp: Thread creation failed" in said or "ABORT" in said  # by the system
        assert aborted or (done.returncode in (0, 2) and "Traceback" not in said), said
        said_so += [said] if "memory has run out" in said else []
    assert said_so, "the limits were tight enough to meet one"
    small.said(*small.words(run))
    assert same.differences(run, whole) == []


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "disturbed"
    clock = {"FAULT_CLOCK": "2", "PYTHONPATH": f"{Path(__file__).parent}/crash:{small.ROOT}"}
    process = small.start(small.words(run), tmp_path / "said", clock)
    while not (run / "traces/manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    shown = json.loads(small.skillfactory("status", str(run), "--json"))
    assert all((stage["seconds"] or 0) >= 0 for stage in shown["stages"])
    while not (run / "sft/checkpoints").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    for path in run.rglob("*"):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    small.said(*small.words(run), more=clock)
    assert same.differences(run, whole) == []
    for path in run.glob("*/manifest.json"):
        assert 0 <= json.loads(path.read_text())["seconds"] < 600
    assert ASIDE not in {path.name for path in run.iterdir()}
