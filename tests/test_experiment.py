"""What an experiment's file says, what is wrong with one, and what one cell lends another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import RECIPE_YAML, make_recipe
from typer.testing import CliRunner

from skillfactory import load_run, pipeline
from skillfactory.cli import app
from skillfactory.errors import SkillFactoryError, StoreError
from skillfactory.experiments import cells, sharing
from skillfactory.experiments.forecast import forecast
from skillfactory.experiments.grid import Match, load_experiment
from skillfactory.recipe import Recipe
from skillfactory.records import Question
from skillfactory.store import Run

GRID = """\
name: grid
recipe: r.yaml
seeds: [0, 3]
settings:
  rl.steps: 8
  sft: {epochs: 3}
methods:
  rl_only:
  skillfactory: {}
  low_rate: {method: skillfactory, sft.learning_rate: 2e-4, rl.steps: 9}
  matched: {method: rl_only, match: {row: skillfactory, stages: [attempts, sft]}}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write an experiment beside a recipe; gives its file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE_YAML)

    def put(text: str) -> str:
        (tmp_path / "grid.yaml").write_text(text)
        return "grid.yaml"

    return put


def test_cells_are_rows_by_seeds_with_settings_of_all_places(write: Callable[[str], str]) -> None:
    grid = load_experiment(write(GRID), ["rl.group_size=2", "sft.weight_decay=1e-5"])
    assert [cell.name for cell in grid.cells] == [
        f"{row}-{seed}" for seed in (0, 3) for row in ("rl_only", "skillfactory", "low_rate", "matched")
    ]
    assert grid.reference == "rl_only"
    low = grid.cell("low_rate", 3).recipe
    assert (low.name, low.seed, low.method) == ("low_rate-3", 3, "skillfactory")
    assert (low.rl.steps, low.rl.group_size) == (9, 2)  # the row's own before all rows'
    assert (low.sft.learning_rate, low.sft.epochs, low.sft.batch_size) == (
        2e-4,
        3,
        Recipe.model_fields["sft"].default.batch_size,
    )
    assert grid.cell("matched", 0).match == Match("skillfactory", ("attempts", "sft"))
    assert grid.cell("rl_only", 0).recipe.rl.steps == 8
    over = load_experiment("grid.yaml", ["rl.steps=1"], seeds=[5])
    assert {(cell.seed, cell.recipe.rl.steps) for cell in over.cells} == {(5, 1)}  # the command line before rows


def test_methods_may_be_a_plain_list(write: Callable[[str], str]) -> None:
    grid = load_experiment(write("name: g\nrecipe: r.yaml\nmethods: [skillfactory, rl_only]"))
    assert [(cell.name, cell.recipe.method) for cell in grid.cells] == [
        ("skillfactory-0", "skillfactory"),
        ("rl_only-0", "rl_only"),
    ]


def test_what_was_run_can_be_run_again(write: Callable[[str], str]) -> None:
    """The file that is kept says the same as file, command line and seeds together."""
    grid = load_experiment(write(GRID), ["rl.steps=1", "rl.learning_rate=3e-6"], seeds=[4])
    Path("kept.yaml").write_text(yaml.safe_dump(grid.file, sort_keys=False))
    assert load_experiment("kept.yaml").cells == grid.cells


