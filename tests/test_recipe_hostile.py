"""Recipes from strangers: bombs, loops, tags, paths and numbers that are none. Each ends in one sentence, soon."""

import copy
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from skillfactory import pipeline, plain_yaml
from skillfactory.cli import app
from skillfactory.curation.examples import load_examples
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.prompts import load_prompts
from skillfactory.errors import RecipeError, SkillFactoryError
from skillfactory.experiments.grid import load_experiment
from skillfactory.recipes import load_recipe

GOOD = """\
name: t
questions:
  task: {name: countdown, params: {count: 3}}
  sft: 20
evaluation:
  sets:
    easy: {task: {name: countdown, params: {count: 3}}, n: 10}
"""
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))


def command(*words: object) -> tuple[int, str]:
    """Exit code, and what is said of an error, of the command line."""
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


def refused(text: str | bytes, tmp_path: Path) -> str:
    """What is said of a file, read as every kind of YAML that we read."""
    file = tmp_path / "r.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    start = time.process_time()
    with pytest.raises(RecipeError) as raised:
        load_recipe(file)
    for read in (load_prompts, load_phrases, load_examples):
        with pytest.raises(RecipeError):
            read(str(file))
    with pytest.raises(RecipeError):
        load_experiment(file)
    assert time.process_time() - start < 30  # of the processor, whatever else runs
    said = str(raised.value)
    assert "\n" not in said
    assert len(said.replace(str(file), "")) < 700
    assert "Traceback" not in said
    said.encode()
    return said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 50,000 values, with what aliases stand for"),
        (MERGES, "more than 50,000 values"),
        ("? " + LAUGHS.replace("\n", "\n  ") + "\n: 1", "a key must be a word"),
        ("a: &a [*a]", "deep, or an alias within what it stands for"),
        ("&a {b: *a}", "deep, or an alias within what it stands for"),
        ("? &a [*a]\n: 1", "a key must be a word"),
        ("[" * 5000, "deep"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("a: " + "{a: " * 400 + "1" + "}" * 400, "deep"),
        ("- " * 5000 + "x", "deep"),
        ("x: 1\n" * 3, "`x` is there twice"),
        ("{a: 1, 'a': 2}", "`a` is there twice"),
        ("a" * (plain_yaml.LARGEST + 1), "more than 1,048,576 bytes"),
        (GOOD + "x: 1 #" + "y" * 10**6, "unknown key `x`"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("!!python/name:os.system x", "could not determine a constructor"),
        ("!!python/module:os x", "could not determine a constructor"),
        ("!ruby/object:Gem::Installer {}", "could not determine a constructor"),
        ("a: !!bool maybe", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!float x", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!binary x", "not valid YAML"),
        ("a: !!int [1]", "not valid YAML"),
        ("a: 2026-02-31", "not valid YAML"),
        ("a: !!binary eA==", "`a` is binary data; put it in quotes"),
        ("a: !!set {x}", "`a` is a set"),
        ("a: !!omap [x: 1]", "`a.0` is no plain value"),
        ("a: 2026-01-01", "`a` is a date; put it in quotes"),
        ("a: 2026-01-01 10:00:00", "`a` is a time; put it in quotes"),
        ("1: x", "the key `1` must be text; quote it"),
        ("yes: x", "the key `True` must be text; quote it"),
        ("null: x", "the key `None` must be text; quote it"),
        ("a: .nan", "`a` is nan, which is no number to work with"),
        ("a: -.inf", "`a` is -inf"),
        ("a: 1e999", "`a` is inf"),
        ("a: " + "9" * 5000, "a number has more digits"),
        ("? 59" + ":59" * 20_000 + "\n: 1", "a key has more digits"),
        ("a: 1" + ":1" * 500_000, "a number has more digits"),
        ("a: " + "9" * 300, "`a` has more digits"),
        ("a: 0x" + "f" * 300, "`a` has more digits"),
        ('a: "\\ud800"', "`a` holds half a surrogate pair"),
        ('"\\udfff": 1', "half a surrogate pair"),
        ("\ud800", "not UTF-8"),
        (b"\xff\xfea\0:\0 \0", "not UTF-8"),
        ("a: \x1b[2J", "not valid YAML"),
        ("a\x00b", "not valid YAML"),
        ("--- 1\n--- 2", "not valid YAML"),
        ("%YAML 9.9\n---\na: 1", "not valid YAML"),
        ("%TAG ! tag:x,2000:\n---\n!a b", "not valid YAML"),
        ("*a", "not valid YAML"),
        ("", "a recipe is a mapping"),
        ("# nothing", "a recipe is a mapping"),
        ("5", "a recipe is a mapping"),
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml(text: str | bytes, words: str, tmp_path: Path) -> None:
    assert re.search(words, refused(text, tmp_path))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.text("&*!?|>-:{}[],#%@`'\"\\ \n\taé0.~<", max_size=60).map(str.encode),
    )
)
def test_any_bytes_are_a_recipe_or_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(data)
    for read in (load_recipe, load_experiment, lambda path: load_prompts.__wrapped__(str(path))):
        with pytest.raises(RecipeError):
            read(file)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at] * bool(at) + [place for key, each in inner for place in places(each, (*at, key))]


