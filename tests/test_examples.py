"""Worked examples: the shipped ones hold, files are read strictly, and prompts are made of them."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_requests import chat_server, stats
from helpers import TASK, make_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from skillfactory.cli import app
from skillfactory.curation.examples import SYSTEM, VARIANT, Example, load_examples, with_examples, written
from skillfactory.curation.prompts import load_prompts
from skillfactory.errors import RecipeError
from skillfactory.methods import applied
from skillfactory.pipeline import identities
from skillfactory.tasks import get, home
from skillfactory.tasks.arithmetic import value_of

SHIPPED = Path(__file__).parents[1] / "recipes" / "examples" / "countdown.yaml"
_STATED = re.compile(r"((?:\d+ [-+*/] )+\d+) = (-?\d+)")
GOOD = "<think>\nOne and one.\n</think>\n<answer>2</answer>"


def shipped() -> list[tuple[list[int], int, Example]]:
    found = []
    for example in load_examples(str(SHIPPED)):
        numbers, target = re.findall(r"numbers ([\d, ]+) to make (\d+)", example.question)[0]
        found.append(([int(number) for number in numbers.split(", ")], int(target), example))
    return found


def test_shipped_examples_are_right() -> None:
    task = get("countdown", count=3)
    assert len(shipped()) == 10
    for numbers, target, example in shipped():
        question = task.make(numbers=numbers, target=target)
        assert example.question == question.text
        assert home(question.id) == "sft"  # so that it is in no evaluation set
        assert task.grade(question, example.response).outcome == "correct"


def test_every_equation_of_the_shipped_examples_holds() -> None:
    for _, target, example in shipped():
        stated = _STATED.findall(example.response)
        assert len(stated) >= 5
        assert any(int(right) == target for _, right in stated)
        for left, right in stated:
            assert value_of(left) == Fraction(right), f"{left} = {right}"
        assert len(example.response.split()) > 80  # long, as the method wants them
        assert len(re.findall(r"=", example.response)) == len(stated), "an equation that this test does not read"


def test_examples_stand_before_the_question() -> None:
    prompts = with_examples(load_prompts(), load_examples(str(SHIPPED)))
    chat = prompts.attempt(VARIANT, "What is {answer}?")
    assert chat[0] == {"role": "system", "content": SYSTEM}
    assert [message["role"] for message in chat[1:]] == ["user", "assistant"] * 10 + ["user"]
    assert chat[-1]["content"] == "What is {answer}?"
    assert chat[2]["content"].endswith("<answer>\n45 / 15 + 20\n</answer>")
    assert prompts.train("Q") == load_prompts().train("Q")
    assert [m["role"] for m in prompts.attempt("original", "Q")] == ["user"]
    with pytest.raises(RecipeError, match="has a variant `bolt`"):
        with_examples(prompts, ())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.sampled_from([".yaml", ".jsonl"]))
def test_what_was_written_is_read(tmp_path: Path, rows: list[tuple[str, str]], suffix: str) -> None:
    examples = [
        Example(f"{n}: {question}".strip(), f"{thought}</think>\n<answer>\n{n}\n</answer>".strip())
        for n, (question, thought) in enumerate(rows)
    ]
    file = tmp_path / f"examples{suffix}"
    file.write_bytes(written(examples, file))
    load_examples.cache_clear()
    assert list(load_examples(str(file))) == examples


ROW: dict[str, Any] = {"question": "1 + 1?", "response": GOOD}
BAD: list[tuple[Any, str]] = [
    ([], "the file holds none; write some by hand"),
    ({"question": "1 + 1?"}, "not a list"),
    ([ROW, "text"], "row 2: not a mapping; give it `question` and `response`."),
    ([ROW | {"answer": "2"}], "row 1: unknown key `answer`; there are: question, response."),
    ([{"question": "1 + 1?"}], "row 1: `response` is missing; give it a text."),
    ([ROW | {"question": " "}], "row 1: `question` is no text; give it a text."),
    ([ROW | {"response": 2}], "row 1: `response` is no text; give it a text."),
    ([ROW | {"response": "It is 2."}], "row 1: `response` does not end in `</answer>`; end it in <answer>"),
    ([ROW | {"response": "<think>so <answer>2</answer>"}], "row 1: `response` has no answer between <answer> and"),
    ([ROW, {"question": "2?", "response": GOOD}, ROW], "row 3: the same question as in row 1; remove one."),
]


@pytest.mark.parametrize(("content", "told"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, told: str) -> None:
    file = tmp_path / "examples.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    with pytest.raises(RecipeError) as error:
        load_examples(str(file))
    assert told in str(error.value)
    assert str(file) in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, told in (
        ("gone.yaml", None, "cannot be read: No such file"),
        ("gone.jsonl", None, "cannot be read: No such file"),
        ("bad.yaml", b"- question: [", "line 1: not valid YAML"),
        ("bad.jsonl", b'{"question": 1}\n{', "line 2: not JSON; give one object a line."),
        ("bytes.jsonl", b"\xff", "cannot be read: it is not UTF-8 text"),
        ("tagged.yaml", b"- !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("half.jsonl", b'{"question": "\\ud800", "response": "<answer>2</answer>"}', "half a surrogate pair"),
        ("some.txt", b"", "no known kind of file; give one of .yaml"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=re.escape(told)):
            load_examples(str(tmp_path / name))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=80), st.sampled_from([".yaml", ".jsonl"]))
def test_no_file_breaks_the_reader(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"any{suffix}"
    file.write_bytes(content)
    load_examples.cache_clear()
    with pytest.raises(RecipeError):
        load_examples(str(file))


QUESTIONS = {"task": TASK, "sft": 40, "rl": 8, "dev": 2}


def recipe_file(folder: Path, **sections: Any) -> Path:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(make_recipe(**sections).model_dump(mode="json")))
    return path


def ask(*words: object) -> Any:
    load_examples.cache_clear()  # of the file as it was
    return CliRunner().invoke(app, ["examples", *map(str, words)])


@pytest.mark.parametrize("suffix", [".yaml", ".jsonl"])
def test_examples_are_written_by_a_server(tmp_path: Path, suffix: str) -> None:
    recipe, out = recipe_file(tmp_path, questions=QUESTIONS, method="bolt"), tmp_path / f"out{suffix}"
    with chat_server() as (_, url):
        server = (f"engines.openai.base_url={url}", "bolt.writer=m")
        done = ask(recipe, out, *server, "--n", 3, "--json")
        assert done.exit_code == 0, done.output
        facts = json.loads(done.stdout)
        assert (facts["examples"], facts["new"]) == (3, 3)
        first = load_examples(str(out))
        again = ask(recipe, out, *server, "--n", 12)
        assert again.exit_code == 0, again.output
        assert again.stdout.startswith("12 examples, 9 new: ")
        assert stats(url)["total"] > 12  # wrong ones were not kept
        total = stats(url)["total"]
        assert ask(recipe, out, *server, "--n", 12).exit_code == 0
        assert stats(url)["total"] == total  # nothing was lacking
    load_examples.cache_clear()
    found = load_examples(str(out))
    assert found[:3] == first
    assert len({example.question for example in found}) == 12
    task = get("multiplication", **TASK["params"])
    for example in found:
        a, b = map(int, re.findall(r"\d+", example.question))
        assert home(task.make(a=a, b=b).id) == "sft"
        assert example.response.endswith(f"</think>\n\n<answer>{a * b}</answer>")
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_is_right_so_far_is_kept(tmp_path: Path) -> None:
    sevens = tmp_path / "sevens.jsonl"
    sevens.write_text("".join(f'{{"question": "What is {n} * 7 ?", "answer": "{n * 7}"}}\n' for n in range(2, 60)))
    with sevens.open("a") as file:
        file.write('{"question": "What is 2 * 2 ?", "answer": "4"}\n')
    task = {"name": "jsonl", "params": {"path": str(sevens)}}
    questions = {"task": task, "sft": 50, "rl": 1, "dev": 0}
    recipe, out = recipe_file(tmp_path, questions=questions, seed=3), tmp_path / "out.yaml"
    with chat_server() as (_, url):
        done = ask(recipe, out, f"engines.openai.base_url={url}", "engines.openai.model=m", "--n", 4)
    assert done.exit_code == 2
    told = done.stderr.splitlines()[-1]
    assert re.match(rf"Error: {re.escape(str(out))}: [01] of 4 examples after 40 questions \(\d+ wrong\); name ", told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out.txt"], "out.txt: name a file (.yaml, .yml, .jsonl, .json) in a folder that is there."),
        (["none/out.yaml"], "in a folder that is there."),
        (["out.yaml", "--engine", "ray"], "--engine ray: examples are written by one of openai, transformers, vllm."),
        (["out.yaml", "--engine", "openai", "engines.openai.base_url=nowhere"], "`nowhere` (engines.openai.base_url)"),
        (["bad.yaml"], "row 1: `response` is missing"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, words: list[str], told: str) -> None:
    (tmp_path / "bad.yaml").write_text("- question: a\n")
    done = ask(recipe_file(tmp_path, questions=QUESTIONS), tmp_path / words[0], *words[1:])
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_shipped_examples_are_known_by_name_and_content(tmp_path: Path) -> None:
    assert load_examples("countdown") == load_examples(str(SHIPPED))
    with pytest.raises(RecipeError, match=r"Examples countdwn: no known kind of file; .*\(countdown, tiny\)"):
        load_examples("countdwn")
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(SHIPPED.read_bytes())
    known = []
    for file in ("countdown", str(copy)):
        recipe = applied(make_recipe(method="bolt", bolt={"examples": file}))
        known.append(identities(recipe)["attempts"].settings["attempts.examples (content)"])
    copy.write_text(copy.read_text().replace("Plan:", "My plan:"))
    known.append(identities(recipe)["attempts"].settings["attempts.examples (content)"])
    assert known[0] == known[1] != known[2]
