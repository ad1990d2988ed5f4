"""What a dry run says: samples on demand against measured ones, sizes of models, hours, memory, rounds."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import TASK, make_recipe
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from skillfactory import methods
from skillfactory.curation.patterns import PATTERNS
from skillfactory.planning import dry_run, estimate, plan, sizes
from skillfactory.planning.basis import basis_of
from skillfactory.planning.probe import Estimate
from skillfactory.recipe import Recipe, changed
from skillfactory.tiny import FOLDER

MEASURED = Path(__file__).parent.parent / "benchmarks" / "results" / "curation-cost.json"
QWEN_7B = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
NONE = Path("there-is-no-such-run")


def recipe(**sections: Any) -> Recipe:
    """The paper's budget of samples for 100 questions and a model of 7 billion parameters, by its name."""
    given_ = {
        "model": "org/Some-7B", "questions": {"task": TASK, "sft": 100, "rl": 8, "dev": 2},
        "machine": {"dtype": "bfloat16"},
    }  # fmt: skip
    return make_recipe(**(given_ | sections))


def figures(recipe: Recipe, probed: Estimate | None = None) -> dict[str, plan.StagePlan]:
    return {each.name: each for each in plan.plan(recipe, NONE, probed)}


# --- samples


@pytest.mark.parametrize("share", ["12 %", "20 %", "50 %"])
def test_samples_on_demand_are_as_measured(share: str) -> None:
    """The share of right attempts is the measured one; that of true verdicts is found by `ladder`'s reflections."""
    runs = json.loads(MEASURED.read_text())
    right, n = runs[f"{share}, ladder"]["paper"]["correct"], runs[f"{share}, ladder"]["on_demand"]["questions"]

    def likely(pattern: str, true: float) -> estimate.Curation:
        assumed = {"right": right, "true_verdicts": true}
        traces = {"pattern": pattern, "max_pairs": 5}
        return estimate.expected_curation(
            recipe(questions={"task": TASK, "sft": n}, traces=traces, estimate=assumed, reflections={"per_attempt": 4})
        )

    true = likely("ladder", 1.0).reflections / runs[f"{share}, ladder"]["on_demand"]["reflections"]
    for pattern in ("ladder", "algorithm1"):
        measured, said = runs[f"{share}, {pattern}"]["on_demand"], likely(pattern, true)
        for key in ("attempts", "reflections", "traces"):
            assert getattr(said, key) == pytest.approx(measured[key], rel=0.08), (pattern, key)


@example("ladder", 5, 1, 1, 1.0, 1.0, 0.5, 0, 0, "paper")  # five traces of four attempts
@settings(max_examples=200, deadline=None)
@given(
    pattern=st.sampled_from(sorted(PATTERNS)), most=st.integers(1, 14), per_variant=st.integers(1, 16),
    per_attempt=st.integers(1, 8), right=st.floats(0.001, 1), true=st.floats(0.01, 1), filled=st.floats(0.01, 1),
    per_question=st.integers(0, 6), limit=st.integers(0, 300), budget=st.sampled_from(["paper", "on_demand"]),
)  # fmt: skip
def test_what_is_expected_is_never_more_than_the_most(
    pattern: str, most: int, per_variant: int, per_attempt: int, right: float, true: float, filled: float,
    per_question: int, limit: int, budget: str,
) -> None:  # fmt: skip
    made = recipe(
        attempts={"per_variant": per_variant, "budget": budget}, reflections={"per_attempt": per_attempt},
        traces={"pattern": pattern, "max_pairs": most, "per_question": per_question, "limit": limit},
        estimate={"right": right, "true_verdicts": true, "filled": filled},
    )  # fmt: skip
    for stage in figures(made).values():
        for key in ("tokens", "gpu_hours", "disk"):
            assert 0 <= getattr(stage.expected, key) <= getattr(stage.most, key) * (1 + 1e-9) + 2, (stage.name, key)
    bound, likely = estimate.most_curation(made), estimate.expected_curation(made)
    for key in ("attempts", "reflections", "traces"):
        assert 0 <= getattr(likely, key) <= getattr(bound, key) + 1, key


def test_a_probe_takes_the_place_of_assumptions() -> None:
    probed = Estimate(
        probed=16, probe_seconds=1.0, share_correct=0.5, questions=100, attempts=1000, reflections=2000, traces=300,
        tokens=0, paper_tokens=0, seconds=0.0, attempt_tokens=50.0, reflection_tokens=20.0, trace_tokens=200.0,
    )  # fmt: skip
    made = figures(recipe(sft={"epochs": 2}), probed)
    expected = {name: made[name].expected.tokens for name in ("attempts", "reflections", "sft")}
    assert expected == {"attempts": 1000 * 50, "reflections": 2000 * 20, "sft": 300 * 200 * 2}
    assert made["attempts"].most == figures(recipe())["attempts"].most
    said = dry_run.basis_lines(basis_of(recipe(), probed)).plain
    assert "measured on 16 questions: right 0.50" in said
    assert "true_verdicts" not in said


