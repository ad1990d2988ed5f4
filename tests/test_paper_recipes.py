"""The paper's experiments as recipes: its figures are in them, they are whole, and a dry run needs no network."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from skillfactory import methods, pipeline
from skillfactory.cli import app
from skillfactory.planning import estimate
from skillfactory.recipe import changed
from skillfactory.recipes import load_recipe, shipped
from skillfactory.tasks.questions import task_of

COUNTDOWN = ("countdown-qwen2.5-1.5b", "countdown-qwen2.5-7b", "countdown-olmo3-7b")
THOUGHTS = ("openthoughts-qwen2.5-7b-1k", "openthoughts-qwen2.5-7b-10k")

# What the paper says (arXiv 2512.04072, sections 3 and 4), by the settings that hold it.
EVERYWHERE = {
    "attempts.variants": ["original", "plan_and_execute", "alternatively", "rephrase"],
    "attempts.temperature": 0.7, "attempts.top_p": 0.8, "attempts.top_k": 20, "attempts.repetition_penalty": 1.1,
    "traces.pattern": "algorithm1", "traces.max_pairs": 5, "traces.max_tokens": 4096,
    "sft.learning_rate": 1e-6, "sft.schedule": "cosine", "sft.warmup": 0.05, "sft.epochs": 2, "sft.adam_beta2": 0.95,
    "sft.weight_decay": 1e-4, "sft.micro_batch": 1,
    "rl.learning_rate": 1e-6, "rl.steps": 150, "rl.prompts_per_step": 256, "rl.group_size": 16, "rl.mini_batch": 32,
    "rl.max_tokens": 4096, "rl.beta": 0.0, "evaluation.samples": 4,
}  # fmt: skip
OF_COUNTDOWN = {
    "questions.sft": 4000, "questions.rl": 1000, "attempts.per_variant": 16, "reflections.per_attempt": 4,
    "attempts.hints": "never", "evaluation.max_tokens": 4096, "evaluation.forcing.budgets": [8192],
    "evaluation.forcing.trigger": "<sample>",
}  # fmt: skip
OF_THOUGHTS = {
    "questions.rl": 10000, "attempts.per_variant": 2, "reflections.per_attempt": 1, "attempts.hints": "always",
    "evaluation.max_tokens": 16384,
}  # fmt: skip
PAPER: dict[str, dict[str, Any]] = {
    "countdown-qwen2.5-1.5b": {**EVERYWHERE, **OF_COUNTDOWN, "model": "Qwen/Qwen2.5-1.5B-Instruct"},
    "countdown-qwen2.5-7b": {**EVERYWHERE, **OF_COUNTDOWN, "model": "Qwen/Qwen2.5-7B-Instruct"},
    "countdown-olmo3-7b": {**EVERYWHERE, **OF_COUNTDOWN, "model": "allenai/Olmo-3-7B-Instruct-SFT"},
    THOUGHTS[0]: {**EVERYWHERE, **OF_THOUGHTS, "model": "Qwen/Qwen2.5-7B-Instruct", "questions.sft": 1000},
    THOUGHTS[1]: {**EVERYWHERE, **OF_THOUGHTS, "model": "Qwen/Qwen2.5-7B-Instruct", "questions.sft": 10000},
}
ATTEMPTS = dict.fromkeys(COUNTDOWN, 64) | dict.fromkeys(THOUGHTS, 16)  # a question, those shown the answer among them


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_figures_are_written_out(name: str) -> None:
    written = yaml.safe_load(shipped()[name].read_text())
    loaded = load_recipe(name).model_dump()
    assert {key: at(loaded, key) for key in PAPER[name]} == PAPER[name]
    for key in PAPER[name]:
        at(written, key)  # and not left to a default that may change
    assert estimate.slots(load_recipe(name)) == ATTEMPTS[name]


@pytest.mark.parametrize("name", PAPER)
def test_all_that_decides_a_stage_is_written_out(name: str) -> None:
    """A recipe is to mean the same when a default changes. Left out are settings of other methods and patterns."""
    written = yaml.safe_load(shipped()[name].read_text())
    others = {
        "attempts": {"prompts", "given", "model", "examples", "whole", "split", "instruct"},
        "traces": {"pairs", "stop_chance", "order", "reflect", "distinct_variants", "phrases"},
        "rl": {"more_tokens", "more_seconds", "shaping", "patience", "engine", "vllm"}, "evaluation": {"models"},
        "estimate": {"layer_ms", "dollars_per_gpu_hour"},
    }  # fmt: skip
    for section in ("sft", "rl"):
        others.setdefault(section, set()).update({"lora", "dev_every", "keep"})
    for section in ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation", "estimate"):
        known = set(type(getattr(load_recipe(name), section)).model_fields)
        assert known - set(written[section]) - others.get(section, set()) == set(), section


@pytest.mark.parametrize("name", COUNTDOWN)
def test_the_tasks_of_countdown(name: str) -> None:
    sets = load_recipe(name).evaluation.sets
    kinds = {
        kind: [key for key, each in sets.items() if each.kind == kind] for kind in ("in_domain", "harder", "other")
    }
    assert kinds == {
        "in_domain": ["countdown3"],
        "harder": ["countdown4", "countdown5", "countdown6"],
        "other": [
            *(f"multiplication{digits}" for digits in range(2, 6)),
            "letter_countdown4", "letter_countdown5", "acronym4", "acronym5", "gsm8k", "commonsense_qa",
        ],
    }  # fmt: skip


@pytest.mark.parametrize("name", THOUGHTS)
def test_the_sets_of_openthoughts(name: str) -> None:
    sets = load_recipe(name).evaluation.sets
    assert {key: (each.n, each.samples) for key, each in sets.items()} == {
        "gpqa": (198, 34), "aime2025": (30, 34), "amc2023": (40, 34), "math500": (500, 4),
    }  # fmt: skip
    assert {each.kind for each in sets.values()} == {"other"}, "the mean of a kind is the paper's overall"


WITHOUT_VLLM = {"attempts.engine": "transformers", "evaluation.engine": "transformers", "rl.engine": "sampler"}
HARDWARE = (
    "rl.micro_batch",
    "rl.vllm.vllm_enable_sleep_mode",
    "machine.batch_size",
    "training.devices",
    "training.shard",
)


@pytest.mark.parametrize("name", PAPER)
def test_they_could_start(name: str) -> None:
    """Every task is there with its parameters, nothing is refused, and every stage has its identity."""
    recipe = load_recipe(name)
    for spec in [recipe.questions.task, *(each.task for each in recipe.evaluation.sets.values())]:
        assert task_of(spec).name == spec.name
    pipeline.check(changed(recipe, WITHOUT_VLLM))
    digests = {stage: identity.digest for stage, identity in pipeline.identities(recipe).items()}
    assert tuple(digests) == methods.stages(recipe)
    assert len(set(digests.values())) == len(digests)


def differing(first: str, second: str) -> set[str]:
    def flat(value: Any, key: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{key}.{name}".lstrip(".")).items()}

    one, other = (flat(load_recipe(name).model_dump()) for name in (first, second))
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def test_the_recipes_differ_in_what_they_say_they_differ_in() -> None:
    assert differing("countdown-qwen2.5-7b", "countdown-olmo3-7b") == {"name", "model"}
    assert differing("countdown-qwen2.5-1.5b", "countdown-qwen2.5-7b") == {"name", "model", *HARDWARE, *WITHOUT_VLLM}
    assert differing(*THOUGHTS) == {"name", "questions.sft"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address can be looked up or reached, and no model is in the hub's cache."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", PAPER)
def test_a_dry_run_needs_no_network(name: str, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run", name, "--dry-run", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert not list(tmp_path.iterdir())
    stages = {each["stage"]: each for each in said["stages"]}
    assert stages["attempts"]["attempts"] == ATTEMPTS[name] * PAPER[name]["questions.sft"]
    assert stages["rl"]["rollouts"] == 150 * 4096
    assert stages["rl"]["most_tokens"] == 150 * 4096 * 4096
    total = said["total"]
    assert 0 < total["expected_gpu_hours"] < total["most_gpu_hours"]
    for key in ("most_tokens", "expected_tokens", "most_disk_bytes", "expected_disk_bytes"):
        assert total[key] == sum(each[key] for each in said["stages"])
    assert said["basis"]["parameters_known_by"] == "name"
    assert said["basis"]["memory"]["cards"] == (1 if "1.5b" in name else 4)
    shown = CliRunner().invoke(app, ["run", name, "--dry-run"], catch_exceptions=False).stdout
    for words in ("GPU hours", "assumed right 0.25", "by its name", "of training state"):
        assert words in shown
    assert "as the recipe stands, it fits" in " ".join(shown.split())
