"""Raw data as the authors have it: every naming, every shape, and a sentence for every fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import CODE, columns, make_rows, write_raw

from skillfactory.errors import QuestionError
from skillfactory.formats.raw import RawRow, raw_digest, read_raw

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FULL = TEXT.filter(lambda text: bool(text.strip()))


def expected(rows: list[dict[str, Any]]) -> list[RawRow]:
    """What is to be read from rows that have all lists a response."""
    return [
        RawRow(row["question"], row["answer"], row["variant"], *parts, number)
        for number, row in enumerate(rows, start=1)
        for parts in zip(row["texts"], row["correct"], row["extracted"], row["reflections"], strict=True)
    ]


@st.composite
def raw_rows(draw: st.DrawFn) -> tuple[bool, list[dict[str, Any]]]:
    """Whether reflections are flat (one response a row) in the file, and rows with a list of them a response."""
    flat = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        n = 1 if flat else draw(st.integers(1, 3))

        def lists(of: st.SearchStrategy[Any], n: int = n) -> list[Any]:
            return draw(st.lists(of, min_size=n, max_size=n))

        rows.append({
            "question": draw(FULL), "answer": draw(FULL), "variant": draw(FULL), "texts": lists(TEXT),
            "correct": lists(st.booleans()), "extracted": lists(TEXT), "reflections": lists(st.lists(TEXT, max_size=3)),
        })  # fmt: skip
    return flat, rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw_rows(), st.sampled_from([".parquet", ".jsonl"]), st.sampled_from(["code", "README"]), st.integers(1, 3))
def test_what_was_written_is_read(
    tmp_path: Path, given: tuple[bool, list[dict[str, Any]]], suffix: str, naming: str, group: int
) -> None:
    flat, rows = given
    shaped = [row | {"reflections": row["reflections"][0]} for row in rows] if flat else rows
    file = write_raw(tmp_path / f"raw{suffix}", shaped, naming, group)
    assert list(read_raw(str(file))) == expected(rows)


def test_names_may_be_joined_by_one_underscore_or_two(tmp_path: Path) -> None:
    rows = make_rows(2)
    names = {
        "variant": "prompt_type", "texts": "model_responses__example_annotation", "correct": f"{CODE}_eval_is_correct",
        "extracted": f"{CODE}__eval_extracted_answers", "reflections": f"{CODE}__reflection", "more": "more",
    }  # fmt: skip
    mixed = [{names.get(k, k): v for k, v in {**row, "more": 1}.items()} for row in rows]
    (tmp_path / "raw.jsonl").write_text("\ufeff\n\n" + "\n\n".join(json.dumps(row) for row in mixed) + "\n")
    found = list(read_raw(str(tmp_path / "raw.jsonl")))
    assert found == expected([row | {"reflections": [row["reflections"]]} for row in rows])


def test_shapes_that_are_taken(tmp_path: Path) -> None:
    row = make_rows(1)[0]
    shaped = [
        row | {"texts": row["texts"][0]},  # as their README has it
        row | {"reflections": [row["reflections"]]},
        row | {"extracted": [None]},
        row | {"answer": 24},
        row | {"reflections": []},
    ]
    found = list(read_raw(str(write_raw(tmp_path / "raw.jsonl", shaped))))
    assert [each.text for each in found] == [row["texts"][0]] * 5
    assert [len(each.reflections) for each in found] == [4, 4, 4, 4, 0]
    assert (found[2].extracted, found[3].answer) == ("", "24")
    parquet = write_raw(tmp_path / "raw.parquet", [row | {"texts": row["texts"][0], "extracted": [None]}])
    assert [(each.text, each.extracted) for each in read_raw(str(parquet))] == [(row["texts"][0], "")]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    rows = make_rows(900)
    write_raw(tmp_path / "raw" / "b" / "2.jsonl", rows[300:600])
    write_raw(tmp_path / "raw" / "a-1.parquet", rows[:300])
    write_raw(tmp_path / "raw" / "c.parquet", rows[600:], "README")
    write_raw(tmp_path / "raw" / ".cache" / "0.parquet", rows)
    (tmp_path / "raw" / "README.md").write_text("of no account")
    found = list(read_raw(str(tmp_path / "raw")))
    assert [each.row for each in found] == list(range(1, 901))
    assert [each.text for each in found] == [row["texts"][0] for row in rows]


def fault(source: Path) -> str:
    with pytest.raises(QuestionError) as error:
        list(read_raw(str(source)))
    told = str(error.value)
    assert "\n" not in told
    assert told.startswith(str(source)) or told.startswith(f"Raw data {source}")
    return told.removeprefix(str(source))


N = columns()
BAD: list[tuple[dict[str, Any], str]] = [
    ({"question": None}, "`question` is null; it must be text"),
    ({"question": " "}, "`question` is empty; it must be text"),
    ({"question": 3}, "`question` is a number; it must be text"),
    ({"answer": [1]}, "`answer` is a list; it must be text"),
    ({"answer": True}, "`answer` is true or false; it must be text"),
    ({"variant": None}, "`prompt_variant` is null; it must be text"),
    ({"texts": None}, f"`{CODE}` is null; it must be a list of texts"),
    ({"texts": []}, f"no response in `{CODE}`; leave the row out"),
    ({"texts": [None]}, f"number 1 in `{CODE}` is null; it must be a list of texts"),
    ({"texts": {"a": 1}}, f"`{CODE}` is an object; it must be a list of texts"),
    ({"correct": [1]}, f"number 1 in `{N['correct']}` is a number; it must be a list of true or false"),
    ({"correct": ["True"]}, f"number 1 in `{N['correct']}` is text; it must be a list of true or false"),
    ({"correct": [None]}, f"number 1 in `{N['correct']}` is null; it must be a list of true or false"),
    ({"correct": True}, f"`{N['correct']}` is true or false; it must be a list of true or false"),
    ({"correct": [True, False]}, f"2 in `{N['correct']}` but 1 in `{CODE}`; give one a response"),
    ({"correct": []}, f"0 in `{N['correct']}` but 1 in `{CODE}`; give one a response"),
    ({"extracted": ["1", "2"]}, f"2 in `{N['extracted']}` but 1 in `{CODE}`; give one a response"),
    ({"extracted": [1]}, f"number 1 in `{N['extracted']}` is a number; it must be a list of texts"),
    ({"extracted": "1"}, f"`{N['extracted']}` is text; it must be a list of texts"),
    ({"reflections": "one"}, f"`{N['reflections']}` is text; it must be a list of lists of texts"),
    ({"reflections": ["one", None]}, f"number 2 in `{N['reflections']}` is null; it must be a list of texts"),
    ({"reflections": [["a"], ["b"]]}, f"2 in `{N['reflections']}` but 1 in `{CODE}`; give one list a response"),
    ({"reflections": [["a", 1]]}, f"number 2 in `{N['reflections']}` is a number; it must be a list of texts"),
    (
        {"texts": ["a", "b"], "correct": [True, True], "extracted": ["", ""], "reflections": ["a", "b"]},
        f"number 1 in `{N['reflections']}` is text; it must be a list of lists of texts",
    ),
    (
        {"texts": ["a", "b"], "correct": [True, True], "extracted": ["", ""], "reflections": [["a"]]},
        f"1 in `{N['reflections']}` but 2 in `{CODE}`; give one list a response",
    ),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    rows = make_rows(300)
    rows[290] |= change
    assert fault(write_raw(tmp_path / "raw.jsonl", rows)) == f", row 291: {told}."


def test_a_bad_row_of_parquet_is_named(tmp_path: Path) -> None:
    rows = make_rows(600)
    rows[555] |= {"correct": [True, True]}
    told = fault(write_raw(tmp_path / "raw.parquet", rows))
    assert told == f", row 556: 2 in `{N['correct']}` but 1 in `{CODE}`; give one a response."
    numbers = write_raw(tmp_path / "numbers.parquet", [row | {"texts": [1]} for row in make_rows(3)])
    assert fault(numbers) == f", row 1: number 1 in `{CODE}` is a number; it must be a list of texts."


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("column", N)
def test_a_missing_column_is_named(tmp_path: Path, column: str, suffix: str) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in make_rows(2)]
    told = fault(write_raw(tmp_path / f"raw{suffix}", rows))
    assert told.startswith(f" has no column `{N[column]}` (it has: ")


def test_a_column_that_ends_is_named(tmp_path: Path) -> None:
    rows = make_rows(2)
    del rows[1]["extracted"]
    told = fault(write_raw(tmp_path / "raw.jsonl", rows))
    assert told == f", row 2: no column `{N['extracted']}`, which the rows before have."


def test_both_names_of_a_column_are_refused(tmp_path: Path) -> None:
    rows = [row | {"prompt_type": "original"} for row in make_rows(2)]
    told = " has both `prompt_type` and `prompt_variant`; leave out one of them."
    assert fault(write_raw(tmp_path / "raw.parquet", rows)) in (
        told, " has both `prompt_variant` and `prompt_type`; leave out one of them.",
    )  # fmt: skip


def test_files_that_are_none(tmp_path: Path) -> None:
    assert fault(tmp_path / "gone") == "Raw data " + f"{tmp_path / 'gone'} is not there; give a file, a folder or " + (
        "OWNER/NAME on the hub."
    )
    kinds = "give one of .parquet, .jsonl, .json."
    (tmp_path / "raw.csv").write_text("question,answer\n")
    assert fault(tmp_path / "raw.csv") == f" is of no known kind; {kinds}"
    (tmp_path / "none").mkdir()
    assert fault(tmp_path / "none") == f" has no file of a known kind; {kinds}"
    (tmp_path / "empty.jsonl").write_text("\n \n")
    assert fault(tmp_path / "empty.jsonl") == " holds no rows; leave it out, or write it again."
    (tmp_path / "half.parquet").write_bytes(write_raw(tmp_path / "raw.parquet", make_rows(50)).read_bytes()[:-200])
    assert "is not a Parquet file that can be read" in fault(tmp_path / "half.parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    assert "is not a Parquet file that can be read" in fault(tmp_path / "empty.parquet")


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(write_raw(tmp_path / "raw.parquet", make_rows(1)))
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    assert fault(tmp_path / "none.parquet") == " holds no rows; leave it out, or write it again."


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", ", row 3: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); give"),
        (b"[1]", ", row 3: a list, not a JSON object; give one object a line."),
        (b'"\xff"', ", row 3: not UTF-8 text; save the file as UTF-8."),
        (b"[" * 100_000, ", row 3: not JSON ("),
    ],
)  # fmt: skip
def test_a_line_that_is_no_row(tmp_path: Path, line: bytes, told: str) -> None:
    file = write_raw(tmp_path / "raw.jsonl", make_rows(2))
    file.write_bytes(file.read_bytes() + line + b"\n")
    assert fault(file).startswith(told)


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    write_raw(tmp_path / "a" / "x" / "1.parquet", make_rows(3))
    write_raw(tmp_path / "a" / "2.jsonl", make_rows(3))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("of no account")
    digest = raw_digest(str(tmp_path / "a"))
    assert len(digest) == 32
    assert raw_digest(str(tmp_path / "b")) == digest
    write_raw(tmp_path / "b" / "2.jsonl", make_rows(4))
    assert raw_digest(str(tmp_path / "b")) != digest
    assert raw_digest(str(tmp_path / "a" / "2.jsonl")) not in ("", digest)
    assert raw_digest("SkillFactory/RAW_DATA-countdown3args") == ""
    with pytest.raises(QuestionError, match="is not there"):
        raw_digest(str(tmp_path / "gone.parquet"))
