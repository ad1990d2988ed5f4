"""`skillfactory doctor`: each check can say that something is wrong, and says so of the real thing."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import RECIPE_YAML, make_recipe
from packaging.requirements import Requirement
from typer.testing import CliRunner

from skillfactory.checkup import libraries, machine, model, questions, recipe, run, template
from skillfactory.checkup.check import Check
from skillfactory.cli import app
from skillfactory.engines.models import ChatTokenizer
from skillfactory.recipe import OpenAI, Recipe, TaskSpec
from skillfactory.tasks import get
from skillfactory.tiny import FOLDER


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is left alone."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def states(checks: list[Check]) -> dict[str, str]:
    """{name: state} of what is not well."""
    return {check.name: check.state for check in checks if check.state != "ok"}


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """The address of a server that gives this answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(json.dumps(body).encode())

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def copy_of_tiny(folder: Path, chat_template: str = "") -> Path:
    """The embedded model, with another chat template."""
    shutil.copytree(FOLDER, folder)
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template)
    return folder


# --- machine and libraries


def test_this_machine_is_well() -> None:
    found = list(machine.checks(Path("runs")))
    assert "problem" not in states(found).values()
    assert {"python", "system", "memory", "torch", "disk for runs", "hub"} <= {check.name for check in found}


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), "problem"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warning")]
)
def test_python(version: tuple[int, int], state: str) -> None:
    assert machine.python(version).state == state


@pytest.mark.parametrize(("name", "state"), [("Linux", "ok"), ("Darwin", "warning"), ("Windows", "problem")])
def test_system(name: str, state: str) -> None:
    assert machine.system(name, "x").state == state


@pytest.mark.parametrize(
    ("built", "supports", "there", "state", "said"),
    [
        (None, None, False, "ok", "no NVIDIA driver"),
        ("13.0", (13, 1), True, "ok", "built for CUDA 13.0"),
        ("13.0", (12, 8), False, "problem", "only goes up to 12.8"),
        (None, (12, 8), False, "problem", "built for the CPU"),
        ("12.6", (12, 8), False, "problem", "finds no GPU"),
    ],
)
def test_torch_and_the_driver(
    built: str | None, supports: tuple[int, int] | None, there: bool, state: str, said: str
) -> None:
    check = machine.driver("2.13.0", built, supports, there)
    assert (check.state, said in check.text, bool(check.mend)) == (state, True, state != "ok")


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 6), ["sm_75", "sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_80", "sm_90a", "compute_120"], True),
        ((9, 4), ["gfx942"], True),
        ((9, 0), [], True),
    ],
)
def test_whether_torch_has_code_for_a_gpu(capability: tuple[int, int], built: list[str], runs: bool) -> None:
    assert machine.has_code(*capability, built) == runs


def test_disk_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "not" / "made" / "yet"
    assert machine.disk("disk", there, 1, 1).state == "ok"
    assert machine.disk("disk", there, 1e18, 1).state == "warning"
    assert machine.disk("disk", there, 1e18, 1e18).state == "problem"
    assert machine.writable(there) == ""
    assert not there.exists()
    assert machine.writable(Path("/proc/self/fd")) != ""


def test_the_hub_is_asked_once_and_may_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert "HF_HUB_OFFLINE is set" in machine.hub().text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    away = machine.hub(seconds=2)
    assert (away.state, "127.0.0.1:9 cannot be reached" in away.text) == ("warning", True)
    with answering(200, {}) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert machine.hub().state == "ok"


def test_libraries_are_those_that_the_package_says() -> None:
    needed, extras = libraries.requirements()
    assert {"torch", "trl", "typer"} <= {each.name for each in needed}
    assert "pytest" not in {each.name for each in needed}
    assert set(extras) == set(libraries.EXTRAS)
    pins = libraries.tried()
    assert {each.name.lower().replace("_", "-") for each in needed} <= set(pins)
    assert states(list(libraries.checks())) == {}


def test_a_library_may_be_missing_or_wrong_or_new() -> None:
    needed = [Requirement(text) for text in ("a>=2,<3", "b>=1", "c>=1,<2", "d>=1")]
    there = {"b": "1.4.9", "c": "2.0", "d": "1.5.0"}
    found = list(libraries.required(needed, {"b": "1.4.0", "d": "1.4.0"}, lambda name: there.get(name, "")))
    assert [(check.state, check.text.partition(" ")[0]) for check in found] == [
        ("problem", "a"), ("problem", "c"), ("warning", "d"), ("ok", "1"),
    ]  # fmt: skip
    assert found[0].mend == "pip install 'a<3,>=2'"
    extra = [Requirement("openai>=3,<4")]
    for version, state in (("", "ok"), ("3.1", "ok"), ("2.0", "warning")):
        assert [c.state for c in libraries.optional("openai", "x", extra, lambda name, v=version: v)] == [state]


