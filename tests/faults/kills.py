"""Kills the small run at random moments, goes on with it, and compares it with one that nobody disturbed.

    python tests/faults/kills.py --kills 200 --out benchmarks/results/faults.json

A chain is one run directory: the run is killed in it again and again, until it is done. A kill comes while the process
starts, between two stages, or in a stage: then after a random part of the time that the stage took undisturbed, counted
from where it was begun or taken up. With `--operations` it comes before a file operation, counted from the start of the
process, which finds the moments between two of them that a clock misses.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import same
import small

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
START, BETWEEN = "start-up", "between stages"
AT_ONCE = 0.05  # seconds after a stage's end that still count as between two
LATE = 999  # the exit code of a process that had to be killed
WAIT = 120.0  # seconds that a process has to end in once it is told to
KEPT = ("questions", "attempts", "reflections", "evaluation")  # stages whose shards are never written again


@dataclass(frozen=True)
class Kill:
    """One kill: in which stage it was to come, what was sent, how the process ended and what was wrong with that."""

    place: str
    signal: str
    fraction: float
    code: int
    wrong: list[str]


@dataclass
class Chain:
    """A run that was killed until it was done."""

    number: int
    kills: list[Kill] = field(default_factory=list)
    missed: int = 0  # kills that came too late: the process had ended
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        ends = [f"{kill.signal} in {kill.place}: {each}" for kill in self.kills for each in kill.wrong]
        return ends + self.differences


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its directory, how long it started, and the seconds and file operations of its stages."""

    run: Path
    start: float
    seconds: dict[str, float]
    operations: int


def events(run: Path) -> list[dict[str, str]]:
    """The whole lines of a run's log."""
    log = run / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def reference(folder: Path) -> Reference:
    """Make the undisturbed run."""
    run, counted = folder / "undisturbed", folder / "operations"
    shutil.rmtree(run, ignore_errors=True)
    faults = {"FAULT_RUN": str(run), "FAULT_COUNT": str(counted), **_patched()}
    began, at = time.monotonic(), dict[tuple[str, str], float]()
    process = small.start(small.words(run), folder / "reference.out", faults)
    while process.poll() is None:
        for event in events(run):
            at.setdefault((event["stage"], event["event"]), time.monotonic() - began)
        time.sleep(0.02)
    assert process.returncode == 0, (folder / "reference.out").read_text()
    seconds = {s: at.get((s, "finished"), time.monotonic() - began) - at[s, "begin"] for s in small.STAGES}
    return Reference(run, at["questions", "begin"], seconds, int(counted.read_text()))


def _patched() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "crash"), str(small.ROOT)])}


