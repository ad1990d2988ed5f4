"""Speed on this machine: `make bench`, or `python benchmarks/run.py --help`. A few minutes on two cores.

Every case runs in a process of its own, so that none finds another's threads, memory settings or warm caches. Prints
one table, and writes benchmarks/results/NAME.json with what the machine is.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import bench_grading
import bench_sampling
import bench_training
import typer
from rich.console import Console
from rich.table import Table

from skillfactory.store import load_run
from skillfactory.versions import libraries

LIMIT = 120  # seconds that a case may take; threads on a busy machine can slow one down a hundredfold
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """Something to measure; `against` is the case that it is compared with."""

    what: str
    run: Callable[[str], dict[str, float]]
    figures: tuple[str, ...]
    against: str = ""


def cases() -> dict[str, Case]:
    """All cases by name, in the order of the table."""
    found: dict[str, Case] = {}
    speed = ("tokens a second",)
    for uneven, law in ((False, "even"), (True, "uneven")):
        plain = f"generate-{law}"
        what = f"sampling, {law} lengths"
        found[plain] = Case(f"{what}: generate", partial(bench_sampling.generate, uneven=uneven, threads=0), speed)
        found[f"{plain}-1"] = Case(
            f"{what}: generate, 1 thread", partial(bench_sampling.generate, uneven=uneven, threads=1), speed, plain
        )
        found[f"sampler-{law}"] = Case(f"{what}: ours", partial(bench_sampling.ours, uneven=uneven), speed, plain)
    found["sampler-long"] = Case("sampling after 256 prompts of 900 tokens", bench_sampling.long_prompts, ("seconds",))
    trl = bench_training.grpo_trl
    found["grpo-trl"] = Case("GRPO step: TRL's defaults", partial(trl, threads=0), ("seconds a step",))
    found["grpo-trl-1"] = Case(
        "GRPO step: TRL's defaults, 1 thread", partial(trl, threads=1), ("seconds a step",), "grpo-trl"
    )
    found["grpo-ours"] = Case("GRPO step: ours", bench_training.grpo_ours, ("seconds a step",), "grpo-trl")
    lengths = tuple(f"ms at {length} tokens" for length in bench_training.LENGTHS)
    for threads in (1, 2):
        for attention in ("sdpa", "eager", "grouped"):
            measure = partial(bench_training.step, attention=attention, threads=threads)
            what = f"training step: {attention}, {threads} thread{'s' if threads > 1 else ''}"
            found[f"step-{attention}-{threads}"] = Case(what, measure, lengths, "step-sdpa-1")
    for scorer in [*(["reasoning-gym"] if find_spec("reasoning_gym") else []), "ast", "ours"]:
        measure = partial(bench_grading.grading, scorer=scorer)
        what = f"grading Countdown: {scorer}"
        found[f"tasks-grading-{scorer}"] = Case(what, measure, bench_grading.GRADING, "tasks-grading-reasoning-gym")
    for count in (3, 4, 5, 6):
        measure = partial(bench_grading.generation, count=count)
        what = f"drawing Countdown questions: {count} numbers"
        found[f"tasks-drawing-{count}"] = Case(what, measure, bench_grading.GENERATION)
    return found


def main(
    name: Annotated[str, typer.Option(help="Name of the result file.")] = "",
    model: Annotated[str, typer.Option(help="`tiny`, or a model folder.")] = "tiny",
    only: Annotated[str, typer.Option(help="Only cases whose names begin so.")] = "",
    demo: Annotated[Path, typer.Option(help="Folder of finished demo runs to read times from.")] = Path("runs/demo"),
    one: Annotated[str, typer.Option(hidden=True, help="Measure this case here and print JSON.")] = "",
) -> None:
    """Measure sampling, GRPO and training steps, grading and drawing; read the demo's times where it has been run."""
    if one:
        figures = cases()[one].run(model)
        figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(figures))
        return
    out = Console(width=None if sys.stdout.isatty() else 120)
    measured = {}
    for key in cases():
        if key.startswith(only):
            out.print(f"{key} …", style="dim")
            measured[key] = _measure(key, model)
    stages = demo_stages(demo)
    out.print(table(measured, stages))
    result = {
        "name": name or "latest", "date": time.strftime("%Y-%m-%d"), "machine": machine(), "model": model,
        "cases": {key: {"what": cases()[key].what, **figures} for key, figures in measured.items()}, "demo": stages,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name or 'latest'}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    out.print(f"Written: {file}")


def _measure(key: str, model: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", key, "--model", model]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # cases say themselves
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"stopped_after_seconds": LIMIT}
    if done.returncode:
        sys.exit(f"{key} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def demo_stages(folder: Path) -> list[dict[str, Any]]:
    """Wall time and peak memory of every finished stage of the runs in `folder`, from their manifests."""
    found = []
    for path in sorted(folder.glob("*/recipe.yaml")):
        run = load_run(path.parent)
        for manifest in sorted(path.parent.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime):
            facts = run.manifest(manifest.parent.name)
            if facts.get("finished"):
                stage = {"run": path.parent.name, "stage": manifest.parent.name}
                found.append({**stage, "seconds": facts["seconds"], "peak_memory_mb": facts.get("peak_memory_mb")})
    return found


def table(measured: dict[str, dict[str, Any]], stages: list[dict[str, Any]]) -> Table:
    """One line a figure, with how many times faster it is than what it is compared with."""
    shown = Table("what", "figure", "", "times as fast", "peak memory", box=None, pad_edge=False)
    for column in (1, 3, 4):
        shown.columns[column].justify = "right"
    for key, figures in measured.items():
        case = cases()[key]
        if "stopped_after_seconds" in figures:
            shown.add_row(case.what, f"> {LIMIT}", "seconds in all: stopped", "", "")
            continue
        for figure in case.figures:
            other = measured.get(case.against, {}).get(figure)
            faster = ""
            if other:
                faster = f"{figures[figure] / other if figure in HIGHER else other / figures[figure]:.2f}"
            shown.add_row(case.what, _short(figures[figure]), figure, faster, f"{figures['peak_memory_mb']:,.0f} MB")
    for each in stages:
        memory = f"{each['peak_memory_mb']:,.0f} MB" if each["peak_memory_mb"] else ""
        shown.add_row(f"demo, {each['run']}: {each['stage']}", _short(each["seconds"]), "seconds", "", memory)
    return shown


HIGHER = ("tokens a second", *bench_grading.GRADING)  # figures of which more is better


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What was measured on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu, "cores": cores, "memory_gib": round(memory, 1), "system": platform.platform(),
        "bf16_instructions": torch.cpu._is_avx512_bf16_supported(), "libraries": libraries(),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
