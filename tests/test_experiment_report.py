"""What an experiment's report says: its figures, its verdicts, its page and files, whatever was run."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, require_browser, visit
from markdown_it import MarkdownIt
from reported import BUDGET, EVIL, check_page, make_report, make_run, plain, printed, recipe_of, trace

from skillfactory.evaluation.across import Scores
from skillfactory.records import Question
from skillfactory.report import claims, experiment, shares
from skillfactory.report.experiment import Failure, Given, Row, write
from skillfactory.report.experiment_rows import Cell, Measured, read
from skillfactory.report.tables import Table, points
from skillfactory.report.terminal import print_table
from skillfactory.store import LoadedRun

SEEDS = (0, 1, 2)
N = 24  # questions of a set
FAILURE = Failure("broken-0", f"no memory {EVIL}", "cells/broken-0.log", "skillfactory run cells/broken-0.yaml")


# By the first digit of a question's id: its last ones say of which split it is.
def seldom(model: str, question: Question, sample: int) -> str:
    """One question in eight right, whatever the model."""
    return plain(question.answer if question.id[0] in "01" else "7")


def often(model: str, question: Question, sample: int) -> str:
    """The base as above, SFT right in every other sample, RL in three questions of four."""
    right = {"base": question.id[0] in "01", "rl": question.id[0] not in "2345"}.get(model, sample == 0)
    return (plain if model == "base" else trace)(question.answer if right else "7")


class Made:
    """An experiment with its report. No dataclass: hypothesis would write it all out."""

    def __init__(self, given: Given, out: Path) -> None:
        self.given, self.out = given, out
        self.metrics = write(given, out)
        self.page = (out / "experiment.html").read_text(encoding="utf-8")

    def table(self, title: str) -> Table:
        return next(table for table in all_tables(self.metrics) if table.title == title)

    def claim(self, name: str) -> dict[str, Any]:
        return next(claim for claim in self.metrics["claims"] if claim["id"] == name)

    def rows_of(self, name: str) -> list[dict[str, str]]:
        with (self.out / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def all_tables(metrics: dict[str, Any]) -> list[Table]:
    from skillfactory.report.experiment_tables import sections

    return [table for section in sections(metrics) for table in section.tables]


def forced() -> dict[str, Any]:
    evaluation: dict[str, Any] = recipe_of(n=N).model_dump()["evaluation"]
    evaluation["forcing"]["budgets"] = [BUDGET]
    return evaluation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three rows of three seeds with forcing, of which RL alone is seldom right; one failure, one report of a cell."""
    out = tmp_path_factory.mktemp("experiment")
    rows = []
    for label, method, how in (
        ("rl_only", "rl_only", seldom),
        ("ours <b>", "skillfactory", often),
        ("random_order", "random_order", seldom),
    ):
        recipes = [(seed, recipe_of(method, seed, evaluation=forced())) for seed in SEEDS]
        runs = {seed: make_run(out / "cells" / f"{label}-{seed}", recipe, how) for seed, recipe in recipes}
        rows.append(Row(label, method, runs))
    make_report(rows[1].runs[0])
    log = [
        {"time": 0.0, "event": "start", "cell": "rl_only-0", "jobs": 2},
        {"time": 100.0, "event": "end", "cell": "rl_only-0", "code": 0},
        {"time": 100.0, "event": "start", "cell": "broken-0", "jobs": 2},
        {"time": 110.0, "event": "end", "cell": "broken-0", "code": 1},
    ]
    return Made(Given("test", "rl_only", rows, [FAILURE], log), out)


def test_page_says_it_all_and_links_the_cells(made: Made) -> None:
    found = check_page(made.page, ["cells/ours%20%3Cb%3E-0/report.html"])
    order = ["Claims", "Accuracy", "Ablations", "Other tasks", "Budget forcing", "Skills", "Training", "Cost"]
    assert [heading for heading in found.headings if heading in order] == order
    for title in ("Accuracy of the final models", "Reward in RL", "Budget forcing: harder", "Where the time went"):
        assert title in found.headings, title
    links = [value for name, value in found.attributes if name == "href"]
    assert "cells/ours%20%3Cb%3E-0/report.html" in links
    assert FAILURE.retry in made.page
    assert "<script" not in made.page
    assert "<b>" not in made.page
    assert "ours &lt;b&gt;" in made.page
    assert [row[0] for row in found.tables[0][1:]] == ["C1", "C2", "C3", "C4", "C5"]


