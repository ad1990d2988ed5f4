"""docs/scaling.md has the tables that benchmarks/scale.py computes, and its assumptions are the recipes'."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from skillfactory.recipe import Assumptions

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scaling.md").read_text()


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, on a machine that has none of the models."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    import scale

    return scale


def test_the_page_has_the_tables_as_they_are_computed(scale: ModuleType) -> None:
    made = scale.tables()
    assert set(made) == set(re.findall(r"<!-- table: (\w+) -->", PAGE))
    for name, lines in made.items():
        assert "\n".join(lines) in PAGE, f"{name}: run `python benchmarks/scale.py --write`"
    assert scale.written(PAGE, made) == PAGE
    changed = scale.written(PAGE, {**made, "links": ["| a |", "|---|"]})
    assert changed.replace("| a |\n|---|", "\n".join(made["links"])) == PAGE


def test_the_page_names_the_assumptions(scale: ModuleType) -> None:
    """The defaults, which the paper's recipes repeat."""
    assumed = Assumptions()
    for name in ("filled", "tflops", "sampling_use", "training_use", "layer_ms", "dollars_per_gpu_hour"):
        assert f"| `{name}` | {getattr(assumed, name):g} |" in PAGE
    assert f"| `right`, `true_verdicts` | {assumed.right:g}, {assumed.true_verdicts:g} |" in PAGE
    assert f"leaves prices out; {scale.DOLLARS:g} below" in PAGE
    for name in scale.PAPER:
        assert scale.load_recipe(name).estimate == assumed


def test_costs_grow_as_they_must(scale: ModuleType, tmp_path: Path) -> None:
    """Ten times the questions, ten times the curation and SFT; RL and evaluation stay; hours go by parameters."""
    cells = {row.split(" | ")[0]: row.split(" | ")[1:] for row in scale.tables()["cost"][2:]}
    figures = {name: [float(cell.replace(",", "")) for cell in row[1:5]] for name, row in cells.items()}
    one, ten = figures["| 7B, 1 M"], figures["| 7B, 10 M"]
    assert ten[0] == pytest.approx(10 * one[0], rel=1e-3)
    assert ten[1] == pytest.approx(10 * one[1], rel=1e-3)
    assert ten[2:] == one[2:]
    large = figures["| 70B, 1 M"]
    assert large[0] / one[0] == pytest.approx(70.55 / 7.615, rel=0.01)


def test_it_needs_no_torch() -> None:
    words = "import sys; sys.path.insert(0, 'benchmarks'); import scale; scale.tables(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
