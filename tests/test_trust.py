"""Where training is not as in the paper, and what it warned of: in the report, on the terminal, as JSON."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import make_recipe
from reported import EVIL, check_page, make_report, make_run, printed, recipe_of
from typer.testing import CliRunner

from skillfactory import cli
from skillfactory.recipe import Recipe, changed
from skillfactory.recipes import load_recipe, shipped
from skillfactory.report import terminal, trust
from skillfactory.stage import Stage
from skillfactory.store import LoadedRun
from skillfactory.training import deviations
from skillfactory.training.deviations import STANDING, STATED

DOCS = Path(__file__).parent.parent / "docs"


def told(recipe: Recipe) -> list[str]:
    return [str(each) for each in deviations.deviations(recipe)]


def test_the_papers_settings_are_no_deviation() -> None:
    assert told(make_recipe()) == []
    for name in shipped():
        if "qwen" in name or "olmo" in name:
            assert told(load_recipe(name)) == ["rl.warmup: 0 (default: 0.05)"], name


def test_what_is_not_the_papers_is_named_beside_it() -> None:
    recipe = changed(
        make_recipe(),
        {"rl.loss_type": "dapo", "sft.learning_rate": 1e-5, "rl.temperature": 0.9, "rl.shaping.form": 0.1,
         "sft.lora.rank": 16, "sft.lora.targets": ["q_proj", "v_proj"], "rl.keep": "best", "rl.dev_every": 10,
         "rl.save_every": 7, "rl.patience": 3},
    )  # fmt: skip
    assert told(recipe) == [
        "sft.learning_rate: 1e-05 (the paper: 1e-06)",
        "sft.lora.rank: 16 (the paper: 0)",
        "sft.lora.targets: [q_proj, v_proj] (default: [])",
        "rl.keep: best (the paper: last)",
        "rl.temperature: 0.9 (default: 1)",
        "rl.loss_type: dapo (the paper: grpo)",
        "rl.shaping.form: 0.1 (the paper: 0)",
    ]
    assert told(changed(recipe, {"method": "rl_only"}))[0] == "rl.keep: best (the paper: last)", "there is no SFT"
    assert told(changed(recipe, {"method": "evaluate"})) == []


def test_settings_that_the_paper_states_are_there() -> None:
    recipe = changed(make_recipe(), {"method": "skillfactory"})
    there = {name for part in ("sft", "rl") for name, _ in deviations._values(part, getattr(recipe, part))}
    assert there >= STATED
    assert not {"rl.save_every", "rl.micro_batch", "sft.gradient_checkpointing"} & there, "speed alone"


def test_the_documents_name_every_warning() -> None:
    source = (DOCS.parent / "skillfactory" / "training" / "signs.py").read_text(encoding="utf-8")
    named = set(re.findall(r'Sign\(\s*"(\w+)"', source)) | {"ended_early"}
    section = (DOCS / "training.md").read_text(encoding="utf-8").partition("## Warnings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == named
    assert len(named) == 11


def test_the_documents_name_every_standing_deviation() -> None:
    page = " ".join((DOCS / "training.md").read_text(encoding="utf-8").split())
    for sentence in STANDING:
        assert sentence in page, sentence


# --- display


@pytest.fixture
def warned(tmp_path: Path) -> LoadedRun:
    recipe = recipe_of(rl={"loss_type": "dapo"}, sft={"epochs": 3})
    loaded = make_run(tmp_path / "run", recipe)
    Stage(loaded.path / "rl").note(warnings=[{"name": "entropy", "text": f"entropy has fallen {EVIL}"}])
    lines = [{"step": s, "accuracy": a, "se": 0.1, "questions": 2} for s, a in ((0, 0.0), (10, 0.5))]
    (loaded.path / "rl" / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step"')
    return loaded


def test_the_report_has_warnings_and_deviations(warned: LoadedRun) -> None:
    _, text = make_report(warned)
    page = check_page(text)
    (warnings,) = [table for table in page.tables if table[0] == ["stage", "warning"]]
    assert warnings[1][0] == "RL"
    assert warnings[1][1].startswith("entropy has fallen <script>alert")
    settings = [table for table in page.tables if table[0][:2] == ["setting", "here"]]
    assert [row[:4] for row in settings[0][1:]] == [
        ["sft.epochs", "3", "2", "–"],
        ["rl.loss_type", "dapo", "grpo", "–"],
    ]
    assert "Development questions in RL" in page.headings
    assert "Development questions in SFT" not in page.headings
    markdown = (warned.path / "report.md").read_text()
    assert "\\<script>" in markdown
    assert " <script" not in markdown


def test_runs_side_by_side_say_once_what_they_share(warned: LoadedRun, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", recipe_of("rl_only", rl={"loss_type": "dapo", "beta": 0.1}))
    table = trust.deviations_table([warned, other], ["one", "two"])
    assert [row[:3] for row in table.rows] == [
        ["one", "sft.epochs", "3"], ["(all)", "rl.loss_type", "dapo"], ["two", "rl.beta", "0.1"],
    ]  # fmt: skip
    assert [row[:2] for row in trust.warnings_table([warned, other], ["one", "two"]).rows] == [["one", "RL"]]


def test_show_prints_both_whether_or_not_it_was_evaluated(warned: LoadedRun, tmp_path: Path) -> None:
    early = make_run(tmp_path / "early", recipe_of(rl={"loss_type": "dapo"}), write=None)
    Stage(early.path / "rl").note(warnings=[{"name": "entropy", "text": "entropy has fallen"}])
    for run in (warned, early):
        shown = CliRunner().invoke(cli.app, ["show", str(run.path)]).output
        assert "entropy has fallen" in shown
        assert "rl.loss_type" in shown
        assert "\x1b]0;" not in shown
        facts = json.loads(CliRunner().invoke(cli.app, ["show", str(run.path), "--json"]).output)
        assert facts["warnings"]["rl"][0].startswith("entropy has fallen")
        assert "rl.loss_type: dapo (the paper: grpo)" in facts["not_as_in_the_paper"]
    assert "entropy has fallen" in printed(lambda console: terminal.print_run(warned, console))


def test_a_run_that_is_done_says_both(warned: LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run.tell_training(warned.path)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("rl: warning: entropy has fallen")
    assert "\x1b" not in first
    assert last == (
        "Training that is not as in the paper: sft.epochs: 3 (the paper: 2); rl.loss_type: dapo (the paper: grpo)"
    )


def test_before_any_training_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from skillfactory.store import Run, load_run

    with Run.open(tmp_path / "run", recipe_of(rl={"loss_type": "dapo"})):
        pass
    cli.run.tell_training(tmp_path / "run")
    assert capsys.readouterr().out == ""
    assert trust.facts_of(load_run(tmp_path / "run")) == {}


@pytest.mark.parametrize("kept", [None, "nonsense", [3], [{"name": "x"}], {"a": 1}])
def test_a_damaged_list_of_warnings_stops_no_report(kept: Any, tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(), write=None)
    Stage(loaded.path / "rl").note(warnings=kept)
    assert trust.warnings_of(loaded) == {}
