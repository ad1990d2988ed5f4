"""Speed on this machine beside what a user would run in its place, and beside the least time that the machine allows.

    make bench                                          # all cases, tiny base and SmolLM2-135M
    python benchmarks/run.py --quick                    # only shows that every case runs; its figures say nothing
    python benchmarks/run.py --model smollm2 --only grpo

Every case runs in a process of its own, so that none finds another's threads, memory settings or warm caches. Prints
tables, and writes benchmarks/results/NAME.json with what the machine is. What a floor is: floor.py.
"""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import bench_grading
import bench_sampling
import bench_sft
import bench_training
import floor
import typer
from rich.console import Console
from shown import SPEED, STEP, Case, Figures, demo_table, shares, split, table
from sizes import NAMES, folder_of, size_of

from skillfactory.errors import ModelError
from skillfactory.store import load_run
from skillfactory.versions import libraries

RESULTS = Path(__file__).parent / "results"
TRAINING_ROWS = 2048  # tokens of a micro-batch
NO_MODEL = "tasks"  # what has to do with no model


def cases(model: str, quick: bool) -> dict[str, Case]:
    """All cases of a model by name, in the order of the tables."""
    if model == NO_MODEL:
        return task_cases()
    size, found = size_of(model, quick), {}
    rows = size.sampling.prompts * size.sampling.copies
    measure = partial(floor.measure, folder_of(model), rows, TRAINING_ROWS)
    found["floor"] = Case("what the machine reads and multiplies", measure, ())
    found |= sampling_cases(model, quick)
    if model == "tiny":
        long = partial(bench_sampling.long_prompts, model, quick)
        found["sampling-long"] = Case("sampling after 256 prompts of 900 tokens: ours", long, ("seconds",))
    for updates in (1, 2):
        name, what = f"grpo-{updates}", f"GRPO step, {updates} update{'s' if updates > 1 else ''}"
        trl = partial(bench_training.grpo_trl, model, quick, updates)
        found[f"{name}-trl"] = Case(f"{what}: TRL's defaults", partial(trl, threads=0), (STEP,))
        found[f"{name}-trl-1"] = Case(f"{what}: TRL's defaults, 1 thread", partial(trl, threads=1), (STEP,))
        ours = partial(bench_training.grpo_ours, model, quick, updates)
        against = {"TRL": f"{name}-trl", "TRL with 1 thread": f"{name}-trl-1"}
        found[f"{name}-ours"] = Case(f"{what}: ours", ours, (STEP,), against)
    found["sft-trl"] = Case("SFT: TRL's defaults", partial(bench_sft.trl, model, quick), (SPEED,))
    found["sft-ours"] = Case("SFT: ours", partial(bench_sft.ours, model, quick), (SPEED,), {"TRL": "sft-trl"})
    lengths = tuple(f"ms at {length} tokens" for length in size.bare.lengths)
    for threads in (1, 2):
        for attention in ("sdpa", "eager", "grouped"):
            measure = partial(bench_training.step, model, quick, attention, threads)
            what = f"training step: {attention}, {threads} thread{'s' if threads > 1 else ''}"
            against = {} if attention == "sdpa" else {"sdpa": f"step-sdpa-{threads}"}
            found[f"step-{attention}-{threads}"] = Case(what, measure, lengths, against)
    return found


def sampling_cases(model: str, quick: bool) -> dict[str, Case]:
    """Our sampler, transformers' `generate` and `generate_batch`, and vLLM, on even and uneven lengths."""
    found = {}
    python = bench_sampling.VLLM
    no_vllm = "" if python.exists() else f"there is no {python} (`make test-interop` makes it)"
    for law, uneven in (("even", False), ("uneven", True)):
        name, what = f"sampling-{law}", f"sampling, {law} lengths"
        plain = partial(bench_sampling.generate, model, quick, uneven)
        found[f"{name}-generate"] = Case(f"{what}: generate", partial(plain, threads=0), (SPEED,))
        found[f"{name}-generate-1"] = Case(f"{what}: generate, 1 thread", partial(plain, threads=1), (SPEED,))
        batch = partial(bench_sampling.generate_batch, model, quick, uneven)
        found[f"{name}-generate_batch"] = Case(f"{what}: generate_batch", batch, (SPEED,))
        vllm = partial(bench_sampling.vllm, model, quick, uneven)
        found[f"{name}-vllm"] = Case(f"{what}: vLLM", vllm, (SPEED,), missing=no_vllm)
        others = {"generate": "generate", "generate_batch": "generate_batch", "vLLM": "vllm"}
        against = {label: f"{name}-{other}" for label, other in others.items()}
        ours = partial(bench_sampling.ours, model, quick, uneven)
        found[f"{name}-ours"] = Case(f"{what}: ours", ours, (SPEED,), against)
        if model == "tiny":  # larger models have all threads anyhow
            all_threads = partial(ours, threads=floor.cores())
            found[f"{name}-ours-all"] = Case(f"{what}: ours, all threads", all_threads, (SPEED,), against)
    return found