def test_given_attempts_cost_nothing_here(tmp_path: Path) -> None:
    made = figures(recipe(attempts={"given": str(tmp_path / "raw.jsonl")}))
    assert made["attempts"].most.tokens == made["attempts"].expected.tokens == 0
    assert made["attempts"].expected.gpu_hours == 0


def test_a_teacher_costs_by_its_own_size() -> None:
    small = recipe(method="distill", distill={"teacher": "org/Some-7B", "engine": "vllm"})
    large = recipe(method="distill", distill={"teacher": "org/Other-70B", "engine": "vllm"})
    one, ten = (figures(methods.applied(each)) for each in (small, large))
    assert ten["attempts"].most.gpu_hours == pytest.approx(10 * (one["attempts"].most.gpu_hours or 0))
    assert ten["sft"].most == one["sft"].most
    assert ten["reflections"].most.tokens == 0


# --- models


def test_parameters_by_config() -> None:
    assert counted(QWEN_7B) == pytest.approx(7_615_616_512, rel=1e-4), "all but its biases"
    tiny = json.loads((FOLDER / "config.json").read_text())
    assert counted(tiny) == sizes.weights_of(make_recipe()).parameters, "as its files say"
    assert counted({"text_config": tiny}) == counted(tiny)
    assert counted({**QWEN_7B, "num_experts": 8}) is None
    assert counted({"n_embd": 768, "n_layer": 12}) is None


def counted(config: dict[str, Any]) -> int | None:
    shape = sizes.shape_of(config)
    return shape.parameters if shape else None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5e9), ("allenai/Olmo-3-7B-Instruct-SFT", 7e9), ("org/SmolLM2-135M", 135e6),
        ("google/gemma-2-2b-it", 2e9), ("Qwen/Qwen3-30B-A3B", 30e9), ("mistralai/Mixtral-8x7B", None),
        ("org/large", None), ("org/v2.5", None), ("a-server's name: 7Bx", None),
    ],
)  # fmt: skip
def test_parameters_by_name(name: str, parameters: float | None) -> None:
    found = sizes.weights_of(recipe(model=name))
    assert (found.parameters, found.known_by) == (parameters, "name" if parameters else "")


def test_a_model_in_the_hubs_cache_is_looked_up_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--Qwen--Qwen2.5-7B-Instruct", "0" * 40
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text(json.dumps(QWEN_7B))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = sizes.weights_of(recipe(model="Qwen/Qwen2.5-7B-Instruct"))
    assert (found.parameters, found.known_by, found.bytes_each) == (counted(QWEN_7B), "config", 2)


def test_a_folder_with_broken_files_is_taken_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine-3B"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"no such file")
    (folder / "config.json").write_text("{")
    assert sizes.weights_of(recipe(model=str(folder))).parameters == 3e9


# --- hours and memory


def test_hours_of_a_gpu() -> None:
    """Of 10^12 operations a second: 10^9 parameters, 3600 x 10^3 tokens sampled at half of it, learnt at a quarter."""
    made = recipe(estimate={"tflops": 1, "sampling_use": 0.5, "training_use": 0.25})
    one, none, tokens = sizes.Weights(10**9, "name"), sizes.Weights(None, ""), 3_600_000
    drawn = estimate.Drawn(tokens, tokens)
    assert estimate.sampling_hours(made, one, drawn, "vllm") == pytest.approx(4.0)
    assert estimate.training_hours(made, one, tokens, made.sft) == pytest.approx(24.0)
    assert estimate.sampling_hours(made, none, drawn, "vllm") is None
    assert estimate.training_hours(made, none, tokens, made.sft) is None
    assert estimate.sampling_hours(made, none, estimate.Drawn(0, 0), "vllm") == 0
    assert estimate.training_hours(made, none, 0, made.sft) == 0


@pytest.mark.parametrize(
    ("section", "settings", "operations"),
    [
        ("sft", {}, 6), ("sft", {"gradient_checkpointing": True}, 8), ("sft", {"lora": {"rank": 8}}, 4),
        ("rl", {"mini_batch": 0}, 6), ("rl", {"mini_batch": 0, "gradient_checkpointing": True}, 8),
        ("rl", {"mini_batch": 4}, 8), ("rl", {"mini_batch": 0, "engine": "vllm_colocate"}, 8),
        ("rl", {"mini_batch": 0, "iterations": 2}, 14),
    ],
)  # fmt: skip
def test_operations_of_learning(section: str, settings: dict[str, Any], operations: int) -> None:
    made = recipe(**{section: {"prompts_per_step": 8, **settings} if section == "rl" else settings})
    assert estimate.training_flops(made, made.rl if section == "rl" else made.sft) == operations


