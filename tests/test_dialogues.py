"""A teacher's responses as chat data have them, from the file to SFT."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import make_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces_run import make_run, make_trace
from typer.testing import CliRunner

from skillfactory.cli import app
from skillfactory.curation import given as given_samples
from skillfactory.errors import QuestionError
from skillfactory.formats import source
from skillfactory.formats.dialogues import TEACHER, read_given
from skillfactory.formats.export import FORMATS, export
from skillfactory.formats.raw import RawRow
from skillfactory.records import Attempt, Question, Trace
from skillfactory.store import load_run
from skillfactory.tasks import get
from skillfactory.tasks.raw_data import answered, samples

THOUGHT = "<think>\nTwo threes.\n</think>\n\n<answer>\n6\n</answer>"


def write(path: Path, rows: list[Any]) -> str:
    """Parquet, JSON lines or one JSON list, by the name's end."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def said(question: str, reply: str, **columns: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}], **columns}


FORMS: list[dict[str, Any]] = [
    said("3 * 2?", THOUGHT),
    {"messages": [{"role": "system", "content": "Be brief."}, *said("3 * 2?", THOUGHT)["messages"]]},
    {"messages": json.dumps(said("3 * 2?", THOUGHT)["messages"])},
    {"conversations": [{"from": "human", "value": "3 * 2?"}, {"from": "gpt", "value": THOUGHT}], "system": "Be brief."},
    {"conversations": said("3 * 2?", THOUGHT)["messages"], "sft_template_type_idx": "2C"},
    {"prompt": "3 * 2?", "completion": THOUGHT},
    {"prompt": said("3 * 2?", "")["messages"][:1], "completion": [{"role": "assistant", "content": THOUGHT}]},
    {"problem": "3 * 2?", "response": THOUGHT, "prompt": None},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "3 * "}, {"type": "text", "text": "2?"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "<answer>\n6\n</answer>"}],
                   "reasoning_content": "Two threes."}]},
    said("3 * 2?", "<|begin_of_thought|>\nTwo threes.\n<|end_of_thought|>\n\n"
         "<|begin_of_solution|>\n<answer>\n6\n</answer><|end_of_solution|>"),
    said("3 * 2?", THOUGHT.removeprefix("<think>\n")),
    said("3 * 2?\n\nThink step by step. Then give the final answer between <answer> and </answer>.", THOUGHT),
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("row", FORMS, ids=range(len(FORMS)))
def test_every_form_gives_question_and_reply(tmp_path: Path, row: dict[str, Any], suffix: str) -> None:
    file = write(tmp_path / f"t{suffix}", [row, row])
    found = list(read_given(file))
    assert found == [RawRow("3 * 2?", "", TEACHER, THOUGHT, None, "", [], n, chat=True) for n in (1, 2)]
    assert [each.where for each in found] == [f"{file}, row {n}" for n in (1, 2)]


def test_what_we_export_can_be_learnt_from(tmp_path: Path) -> None:
    traces = [make_trace(i, system=bool(i % 2)) for i in range(5)]
    run = make_run(tmp_path / "run", [traces])
    for name in FORMATS:
        export(run, name, tmp_path / name)
        found = list(read_given(str(tmp_path / name)))
        assert [(row.question, row.text) for row in found] == [
            (trace.prompt[-1]["content"], trace.completion) for trace in traces
        ]


def test_the_first_exchange_is_taken_and_others_are_counted(tmp_path: Path) -> None:
    talk = [("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"), ("tool", "e"), ("assistant", "f")]
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in talk]},
        {"prompt": [{"role": role, "content": text} for role, text in talk[:2]],
         "completion": [{"role": role, "content": text} for role, text in talk[2:]]},
    ]  # fmt: skip
    found = list(read_given(write(tmp_path / "t.jsonl", rows)))
    assert [(row.question, row.text, row.further) for row in found] == [("b", "c", 1)] * 2