def test_accuracy_is_the_mean_over_seeds_of_each_runs(made: Made) -> None:
    ours = made.metrics["rows"][2]
    assert (ours["run"]["label"], ours["run"]["seeds"]) == ("ours <b>", list(SEEDS))
    each = [cell for cell in made.metrics["cells"] if cell["run"]["label"] == "ours <b>"]
    for name, modes in ours["accuracy"]["rl"].items():
        means = [cell["accuracy"]["rl"][name]["sampled"]["mean"] for cell in each]
        assert modes["sampled"]["mean"] == pytest.approx(sum(means) / len(SEEDS))
        assert modes["sampled"]["n_seeds"] == 3
    table = made.table("Accuracy by kind of question")
    assert [row[:2] for row in table.rows] == [
        ["(all)", "base"], ["rl_only", "RL"], ["ours <b>", "SFT"], ["ours <b>", "RL"], ["random_order", "RL"],
    ]  # fmt: skip
    assert table.columns[:2] == ["row", "model"]
    assert "over seeds and questions" in table.note
    base = made.metrics["rows"][0]["accuracy"]["base"]["2_digits"]["sampled"]
    assert base["over"] == "questions", "the base is the same for all seeds"


def test_differences_are_paired_by_seed_and_question(made: Made) -> None:
    rows = {row.label: read(row) for row in made.given.rows}
    ours, plain_one = rows["ours <b>"].scores("rl", ["2_digits"]), rows["rl_only"].scores("rl", ["2_digits"])
    by_seed = [
        sum(ours[s]["2_digits"][q] - plain_one[s]["2_digits"][q] for q in ours[s]["2_digits"]) / N for s in SEEDS
    ]
    cell = made.metrics["differences"]["ours <b>"]["2_digits"]
    assert cell["mean"] == pytest.approx(sum(by_seed) / 3)
    asked = {question for sets in ours.values() for question in sets["2_digits"]}
    assert cell["n_questions"] == len(asked) > 2 * N, "two seeds may share a question"
    family = [c for cells in made.metrics["differences_by_kind"].values() for c in cells.values()]
    assert len(family) == 6, "two rows, three kinds"
    assert all(c["p_adjusted"] >= c["p"] for c in family)
    least = min(family, key=lambda c: c["p"])
    assert least["p_adjusted"] == pytest.approx(min(1.0, 6 * least["p"]))
    shown = made.table("Difference to rl_only")
    assert shown.rows[0] == ["ours <b>", *(points(made.metrics["differences_by_kind"]["ours <b>"][k]) for k in
                                           ("in_domain", "harder", "other"))]  # fmt: skip


def test_claims_go_by_the_interval(made: Made) -> None:
    assert made.claim("C1")["verdict"] == "holds"
    part = made.claim("C1")["parts"][0]
    assert part["figure"]["low"] > 0
    assert part["figure"] == pytest.approx(
        {k: v for k, v in made.metrics["differences_by_kind"]["ours <b>"]["harder"].items() if k != "p_adjusted"}
    )
    assert any("SFT − base" in each["what"] for each in made.claim("C1")["parts"])
    assert made.claim("C3")["verdict"] == "holds", "one gains, the other does not change"
    assert made.claim("C4")["verdict"] == "holds"
    assert "random_order" in made.claim("C4")["says"]
    assert "1 of the paper's four ablations were run." in made.claim("C4")["remarks"]
    assert made.claim("C5")["verdict"] == "undecided", (
        "forced answers are as right as others, with nothing to tell how sure"
    )
    assert any("F1 on incorrect is high wherever" in each for each in made.claim("C2")["remarks"])
    shown = made.table("The paper's claims")
    assert [row[2] for row in shown.rows] == [claim["verdict"] for claim in made.metrics["claims"]]


def test_what_lies_below_does_not_hold_and_what_was_not_run_is_not_measured(made: Made, tmp_path: Path) -> None:
    rl_only, ours, _ = made.given.rows
    swapped = [Row("skillfactory", "skillfactory", rl_only.runs), Row("rl_only", "rl_only", ours.runs)]
    found = Made(Given("swapped", "rl_only", swapped, [], []), tmp_path / "swapped")
    assert found.claim("C1")["verdict"] == "does not hold"
    assert found.claim("C4")["verdict"] == "not measured"
    alone = Made(Given("alone", "rl_only", [rl_only], [], []), tmp_path / "alone")
    assert {claim["verdict"] for claim in alone.metrics["claims"]} == {"not measured"}
    assert "Ablations" not in check_page(alone.page).headings
    nothing = Made(Given("nothing", "rl_only", [Row("rl_only", "rl_only", {})], [FAILURE], []), tmp_path / "nothing")
    check_page(nothing.page)
    assert FAILURE.retry in nothing.page