def test_our_sampler_takes_its_steps_however_few_are_left() -> None:
    """10,000 samples, 100 at once, up to 3,600 steps each, 28 layers at a millisecond; vLLM only what is drawn."""
    made = recipe(machine={"batch_size": 100, "dtype": "bfloat16"})
    short, long = (estimate.Drawn(tokens, 36_000_000) for tokens in (3_600_000, 36_000_000))
    seven = sizes.weights_of(made)
    assert estimate.sampling_hours(made, seven, short, "sampler") == pytest.approx(100 * 0.028)
    assert estimate.sampling_hours(made, seven, long, "sampler") == pytest.approx(100 * 0.028)
    quick, slow = (estimate.sampling_hours(made, seven, drawn, "vllm") or 0 for drawn in (short, long))
    assert slow == pytest.approx(10 * quick)
    assert quick < 1
    huge = sizes.Weights(10**13, "name")  # where operations decide, ours is no faster than vLLM
    assert estimate.sampling_hours(made, huge, long, "sampler") == estimate.sampling_hours(made, huge, long, "vllm")


@pytest.mark.parametrize(("engine", "slower"), [("sampler", True), ("vllm_colocate", False), ("vllm_server", False)])
def test_rl_takes_the_rate_of_its_engine(engine: str, slower: bool) -> None:
    made = [figures(recipe(rl={"engine": each, "mini_batch": 32}))["rl"].expected for each in (engine, "vllm_server")]
    assert (made[0].gpu_hours > made[1].gpu_hours) == slower  # type: ignore[operator]
    verl = figures(recipe(rl={"engine": engine, "mini_batch": 32}, training={"backend": "verl"}))["rl"].expected
    assert verl.gpu_hours == made[1].gpu_hours, "verl samples by vLLM"


def test_dollars_are_hours_at_a_price() -> None:
    free, priced = (plan.plan(recipe(estimate={"dollars_per_gpu_hour": price}), NONE) for price in (0, 2.5))
    assert "most_dollars" not in plan.total_facts(free)
    total = plan.total_facts(priced)
    assert total["expected_dollars"] == pytest.approx(2.5 * total["expected_gpu_hours"])
    assert plan.as_facts(priced)[1]["most_dollars"] == pytest.approx(2.5 * (priced[1].most.gpu_hours or 0))
    drawn = Console(width=160, no_color=True)
    for stages, has_price in ((free, False), (priced, True)):
        with drawn.capture() as shown:
            drawn.print(dry_run.cost_table(stages))
        assert ("dollars: at most" in shown.get()) == has_price
    unknown = plan.total_facts(
        plan.plan(recipe(model="org/large", estimate={"dollars_per_gpu_hour": 2.5}), NONE)
    )  # fmt: skip
    assert "most_dollars" not in unknown


SPLIT = {"training.devices": 4, "training.shard": "fsdp2"}
ZERO = {"training.devices": 2, "training.shard": "zero3", "sft.gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("model", "sections", "cards", "settings"),
    [
        ("org/Some-1.5B", {}, 1, {}),
        ("org/Some-7B", {}, 4, SPLIT),
        ("org/Some-7B", {"training": {"devices": 4, "shard": "zero3"}}, 2, ZERO),
        ("org/Some-7B", {"sft": {"lora": {"rank": 8}}, "rl": {"lora": {"rank": 8}}}, 1, {}),
        ("org/Some-7B", {"machine": {"batch_size": 512, "dtype": "bfloat16"}}, 4, {**SPLIT, "machine.batch_size": 32}),
        ("org/Some-70B", {}, None, {}),
        ("org/Some-70B", {"method": "evaluate"}, 2, {}),
    ],
)
def test_gpus_that_it_takes(model: str, sections: dict[str, Any], cards: int | None, settings: dict[str, Any]) -> None:
    """With what changes nothing but speed. The copy that is sampled from is whole on every GPU."""
    short = {"micro_batch": 1, "gradient_checkpointing": True, "prompts_per_step": 8, "group_size": 8, "mini_batch": 0}
    short |= {"max_tokens": 1024}
    given_ = {"machine": {"batch_size": 64, "dtype": "bfloat16"}, **sections}
    given_ |= {"rl": short | sections.get("rl", {}), "sft": {"micro_batch": 1} | sections.get("sft", {})}
    if "machine" in sections:
        given_["rl"] = {**short, "group_size": 64, "max_tokens": 8192}
    held = basis_of(recipe(model=model, **given_))["memory"]
    assert (held["cards"], held["cards_settings"]) == (cards, settings)


