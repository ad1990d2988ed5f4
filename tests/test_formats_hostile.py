"""Data files from strangers: bombs, pickles, pipes, and what is no JSON, CSV or Parquet. Refused in one sentence."""

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skillfactory import reading, tasks
from skillfactory.errors import QuestionError
from skillfactory.formats.dialogues import read_given
from skillfactory.tasks.raw_data import samples

QUICK = settings(
    max_examples=40, deadline=None, phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
CHAT = {"prompt": "2 + 2?", "completion": "<think>\n2 + 2 = 4\n</think>\n<answer>4</answer>", "answer": "4"}
OWN = {"question": "2 + 2?", "answer": "4"}


def read(path: Path, published: bool = True) -> Iterator[tuple[str, list[Any]]]:
    """What each of our readers makes of a file: the error, or the rows; nothing else may come out of them.

    The third, which reads `published` sets, goes through the library `datasets`, and takes its time.
    """
    suffix = path.suffix.removeprefix(".")
    own = suffix if suffix in ("csv", "parquet") else "jsonl"
    for reader in (
        lambda: list(samples(str(path))),
        lambda: tasks.get(own, path=str(path)).questions,  # type: ignore[attr-defined]
        lambda: tasks.get("gsm8k", path=str(path)).questions,  # type: ignore[attr-defined]
    )[: 3 if published else 2]:
        try:
            found, said = reader(), ""
        except QuestionError as error:
            found, said = [], str(error)
        assert "\n" not in said
        said.encode()
        repr(found).encode()
        yield said, found


def refused(path: Path, words: str, which: tuple[int, ...] = (0, 1)) -> None:
    for number, (said, _) in enumerate(read(path)):
        if number in which:
            assert words in said, (number, said)


# --- JSON lines, JSON and CSV


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object|a list"),
        (b"null", "null"),
        (b'{"a": ' + b"[" * 200_000, "nested too deep"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
        (json.dumps(OWN | CHAT).encode()[:-1] + b', "answer": "5"}', "`answer` is there twice"),
        (json.dumps(OWN | CHAT).encode()[:-1] + b', "x": {"y": 1, "y": 2}}', "`y` is there twice"),
        (json.dumps(OWN | CHAT).replace("2 + 2?", "\\ud800").encode(), "half a surrogate pair"),
        (json.dumps(OWN | CHAT).replace("2 + 2?", "\udcff").encode("utf-8", "surrogateescape"), "UTF-8"),
        (gzip.compress(json.dumps(OWN).encode() * 100, mtime=0), "UTF-8"),
        (b"\x80\x04\x95" + pickle.dumps(OWN), "UTF-8"),
    ],
)  # fmt: skip
def test_lines_that_are_no_json(line: bytes, words: str, tmp_path: Path) -> None:
    sound = json.dumps(OWN | CHAT).encode()
    for content in (line, sound.replace(b"2 +", b"1 +") + b"\r\n" + line + b"\n" + sound):
        for name in ("x.jsonl", "x.json"):
            (tmp_path / name).write_bytes(content)
            for number, (said, _) in enumerate(read(tmp_path / name)):
                if number < 2:
                    assert any(each in said for each in words.split("|")), (number, said)


def test_odd_but_sound_lines_are_read(tmp_path: Path) -> None:
    row = json.dumps(OWN | CHAT | {"x": None}, indent=None)
    path = tmp_path / "x.jsonl"
    for content in (
        "\ufeff" + row, row + "\r\n\r\n", "\n\n" + row, row.replace("null", "NaN"),
        row.replace("null", "-Infinity"),
        row.replace("null", "1e999"), row.replace("null", "1" * 300), row.replace("null", "[" * 50 + "]" * 50),
        row.replace("null", '"\\ud83d\\ude00 \\u0000 \u202e \x7f"'), row.replace("null", json.dumps("x" * 10**6)),
    ):  # fmt: skip
        path.write_text(content, "utf-8")
        said, found = next(read(path))
        assert not said
        assert [each.question for each in found] == ["2 + 2?"]


