"""Pages, tables and files of synthetic runs: they say what was measured, whatever is missing, and nothing runs."""

import csv
import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reported import (
    BUDGET,
    EVIL,
    Page,
    always,
    check_page,
    make_report,
    make_run,
    plain,
    printed,
    recipe_of,
)

from skillfactory.evaluation.summary import last_figures, read_jsonl, summarize, to_plain
from skillfactory.records import Response
from skillfactory.report import page, report, tables, tidy, verdict
from skillfactory.report.comparison import metrics_of
from skillfactory.report.sections import Material, headline, material, sections
from skillfactory.report.terminal import print_run
from skillfactory.store import LoadedRun, Run, load_run


class Finished:
    """A run with its report: metrics.json and report.html. No dataclass: hypothesis would write it all out."""

    def __init__(self, run: LoadedRun, metrics: dict[str, Any], page: str) -> None:
        self.run, self.metrics, self.page = run, metrics, page


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A typical run with budget forcing and kept RL steps, and its report: not to be changed."""
    data = recipe_of().model_dump()
    data["evaluation"]["forcing"]["budgets"] = [BUDGET]
    loaded = make_run(tmp_path_factory.mktemp("typical") / "run", recipe_of(evaluation=data["evaluation"]), kept=(1, 2))
    return Finished(loaded, *make_report(loaded))


def tables_of(loaded: LoadedRun, metrics: dict[str, Any]) -> dict[str, tables.Table]:
    return {table.title: table for section in sections(material([loaded], [metrics])) for table in section.tables}


def rows_of(loaded: LoadedRun, name: str) -> list[dict[str, str]]:
    with (loaded.path / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_page_of_a_typical_run(finished: Finished) -> None:
    metrics, text = finished.metrics, finished.page
    found = check_page(text)
    order = ["Verdict", "Accuracy", "Budget forcing", "Skills", "Training", "Responses", "Cost and versions", "Recipe"]
    assert [heading for heading in found.headings if heading in order] == order
    for figure in (
        "Change against the base model", "Accuracy from easy to hard", "Other tasks: change against the base",
        "Length of responses", "Budget forcing: harder", "Explicit answers", "Skills in rollouts",
        "Accuracy by RL step", "F1 of verdicts by RL step", "Reward in RL", "Entropy in RL", "Loss in SFT",
    ):  # fmt: skip
        assert figure in found.headings, figure
    assert verdict.of_run(metrics).split(":")[0] in text
    assert "prefers-color-scheme: dark" in text
    assert "#010203" not in text
    assert "var(--series-3)" in text
    links = [value for name, value in found.attributes if name == "href"]
    assert {"#verdict", "#accuracy", "#forcing", "#skills", "#training", "#viewer", "#cost", "#recipe"} <= set(links)


def test_every_table_is_the_same_on_the_page_in_markdown_and_on_the_terminal(finished: Finished) -> None:
    loaded, metrics, text = finished.run, finished.metrics, finished.page
    made = tables_of(loaded, metrics)
    assert len(made) >= 15
    on_page = check_page(text).tables
    rendered = MarkdownIt("commonmark").enable("table").render((loaded.path / "report.md").read_text())
    in_markdown = Page(rendered).tables
    shown = printed(lambda console: print_run(loaded, console), width=300)
    for table in made.values():
        assert any(page_rows[1:] == table.rows for page_rows in on_page), table.title
        flat = [[" ".join(cell.split()) for cell in row] for row in table.rows]
        assert any(rows[1:] == flat for rows in in_markdown), table.title
        assert table.title in shown or table.title == "Versions"


def test_figures_of_the_papers_table(finished: Finished) -> None:
    loaded, metrics = finished.run, finished.metrics
    made = tables_of(loaded, metrics)
    kinds = made["Accuracy by kind of question"]
    assert kinds.columns == ["model", "in domain", "harder", "other task"]
    assert [row[0] for row in kinds.rows] == ["base", "SFT", "RL"], "kept steps have a table of their own"
    sft = metrics["accuracy_by_kind"]["sft"]["in_domain"]["sampled"]
    assert kinds.rows[1][1] == f"50.0 [{100 * sft['low']:.1f}, {100 * sft['high']:.1f}]"
    by_set = made["Accuracy by set"]
    assert by_set.columns == ["model", "2_digits", "3 $digits$", "odd|name"], "from easy to other"
    differences = made["Differences by set"]
    assert [row[0] for row in differences.rows] == ["SFT − base", "RL − SFT", "RL − base"]
    cell = metrics["differences"]["rl"]["base"]["2_digits"]
    assert differences.rows[2][1].startswith(f"{100 * cell['mean']:+.1f}")
    assert made["pass@k"].rows[3][:3] == ["SFT", "2", "100.0 ± 0.0"]
    steps = made["Models by RL step"]
    assert [row[:2] for row in steps.rows] == [["start", "0"], ["RL step 1", "1"], ["RL step 2", "2"], ["RL", "3"]]


def test_forced_responses_stand_beside_the_others(finished: Finished) -> None:
    loaded, metrics = finished.run, finished.metrics
    forced = tables_of(loaded, metrics)["Standard, unforced and forced"]
    assert len(forced.rows) == 3 * 3
    row = next(row for row in forced.rows if row[:2] == ["RL", "2_digits"])
    rl = metrics["accuracy"]["rl"]["2_digits"]
    assert row[2] == f"{BUDGET:,}"
    assert row[3] == row[4] == row[5], "the same texts"
    assert row[6] == row[7] == "+0.0\np = 1.000"
    assert row[8] == f"{2 * rl['sampled']['mean_tokens']:,.0f}"


def test_csv_has_the_figures_in_full(finished: Finished) -> None:
    loaded, metrics = finished.run, finished.metrics
    rows = {(r["model"], r["set"], r["mode"]): r for r in rows_of(loaded, "accuracy")}
    assert list(rows["rl", "2_digits", "sampled"])[:7] == ["run", "method", "seed", "model", "set", "kind", "mode"]
    for (model, name, mode), row in rows.items():
        cell = metrics["accuracy"][model][name][mode]
        assert (float(row["mean"]), float(row["tokens_50"])) == (cell["mean"], cell["tokens"]["50"])
        assert row["kind"] == metrics["sets"][name]["kind"]
    assert len(rows) == sum(len(modes) for sets in metrics["accuracy"].values() for modes in sets.values())
    differences = {(r["model"], r["before"], r["set"]): float(r["mean"]) for r in rows_of(loaded, "differences")}
    assert differences["rl", "base", "2_digits"] == metrics["differences"]["rl"]["base"]["2_digits"]["mean"]
    verdicts = next(r for r in rows_of(loaded, "skill_use") if (r["model"], r["set"]) == ("sft", "2_digits"))
    assert int(verdicts["verdicts_incorrect_called_correct"]) == 8
    training = [r for r in rows_of(loaded, "training") if r["stage"] == "rl"]
    assert [(r["step"], r["reward"]) for r in training][2] == ("3.0", "0.5")
    forced = [r for r in rows_of(loaded, "forcing") if r["mode"] == "forced"]
    assert {(r["budget"], r["minus_standard_mean"]) for r in forced} == {(str(BUDGET), "0.0")}
    names = {"accuracy", "accuracy_by_kind", "by_answers", "cost", "curation", "differences", "differences_by_kind",
             "forcing", "pass_at_k", "skill_use", "training"}  # fmt: skip
    assert {path.stem for path in (loaded.path / "tables").iterdir()} == names


def test_points_say_their_values(finished: Finished) -> None:
    metrics, text = finished.metrics, finished.page
    hints = check_page(text).hints
    cell = metrics["accuracy"]["rl"]["3 $digits$"]["sampled"]
    low, high = 100 * cell["low"], 100 * cell["high"]
    assert f"RL, 3 $digits$: {100 * cell['mean']:.1f} % [{low:.1f}, {high:.1f}]" in hints
    assert "RL, step 2: 0.3333" in hints
    assert any(re.match(r"SFT, 2_digits: median \d+ tokens", hint) for hint in hints)
    alts = [value for name, value in check_page(text).attributes if name == "aria-label"]
    assert any(alt and "RL: 0.167 at step 1, 0.5 at step 3" in alt for alt in alts)


def test_hostile_text_and_names_stay_text_everywhere(tmp_path: Path) -> None:
    link = "[x](javascript:alert(1)) | `code` <b>"
    sets = {EVIL: {"task": {"name": "multiplication"}, "n": 2}, link: {"task": {"name": "multiplication"}, "n": 2}}
    write = lambda model, question, sample: f"{EVIL}<sample>{EVIL}</sample>{plain(EVIL)}"  # noqa: E731
    loaded = make_run(tmp_path / "run", recipe_of(evaluation={"samples": 1, "sets": sets}), write)
    shown = printed(lambda console: print_run(loaded, console), width=900)
    assert "\x1b" not in shown
    assert "[bold]not markup[/bold]" in shown
    _, text = make_report(loaded)
    check_page(text)
    assert "\x1b" not in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    raw = (loaded.path / "report.md").read_text()
    assert "\x1b" not in raw
    rendered = MarkdownIt("commonmark").enable("table").render(raw)
    assert not re.search(r"<(script|img|a|b|code)\b", rendered)
    assert "&lt;script&gt;" in rendered
    assert "javascript:alert" in rendered, "as text"
    assert b"\x1b" not in (loaded.path / "tables" / "accuracy.csv").read_bytes()


def test_empty_evaluation(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(), write=None)
    metrics, text = make_report(loaded)
    assert metrics["accuracy"] == {}
    assert "Responses" not in check_page(text).headings
    assert "No model has been evaluated yet." in text
    assert "No model has been evaluated" in printed(lambda console: print_run(loaded, console))
    assert rows_of(loaded, "accuracy") == []


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", recipe_of()):
        pass
    loaded = load_run(tmp_path / "run")
    page.write_run(loaded, tmp_path / "page.html")
    assert check_page((tmp_path / "page.html").read_text()).headings == ["test-skillfactory", "Verdict", "Recipe"]
    assert "No model has been evaluated" in printed(lambda console: print_run(loaded, console))


def test_one_question(tmp_path: Path) -> None:
    metrics, text = make_report(make_run(tmp_path / "run", recipe_of(n=1)))
    assert metrics["accuracy"]["rl"]["2_digits"]["sampled"]["se"] is None
    check_page(text)
    assert "Questions are few: 1 in domain, 1 harder, 1 other task." in text


def test_all_wrong(tmp_path: Path) -> None:
    metrics, text = make_report(make_run(tmp_path / "run", recipe_of(), lambda *_: "no idea"))
    assert "no clear difference on harder questions (+0.0 points, p = 1.000)" in verdict.of_run(metrics)
    check_page(text)


def test_a_run_whose_questions_are_gone(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of())
    for path in (loaded.path / "questions").iterdir():
        path.unlink()
    metrics, text = make_report(loaded)
    assert metrics["accuracy"]["rl"]
    assert metrics["skill_use"] == {}
    assert "Accuracy by kind of question" in check_page(text).headings


@pytest.mark.parametrize("old", ['{"run": {}, "accuracy": {}, "differences": {"rl-base": {}}}', "[1]", "{", None])
def test_metrics_of_an_older_version_or_damaged_are_made_anew(tmp_path: Path, old: str | None) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(n=2), always(right=True))
    with Run.open(loaded.path, loaded.recipe) as run:
        run.begin("report", {}, {}).finish()
    if old is not None:
        (loaded.path / "metrics.json").write_text(old)
    assert metrics_of(loaded)["accuracy_by_kind"]["rl"]["harder"]["sampled"]["mean"] == 1.0


def test_a_report_leaves_nothing_behind_when_it_goes(finished: Finished, tmp_path: Path) -> None:
    for name in ("metrics.json", "report.html", "report.md", "recipe.yaml"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "accuracy.csv").write_text("x")
    report.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    report.remove(tmp_path)
    before = finished.run.path
    assert {"metrics.json", "report.html", "report.md", "tables"} <= {path.name for path in before.iterdir()}


def test_what_broke_is_left_out_and_told(tmp_path: Path) -> None:
    loaded = make_run(tmp_path / "run", recipe_of(n=2))
    stage = loaded.stage("evaluation")
    stage._write_manifest(finished=False)
    stage.append([Response("ff", "rl", "2_digits", "sampled", 0, "", "", "no_answer", "engine_failed", "failed", 0)])
    metrics = summarize(load_run(loaded.path))
    assert "Left out: 1 responses" in tables_of(loaded, metrics)["Accuracy by set"].note
    assert "1 responses could not be made or checked and are left out." in verdict.uncertain([metrics])


def test_figures_that_are_missing_or_not_finite(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_jsonl(file) == []
    assert last_figures([]) == {}
    file.write_text('{"step": 1, "reward": NaN, "entropy": 2}\n[]\nnot json\n{"step": 2, "reward": 0.5}\n')
    assert read_jsonl(file) == [{"step": 1, "entropy": 2}, {"step": 2, "reward": 0.5}]
    assert last_figures(read_jsonl(file))["last"] == {"reward": 0.5}
    assert to_plain({"a": float("nan"), "b": (1, float("inf")), 3: "x"}) == {"a": None, "b": [1, None], "3": "x"}


def damaged(data: Any, random: Random, often: float) -> Any:
    """The same with some of its parts gone, unknown, or of another type."""
    if random.random() < often:
        return random.choice([None, None, {}, "x", True])
    if isinstance(data, dict):
        return {key: damaged(value, random, often) for key, value in data.items() if random.random() > often}
    return data


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.002, 0.02, 0.2]))
def test_whatever_is_unknown_leaves_a_report(finished: Finished, seed: int, often: float) -> None:
    loaded, metrics = finished.run, finished.metrics
    hurt = damaged(metrics, Random(seed), often)
    hurt = hurt if isinstance(hurt, dict) else {}
    given_ = material([loaded], [hurt])
    headline(given_)
    for section in sections(given_):
        for table in section.tables:
            assert all(len(row) == len(table.columns) for row in table.rows)
            assert not re.search(r"\b(nan|None|inf)\b", " ".join(cell for row in table.rows for cell in row))
            tables.markdown(table)
    assert verdict.of_run(hurt)
    verdict.uncertain([hurt])
    for rows in tidy.tables([hurt], given_.rl, given_.sft).values():
        tidy.as_csv([], list(rows))


def test_a_damaged_report_is_a_page(finished: Finished, tmp_path: Path) -> None:
    loaded, metrics = finished.run, finished.metrics
    text = json.dumps(metrics)
    hurt = json.loads(re.sub(r"(?<=: )-?\d+\.\d+", "null", text))
    rows = [[{"step": 1.0}], []]
    lost = Material([loaded], [hurt], rows[:1], rows[1:])
    page.write(tmp_path / "page.html", lost)
    page.write_markdown(tmp_path / "page.md", lost)
    tidy.write(tmp_path / "tables", [hurt], rows[:1], rows[1:])
    check_page((tmp_path / "page.html").read_text())


def test_many_models_sets_and_steps_make_a_page_of_bounded_size(finished: Finished, tmp_path: Path) -> None:
    loaded, metrics = finished.run, finished.metrics
    names = {f"set {i}": name for i in range(30) for name in [list(metrics["sets"])[i % 3]]}

    def often(sets: dict[str, Any]) -> dict[str, Any]:
        return {new: sets[old] for new, old in names.items()}

    models = [*metrics["accuracy"], *(f"other model {i}" for i in range(15))]
    many = metrics | {"sets": often(metrics["sets"])}
    for key in ("accuracy", "skill_use", "forcing"):
        many[key] = {m: often(metrics[key].get(m) or metrics[key]["rl"]) for m in models}
    rl = [
        {"step": float(step), **dict.fromkeys(("reward", "length", "entropy", "answers"), step / 7)}
        for step in range(5000)
    ]
    page.write(tmp_path / "page.html", Material([loaded], [many], [rl], [rl]))
    text = (tmp_path / "page.html").read_text()
    check_page(text)
    assert len(text) > 1_000_000
    assert "The first 12 of 18; the tables have all." in text


def test_the_viewer_takes_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "so it goes on. " * 500
    loaded = make_run(tmp_path / "run", recipe_of(n=20), lambda m, q, s: f"{m} {q.id} {s}: {long}{plain(q.answer)}")
    sizes = []
    for largest in (page.LARGEST, 1_000_000):
        monkeypatch.setattr(page, "LARGEST", largest)
        page.write_run(loaded, tmp_path / "page.html")
        check_page((tmp_path / "page.html").read_text())
        sizes.append((tmp_path / "page.html").stat().st_size)
    assert sizes[1] < 1_100_000 < sizes[0] < page.VIEWER + 1_000_000
