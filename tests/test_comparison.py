"""Runs side by side: refused where they were not asked or graded alike, and told what else differs."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from reported import always, check_page, make_run, plain, printed, recipe_of, trace
from typer.testing import CliRunner

from skillfactory.cli import app
from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.statistics import holm
from skillfactory.recipe import Recipe
from skillfactory.report import report
from skillfactory.report.comparison import compare, corrected
from skillfactory.report.terminal import print_comparison
from skillfactory.store import LoadedRun, load_run


def ours(path: Path, **changes: Any) -> LoadedRun:
    """RL always right, all else wrong."""
    recipe = recipe_of(**changes)
    return make_run(path, recipe, lambda m, q, s: trace(q.answer) if m == "rl" else plain("7"))


def theirs(path: Path, **changes: Any) -> LoadedRun:
    """RL only, right every other sample."""
    return make_run(path, recipe_of("rl_only", **changes), lambda m, q, s: plain(q.answer if s else "7"))


def with_evaluation(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    return {"evaluation": recipe.evaluation.model_dump() | changes}


def settings_of(run: LoadedRun, stage: str, **settings: Any) -> None:
    """As if the stage had noted these settings."""
    file = run.path / stage / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"settings": manifest["settings"] | settings}))


def test_two_methods(tmp_path: Path) -> None:
    one, other = ours(tmp_path / "ours"), theirs(tmp_path / "rl_only")
    found = compare([one, other])
    assert found.reference == "test-rl_only"
    difference = found.differences["rl"]["test-skillfactory"]["2_digits"]
    assert (difference["mean"], difference["n_questions"]) == (0.5, 8)
    assert "sft" not in found.differences, "rl_only has none"
    assert "base" not in found.differences, "the same model"
    assert ["method", "skillfactory", "rl_only"] in found.settings
    assert json.loads(json.dumps(found.facts(), allow_nan=False))["reference"] == "test-rl_only"
    shown = printed(lambda console: print_comparison([one, other], console))
    assert "RL model: difference to test-rl_only" in shown
    assert "+50.0" in shown
    report.write_comparison([one, other], found, tmp_path / "out" / "c.html")
    page = check_page((tmp_path / "out" / "c.html").read_text())
    assert {"RL model: difference to test-rl_only", "Settings that differ", "Reward in RL"} <= set(page.headings)
    said = "better on in-domain questions (+50.0 points, p = .023)"
    assert said in (tmp_path / "out" / "c.html").read_text()
    assert said in (tmp_path / "out" / "c.md").read_text()
    with (tmp_path / "out" / "c-tables" / "to_reference.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "2_digits"]
    assert [(row["run"], row["reference"], row["mean"]) for row in rows] == [
        ("test-skillfactory", "test-rl_only", "0.5")
    ]


def test_several_runs_are_corrected_together(tmp_path: Path) -> None:
    runs = [theirs(tmp_path / "a"), ours(tmp_path / "b"), ours(tmp_path / "c", seed=0, name="third")]
    found = compare(runs)
    cells = [cell for sets in found.differences["rl"].values() for cell in sets.values()]
    assert len(cells) == 2 * 3
    assert [cell["p_adjusted"] for cell in cells] == holm([cell["p"] for cell in cells])
    kinds = [cell for each in found.differences_by_kind["rl"].values() for cell in each.values()]
    assert [cell["p_adjusted"] for cell in kinds] == holm([cell["p"] for cell in kinds])
    assert "sft" not in found.differences, "the reference has none"


def test_correction_keeps_each_in_its_place() -> None:
    rows = {"a": {"x": {"p": 0.01}, "y": {"p": 0.9}}, "b": {"x": {"p": 0.02}}}
    assert {label: {k: c["p_adjusted"] for k, c in cells.items()} for label, cells in corrected(rows).items()} == {
        "a": {"x": pytest.approx(0.03), "y": 0.9},
        "b": {"x": pytest.approx(0.04)},
    }


def test_the_reference_can_be_chosen(tmp_path: Path) -> None:
    runs = [ours(tmp_path / "a"), theirs(tmp_path / "b"), ours(tmp_path / "c")]
    assert compare(runs).reference == "test-rl_only"
    for wanted in ("test-skillfactory #2", str(tmp_path / "c"), "c"):
        found = compare(runs, wanted)
        assert found.reference == "test-skillfactory #2"
        assert found.differences["rl"]["test-rl_only"]["2_digits"]["mean"] == -0.5
        assert list(found.differences["sft"]) == ["test-skillfactory #1"]
    with pytest.raises(SkillFactoryError, match=r"`nobody` is none of the runs; give the path of one of these: .*/a\)"):
        compare(runs, "nobody")
    with pytest.raises(SkillFactoryError, match="`test-skillfactory` is the name of several"):
        compare(runs, "test-skillfactory")


def test_runs_of_other_questions_are_refused(tmp_path: Path) -> None:
    one = ours(tmp_path / "a", n=3)
    refused = [
        (ours(tmp_path / "b", n=3, seed=1), r"questions of set `\S.*` differ .*; their seeds are 0 and 1\)"),
        (ours(tmp_path / "c", n=2), r"questions of set `\S.*` differ \(\d shared, 3 and 2 in all\)"),
        (make_run(tmp_path / "d", recipe_of(n=3), write=None), "d has no responses to compare"),
    ]  # fmt: skip
    sets = one.recipe.evaluation.model_dump()["sets"]
    fewer = {"samples": 1, "sets": {"2_digits": sets["2_digits"]}}
    refused.append((ours(tmp_path / "e", n=3, evaluation=fewer), "only .*/a has responses to the set `3"))
    for changes, message in (
        (
            {"task": {"name": "multiplication", "params": {"digits": 2, "digits_b": 1}}},
            "`2_digits` differs in `digits_b`: not set and 1",
        ),
        ({"task": {"name": "countdown", "params": {"count": 3}}}, "of the task multiplication in the one and of count"),
        ({"kind": "harder"}, "`2_digits` counts as in_domain in the one and as harder in the other"),
    ):  # fmt: skip
        changed = {"samples": 2, "sets": sets | {"2_digits": sets["2_digits"] | changes}}
        refused.append((ours(tmp_path / f"f{len(refused)}", n=3, evaluation=changed), message))
    for other, message in refused:
        with pytest.raises(SkillFactoryError, match=message):
            compare([one, other])
    with pytest.raises(SkillFactoryError, match="at least two"):
        compare([one])


def test_an_unfinished_evaluation_is_named(tmp_path: Path) -> None:
    one, other = ours(tmp_path / "a", n=3), ours(tmp_path / "b", n=3)
    file = other.path / "evaluation" / "manifest.json"
    last = max((other.path / "evaluation").glob("part-*"))
    last.unlink()
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"finished": False, "shards": manifest["shards"][:-1]}))
    assert f"The evaluation of {other.path} has not finished." in compare([one, other]).notes


def test_lost_questions_are_refused(tmp_path: Path) -> None:
    one, other = ours(tmp_path / "a", n=2), ours(tmp_path / "b", n=2)
    for path in (other.path / "questions").iterdir():
        path.unlink()
    with pytest.raises(SkillFactoryError, match="b has lost its questions"):
        compare([one, other])


def own_set(tmp_path: Path, name: str, answer: str = "4") -> dict[str, Any]:
    folder = tmp_path / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": "2 + 2?", "answer": answer}, {"question": "3 + 4?", "answer": "7"}]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "jsonl", "params": {"path": str(folder / "own.jsonl"), "grade": "number"}}
    return {"evaluation": {"samples": 2, "sets": {"own": {"task": task, "n": 2}}}}


def test_seeds_and_places_may_differ_where_questions_are_the_same(tmp_path: Path) -> None:
    one = ours(tmp_path / "a", **own_set(tmp_path, "here"))
    other = ours(tmp_path / "b", seed=5, **own_set(tmp_path, "there"))
    found = compare([one, other])
    assert found.differences["rl"]["test-skillfactory #2"]["own"]["mean"] == 0
    assert "Their seeds differ: 0, 5." in found.notes
    third = ours(tmp_path / "c", **own_set(tmp_path, "changed", answer="5"))
    with pytest.raises(SkillFactoryError, match="questions of set `own` differ"):
        compare([one, third])


def test_other_grading_functions_are_refused(tmp_path: Path) -> None:
    runs = [ours(tmp_path / name, **own_set(tmp_path, "same")) for name in "ab"]
    key = "evaluation.sets.own.task.params.grade (content)"
    settings_of(runs[0], "questions", **{key: "aaaa"})
    assert compare(runs).metrics, "unknown is no difference"
    settings_of(runs[1], "questions", **{key: "bbbb"})
    with pytest.raises(SkillFactoryError, match=r"the grading function of set `own` \(number\) has another content"):
        compare(runs)
    settings_of(runs[1], "questions", **{key: "aaaa"})
    assert compare(runs).notes == []


def test_what_else_differs_is_noted(tmp_path: Path) -> None:
    recipe = recipe_of(n=2)
    one = ours(tmp_path / "a", n=2)
    other = ours(tmp_path / "b", n=2, **with_evaluation(recipe, samples=3, temperature=0.2, max_tokens=99))
    settings_of(one, "evaluation", **{"attempts.prompts (content)": "aaaa"})
    settings_of(other, "evaluation", **{"attempts.prompts (content)": "bbbb"})
    found = compare([one, other])
    for note in (
        "The same questions were asked by different prompts (2 versions of attempts.prompts).",
        "Responses were drawn with evaluation.samples 2, 3.",
        "Responses were drawn with evaluation.temperature 0.7, 0.2.",
        "Responses were drawn with evaluation.max_tokens 4096, 99.",
    ):
        assert note in found.notes
    assert ["evaluation.temperature", "0.7", "0.2"] in found.settings
    assert ["attempts.prompts (content)", "aaaa", "bbbb"] in found.settings
    report.write_comparison([one, other], found, tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text()
    assert text.index("asked by different prompts") < text.index("Accuracy by kind of question")


def test_the_same_run_twice_differs_by_nothing(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(n=3))
    found = compare([loaded, loaded])
    assert found.labels == ["test-skillfactory #1", "test-skillfactory #2"]
    assert all(cell["mean"] == 0 for cell in found.differences["rl"]["test-skillfactory #2"].values())
    assert (found.settings, found.notes) == ([], [])


def test_other_base_models_are_compared_too(tmp_path: Path) -> None:
    one = make_run(tmp_path / "a", recipe_of(n=2), always(right=True))
    other = make_run(tmp_path / "b", recipe_of(n=2, model="org/other"), always(right=False))
    found = compare([one, other])
    assert found.differences["base"]["test-skillfactory #2"]["2_digits"]["mean"] == -1
    assert "The base models differ: tiny, org/other." in found.notes


def test_a_model_folder_that_has_changed_is_another_base(tmp_path: Path) -> None:
    one, other = ours(tmp_path / "a"), ours(tmp_path / "b")
    settings_of(one, "evaluation", **{"model (content)": "abc"})
    settings_of(other, "evaluation", **{"model (content)": "abc"})
    assert "base" not in compare([one, other]).differences
    settings_of(other, "evaluation", **{"model (content)": "def"})
    found = compare([load_run(one.path), load_run(other.path)])
    assert "base" in found.differences
    assert ["model (content)", "abc", "def"] in found.settings


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours(tmp_path / "a", n=2)
    theirs(tmp_path / "b", n=2)
    done = CliRunner().invoke(app, ["compare", "a", "b", "--reference", "a"])
    assert done.exit_code == 0, done.output
    assert "Comparison: comparison.html" in done.stdout
    assert "RL model: difference to test-skillfactory" in done.stdout
    assert {"comparison.html", "comparison.md", "comparison-tables"} <= {path.name for path in tmp_path.iterdir()}
    facts = json.loads(CliRunner().invoke(app, ["compare", "a", "b", "--json"]).stdout)
    assert [each["run"] for each in facts["runs"]] == ["a", "b"]
    assert facts["comparison"]["differences"]["rl"]["test-skillfactory"]["2_digits"]["mean"] == 0.5
    refused = CliRunner().invoke(app, ["compare", "a", "b", "--out", "x.md"])
    assert (refused.exit_code, "x.md should end on .html" in refused.stderr) == (2, True)
    shown = CliRunner().invoke(app, ["show", "a", "--traces", "0"])
    assert shown.exit_code == 0, shown.output
    assert "Accuracy by kind of question" in shown.stdout
    assert "After RL, against the base model" in shown.stdout
    assert load_run("a").state("report") == "missing", "looking changes nothing"