def test_a_line_without_end_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 5000)
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(OWN | CHAT).encode() + b"\n" + b"x" * 5000)
    refused(path, "row 2 is longer than 5,000 bytes; are the ends of lines missing?")
    path = tmp_path / "x.csv"
    path.write_bytes(b"question,answer\na," + b"x" * 5000)
    refused(path, "row 2 is longer than 5,000 bytes", which=(1,))


def test_a_chat_that_hides_half_a_pair_in_a_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    inner = '[{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]'
    path.write_text(json.dumps({"messages": inner}))
    with pytest.raises(QuestionError, match=r"row 1: number 1 in `messages` holds half a surrogate pair"):
        list(read_given(str(path)))


BYTES = st.binary(max_size=300) | st.text('{}[]",:\\ud8019.eE-+ntaf \n\r\t\0', max_size=80).map(str.encode)


@QUICK
@given(BYTES)
def test_any_bytes_are_rows_or_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("x.jsonl", "x.json", "x.csv", "x.parquet"):
        (tmp_path / name).write_bytes(data)
        list(read(tmp_path / name, published=False))


@pytest.mark.slow
@settings(QUICK, max_examples=80)
@given(BYTES)
def test_any_bytes_are_rows_of_a_published_set_or_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("x.jsonl", "x.json", "x.csv", "x.parquet"):
        (tmp_path / name).write_bytes(data)
        list(read(tmp_path / name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["prompt", "completion", "answer", "messages", "conversations", "question", "response", "correct", "role",
     "content",
     "from", "value", "choices", "id", "level", "model_responses__mutated_prompts", "prompt_variant",
     "model_responses__mutated_prompts_reflection", "model_responses__mutated_prompts__eval_is_correct",
     "model_responses__mutated_prompts__eval_extracted_answers"]
)  # fmt: skip
ROWS = st.lists(st.dictionaries(KEYS, JSON | st.lists(st.dictionaries(KEYS, JSON, max_size=3), max_size=3)), max_size=3)


@QUICK
@given(ROWS)
def test_any_columns_are_rows_or_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "x.jsonl").write_text(lines)
    list(read(tmp_path / "x.jsonl", published=False))
    (tmp_path / "x.json").write_text(json.dumps(rows))
    list(read(tmp_path / "x.json", published=False))
    try:
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, tmp_path / "x.parquet")
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        return
    list(read(tmp_path / "x.parquet", published=False))


# --- Parquet


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