def test_memory_is_said_by_stage_and_part() -> None:
    made = recipe(
        rl={
            "micro_batch": 1,
            "gradient_checkpointing": True,
            "max_tokens": 1024,
            "prompts_per_step": 8,
            "mini_batch": 0,
        }
    )
    held = basis_of(made)["memory"]
    assert held["device_bytes"] == 80e9
    assert held["state_bytes"] == 16 * 7e9
    for each in held["stages"].values():
        assert each["bytes"] == sum(each["parts"].values())
        assert each["fits"] is False
    drawn = Console(width=200, no_color=True)
    with drawn.capture() as shown:
        drawn.print(dry_run.memory_table(held), dry_run.basis_lines(basis_of(made)))
    for words in ("does not fit", "optimizer 56 GB", "4 GPUs of 80 GB would do, with training.devices=4", "guess",
                  "main memory: 28 GB"):  # fmt: skip
        assert words in shown.get(), words
    tiny = basis_of(make_recipe())["memory"]
    assert all(each["fits"] for each in tiny["stages"].values())


def test_disk_of_a_training_is_checkpoints_at_most_and_models_at_the_end() -> None:
    rl = figures(recipe(rl={"steps": 150, "keep_every": 50}))["rl"]
    assert rl.most.disk == 7e9 * (2 * 3 + 2 * 12)
    assert rl.expected.disk == 7e9 * 2 * 3
    best = figures(recipe(rl={"steps": 150, "keep": "best", "dev_every": 5}))["rl"]
    assert best.most.disk == 7e9 * (2 * 2 + 2 * 12)  # one that may be better is written beside the best so far
    assert best.expected.disk == 7e9 * 2


def test_a_reference_model_is_one_more_forward_pass() -> None:
    made = (recipe(rl={"beta": beta, "mini_batch": 0}, estimate={"layer_ms": 0}) for beta in (0, 0.1))
    hours = [figures(each)["rl"].most.gpu_hours or 0 for each in made]
    sampled = 2 / 0.15  # operations a parameter and token, by the share of the peak that is reached
    assert hours[1] / hours[0] == pytest.approx((sampled + 8 / 0.3) / (sampled + 6 / 0.3))


def test_what_is_not_known_is_not_made_up() -> None:
    made = plan.plan(recipe(model="org/large"), NONE)
    total = plan.total_facts(made)
    assert total["most_gpu_hours"] is total["expected_disk_bytes"] is None
    assert total["most_tokens"] > 0
    by_name = {each["stage"]: each for each in plan.as_facts(made)}
    assert by_name["sft"]["most_disk_bytes"] is None
    assert by_name["attempts"]["most_disk_bytes"] > 0
    drawn = Console(width=140, no_color=True)
    with drawn.capture() as shown:
        drawn.print(dry_run.cost_table(made), dry_run.basis_lines(basis_of(recipe(model="org/large"))))
    assert "?" in shown.get()
    assert "size unknown" in shown.get()


# --- methods and rounds


@pytest.mark.parametrize("method", [name for name in methods.METHODS if name not in ("bolt", "distill")])
def test_every_stage_of_every_method_is_counted(method: str) -> None:
    made = figures(methods.applied(recipe(method=method)))
    assert tuple(made) == methods.stages(recipe(method=method))
    for name in made:
        if name.partition("-")[0] in ("attempts", "sft", "rl", "evaluation"):
            assert made[name].most.tokens > 0, name
            assert made[name].expected.gpu_hours, name
        assert made[name].most.disk is not None
    trained = [name for name in made if name.partition("-")[0] in ("sft", "rl")]
    assert made["evaluation"].counts["models"] == 1 + len(trained)


def test_each_round_counts_by_its_own_settings() -> None:
    twice = methods.applied(recipe(method="skillfactory_twice", attempts={"max_tokens": 100}, rl={"max_tokens": 1000}))
    made = figures(twice)
    assert made["rl-1"].most == made["rl"].most
    assert made["attempts"].most.tokens == 10 * made["attempts-1"].most.tokens, "whole responses, as RL has them"
    assert made["reflections-1"].most.tokens > made["reflections"].most.tokens == 0, "they are in the responses"


def test_assumptions_decide_nothing_that_is_made() -> None:
    from skillfactory.pipeline import identities

    first, other = identities(recipe()), identities(changed(recipe(), {"estimate.right": 0.9}))
    assert {k: v.digest for k, v in first.items()} == {k: v.digest for k, v in other.items()}