BAD = {
    "unknown key": ("nam: x\n" + GRID, "line 1: unknown key `nam`; did you mean `name`"),
    "double key": (GRID + "seeds: [1]\n", "line 12: the key `seeds` is there twice"),
    "double row": (GRID + "  rl_only: {}\n", "the key `rl_only` is there twice"),
    "double in list": ("name: g\nrecipe: r.yaml\nmethods: [rl_only, rl_only]", "`rl_only` is there twice"),
    "no methods": ("name: g\nrecipe: r.yaml\nmethods: {}", "line 3: `methods`"),
    "no recipe": (GRID.replace("r.yaml", "s.yaml"), "There is no recipe s.yaml"),
    "unknown method": (GRID + "  star_wars: {}\n", "line 12: row `star_wars`: Unknown method `star_wars`"),
    "nothing to learn from": (GRID + "  bolt: {}\n", "line 12: row `bolt`: method bolt: bolt.examples is not set"),
    "unknown setting": (GRID.replace("rl.steps: 8", "rl.stepz: 8"), "line 5: unknown key `rl.stepz`; did you mean"),
    "unknown nested": (GRID.replace("epochs: 3", "epoch: 3"), "line 6: unknown key `sft.epoch`; did you mean `epochs`"),
    "bad value of a row": (GRID.replace("rl.steps: 9", "rl.steps: 0"), "line 10: `rl.steps` is 0"),
    "ours": (GRID.replace("rl.steps: 8", "seed: 8"), "line 5: `seed` is set by `seeds`"),
    "bad label": (GRID + "  a/b: {method: rl_only, rl.steps: 3}\n", "line 12: a row's name is a folder's"),
    "bad reference": (GRID + "reference: rl_onl\n", "line 12: there is no row `rl_onl`; did you mean `rl_only`"),
    "double seed": (GRID.replace("[0, 3]", "[3, 3]"), "seeds are different numbers"),
    "match of none": (GRID.replace("row: skillfactory", "row: skillfac"), "line 11: there is no row `skillfac`; did"),
    "match of itself": (GRID.replace("row: skillfactory", "row: matched"), "`matched` comes of a match to itself"),
    "match of another's match": (
        GRID.replace("  rl_only:\n", "  rl_only: {match: {row: matched, stages: [rl]}}\n").replace(
            "row: skillfactory", "row: rl_only"
        ),
        "comes of a match to itself",
    ),
    "match of no stage": (GRID.replace("[attempts, sft]", "[attempts, std]"), "has no stage `std`; did you mean `sft`"),
    "match without RL": (GRID.replace("method: rl_only, match", "method: evaluate, match"), "`matched` has no RL"),
    "twins": (GRID + "  again: {method: rl_only, rl.steps: 8}\n", "rows `rl_only` and `again` would be the same run"),
    "twins in effect": (GRID + "  again: {method: rl_only, sft.epochs: 7}\n", "rows `rl_only` and `again` would be"),
    "twins in speed": (GRID + "  fast: {method: rl_only, machine.threads: 1}\n", "rows `rl_only` and `fast` would be"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_before_anything_starts(write: Callable[[str], str], case: str) -> None:
    text, words = BAD[case]
    with pytest.raises(SkillFactoryError) as caught:
        load_experiment(write(text))
    assert words in str(caught.value)
    result = CliRunner().invoke(app, ["experiment", "grid.yaml"])
    assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (2, True, 1)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seeds", "0,x"], "--seeds is `0,x`"),
        (["--seeds", "1,1"], "seeds are different numbers"),
        (["rl.stepz=1"], "command line: unknown key `rl.stepz`"),
        (["seed=1"], "command line: `seed` is set by `seeds`"),
        (["--gpus-per-cell", "1"], "goes with --ray"),
        (["--out", "."], "neither empty nor an experiment"),
    ],
)
def test_mistakes_on_the_command_line(write: Callable[[str], str], args: list[str], words: str) -> None:
    write(GRID)
    result = CliRunner().invoke(app, ["experiment", "grid.yaml", *args])
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not Path("runs").exists()


# Lending.


def make(path: Path, recipe: Recipe, *stages: str, finished: bool = True, rows: int = 1, tokens: int = 5) -> Run:
    """A run with these stages, each of `rows` rows and some tokens."""
    wanted = pipeline.identities(recipe)
    with Run.open(path, recipe) as run:
        for name in stages:
            stage = run.begin(name, wanted[name].settings, wanted[name].inputs, pipeline.filled_by(name))
            stage.append([Question(f"{name}{i}", "t", "l", "?", "4", "{}", "sft") for i in range(rows)])
            if finished:
                stage.finish(tokens=tokens)
    return run


def lend(recipe: Recipe, path: Path, *donors: Path) -> dict[str, str]:
    return sharing.lend(recipe, path, {donor.name: donor for donor in donors}, pipeline.identities(recipe))


CURATED = ("questions", "attempts", "reflections", "traces")