REFERENCES: list[tuple[dict[str, Any], tuple[bool | None, str]]] = [
    ({}, (None, "")),
    ({"correct": True}, (True, "")),
    ({"is_correct": False, "answer": "6"}, (False, "6")),
    ({"correct": None, "answer": "6"}, (None, "6")),
    ({"answer": 6.0}, (None, "6")),
    ({"answer": None, "ground_truth": "6"}, (None, "6")),
    ({"solution": "It is $3 \\cdot 2 = \\boxed{6}$.\n\nDone."}, (None, "6")),
    ({"solution": "Two threes\n#### 6"}, (None, "6")),
    ({"solution": "Two\nthrees"}, (None, "")),
    ({"answer": ["6"], "reference_answer": "6"}, (None, "6")),
]


@pytest.mark.parametrize(("columns", "expected"), REFERENCES, ids=lambda value: str(value)[:40])
def test_references(tmp_path: Path, columns: dict[str, Any], expected: tuple[bool | None, str]) -> None:
    (row,) = read_given(write(tmp_path / "t.jsonl", [said("3 * 2?", THOUGHT, **columns)]))
    assert (row.correct, row.answer) == expected


@pytest.mark.parametrize(
    ("reply", "added"),
    [
        ("So \\boxed{6}.", "6"),
        ("<think>\\boxed{5}?</think>\nIt is \\boxed{\\frac{1}{2}}, or \\boxed{ 6 }.", "6"),
        ("<think>so <answer>5</answer></think>\\boxed{6}", "6"),
        ("<think>\\boxed{6}", None),
        ("<think>\\boxed{6}</think> It is six.", None),
        ("It is \\boxed{5}. <answer>6</answer>", None),
        ("It is six.", None),
    ],
)
def test_an_answer_in_a_box_is_also_given_in_tags(reply: str, added: str | None) -> None:
    assert answered(reply) == (reply if added is None else f"{reply}\n\n<answer>\n{added}\n</answer>")