def shards(run: Path) -> dict[str, str]:
    """The shards that a kill must leave as they are, by name."""
    paths = (path for stage in KEPT for path in run.glob(f"{stage}/part-*.parquet"))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def leftover_processes(group: int, patience: float = 5.0) -> bool:
    """Whether a process of the group still lives, a few seconds after its first one has ended."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return True


def kill(
    run: Path, output: Path, sent: signal.Signals, ready: Callable[[], bool], faults: dict[str, str]
) -> tuple[int, bool]:
    """Start the run, and send the signal once `ready`: the process' exit code, and whether another of its lives on."""
    process = small.start(small.words(run), output, faults)
    while process.poll() is None and not ready():
        time.sleep(0.004)
    if process.poll() is None:
        if sent == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, sent)  # as a terminal sends Ctrl-C
    try:
        code = process.wait(WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = LATE
    return code, leftover_processes(process.pid)


def judged(code: int, sent: signal.Signals, output: str, lost: set[str], group_lives: bool) -> list[str]:
    """What is wrong with how a process ended."""
    wrong = [f"{len(lost)} shards are gone or changed: {', '.join(sorted(lost)[:3])}"] if lost else []
    ends = {small.ENDED[sent], -sent}  # the latter before Python heeds signals
    if code not in ends:
        wrong.append(f"ended with {code}" if code != LATE else f"did not end within {WAIT:.0f} s")
    if "Traceback" in output and code != -sent:
        print(output, file=sys.stderr)  # not kept: it has the paths of this machine
        wrong.append(f"a traceback that ends in: {output.strip().splitlines()[-1]}")
    if group_lives:
        wrong.append("a process of its lives on")
    return wrong


class Trigger:
    """Says when a kill is due: some time after a process has begun, or taken up, a stage."""

    def __init__(self, run: Path, known: Reference, place: str, fraction: float) -> None:
        self.run, self.known, self.place, self.fraction = run, known, place, fraction
        self.before, self.start = len(events(run)), time.monotonic()
        self.due = self.start + fraction * known.start if place == START else 0.0
        self.met = place  # the stage in which the kill really comes

    def __call__(self) -> bool:
        if not self.due:
            for event in events(self.run)[self.before :]:
                self._look(event["stage"], event["event"])
        return bool(self.due) and time.monotonic() >= self.due

    def _look(self, stage: str, event: str) -> None:
        if self.due or stage not in small.STAGES:
            return
        if self.place.startswith(BETWEEN):
            if event == "finished":
                self.due = time.monotonic() + self.fraction * AT_ONCE
        elif event == "begin" and small.STAGES.index(stage) >= small.STAGES.index(self.place):
            self.met, self.due = stage, time.monotonic() + self.fraction * self.known.seconds[stage]


def places(dice: random.Random, kills: int) -> Iterator[tuple[str, float]]:
    """Where the kills of a chain are to come: in the order of the stages, some at a start and between two."""
    drawn = sorted(dice.randrange(len(small.STAGES)) for _ in range(kills))
    for number in drawn:
        chance = dice.random()
        place = START if chance < 0.12 else BETWEEN if chance < 0.24 else small.STAGES[number]
        yield place, dice.random()


def killed(number: int, place: str, fraction: float, sent: signal.Signals, known: Reference, folder: Path,
           kills: int, operations: bool) -> Kill | None:  # fmt: skip
    """Start the run of a chain and kill it; None where it had ended before."""
    run, output = folder / f"chain{number}", folder / f"chain{number}.out"
    before, said = shards(run), output.stat().st_size if output.exists() else 0
    trigger = Trigger(run, known, place, fraction)
    if operations:
        at = 1 + int(fraction * 2 * known.operations / kills)
        faults = {"FAULT_RUN": str(run), "FAULT_AT": str(at), **_patched()}
        code, lives = kill(run, output, sent, lambda: False, faults)
    else:
        code, lives = kill(run, output, sent, trigger, {})
    if code == 0:
        return None
    text = output.read_bytes()[said:].decode(errors="replace")
    after, where = shards(run), trigger.met
    if operations:
        begun = [event["stage"] for event in events(run) if event["event"] == "begin"]
        where = begun[-1] if begun else START
    lost = {name for name, digest in before.items() if after.get(name) != digest}
    return Kill(where, sent.name, round(fraction, 3), code, judged(code, sent, text, lost, lives))


def chain(number: int, kills: int, known: Reference, folder: Path, seed: int, operations: bool) -> Chain:
    """Kill a run again and again, let it end, and compare it."""
    dice, made = random.Random(f"{seed}/{number}/{operations}"), Chain(number)
    run, output = folder / f"chain{number}", folder / f"chain{number}.out"
    shutil.rmtree(run, ignore_errors=True)
    output.unlink(missing_ok=True)
    began = time.monotonic()
    for place, fraction in places(dice, kills):
        sent = signal.SIGKILL if operations else dice.choice(SIGNALS)
        if found := killed(number, place, fraction, sent, known, folder, kills, operations):
            made.kills.append(found)
        else:
            made.missed += 1
    said = output.stat().st_size if output.exists() else 0
    if code := small.start(small.words(run), output).wait():
        made.differences.append(f"the last start ended with {code}: …{output.read_bytes()[said:].decode()[-1500:]}")
    else:
        made.differences += same.differences(run, known.run)
    made.seconds = round(time.monotonic() - began, 1)
    if not made.wrong:
        shutil.rmtree(run)
    return made


def facts(chains: list[Chain], known: Reference, command: str, seed: int) -> dict[str, object]:
    """What is written as JSON."""
    each = [kill for made in chains for kill in made.kills]
    by_place = Counter((kill.place, kill.signal) for kill in each)
    wrong = Counter((kill.place, kill.signal) for kill in each if kill.wrong)
    names = [START, *small.STAGES, BETWEEN]
    return {
        "command": command,
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {version('torch')}",
        "seed": seed,
        "undisturbed_seconds": {"start-up": round(known.start, 1)} | {s: round(t, 1) for s, t in known.seconds.items()},
        "file_operations": known.operations,
        "kills": len(each),
        "chains": len(chains),
        "too_late": sum(made.missed for made in chains),
        "runs_that_differ": sum(bool(made.differences) for made in chains),
        "kills_with_something_wrong": sum(wrong.values()),
        "by_place": {
            place: {
                sent.name: {"kills": by_place[place, sent.name], "wrong": wrong[place, sent.name]}
                for sent in SIGNALS
                if by_place[place, sent.name]
            }
            for place in names
        },
        "wrong": {f"chain {made.number}": made.wrong for made in chains if made.wrong},
        "all": [asdict(made) for made in chains],
    }


def attack(
    kills: int, per_chain: int, seed: int, folder: Path, known: Reference, operations: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Chain]:  # fmt: skip
    """Chains until there were so many kills."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has those in the background ignore it
    chains, done = list[Chain](), 0
    while done < kills:
        made = chain(len(chains), min(per_chain, kills - done), known, folder, seed, operations)
        chains.append(made)
        done += len(made.kills)
        tell(
            f"chain {made.number}: {len(made.kills)} kills, {made.missed} too late, {made.seconds} s, "
            f"{done} of {kills}; {made.wrong or 'the same'}"
        )
    return chains


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--per-chain", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operations", action="store_true", help="kill before a file operation")
    parser.add_argument("--folder", type=Path, help="where the runs go; those that differ stay")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    known = reference(folder)
    chains = attack(
        chosen.kills, chosen.per_chain, chosen.seed, folder, known, chosen.operations,
        lambda line: print(line, flush=True),
    )  # fmt: skip
    command = f"python tests/faults/kills.py {' '.join(sys.argv[1:])}"
    found = facts(chains, known, command, chosen.seed)
    print(json.dumps({key: value for key, value in found.items() if key != "all"}, indent=2))
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