def test_what_another_has_finished_is_lent_whole_and_by_links(tmp_path: Path) -> None:
    recipe, other = make_recipe(), make_recipe(sft={"epochs": 1})
    make(tmp_path / "a", recipe, *CURATED, "sft")
    (tmp_path / "a/sft/model").mkdir()
    (tmp_path / "a/sft/model/weights").write_text("w")
    assert lend(other, tmp_path / "b", tmp_path / "a") == dict.fromkeys(CURATED, "a")  # not what another SFT gives
    one, two = load_run(tmp_path / "a"), load_run(tmp_path / "b")
    for stage in CURATED:
        assert two.rows(stage, Question) == one.rows(stage, Question)
        mine, theirs = two.manifest(stage), one.manifest(stage)
        assert mine == theirs | {"lent_from": "a", "lent": {"seconds": theirs["seconds"], "tokens": 5}}
        assert (two.path / stage / "part-00000.parquet").samefile(one.path / stage / "part-00000.parquet")
    assert [p.name for p in two.path.iterdir() if p.name.startswith(".tmp")] == []
    assert lend(other, tmp_path / "b", tmp_path / "a") == {}  # once is enough
    assert lend(recipe, tmp_path / "c", tmp_path / "a") == dict.fromkeys([*CURATED, "sft"], "a")
    assert (tmp_path / "c/sft/model/weights").samefile(tmp_path / "a/sft/model/weights")
    with Run.open(tmp_path / "c", recipe) as run:  # what becomes of it leaves the lender as it is
        run.drop("sft")
        run.stage("attempts").reopen()
        run.stage("attempts").append([Question("new", "t", "l", "?", "4", "{}", "sft")])
        run.stage("traces").clear_rows()
    assert (tmp_path / "a/sft/model/weights").read_text() == "w"
    assert [one.table(stage).num_rows for stage in CURATED] == [1, 1, 1, 1]
    assert one.state("attempts") == "finished"


def test_samples_are_lent_for_other_traces_from_whom_has_most(tmp_path: Path) -> None:
    recipe = make_recipe()
    make(tmp_path / "few", recipe, *CURATED)
    make(tmp_path / "many", make_recipe(traces={"per_question": 3}), *CURATED, rows=4)
    other = make_recipe(traces={"pattern": "fail_first"})
    assert lend(other, tmp_path / "b", tmp_path / "few", tmp_path / "many") == {
        "questions": "many",
        "attempts": "many",
        "reflections": "many",
    }
    # Whoever has just these traces comes before whoever has more samples.
    assert lend(recipe, tmp_path / "c", tmp_path / "few", tmp_path / "many")["attempts"] == "few"
    # With other reflections only the attempts are the same.
    third = make_recipe(reflections={"temperature": 0.1})
    assert set(lend(third, tmp_path / "d", tmp_path / "few")) == {"questions", "attempts"}


def test_own_work_is_never_replaced(tmp_path: Path) -> None:
    recipe = make_recipe()
    make(tmp_path / "a", recipe, *CURATED)
    make(tmp_path / "b", recipe, "questions", *CURATED[1:], finished=False)
    assert lend(recipe, tmp_path / "b", tmp_path / "a") == {}
    make(tmp_path / "c", recipe, "questions", "attempts")  # traces that were dropped, of samples of its own
    assert lend(recipe, tmp_path / "c", tmp_path / "a") == {}
    make(tmp_path / "d", make_recipe(seed=1), "questions")  # of other settings: the run itself says so
    assert lend(recipe, tmp_path / "d", tmp_path / "a") == {}
    with Run.open(tmp_path / "e", recipe), pytest.raises(StoreError, match="is in use"):
        lend(recipe, tmp_path / "e", tmp_path / "a")


def test_unfinished_and_damaged_work_is_not_lent(tmp_path: Path) -> None:
    recipe = make_recipe()
    make(tmp_path / "a", recipe, *CURATED[:3])
    make(tmp_path / "a", recipe, "traces", finished=False)  # still drawing, maybe
    assert set(lend(recipe, tmp_path / "b", tmp_path / "a")) == {"questions"}
    (tmp_path / "a/questions/manifest.json").write_text("{")
    assert lend(recipe, tmp_path / "c", tmp_path / "a") == {}