BAD: list[tuple[Any, str]] = [
    ({"messages": []}, "no reply of an assistant in `messages`; leave the row out"),
    ({"messages": "text"}, "`messages` is null; it must be a list of messages"),
    ({"messages": {"role": "user"}}, "`messages` is an object; it must be a list of messages"),
    ({"messages": ["text"]}, "number 1 in `messages` is text; it must be a message"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no reply of an assistant in `messages`; leave the row out"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "nothing that a user says before the reply in `messages`"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "number 1 in `messages` has the role 'tool', which is none of"),
    ({"messages": [{"content": "a"}]}, "number 1 in `messages` has the role null, which is none of user, human,"),
    ({"messages": [{"role": "user", "content": 1}]}, "number 1 in `messages` says a number; it must be text"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "number 1 in `messages` says a list; it must"),
    (said(" ", "a"), "number 1 in `messages` is empty; leave the row out"),
    (said("a", ""), "number 2 in `messages` is empty; leave the row out"),
    (said("a", "b", correct="yes"), "`correct` is text; it must be true or false"),
    ({"messages": None, "prompt": "a", "completion": None}, "`completion` is missing or null; it must be text or mess"),
    ({"messages": None}, "`prompt` is missing or null; it must be text or messages"),
    ({"prompt": "a", "completion": [{"role": "user", "content": "b"}]}, "no reply of an assistant in `completion`"),
    ({"prompt": "a", "completion": 1}, "`completion` is a number; it must be a list of messages"),
    ({"prompt": [], "completion": "a"}, "nothing that a user says in `prompt`; leave the row out"),
    ("text", "text, not a JSON object; give one object a line"),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(("row", "told"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_row_is_named(tmp_path: Path, row: Any, told: str, suffix: str) -> None:
    file = write(tmp_path / f"t{suffix}", [said("a", "b")] * 300 + [row])
    with pytest.raises(QuestionError) as error:
        list(read_given(file))
    assert str(error.value).startswith(f"{file}, row 301: {told}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.jsonl", b'{"text": "a"}', " has no column `messages` or `conversations`, no `prompt` with a `completion`"),
        (
            "t.jsonl",
            b'{"prompt": "a"}',
            " has no column `messages` or `conversations`, no `prompt` with a `completion`",
        ),
        ("t.jsonl", b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', ", row 1: half a surrogate pair"),
        ("t.json", b'[{"messages": "\\udc00"}]', ", row 1: half a surrogate pair"),
        ("t.json", b"[]", " holds no rows"),
        ("t.json", b" [\n", ", row 1: not JSON (Expecting value); give a list of objects."),
        ("t.json", b'[{"a": 1} {"a": 2}]', ", row 1: not JSON (`,` or `]` is expected after it); give a list"),
        ("t.json", b'[{"a": 1}, {"a": 2', ", row 2: not JSON ("),
        ("t.json", b'[{"a": 1},', ", row 2: not JSON ("),
        ("t.json", b'[{"a": "\xff"}]', ", row 1: not UTF-8 text; save the file as UTF-8."),
        ("t.json", b'[{"a": ' + b"[" * 100_000, ", row 1: not JSON ("),
        ("t.parquet", b"PAR1", " is not a Parquet file that can be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QuestionError) as error:
        list(read_given(str(tmp_path / name)))
    assert str(error.value).startswith(f"{tmp_path / name}{told}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "a"]), inner),
    max_leaves=8,
)
ROLE = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", ""]) | JSON
MESSAGE = st.fixed_dictionaries({}, optional={
    "role": ROLE, "from": ROLE, "content": JSON, "value": JSON, "reasoning": JSON,
})  # fmt: skip
CHAT = st.lists(MESSAGE | JSON, max_size=4) | JSON
ROW = st.fixed_dictionaries({"messages": CHAT}, optional={
    "conversations": CHAT, "prompt": CHAT, "completion": CHAT, "correct": JSON, "answer": JSON, "solution": JSON,
})  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(ROW | JSON, min_size=1, max_size=3), st.sampled_from([".jsonl", ".json"]))
def test_no_row_breaks_the_reader(tmp_path: Path, rows: list[Any], suffix: str) -> None:
    file = write(tmp_path / f"t{suffix}", rows)
    with suppress(QuestionError):
        for row in samples(file):
            assert row.question.strip()
            assert row.text.strip()
            json.dumps([row.question, row.text, row.answer, row.extracted], ensure_ascii=False).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=9), st.integers(1, 9)
)
def test_a_list_is_read_piece_by_piece(tmp_path: Path, texts: list[str], size: int) -> None:
    rows = [{"messages": text, "n": n, "deep": {"a": [1, {"b": text}]}} for n, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_READ", size)
        patch.setattr(source, "_AT_ONCE", 2)
        found = list(source.batches(write(tmp_path / "t.json", rows), "", lambda file, names: names))
    assert [row for _, _, batch in found for row in batch] == rows
    assert [first for _, first, _ in found] == list(range(1, len(rows) + 1, 2))


# --- the method


def teacher_rows() -> list[dict[str, Any]]:
    """Two replies a question: of each three questions one is solved twice, one once, one never."""
    rows = []
    for n in range(12):
        for k in range(2):
            right = n % 3 == 0 or (n % 3 == 1 and k == 0)
            reply = f"<think>\nTry {k}. <sample>{n}</sample>\n</think>\n\n\\boxed{{{n + 1 if right else n}}}"
            rows.append(said(f"What is {n} + 1?", reply, answer=str(n + 1)))
    return rows


def distilled(folder: Path, file: str, *words: str, until: str = "traces", model: str = "tiny") -> Any:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(make_recipe(method="evaluate", model=model).model_dump(mode="json")))
    settings = ["method=distill", f"distill.traces={file}", "questions.sft=1000", *words]
    return CliRunner().invoke(app, ["run", str(path), *settings, "--run", str(folder / "run"), "--until", until])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_right_replies_become_traces(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_samples, "BLOCK", 3)
    monkeypatch.setattr(given_samples, "WAITING", 2000)
    file = write(tmp_path / f"t{suffix}", teacher_rows())
    done = distilled(tmp_path, file)
    assert done.exit_code == 0, done.output
    run = load_run(tmp_path / "run")
    attempts, traces = run.rows("attempts", Attempt), run.rows("traces", Trace)
    assert len({attempt.id for attempt in attempts}) == 24
    assert sum(attempt.outcome == "correct" for attempt in attempts) == 12
    assert {(attempt.reason, attempt.finish_reason) for attempt in attempts} == {("", "stop")}
    texts = {question.id: question.text for question in run.rows("questions", Question) if question.split == "sft"}
    assert len(texts) == 12
    assert len(traces) == 12
    assert {trace.pattern for trace in traces} == {"solution"}
    for trace in traces:
        n = int(texts[trace.question_id].split()[2])
        assert trace.completion.endswith(f"\\boxed{{{n + 1}}}\n\n<answer>\n{n + 1}\n</answer>")
        assert trace.completion.startswith("<think>\nTry ")
        assert trace.prompt[-1]["content"].startswith(f"What is {n} + 1?\n\n")
        assert len(trace.steps) == 1


def test_all_replies_may_be_kept(tmp_path: Path) -> None:
    rows = [*teacher_rows(), said("Why?", "Because."), said("Why not?", "<think>\nThat would")]
    del rows[0]["answer"], rows[1]["answer"]
    assert distilled(tmp_path, write(tmp_path / "t.jsonl", rows), "distill.keep=all").exit_code == 0
    run = load_run(tmp_path / "run")
    by_text = {attempt.text: attempt for attempt in run.rows("attempts", Attempt)}
    assert (by_text["Because."].outcome, by_text["Because."].reason) == ("wrong", "not_checked")
    assert by_text["<think>\nThat would"].finish_reason == "length"
    assert sum(attempt.reason == "not_checked" for attempt in by_text.values()) == 4
    assert sum(attempt.outcome == "correct" for attempt in by_text.values()) == 10
    traces = run.rows("traces", Trace)
    assert {trace.completion for trace in traces} == set(by_text) - {"<think>\nThat would"}


def test_what_nothing_is_known_of_is_named(tmp_path: Path) -> None:
    rows = teacher_rows()
    del rows[4]["answer"], rows[5]["answer"]
    file = write(tmp_path / "t.jsonl", rows)
    told = (
        f"Error: {file}, row 5: nothing says whether the reply is right; add a column `correct` (true or false) or "
        "`answer` (what is right), or learn from all replies with distill.keep=all.\n"
    )
    done = distilled(tmp_path, file)
    assert (done.exit_code, done.stderr[-len(told) :]) == (2, told)
    assert distilled(tmp_path, file, "distill.keep=all").exit_code == 0  # the same command with the mend


def test_what_the_file_says_is_right_is_right(tmp_path: Path) -> None:
    rows = [
        said("Why?", "Because.", correct=True),
        said("How?", "Well.", correct=False),
        said("2?", THOUGHT, correct=True),
    ]
    assert distilled(tmp_path, write(tmp_path / "t.jsonl", rows)).exit_code == 0
    assert {trace.completion for trace in load_run(tmp_path / "run").rows("traces", Trace)} == {"Because.", THOUGHT}


def test_further_replies_are_logged(tmp_path: Path) -> None:
    row = said("3 * 2?", THOUGHT, answer="6")
    row["messages"] += row["messages"]
    assert distilled(tmp_path, write(tmp_path / "t.jsonl", [row])).exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["replies"] for line in lines if "left out" in line["event"]] == [1]


def test_answers_are_compared_as_mathematics(tmp_path: Path) -> None:
    rows = [said("Half?", "<answer>\\frac{1}{2}</answer>", answer="0.5"), said("Third?", "\\boxed{3}", answer="1/3")]
    task = get("raw_data", path=write(tmp_path / "t.jsonl", rows))
    half, third = task.generate(2, 0)
    assert task.grade(half, "<answer>2/4</answer>").outcome == "correct"
    assert task.grade(half, "<answer>0.25</answer>").outcome == "wrong"
    assert task.grade(third, "It is 1/3.").outcome == "no_answer"
    assert task.grade(third, "<answer>1/3</answer>").outcome == "correct"


def test_distillation_reaches_sft(tmp_path: Path, random_model: Path) -> None:
    file = write(tmp_path / "t.jsonl", teacher_rows())
    done = distilled(tmp_path, file, "sft.epochs=1", until="sft", model=str(random_model))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "sft" / "model" / "model.safetensors").is_file()
