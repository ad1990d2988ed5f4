"""Methods x seeds over one recipe, two runs at a time, and the tables of their means: `docs/reproduction.md`.

    python benchmarks/seeds.py recipes/demo.yaml --seeds 0,1,2 --out runs/seeds [section.key=value …]
    python benchmarks/seeds.py recipes/demo.yaml --seeds 0,1,2 --out runs/seeds --table-only

Each cell is a run of `skillfactory run`, resumable like any; a cell that is finished is not run again.
"""

import json
import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import typer


def main(
    recipe: str,
    overrides: list[str] = typer.Argument(None),
    seeds: str = "0,1,2",
    methods: str = "skillfactory,rl_only",
    out: Path = Path("runs/seeds"),
    jobs: int = 2,
    table_only: bool = False,
    results: Path = typer.Option(None, help="Also write the figures as JSON here."),
) -> None:
    """Run the cells that are missing, then print mean accuracy over seeds with its standard error over seeds."""
    cells = [(method, int(seed)) for seed in seeds.split(",") for method in methods.split(",")]
    if not table_only:
        out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            codes = list(pool.map(lambda cell: _run(recipe, overrides or [], out, *cell), cells))
        if any(codes):
            failed = [_name(*cell) for cell, code in zip(cells, codes, strict=True) if code]
            print(f"Failed: {', '.join(failed)}; their logs are in {out}.", file=sys.stderr)
    metrics = {cell: _metrics(out / _name(*cell)) for cell in cells}
    table = _table({cell: found for cell, found in metrics.items() if found})
    print(table)
    print(f"\n{_skills({cell: found for cell, found in metrics.items() if found})}")
    if results:
        kept = {
            _name(*cell): {k: found[k] for k in ("accuracy", "skill_use", "cost", "training") if k in found}
            for cell, found in metrics.items()
            if found
        }
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps({"command": " ".join(sys.argv), "runs": kept}, indent=1) + "\n")


def _name(method: str, seed: int) -> str:
    return f"{method}-{seed}"


def _run(recipe: str, overrides: list[str], out: Path, method: str, seed: int) -> int:
    run = out / _name(method, seed)
    command = [sys.executable, "-m", "skillfactory", "run", recipe, f"method={method}", f"seed={seed}", *overrides]
    with (out / f"{run.name}.log").open("a") as log:
        return subprocess.run([*command, "--run", str(run)], stdout=log, stderr=subprocess.STDOUT).returncode


def _metrics(run: Path) -> dict[str, Any]:
    file = run / "metrics.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _table(metrics: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Markdown: a row a method and model, a column a set; percent, mean over seeds ± standard error over seeds."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    sets: list[str] = []
    for (method, _), found in metrics.items():
        for model, by_set in found["accuracy"].items():
            for name, modes in by_set.items():
                if name not in sets:
                    sets.append(name)
                for mode, cell in modes.items():
                    if cell["mean"] is not None:
                        values.setdefault((method, model, mode), {}).setdefault(name, []).append(100 * cell["mean"])
    lines = [f"| method | model | mode | {' | '.join(sets)} |", "|---|---|---|" + "---:|" * len(sets)]
    for (method, model, mode), by_name in sorted(values.items()):
        cells = [_cell(by_name.get(name, [])) for name in sets]
        lines.append(f"| {method} | {model} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


SKILLS = ("answers", "distinct_answers", "reflections", "f1_correct", "f1_incorrect", "lost", "malformed")


def _skills(metrics: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Markdown: use of skills in sampled responses, mean over seeds; a row a method, model and set."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for (method, _), found in metrics.items():
        for model, by_set in found["skill_use"].items():
            for name, use in by_set.items():
                for skill in SKILLS:
                    if use.get(skill) is not None:
                        values.setdefault((method, model, name), {}).setdefault(skill, []).append(use[skill])
    lines = [f"| method | model | set | {' | '.join(SKILLS)} |", "|---|---|---|" + "---:|" * len(SKILLS)]
    for (method, model, name), by_skill in sorted(values.items()):
        means = [f"{statistics.mean(by_skill[skill]):.2f}" if by_skill.get(skill) else "" for skill in SKILLS]
        lines.append(f"| {method} | {model} | {name} | {' | '.join(means)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{error}"


if __name__ == "__main__":
    typer.run(main)
