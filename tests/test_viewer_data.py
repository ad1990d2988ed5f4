"""What the trace viewer holds: pieces, grades, triggers, and how many questions there is room for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from viewed import EASY, make_run, questions_in, recipe_of, reflect, sample, typical

from skillfactory import seeds
from skillfactory.evaluation.forcing import reopened
from skillfactory.recipe import Forcing
from skillfactory.records import Grade, Question, Response
from skillfactory.report import chosen
from skillfactory.report.pieces import parts_of, pieces_of, shown, triggers_of
from skillfactory.report.viewer import Viewer, build
from skillfactory.store import LoadedRun, load_run
from skillfactory.tags import blocks, missing_tags, verdict_of
from skillfactory.tasks.questions import task_of

TAGS = ("<think>", "</think>", "<sample>", "</sample>", "<reflect>", "</reflect>", "<answer>", "</answer>")
SOUP = st.lists(
    st.sampled_from([*TAGS, "<verdict>Correct</verdict>", "a", "\n", "\x1b", "\u202e", "<!--"]), max_size=25
)


def data_of(viewer: Viewer | None) -> dict[str, Any]:
    assert viewer is not None
    data: dict[str, Any] = json.loads(viewer.data)
    return data


def texts_of(data: dict[str, Any]) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """Each response by key of its column, set, question and sample."""
    return {
        (column["key"], each["name"], question["id"], number): data["responses"][place]
        for each in data["sets"]
        for question in each["questions"]
        for column, places in zip(data["columns"], question["r"], strict=True)
        for number, place in enumerate(places)
        if place >= 0
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return make_run(tmp_path_factory.mktemp("viewed") / "run")


@given(SOUP, st.lists(st.integers(0, 80), max_size=3), st.integers(0, 80), st.booleans())
def test_parts_join_to_the_text(soup: list[str], triggers: list[int], cut: int, whole: bool) -> None:
    text = "".join(soup)
    parts = parts_of(text, [(place, "Wait,") for place in triggers], cut, whole)
    assert "".join(part.text for part in parts) == text
    assert [part.inner for part in parts if part.kind == "sample"] == [
        b.text for b in blocks(text)[0] if b.kind == "sample"
    ]
    assert "".join(piece.text for piece in pieces_of(text)) == shown(text)
    assert sum(part.kind == "trigger" for part in parts) == sum(place <= len(text) for place in triggers)


def test_parts_of_a_response() -> None:
    text = f"<think>\n{sample('7')}{reflect('Incorrect')}Again.\n</think>\n\nDone.\n\n<answer>\n7\n</answer> Bye."
    assert [part.kind for part in parts_of(text)] == ["plain", "sample", "plain", "reflect", "plain", "final", "plain"]
    assert "final" not in [part.kind for part in parts_of(text, whole=False)]
    assert "final" not in [part.kind for part in parts_of(f"<think>\n{sample('7')}")]  # cut inside its thinking


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_text_can_stand_in_a_page(text: str) -> None:
    encoded = chosen.as_json([shown(text)])
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded.encode().decode()) == [shown(text)]
    assert len(shown(text)) == len(text)


def test_every_response_is_there_with_its_grades(run: LoadedRun) -> None:
    data = data_of(build([run], ["run"]))
    found = texts_of(data)
    rows = run.rows("evaluation", Response)
    asked = questions_in(run)
    judged = []
    for row in rows:
        key = row.model if row.mode == "sampled" else f"{row.model}/{row.mode}"
        entry = found.pop((key, row.set, row.question_id, row.sample))
        assert "".join(p[1] for p in entry["pieces"] if p[0] != "t") == row.text
        assert (entry["outcome"], entry["answer"], entry["end"]) == (row.outcome, row.answer, row.finish_reason)
        assert entry.get("malformed", 0) == missing_tags(row.text, row.finish_reason == "length")
        task = task_of(run.recipe.evaluation.sets[row.set].task)
        right: bool | None = None
        attempts = iter([b for b in blocks(row.text)[0] if b.kind == "sample"])
        for piece in entry["pieces"]:
            if piece[0] == "s":
                grade = task.grade(asked[row.question_id], next(attempts).text)
                right = grade.outcome == "correct"
                assert data["grades"][piece[2]] == [grade.outcome, chosen.in_words(grade)]
            elif piece[0] == "b":
                right = None
            elif piece[0] == "r":
                assert piece[2] == verdict_of(piece[1])
                judged.append(piece[3])
                assert piece[3] == (None if right is None else (piece[2] == "correct") == right)
    assert found == {}
    assert {True, False, None} <= set(judged)


def test_columns_of_a_run(run: LoadedRun) -> None:
    data = data_of(build([run], ["run"]))
    labels = [column["label"] for column in data["columns"]]
    assert labels[:2] == ["base", "base, greedy"]
    assert "RL, forced to 300 tokens" in labels
    assert [labels[number] for number in data["show"]] == ["base", "SFT", "RL"]
    assert [labels[number] for number in data["pair"]] == ["base", "RL"]
    assert [each["name"] for each in data["sets"]] == ["easy", "hard"]
    (turn,) = data["prompts"][0]
    assert turn[0] == "user"
    assert "<answer>" in turn[1][1]


def test_triggers_stand_where_forcing_put_them(run: LoadedRun) -> None:
    data = data_of(build([run], ["run"]))
    forced = {key: entry for key, entry in texts_of(data).items() if "forced" in key[0]}
    assert len(forced) == 2 * 2 * 13 * 2  # models, budgets, questions, samples
    for (column, *_), entry in forced.items():
        kinds = [piece[0] for piece in entry["pieces"]]
        assert kinds.count("t") == entry["forced"] == (1 if column.endswith("200") else 2)
        assert kinds.count("c") == 1
        for number, piece in enumerate(entry["pieces"]):
            if piece[0] == "t":
                assert entry["pieces"][number + 1][1].startswith(piece[1] or "nothing")


@given(SOUP, SOUP)
def test_triggers_of_any_text(first: list[str], second: list[str]) -> None:
    forcing = Forcing(trigger="<sample>", plain_trigger="Wait,")
    row = Response("q", "rl", "s", "sampled", 0, "".join(first), "", "wrong", "", "stop", 1)
    longer = replace(row, text=reopened(row.text, forcing) + "".join(second))
    ((place, trigger),) = triggers_of([row, longer], forcing)
    assert trigger == ("<sample>" if "<think>" in row.text else "Wait,")
    assert longer.text.startswith(trigger, place)
    assert triggers_of([row, replace(row, text="other" + longer.text)], forcing) == ()


def test_budget_is_kept_and_sets_are_even(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe=recipe_of(n=25, method="rl_only"), models=("base", "rl"))
    whole = build([run], ["run"])
    assert whole is not None
    assert whole.shown == whole.there == {"easy": 26, "hard": 25}
    before: dict[str, list[str]] = {"easy": [], "hard": []}
    for budget in (20_000, 40_000, 80_000):
        viewer = build([run], ["run"], budget)
        assert viewer is not None
        assert budget * 0.5 < len(viewer.data.encode()) <= budget
        assert abs(viewer.shown["easy"] - viewer.shown["hard"]) <= 1
        assert viewer.there == whole.there
        for each in data_of(viewer)["sets"]:
            ids = [question["id"] for question in each["questions"]]
            assert ids == sorted(ids, key=lambda i: seeds.content_id("viewer", i))
            assert ids[: len(before[each["name"]])] == before[each["name"]]
            before[each["name"]] = ids
    assert build([run], ["run"], 1_000) is None


def test_long_texts_are_cut_with_a_note(tmp_path: Path) -> None:
    recipe = recipe_of(n=1, evaluation={"samples": 1, "sets": {"easy": {"task": EASY, "n": 1}}})
    run = make_run(tmp_path / "run", lambda *_: "x" * 900_000 + "</sample>", recipe, models=("base",))
    (entry,) = data_of(build([run], ["run"]))["responses"]
    assert (len(entry["pieces"][0][1]), entry["more"], entry["malformed"]) == (20_000, 880_009, 1)
    (entry,) = data_of(build([run], ["run"], 12_000))["responses"]
    assert len(entry["pieces"][0][1]) == 5_000  # rather than no question at all


def test_what_repeats_is_stored_once(tmp_path: Path) -> None:
    ours = make_run(tmp_path / "ours", models=("base", "sft", "rl"))
    plain = make_run(tmp_path / "plain", recipe=recipe_of(method="rl_only"), models=("base", "rl"))
    alone, both = data_of(build([ours], ["ours"])), data_of(build([ours, plain], ["ours", "plain"]))
    labels = [column["label"] for column in both["columns"]]
    assert labels[:2] == ["base", "base, greedy"]  # both runs' own, word for word
    assert "plain · RL, forced to 200 tokens" in labels
    assert [labels[number] for number in both["show"]] == ["base", "ours · RL", "plain · RL"]
    assert [labels[number] for number in both["pair"]] == ["plain · RL", "ours · RL"]
    # The RL models of both write the same, too.
    assert len(both["responses"]) == len(alone["responses"]) < len(texts_of(alone))
    other = make_run(
        tmp_path / "other", lambda m, q, s: "Hm." + typical(m, q, s), recipe_of(method="rl_only"), ("base",)
    )
    labels = [column["label"] for column in data_of(build([ours, other], ["ours", "other"]))["columns"]]
    assert "ours · base" in labels
    assert "other · base" in labels


def test_none_without_responses(tmp_path: Path) -> None:
    assert build([make_run(tmp_path / "run", models=())], ["run"]) is None


def test_what_cannot_be_graded_is_shown_all_the_same(
    tmp_path: Path, run: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(task: object, question: Question, text: str) -> Grade:
        return Grade("no_answer", reason="check_failed")

    def grades(change: Callable[[pytest.MonkeyPatch], None]) -> set[str]:
        with monkeypatch.context() as patch:
            change(patch)
            data = data_of(build([run], ["run"]))
        return {data["grades"][p[2]][0] for entry in data["responses"] for p in entry["pieces"] if p[0] == "s"}

    assert grades(lambda patch: None) == {"correct", "wrong", "no_answer"}
    assert grades(lambda patch: patch.setattr(chosen, "grade", breaks)) == {""}
    assert "" in grades(lambda patch: patch.setattr(chosen, "GRADING", 0.0))


def test_a_run_whose_files_are_gone(tmp_path: Path) -> None:
    file, prompts = tmp_path / "questions.jsonl", tmp_path / "prompts.yaml"
    file.write_text(
        '{"question": "What is 3 times 4?", "answer": "12"}\n{"question": "What is 2 + 2?", "answer": "4"}\n'
    )
    prompts.write_text(
        "variants: {own: {user: 'Q: {question}'}}\ntrain_variant: own\nreflection: {user: '{question}{attempt}'}\n"
    )
    task = {"name": "jsonl", "params": {"path": str(file)}}
    recipe = recipe_of(
        questions={"task": EASY, "sft": 2, "rl": 2, "dev": 2}, attempts={"prompts": str(prompts)},
        evaluation={"samples": 1, "sets": {"own": {"task": task, "n": 2}}},
    )  # fmt: skip
    run = make_run(tmp_path / "run", lambda m, q, s: sample(q.answer), recipe, models=("base",))
    data = data_of(build([run], ["run"]))
    assert data["prompts"] == [[["user", ["Q: ", ""]]]]
    assert data["grades"][1] == ["correct", ""]
    file.unlink()
    prompts.unlink()
    from skillfactory.curation.prompts import load_prompts

    load_prompts.cache_clear()
    data = data_of(build([load_run(run.path)], ["run"]))
    assert data["prompts"] == [None]
    assert len(data["responses"]) == 2