def test_one_seed_says_so(made: Made, tmp_path: Path) -> None:
    rows = [Row(row.label, row.method, {0: row.runs[0]}) for row in made.given.rows]
    found = Made(Given("one", "rl_only", rows, [], []), tmp_path)
    assert "questions alone" in found.table("Accuracy by kind of question").note
    assert any("One seed" in note for note in found.metrics["notes"])
    (cell,) = [each for each in found.metrics["cells"] if each["run"]["label"] == "rl_only"]
    alone, shown = (source["accuracy"]["rl"]["2_digits"]["sampled"] for source in (cell, found.metrics["rows"][1]))
    assert {k: shown[k] for k in ("mean", "se", "low", "high")} == {k: alone[k] for k in ("mean", "se", "low", "high")}
    assert "One seed" in " ".join(found.claim("C1")["remarks"])
    assert found.table("The paper's claims").rows[0][2] == f"{found.claim('C1')['verdict']}, for one seed"


def test_a_seed_that_one_row_lacks_is_left_out_of_differences(made: Made, tmp_path: Path) -> None:
    rl_only, ours, _ = made.given.rows
    rows = [rl_only, Row("ours", "skillfactory", {seed: ours.runs[seed] for seed in (0, 2)})]
    found = Made(Given("lacking", "rl_only", rows, [], []), tmp_path)
    assert found.metrics["differences"]["ours"]["2_digits"]["n_seeds"] == 2
    assert any("leave out seed 1, which it or they lack: ours." in note for note in found.metrics["notes"])
    assert found.metrics["rows"][0]["accuracy"]["base"]["2_digits"]["sampled"]["n_seeds"] == 3


def test_forcing_makes_no_other_base_and_other_budgets_stand_beside_the_claim(made: Made, tmp_path: Path) -> None:
    unforced = Row("matched", "rl_only", {0: make_run(tmp_path / "cell", recipe_of("rl_only", n=N), seldom)})
    found = Made(Given("one base", "rl_only", [unforced, *made.given.rows], [], []), tmp_path / "out")
    labels = [row[:2] for row in found.table("Accuracy by kind of question").rows]
    assert [label for label in labels if label[1] == "base"] == [["(all)", "base"]]
    assert ["(all)", "base", "harder"] in [row[:3] for row in found.table("Standard, unforced and forced").rows]
    assert any("ours <b> − matched" in part["what"] for part in found.claim("C1")["parts"])
    assert "where there is one seed" in found.table("Accuracy by kind of question").note


def test_another_base_stands_for_itself(made: Made, tmp_path: Path) -> None:
    instructed = recipe_of("instruction_prompt", attempts={"instruct": True})
    rows = [*made.given.rows[:2], Row("prompted", "instruction_prompt", {0: make_run(tmp_path / "cell", instructed)})]
    found = Made(Given("bases", "rl_only", rows[::-1], [], []), tmp_path / "out")
    labels = [row[:2] for row in found.table("Accuracy by kind of question").rows]
    assert labels.count(["(all)", "base"]) == 1
    assert ["prompted", "base"] in labels
    assert ["rl_only", "base"] not in labels


def test_forcing_and_robustness_by_row(made: Made) -> None:
    table = made.table("Standard, unforced and forced")
    assert table.columns[:5] == ["row", "model", "questions", "budget", "standard"]
    assert ["ours <b>", "RL", "harder"] in [row[:3] for row in table.rows]
    lines = [cell[f"forced_minus_{other}"] for row in made.metrics["rows"] for models in row["forcing_by_kind"].values()
             for cell in models.values() for other in ("standard", "unforced")]  # fmt: skip
    assert all(cell["p_adjusted"] >= cell["p"] for line in lines for cell in line.values())
    change = made.table("Change on other tasks against the base")
    assert change.columns == ["row", "model", "mean", "odd|name"]
    assert [row[:2] for row in change.rows] == [["rl_only", "RL"], ["ours <b>", "SFT"], ["ours <b>", "RL"],
                                                ["random_order", "RL"]]  # fmt: skip


