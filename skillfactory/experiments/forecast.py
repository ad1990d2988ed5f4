"""What running an experiment would do, cell by cell: `skillfactory experiment --dry-run`."""

from pathlib import Path
from typing import Any

from skillfactory import methods
from skillfactory.experiments import cells, sharing
from skillfactory.experiments.grid import Experiment
from skillfactory.report.tables import Table
from skillfactory.rounds import stage_of


def forecast(experiment: Experiment, out: Path) -> list[dict[str, Any]]:
    """Each cell's stages by what becomes of them: finished, made, or lent, and by which cell; and what it waits for.

    As if the cells ran one by one.
    """
    makers: dict[tuple[str, str], str] = {}  # the cell that has, or will have, a stage of this digest
    found = []
    for cell in experiment.cells:
        run, recipe = cells.folder(out, cell), cell.recipe
        if cell.match:
            source = experiment.cell(cell.match.row, cell.seed)
            recipe = cells.matched(recipe, cell.match, cells.folder(out, source), source.recipe) or recipe
        wanted, there = cells.identities(recipe), sharing.manifests(run)
        known = recipe is not cell.recipe or not cell.match  # else what comes of RL on depends on a match to come
        lacking = set(sharing.lacks(methods.stages(recipe), run))
        facts: dict[str, Any] = {"cell": cell.name, "method": recipe.method, "finished": [], "lent": {}, "made": []}
        for stage in methods.stages(recipe):
            key = (stage_of(stage), wanted[stage].digest)
            if there.get(stage, {}).get("finished") and there[stage].get("digest") == wanted[stage].digest:
                facts["finished"].append(stage)
            elif stage in lacking and key in makers and (known or stage == "questions"):
                facts["lent"][stage] = makers[key]
            else:
                facts["made"].append(stage)
            makers.setdefault(key, cell.name)
        if cell.match:
            facts["matches"] = {"cell": f"{cell.match.row}-{cell.seed}", "stages": list(cell.match.stages)}
        found.append(facts)
    return found


def table(title: str, facts: list[dict[str, Any]]) -> Table:
    """A row a cell."""
    rows = []
    for each in facts:
        by: dict[str, list[str]] = {}
        for stage, cell in each["lent"].items():
            by.setdefault(cell, []).append(stage)
        lent = "; ".join(f"{', '.join(stages)} from {cell}" for cell, stages in by.items())
        match = f"{', '.join(each['matches']['stages'])} of {each['matches']['cell']}" if "matches" in each else ""
        rows.append([each["cell"], each["method"], ", ".join(each["finished"]), lent, ", ".join(each["made"]), match])
    columns = ["cell", "method", "finished", "lent", "to be made", "RL also gets the cost of"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table(title, columns, rows, labels=len(columns))
