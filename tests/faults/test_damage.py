"""Damage to a finished run is found and mended by the doctor, and made good by the next run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import same
import small
from damaging import cut, empty, flip, lose, twice

from skillfactory.checkup import repair
from skillfactory.checkup.damage import ASIDE
from skillfactory.stage import Stage

Copied = Callable[..., Path]
SHARD, MANIFEST, MODEL = "part-00000.parquet", "manifest.json", "model/model.safetensors"
DAMAGES = [
    *[(f"{stage}/{SHARD}", how) for stage in same.ROWS for how in (flip, cut, lose)],
    *[(f"{stage}/{SHARD}", how) for stage in ("attempts", "evaluation") for how in (empty, twice)],
    *[(f"{stage}/{MANIFEST}", how) for stage in (*same.ROWS, "sft", "rl") for how in (cut, lose)],
    ("attempts/" + MANIFEST, empty),
    *[(f"{stage}/{MODEL}", how) for stage in ("sft", "rl") for how in (flip, cut, lose)],
    ("sft/model/config.json", cut), ("sft/metrics.jsonl", cut), ("questions/sets.json", cut), ("metrics.json", cut),
    ("report.html", lose), ("log.jsonl", cut), ("recipe.yaml", cut), ("recipe.yaml", lose),
]  # fmt: skip
SAMPLED = {"attempts", "reflections", "traces"}
OPENED = {
    "attempts": SAMPLED, "reflections": SAMPLED, "evaluation": {"evaluation", "report"}, "metrics.json": {"report"},
    "report.html": {"report"},
}  # fmt: skip
# Damages that one run is to make good together.
TOGETHER = {
    "flipped bits": [(f"{stage}/{SHARD}", flip) for stage in same.ROWS],
    "shards cut short": [(f"{stage}/{SHARD}", cut) for stage in same.ROWS],
    "shards lost": [*((f"{stage}/{SHARD}", lose) for stage in same.ROWS), ("questions/sets.json", lose)],
    "doubled shards": [(f"{stage}/{SHARD}", twice) for stage in same.ROWS] + [("log.jsonl", cut)],
    "manifests cut short": [(f"{stage}/{MANIFEST}", cut) for stage in (*same.ROWS, "sft", "rl", "report")],
    "manifests lost": [(f"{stage}/{MANIFEST}", lose) for stage in ("questions", "attempts", "sft", "evaluation")],
    "models cut short": [("sft/" + MODEL, cut), ("rl/steps/2/model.safetensors", cut), ("report.html", empty)],
    "attempts lost, reflections doubled": [("attempts/" + SHARD, lose), ("reflections/" + SHARD, twice)],
    "no recipe": [("recipe.yaml", lose), ("evaluation/" + SHARD, cut)],
    "half a recipe": [("recipe.yaml", cut), ("reflections/" + SHARD, lose), ("metrics.json", cut)],
}


def unfinished(run: Path) -> set[str]:
    """The stages that the next run would go on with."""
    return {stage for stage in (*same.ROWS, "sft", "rl", "report") if not Stage(run / stage).is_finished()}


QUICK = {("attempts/" + SHARD, flip), ("questions/" + SHARD, cut), ("evaluation/" + SHARD, twice),
         ("reflections/" + MANIFEST, cut), ("sft/" + MANIFEST, lose), ("rl/" + MODEL, cut), ("recipe.yaml", cut),
         ("log.jsonl", cut)}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "how"),
    [pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow) for each in DAMAGES],
    ids=lambda each: each.replace("/", "-") if isinstance(each, str) else each.__name__,
)
def test_damage_is_found_and_mended_and_opens_no_stage_without_need(
    file: str, how: Callable[[Path], None], copied: Copied
) -> None:
    run = copied()
    assert repair.examine(run) == []
    whole_shards = {path: path.read_bytes() for path in run.rglob("part-*.parquet")}
    how(run / file)
    found = repair.examine(run)
    assert found, "damage is seen"
    assert all(finding.problem and finding.mend for finding in found)
    mended = repair.repair(run)
    assert bool(mended) != found[0].by_hand
    assert all(finding.by_hand for finding in repair.examine(run))
    first = file.partition("/")[0]
    nothing = how is twice or file.endswith(".jsonl") or first == "recipe.yaml"
    assert unfinished(run) == (set() if nothing else OPENED.get(first, {first}))
    for path, content in whole_shards.items():
        if path.parent.name != first and (first, path.parent.name) != ("attempts", "reflections"):
            assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "flipped bits" else pytest.mark.slow) for name in TOGETHER]
)
def test_the_next_run_makes_good_what_was_mended(name: str, copied: Copied, whole: Path) -> None:
    run = copied()
    for file, how in TOGETHER[name]:
        how(run / file)
    before = small.skillfactory("doctor", str(run), code=2)
    small.skillfactory("doctor", str(run), "--repair", code=2 if "recipe" in name else 0)
    small.said(*small.words(run))
    assert repair.examine(run) == [], before
    assert [each for each in same.differences(run, whole) if not each.startswith(ASIDE)] == []


@pytest.mark.parametrize("file", ["attempts/part-00000.parquet", "sft/manifest.json", "questions/sets.json"])
def test_without_the_doctor_damage_is_told_with_the_way_out(file: str, copied: Copied) -> None:
    run = copied("evaluation", "report", "report.html", "report.md", "metrics.json", "tables")
    cut(run / file)
    opened = "traces/manifest.json" if file.startswith("attempts") else "rl/manifest.json"
    data = json.loads((run / opened).read_text())
    (run / opened).write_text(json.dumps(data | {"finished": False}))  # so that the file is read
    said = small.said(*small.words(run), code=2)
    assert f"{run / file} is damaged" in said
    assert "skillfactory doctor" in said