# --- recipe


def test_a_shipped_recipe_is_well() -> None:
    found = list(recipe.checks("demo", []))
    assert states(found) == {}
    assert {"recipe", "questions", "answers", "model", "tags", "context", "memory of rl"} <= {c.name for c in found}


@pytest.mark.parametrize(
    ("overrides", "name", "said"),
    [
        (["rl.stepz=1"], "recipe", "did you mean `steps`?"),
        (["model=./none"], "recipe", "There is no model folder"),
        (["model=someone/some-model"], "model", "neither a folder nor in the cache"),
        (["attempts.engine=vllm"], "engine", "wants the package vllm"),
        (["questions.sft=10000000"], "questions", "different questions"),
        (["machine.device=cuda"], "devices", "there is no GPU"),
        (["training.devices=2", "training.shard=fsdp2"], "devices", "there is no GPU here"),
    ],
)
def test_what_would_stop_a_run(overrides: list[str], name: str, said: str) -> None:
    base = ["questions.task.params={digits: 2}", "questions.task.name=multiplication", "questions.task.level=''"]
    small = [f"questions.{split}={n}" for split, n in (("sft", 8), ("rl", 32), ("dev", 2))]
    sets = ["evaluation.sets={a: {n: 2, task: {name: multiplication}}}"]
    found = list(recipe.checks("demo", [*base, *small, *sets, *overrides]))
    assert states(found)[name] == "problem"
    assert any(check.name == name and said in check.text for check in found)


def test_memory_and_disk_of_a_large_model(tmp_path: Path) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    (copy_of_tiny(tmp_path / "m") / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "model.safetensors").unlink()
    config |= {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "vocab_size": 128000}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    large = make_recipe(model=str(tmp_path / "m"))
    assert {check.state for check in recipe.memory(large)} == {"warning"}
    assert recipe.room(large, tmp_path).state in ("warning", "problem")
    assert "no *.safetensors" in model.weights(large).text


def test_files_of_a_model(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path / "m")
    named = make_recipe(model=str(folder))
    assert model.weights(named).state == "ok"
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}))
    assert "lacks model-00002.safetensors" in model.weights(named).text
    index.write_text("[")
    assert "lacks a readable" in model.weights(named).text
    (folder / "config.json").write_text('{"model_type": "from_the_future"}')
    with pytest.raises(Exception, match=r"config\.json cannot be used"):
        model.context_of(named)
    (folder / "config.json").unlink()
    assert "no config.json" in model.weights(named).text


def test_a_model_of_the_hub_may_be_too_large_or_of_another_format(tmp_path: Path) -> None:
    assert model.fetched("a/b", {"model.safetensors": 10}, tmp_path).state == "ok"
    assert model.fetched("a/b", {"model.safetensors": 10**18}, tmp_path).state == "problem"
    assert "no *.safetensors" in model.fetched("a/b", {"pytorch_model.bin": 10}, tmp_path).text


_TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
_ASKS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize(
    ("text", "name", "state", "said"),
    [
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + _TURNS + _ASKS,
         "chat template", "problem", "Prompt `plan_and_execute`"),
        (_TURNS.replace("{{ m.content }}", "") + _ASKS, "chat template", "problem", "leaves out"),
        ("<|system|>You are a very helpful assistant.<|end|>" + _TURNS + _ASKS, "system text", "ok", "“You are a very"),
        (_TURNS, "turn", "warning", "no sign"),
        (_TURNS + _ASKS.replace("|>{", "|><think>\n{"), "thinking", "problem", "opens <think>"),
        (_TURNS + _ASKS.replace("|>{", "|><think>\n\n</think>\n{"), "thinking", "warning", "empty"),
        (_TURNS.replace("<|end|>", "<|pad|>") + _ASKS, "end of turn", "warning", "ends a turn by <|pad|>"),
        ("{{ messages[9].content }}", "chat template", "problem", "cannot write"),
    ],
)  # fmt: skip
def test_chat_templates(text: str, name: str, state: str, said: str, tmp_path: Path) -> None:
    named = make_recipe(model=str(copy_of_tiny(tmp_path / "m", text)))
    found = {check.name: check for check in template.checks(named)}
    assert (found[name].state, said in found[name].text) == (state, True), found[name]


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    [check] = template.checks(make_recipe(model=str(folder)))
    assert (check.state, "no chat template" in check.text) == ("problem", True)