def task_cases() -> dict[str, Case]:
    """Grading and drawing of Countdown."""
    found = {}
    for scorer in [*(["reasoning-gym"] if find_spec("reasoning_gym") else []), "ast", "ours"]:
        grade = partial(bench_grading.grading, "", scorer=scorer)
        against = {"reasoning-gym": "tasks-grading-reasoning-gym"} if scorer != "reasoning-gym" else {}
        found[f"tasks-grading-{scorer}"] = Case(f"grading Countdown: {scorer}", grade, bench_grading.GRADING, against)
    for count in (3, 4, 5, 6):
        draw = partial(bench_grading.generation, "", count=count)
        what = f"drawing Countdown questions: {count} numbers"
        found[f"tasks-drawing-{count}"] = Case(what, draw, bench_grading.GENERATION)
    return found


def main(
    name: Annotated[str, typer.Option(help="Name of the result file.")] = "latest",
    model: Annotated[str, typer.Option(help="`tiny`, `smollm2`, `both`, or a model folder.")] = "both",
    only: Annotated[str, typer.Option(help="Only cases whose names begin so.")] = "",
    quick: Annotated[bool, typer.Option(help="The smallest sizes: shows that all runs, and measures nothing.")] = False,
    demo: Annotated[Path, typer.Option(help="Folder of finished demo runs to read times from.")] = Path("runs/demo"),
    one: Annotated[str, typer.Option(hidden=True, help="Measure this case here and print JSON.")] = "",
) -> None:
    """Measure sampling, GRPO and SFT, grading and drawing; read the demo's times where it has been run."""
    if one:
        figures = cases(model, quick)[one].run()
        figures.setdefault("peak_memory_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(json.dumps(figures))
        return
    out = Console(width=None if sys.stdout.isatty() else 140)
    result: Figures = {
        "name": name, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "quick": quick, "models": {},
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    for each in [*(NAMES if model == "both" else (model,)), NO_MODEL]:
        try:
            found = {key: case for key, case in cases(each, quick).items() if key.startswith(only) or key == "floor"}
        except ModelError as error:
            out.print(f"{each}: left out. {error}")
            continue
        if not set(found) - {"floor"} and only != "floor":
            continue
        measured = {key: _measure(key, case, each, quick, out) for key, case in found.items()}
        shares(measured)
        result["models"][each] = measured
        out.print(table(each, found, measured))
        if any("parts" in figures for figures in measured.values()):
            out.print(split(found, measured))
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")  # what there is, should it be stopped
    result["demo"] = demo_stages(demo)
    out.print(demo_table(result["demo"]))
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.print(f"Written: {file}")
    if any("failed" in figures for measured in result["models"].values() for figures in measured.values()):
        raise typer.Exit(1)


def _measure(key: str, case: Case, model: str, quick: bool, out: Console) -> Figures:
    """A case in a process of its own; a reason in place of figures where there are none."""
    if case.missing:
        out.print(f"{case.what}: left out, {case.missing}")
        return {"left_out": case.missing}
    out.print(f"{model}: {key} …", style="dim")
    limit = size_of(model, quick).seconds
    command = [sys.executable, __file__, "--one", key, "--model", model, *(["--quick"] if quick else [])]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # cases say themselves
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)
    try:
        said, complained = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"stopped_after_seconds": limit}
    finally:
        with suppress(ProcessLookupError):  # also what it has started: vLLM has processes of its own
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        out.print(f"{model}: {key} failed:\n{complained[-3000:]}", style="red", markup=False)
        return {"failed": True}
    return {"what": case.what, **json.loads(said.splitlines()[-1])}


def demo_stages(folder: Path) -> list[Figures]:
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


def machine() -> Figures:
    """What was measured on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu, "cores": floor.cores(), "memory_gib": round(memory, 1), "system": platform.platform(),
        "bf16_instructions": torch.cpu._is_avx512_bf16_supported(), "libraries": libraries(),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