SOUND = parquet(pa.table({name: [value] * 50 for name, value in (OWN | CHAT).items()}))


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_parquet_is_refused_or_read(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for at, byte in changes:
        data[at] = byte
    (tmp_path / "x.parquet").write_bytes(data)
    list(read(tmp_path / "x.parquet"))


def test_statistics_that_do_not_fit_their_column_do_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow ends it when such a column is asked for its size."""
    for at in range(len(SOUND) - 8 - int.from_bytes(SOUND[-8:-4], "little"), len(SOUND) - 8, 11):
        (tmp_path / "x.parquet").write_bytes(SOUND[:at] + bytes([SOUND[at] ^ 1]) + SOUND[at + 1 :])
        list(read(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1\xff\xff\xff\x7fPAR1", SOUND[:-1], SOUND[:100], SOUND[9:],
     b"ARROW1\0\0" + SOUND, b"PARE" + SOUND[4:-4] + b"PARE", gzip.compress(SOUND, mtime=0), pickle.dumps(OWN)],
)  # fmt: skip
def test_what_is_no_parquet(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    refused(tmp_path / "x.parquet", "x.parquet is not a Parquet file that can be read")


def test_values_that_python_cannot_hold(tmp_path: Path) -> None:
    far, nested = 2**62, pa.list_(pa.list_(pa.list_(pa.string())))
    mapping = pa.map_(pa.string(), pa.int8())
    columns: list[Any] = [
        pa.array([far], pa.timestamp("us")), pa.array([far], pa.timestamp("ns", "Nowhere/Land")),
        pa.array([2**31 - 1], pa.date32()), pa.array([far], pa.duration("s")),
        pa.array([2**50], pa.timestamp("s", "UTC")),
        pa.array([b"\xff\xfe"], pa.binary()).view(pa.string()), pa.array([[[None, [None]]]], nested),
        pa.array([{"a": None}], pa.struct([("a", pa.null())])), pa.array([[("k", None)]], mapping),
        pa.array([None], pa.null()), pa.array([float("nan")], pa.float16()), pa.array([10**30], pa.decimal256(60, 0)),
        pa.array(["a"]).dictionary_encode(), pa.array([b"x" * 16], pa.binary(16)), pa.array([True]),
    ]  # fmt: skip
    for column in columns:
        for name in ("answer", "question", "prompt", "completion", "other"):
            rows = {key: pa.array([value]) for key, value in (OWN | CHAT).items()} | {name: column}
            (tmp_path / "x.parquet").write_bytes(parquet(pa.table(rows)))
            for said, found in read(tmp_path / "x.parquet", published=name == "other"):
                assert bool(said) != bool(found), (column.type, name)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LARGEST_GROUP", 10**6)
    rows = {"prompt": ["\0" * 10**5] * 200, "question": ["\0" * 10**5] * 200}
    rows |= {"completion": ["a"] * 200, "answer": ["a"] * 200}
    (tmp_path / "x.parquet").write_bytes(parquet(pa.table(rows), compression="zstd", use_dictionary=False))
    assert (tmp_path / "x.parquet").stat().st_size < 40_000
    refused(tmp_path / "x.parquet", " to 40,0")
    refused(tmp_path / "x.parquet", "bytes, which no text does); write it again.")


class Evil:
    """Its pickle makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["EVIL"],)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a data file, under whatever name, and not as a type within Parquet."""
    evil = tmp_path / "evil"
    monkeypatch.setenv("EVIL", str(evil))
    data = pickle.dumps(Evil())
    for suffix in (
        "pkl",
        "pickle",
        "pt",
        "pth",
        "bin",
        "npy",
        "npz",
        "joblib",
        "h5",
        "zip",
        "gz",
        "tar",
        "arrow",
        "py",
    ):
        (tmp_path / f"x.{suffix}").write_bytes(data)
        for number, (said, _) in enumerate(read(tmp_path / f"x.{suffix}")):
            if number != 1:  # which reads any name as what it is said to be
                assert "no known kind" in said or "no file of a known kind" in said, (suffix, said)
    for suffix in ("jsonl", "json", "csv", "parquet"):
        (tmp_path / f"x.{suffix}").write_bytes(data)
        assert all(said for said, _ in read(tmp_path / f"x.{suffix}"))
    with zipfile.ZipFile(tmp_path / "x.jsonl", "w") as packed:
        packed.writestr("data.pkl", data)
    assert all(said for said, _ in read(tmp_path / "x.jsonl"))
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": data}
    fields = [pa.field(name, pa.string(), metadata=metadata) for name in OWN | CHAT]
    table = pa.table([[value] for value in (OWN | CHAT).values()], schema=pa.schema(fields, metadata={"pandas": data}))
    (tmp_path / "x.parquet").write_bytes(parquet(table))
    assert [bool(found) for _, found in read(tmp_path / "x.parquet")][:2] == [True, True]
    assert not evil.exists()


def test_a_folder_with_a_script_and_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that bring code with them: it is not run. Pipes, hidden files and loops of links are left alone."""
    evil, folder = tmp_path / "evil", tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"import os; os.mkdir({str(evil)!r})")
    (folder / "test.jsonl").write_text(json.dumps({"question": "2 + 2?", "answer": "So.\n#### 4"} | {"response": "4"}))
    (folder / ".hidden.jsonl").write_text("nothing of ours")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "zero.parquet").symlink_to("/dev/zero")
    (folder / "round").symlink_to(folder)
    (folder / "gone.json").symlink_to("nowhere")
    assert len(list(samples(str(folder)))) == 1
    said, found = list(read(folder))[2]
    assert "scripts are no longer supported, but found set.py" in said
    (folder / "set.py").unlink()
    said, found = list(read(folder))[2]
    assert not said
    assert len(found) == 1
    assert not evil.exists()