def test_a_loan_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    recipe = make_recipe()
    make(tmp_path / "a", recipe, *CURATED)
    lend(recipe, tmp_path / "b", tmp_path / "a")
    shutil.rmtree(tmp_path / "b/traces")
    shutil.rmtree(tmp_path / "b/reflections")
    (tmp_path / "b/.tmp-traces").mkdir()
    assert set(lend(recipe, tmp_path / "b", tmp_path / "a")) == set(CURATED[1:])
    assert [load_run(tmp_path / "b").state(stage) for stage in CURATED] == ["finished"] * 4


def test_the_first_round_of_two_is_the_same_as_one(tmp_path: Path) -> None:
    """Its stages have a number there, and are filled by a stage of that number."""
    once, twice = make_recipe(), make_recipe(method="skillfactory_twice")
    make(tmp_path / "once", once, *CURATED, "sft", "rl")
    lent = lend(twice, tmp_path / "twice", tmp_path / "once")
    assert lent == dict.fromkeys(["questions", "attempts-1", "reflections-1", "traces-1", "sft-1", "rl-1"], "once")
    assert load_run(tmp_path / "twice").manifest("attempts-1")["filled_by"] == "traces-1"
    back = lend(once, tmp_path / "back", tmp_path / "twice")
    assert set(back) == {*CURATED, "sft", "rl"}
    assert load_run(tmp_path / "back").manifest("attempts")["filled_by"] == "traces"


def test_a_match_adds_what_the_stages_have_cost(tmp_path: Path) -> None:
    recipe = make_recipe(sft={"epochs": 2})
    match = Match("x", ("attempts", "reflections", "traces", "sft"))
    make(tmp_path / "a", recipe, *CURATED)
    assert cells.matched(make_recipe(method="rl_only"), match, tmp_path / "a", recipe) is None
    make(tmp_path / "a", recipe, "sft", tokens=7)
    found = cells.matched(make_recipe(method="rl_only"), match, tmp_path / "a", recipe)
    assert found is not None
    assert found.rl.more_tokens == 5 + 5 + 2 * 7  # each epoch of SFT; traces are put together of what was sampled
    seconds = sum(load_run(tmp_path / "a").manifest(stage)["seconds"] for stage in match.stages)
    assert found.rl.more_seconds == pytest.approx(seconds, abs=1e-3)
    assert cells.matched(recipe, match, tmp_path / "a", make_recipe(sft={"epochs": 3})) is None  # not of these settings


def test_the_dry_run_says_what_would_be_made_and_lent(write: Callable[[str], str]) -> None:
    grid = load_experiment(write(GRID), seeds=[0])
    make(Path("runs/grid/cells/rl_only-0"), grid.cell("rl_only", 0).recipe, "questions")
    by_cell = {each["cell"]: each for each in forecast(grid, Path("runs/grid"))}
    assert by_cell["rl_only-0"]["finished"] == ["questions"]
    assert by_cell["skillfactory-0"]["lent"] == {"questions": "rl_only-0"}
    low = by_cell["low_rate-0"]
    assert low["lent"] == {"questions": "rl_only-0", **dict.fromkeys(CURATED[1:], "skillfactory-0")}
    assert low["made"] == ["sft", "rl", "evaluation", "report"]
    assert by_cell["matched-0"]["matches"] == {"cell": "skillfactory-0", "stages": ["attempts", "sft"]}
    assert by_cell["matched-0"]["made"] == ["rl", "evaluation", "report"]
    before = sorted(Path().rglob("*"))
    said = CliRunner().invoke(app, ["experiment", "grid.yaml", "--seeds", "0", "--dry-run", "--json"])
    assert json.loads(said.stdout)["cells"] == list(by_cell.values())
    shown = CliRunner().invoke(app, ["experiment", "grid.yaml", "--dry-run"])
    assert "attempts, sft of" in " ".join(shown.stdout.split()) or "attempts, sft" in shown.stdout
    assert sorted(Path().rglob("*")) == before


def test_commands_can_be_pasted(tmp_path: Path) -> None:
    assert cells.retry(Path("runs/my grid/cells/a-0"), "sft") == (
        "skillfactory run 'runs/my grid/cells/a-0.yaml' --run 'runs/my grid/cells/a-0' --fresh sft"
    )
    error = "X holds work of other settings: … Keep the old ones, give another --run, or redo it with `--fresh rl-1`."
    assert (cells.to_redo(error), cells.to_redo("Disk full")) == ("rl-1", "")