def test_files_hold_the_same(made: Made) -> None:
    text = (made.out / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == made.metrics
    cells = made.rows_of("cells")
    assert {(row["row"], row["seed"]) for row in cells} == {
        (label, str(seed)) for label in ("rl_only", "ours <b>", "random_order") for seed in SEEDS
    }
    (row,) = [r for r in made.rows_of("to_reference") if (r["row"], r["set"]) == ("ours <b>", "2_digits")]
    assert float(row["mean"]) == pytest.approx(made.metrics["differences"]["ours <b>"]["2_digits"]["mean"])
    assert {row["claim"] for row in made.rows_of("claims")} == {"C1", "C2", "C3", "C4", "C5"}
    assert made.rows_of("failures")[0]["cell"] == "broken-0"
    assert made.rows_of("curves")[0]["step"] == "1.0"
    markdown = (made.out / "experiment.md").read_text(encoding="utf-8")
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    assert "<script" not in html
    assert "The paper's claims" in markdown
    assert "\x1b" not in markdown


def test_terminal_prints_claims_first(made: Made) -> None:
    shown = experiment.tables(made.metrics)
    assert shown[0].title == "The paper's claims"
    text = printed(lambda console: [print_table(table, console) for table in shown] and None)
    assert "Difference to rl_only" in text
    assert "\x1b" not in text


def test_curves_have_a_band_over_seeds(made: Made) -> None:
    lines = made.metrics["curves"]["rl_only"]["rl"]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[2]["reward"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "n_seeds": 3}


def test_time_is_shared_out_and_adds_up(made: Made) -> None:
    whole = made.metrics["time"][""]
    assert sum(whole[part] for part in shares.PARTS) == pytest.approx(whole["seconds"])
    assert whole["failed"] == 10.0
    assert whole["idle"] == 110.0
    one = made.metrics["time"]["rl_only"]
    assert one["other"] > 90, "what the log knows and no stage does"
    shown = made.table("Where the time went")
    assert [row[0] for row in shown.rows] == ["rl_only", "ours <b>", "random_order", "all"]
    for row in shown.rows:
        assert sum(float(cell) for cell in row[2:]) == pytest.approx(100, abs=0.5)


def test_a_change_from_the_base_is_of_its_own_questions(made: Made) -> None:
    row = read(made.given.rows[1])
    change: Scores = row.change("rl", ["odd|name"])
    for seed, sets in change.items():
        for question, value in sets["odd|name"].items():
            one, base = (row.cells[seed].scores[model, "odd|name", "sampled"][question] for model in ("rl", "base"))
            assert value == one - base


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_page_opens_quietly_and_fits(browser: Any, made: Made, width: int, scheme: str) -> None:
    with visit(
        browser, made.out / "experiment.html", viewport={"width": width, "height": 800}, color_scheme=scheme
    ) as seen:
        tab = seen.page
        for details in tab.locator("details").all():
            details.evaluate("each => { each.open = true; }")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.locator("figure svg").count() >= 6


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    write_evil = lambda model, question, sample: f"{EVIL}{(trace if sample else plain)(question.answer)}"  # noqa: E731
    runs = {seed: make_run(tmp_path / str(seed), recipe_of(seed=seed), write_evil) for seed in (0, 1)}
    rows = [Row(EVIL, "skillfactory", runs), Row("=1+1", "rl_only", runs)]
    found = Made(Given(EVIL, "=1+1", rows, [FAILURE], []), tmp_path / "out")
    check_page(found.page)
    assert "<script" not in found.page
    assert "\x1b" not in found.page
    assert all(row["row"].startswith(("'", "(", "<")) for row in found.rows_of("accuracy"))
    assert not math.isnan(found.metrics["time"][""]["seconds"])


def test_forcing_that_harms_less_is_no_help() -> None:
    """C5 rests on what forcing does to SkillFactory's model, too."""

    def row(label: str, standard: float, forced: float) -> Measured:
        recipe = recipe_of(label, evaluation=forced_recipe)
        cells = {}
        for seed in SEEDS:
            asked = {f"{seed} {i}": i for i in range(40)}
            scores = {
                ("rl", "2_digits", mode): {q: float((i * 7 + seed) % 40 < 40 * share) for q, i in asked.items()}
                for mode, share in (("sampled", standard), (f"forced-{BUDGET}", forced))
            }
            cells[seed] = Cell(LoadedRun(Path(), recipe), {}, scores)
        return Measured(label, label, cells, {"2_digits": "in_domain"})

    forced_recipe = forced()
    harmed = claims.claims([row("skillfactory", 0.8, 0.6), row("rl_only", 0.8, 0.3)], "rl_only")[4]
    assert [part.verdict for part in harmed.parts if part.counts] == ["holds", "does not hold"]
    assert harmed.verdict == "does not hold"
    helped = claims.claims([row("skillfactory", 0.5, 0.8), row("rl_only", 0.5, 0.55)], "rl_only")[4]
    assert helped.verdict == "holds"
