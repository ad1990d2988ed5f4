"""What a run was made with and cost: time, tokens and memory, versions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skillfactory.report.tables import MISSING, Table, figure, items, number, run_label

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

_STAGES = ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation")


def cost_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Time, tokens sampled and peak memory of each stage."""
    several = len(runs) > 1
    rows = [
        [
            *([run_label(run)] if several else []), stage,
            *(figure(number(facts, key), 0) for key in ("seconds", "tokens", "peak_memory_mb")),
        ]
        for run in runs
        for stage, facts in items(run, "cost")
    ]  # fmt: skip
    columns = [*(["run"] if several else []), "stage", "seconds", "tokens", "peak memory MB"]
    note = "Seconds on the clock, over all resumptions. Tokens: sampled ones."
    return Table("Cost", columns, rows, note, labels=1 + several)


def versions_table(runs: Sequence["LoadedRun"], labels: Sequence[str]) -> Table:
    """Code and library versions as the last finished stage of each run noted them."""
    found = [_versions(run) for run in runs]
    names = list(dict.fromkeys(name for each in found for name in each))
    rows = [[name, *(each.get(name, MISSING) for each in found)] for name in names]
    columns = ["package", *(labels if len(runs) > 1 else ["version"])]
    return Table("Versions", columns, rows, labels=len(columns), folded=True)


def _versions(run: "LoadedRun") -> dict[str, str]:
    rows: dict[str, str] = {}
    for stage in _STAGES:
        manifest = run.manifest(stage)
        if manifest.get("code"):
            libraries = manifest.get("libraries")
            rows["skillfactory"] = str(manifest["code"])
            rows |= {str(k): str(v) for k, v in libraries.items()} if isinstance(libraries, dict) else {}
    return rows