WHOLE = load_recipe("demo").model_dump(mode="json")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(
        [0, -1, 1, 2**31, 2**62, 10**18, 0.0, -0.0, 1e-320, 1e308, "", "../../x", "/etc/passwd", "~no-such-user/x",
         "/dev/zero", "a\nb", "\x1b[2J", "x" * 5000, "{answer}", "{", "%s", "os.system", "auto", "tiny", "*", "a.b.c"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(
    max_examples=80,
    deadline=None,
    phases=set(Phase) - {Phase.shrink, Phase.explain},
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(places(WHOLE)), VALUES)
def test_any_value_at_any_key_is_a_recipe_or_one_sentence(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(WHOLE)
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(data), "utf-8")
    try:
        recipe = load_recipe(file)
        pipeline.identities(recipe)
        pipeline.check(recipe)
        said = ""
    except SkillFactoryError as error:
        said = str(error)
    said.encode()


# --- paths


def test_pipes_devices_and_names_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an exit code of 2 and one sentence, soon; nothing is waited for and nothing read without end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(GOOD)
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "bomb.yaml").write_text(LAUGHS)
    own = "questions.task={name: %s, params: {path: %s}}"
    for words, told in [
        (["pipe.yaml"], "pipe.yaml is a pipe or a device"),
        (["/dev/zero"], "/dev/zero is a pipe or a device"),
        (["loop.yaml"], "There is no recipe loop.yaml"),
        (["x" * 5000], "File name too long"),
        (["a\nb\x1b[31m"], "There is no recipe"),
        (["."], ". is a folder"),
        (["bomb.yaml"], "more than 50,000 values"),
        (["r.yaml", "name=../../x"], "`name` is '../../x'"),
        (["r.yaml", "name=" + "x" * 300], "at most 100 characters"),
        (["r.yaml", "attempts.prompts=pipe.yaml"], "pipe.yaml cannot be read: it is a pipe or a device"),
        (["r.yaml", "traces.phrases=/dev/zero"], "/dev/zero cannot be read: it is a pipe or a device"),
        (["r.yaml", "attempts.prompts=bomb.yaml"], "more than 50,000 values"),
        (["r.yaml", "attempts.prompts=" + "x" * 300], "File name too long"),
        (["r.yaml", 'attempts.prompts="a\\0b"'], "holds a zero byte"),
        (["r.yaml", "model=~no-such-user/x"], "the home of a user who is not here, ~no-such-user"),
        (["r.yaml", own % ("jsonl", "pipe.jsonl")], "pipe.jsonl cannot be read: it is a pipe or a device"),
        (["r.yaml", own % ("csv", "/dev/zero")], "/dev/zero cannot be read: it is a pipe or a device"),
        (["r.yaml", own % ("parquet", "pipe.parquet")], "pipe.parquet cannot be read: it is a pipe or a device"),
        (["r.yaml", own % ("jsonl", ".")], "it is a folder"),
        (["r.yaml", own % ("gsm8k", "zero.jsonl")], "zero.jsonl has no file of a known kind"),
        (["r.yaml", "attempts.given=pipe.parquet"], "pipe.parquet has no file of a known kind"),
        (["r.yaml", "attempts.given=zero.jsonl"], "zero.jsonl has no file of a known kind"),
        (["r.yaml", "x=[&a [*a]]"], "deep, or an alias within what it stands for"),
        (["r.yaml", "a" + ".a" * 5000 + "=1"], "is not of the form section.key=value"),
        (["r.yaml", "seed=1" + "0" * 300], "more digits than a whole number may have"),
        (["r.yaml", "sft.learning_rate=.nan"], "is nan, which is no number"),
    ]:
        code, err = command("run", *words, "--until", "questions")
        assert code == 2, (words, err)
        assert told in err, (words, err)
        assert err.startswith("Error: ")
        assert "Traceback" not in err
        assert len(err) < 1500
        assert "\x1b" not in err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) in ([], ["runs"])