def test_tags_must_survive_being_tokens(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path / "m")
    chat = ChatTokenizer.load(make_recipe(model=str(folder)))
    assert template.tags(chat).state == "ok"
    chat.tokenizer.add_special_tokens({"additional_special_tokens": ["<reflect>"]})
    lost = template.tags(chat)
    assert (lost.state, "(<reflect> among them)" in lost.text) == ("problem", True)


def test_lengths() -> None:
    made = make_recipe(
        rl={"max_tokens": 1000}, evaluation={"max_tokens": 500, "sets": {"a": {"task": {"name": "countdown"}}}}
    )
    assert model.lengths(made, 50, 8192).state == "ok"
    over = model.lengths(made, 50, 1024)
    assert (over.state, "rl.max_tokens (1,050)" in over.text) == ("warning", True)
    assert "evaluation.max_tokens" not in over.text
    assert model.lengths(made, 1024, 1024).state == "problem"
    assert model.lengths(made, 50, None).state == "warning"
    for settings, state in (
        ({}, "ok"),
        ({"traces": {"max_tokens": 100}}, "warning"),
        ({"rl": {"max_tokens": 100}}, "warning"),
    ):
        assert model.trace_lengths(make_recipe(**settings)).state == state


def test_answers_are_graded_by_their_own_task() -> None:
    spec = TaskSpec(name="countdown")
    right = get("countdown").make(numbers=[3, 4, 2], target=14)
    asked = [questions.Asked(spec, each) for each in (right, replace(right, answer="3 + 4"))]
    assert questions.references(asked[:1]).state == "ok"
    found = questions.references(asked)
    assert (found.state, "1 of 2 reference answers fail" in found.text, "'3 + 4'" in found.text) == (
        "problem",
        True,
        True,
    )


def test_fewer_questions_for_dev_are_told(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n}?", "answer": n}) + "\n" for n in range(20)))
    task: dict[str, Any] = {"name": "jsonl", "params": {"path": str(file)}}
    given = {
        "questions": {"task": task, "sft": 8, "rl": 4, "dev": 5},
        "evaluation": {"sets": {"a": {"task": task, "n": 5}}},
    }
    check, some = questions.drawn(Recipe.model_validate({"name": "x", **given}))
    assert (check.state, "dev gets fewer than 5" in check.text, len(some)) == ("warning", True, 20)


def test_servers() -> None:
    listed = {"object": "list", "data": [{"id": "x", "object": "model", "created": 0, "owned_by": ""}]}
    for status, body, name, state, said in (
        (200, listed, "x", "ok", "and has x"),
        (200, listed, "y", "problem", "it has: x"),
        (401, {"error": {"message": "no"}}, "x", "problem", "wants another key than MY_KEY"),
        (404, {"detail": "Not Found"}, "x", "warning", "does not list its models"),
        (200, {"data": None}, "x", "warning", "does not list its models"),
        (200, "odd", "x", "warning", "does not list its models"),
    ):
        with answering(status, body) as address:
            found = recipe.server(OpenAI(base_url=f"{address}/v1", api_key_env="MY_KEY"), name)
            assert (found.state, said in found.text) == (state, True), found
    away = recipe.server(OpenAI(base_url="http://127.0.0.1:9/v1"), "x", seconds=2)
    assert (away.state, "does not answer" in away.text) == ("problem", True)


# --- run, and the command


def test_a_run_is_examined_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "r"
    (tmp_path / "r.yaml").write_text(RECIPE_YAML)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "r.yaml"), "--run", str(path), "--until", "questions"])
    assert done.exit_code == 0, done.output
    assert states(list(run.checks(path))) == {}
    shard = next(path.glob("*/part-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    found = list(run.checks(path))
    assert "problem" in states(found).values()
    assert "--repair" in next(check.mend for check in found if check.state == "problem")
    mended = list(run.checks(path, mends=True))
    assert any(check.text.startswith("Mended: ") for check in mended)
    assert "problem" not in states(mended).values()
    assert states(list(run.checks(path))) == {}


def test_the_command_and_its_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["doctor", *words])
        return result.exit_code, result.output

    code, text = said()
    assert (code, "0 to mend" in text) == (0, True)
    code, text = said("demo", "rl.stepz=1")
    assert (code, "did you mean `steps`?" in text, "1 to mend" in text) == (2, True, True)
    code, text = said("demo", "model=./none", "--json")
    facts = json.loads(text)
    assert (code, facts["problem"]) == (2, 1)
    assert {check["state"] for check in facts["checks"]} >= {"ok", "problem"}
    assert said("demo", "--repair")[0] == 2
    assert said(str(tmp_path))[0] == 2
    assert said("nosuch")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_its_modules_load_no_torch() -> None:
    code = "import sys, skillfactory.checkup.recipe, skillfactory.starting.draft; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
