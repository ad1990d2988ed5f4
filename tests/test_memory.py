"""Memory of SFT and RL: what autograd keeps against torch itself, sums against measured peaks, and what is advised."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import TASK, make_recipe

from skillfactory.errors import RecipeError
from skillfactory.planning import memory, passes, room
from skillfactory.planning.memory import Lengths
from skillfactory.planning.passes import Device
from skillfactory.planning.sizes import Shape, Weights, shape_of, weights_of
from skillfactory.recipe import Recipe, changed

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "memory.json"
SMALL = {
    "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256,
    "vocab_size": 300, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_7B = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
H100 = Device("cuda", 80 * 10**9)


def recipe(**sections: Any) -> Recipe:
    """For a model of Qwen2.5-7B's shape: 512 rollouts a step of up to 4,608 tokens, sampled 256 at once."""
    given: dict[str, Any] = {
        "questions": {"task": TASK, "sft": 100, "rl": 64, "dev": 2},
        "sft": {"micro_batch": 4, "batch_size": 16},
        "rl": {"micro_batch": 4, "prompts_per_step": 32, "group_size": 16, "max_tokens": 4096},
        "machine": {"dtype": "bfloat16", "batch_size": 256},
    }
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return make_recipe(**given)


def qwen() -> Weights:
    shape = shape_of({**QWEN_7B})
    assert shape is not None
    return Weights(shape.parameters, "config", 2, shape)


def needed(made: Recipe, stage: str, device: Device = H100, lengths: Lengths | None = None) -> memory.Memory:
    return memory.of_stage(made, stage, qwen(), device, lengths)


# --- what autograd keeps


def saved_bytes(layers: int, attention: str, half: bool, padded: bool, rank: int, rows: int, length: int) -> int:
    """Bytes of all tensors, other than weights, that torch keeps for the backward pass of a real model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    from skillfactory.engines.attention import register

    register()
    model = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=layers, **SMALL), dtype=torch.float32)
    model.set_attn_implementation(attention)
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.enable_input_require_grads()
        model = model.get_base_model()
    model.train()
    ids = torch.randint(0, 300, (rows, length))
    mask = torch.ones_like(ids)
    if padded:
        mask[0, :3] = 0
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each), torch.autocast("cpu", enabled=half):
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(each.untyped_storage().nbytes() for at, each in kept.items() if at not in weights)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(("attention", "padded"), [("sdpa", False), ("sdpa", True), ("eager", True), ("grouped", True)])
def test_what_a_layer_keeps_is_what_torch_keeps(attention: str, padded: bool, half: bool, rank: int) -> None:
    rows, length = 2, 256  # whole blocks of attention.py
    shape = shape_of({"num_hidden_layers": 1, **SMALL})
    assert shape is not None
    one, two = (saved_bytes(layers, attention, half, padded, rank, rows, length) for layers in (1, 2))
    casts = 2 * shape.layer if half else 0  # of weights, counted as a part of its own
    adapters = 2 * memory.trained(recipe(sft={"lora": {"rank": rank}}).sft, 0, shape) if rank and half else 0
    expected = passes.kept_a_token(shape, Device("cpu", 0, half, attention), length, padded, rank)
    assert two - one - casts - adapters == pytest.approx(expected * rows * length, rel=0.01)


# --- sums against measured peaks


def test_estimates_are_near_measured_peaks() -> None:
    """As benchmarks/bench_memory.py found them; tiny and SmolLM2's shape, SFT and RL, by rows, lengths and settings."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("bench_memory", RESULTS.parent.parent / "bench_memory.py")
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = json.loads(RESULTS.read_text())["cases"]
    assert len(found) >= 20
    for name, each in found.items():
        assert each["measured"] * 0.7 < bench.estimated(each).total < each["measured"] * 1.3, name


# --- parts


def test_state_is_split_over_devices() -> None:
    """7.6 billion parameters: 16 bytes each on one device; DDP has gradients twice; FSDP2 splits, zero3 in 16 bits."""
    alone = needed(recipe(), "sft")
    count = qwen().parameters or 0
    assert alone.state == 16 * count
    for shard, state in (("none", 16 * count), ("fsdp2", 4 * count), ("zero3", 4 * count), ("zero2", 5.5 * count)):
        four = recipe(training={"devices": 4, "shard": shard})
        assert needed(four, "sft").state == pytest.approx(state, rel=1e-6), shard
    parts = needed(recipe(training={"devices": 4}), "sft").parts
    assert parts["exchange"] == parts["gradients"] == 4 * count


def test_fsdp2_leaves_gradients_whole_while_they_add_up() -> None:
    split = {"training": {"devices": 4, "shard": "fsdp2"}}
    many, one = (needed(recipe(**split, sft={"batch_size": size}), "sft") for size in (32, 16))
    assert many.parts["exchange"] - one.parts["exchange"] == 2 * (qwen().parameters or 0)


@pytest.mark.parametrize("stage", ["sft", "rl"])
@pytest.mark.parametrize(
    "smaller",
    [
        {"STAGE.micro_batch": 2}, {"STAGE.gradient_checkpointing": True}, {"STAGE.lora.rank": 16},
        {"CAP.max_tokens": 2048}, {"training.devices": 4, "training.shard": "fsdp2"},
    ],
)  # fmt: skip
def test_every_setting_that_is_advised_lowers_the_memory_of_training(stage: str, smaller: dict[str, Any]) -> None:
    named = {
        key.replace("STAGE", stage).replace("CAP", "traces" if stage == "sft" else "rl"): value
        for key, value in smaller.items()
    }
    few = recipe(machine={"batch_size": 8})  # so that training is what takes most
    before, after = needed(few, stage), needed(changed(few, named), stage)
    assert before.moment == "training"
    assert after.total < before.total


def test_sampling_is_the_cache_of_all_sequences_at_once() -> None:
    made = needed(recipe(rl={"micro_batch": 1, "gradient_checkpointing": True}), "rl")
    assert made.moment == "sampling"
    assert made.parts["cache"] == 29 * 256 * (512 + 4096) * 2 * 4 * 128 * 2  # a layer more: one grows at a time
    assert "gradients" not in made.parts
    twice, more = (recipe(rl={"micro_batch": 1}, machine={"batch_size": size}) for size in (512, 1024))
    assert needed(twice, "rl").parts["cache"] == 2 * made.parts["cache"]
    assert needed(more, "rl").parts["cache"] == 2 * made.parts["cache"], "a step has 512 rollouts"


def test_vllm_takes_its_share_in_place_of_the_copy_and_the_cache() -> None:
    vllm = {"engine": "vllm_colocate", "micro_batch": 1, "gradient_checkpointing": True}
    awake = needed(recipe(rl=vllm), "rl")
    assert awake.moment == "training"
    assert awake.parts["vLLM"] == 0.3 * H100.size
    asleep = needed(recipe(rl={**vllm, "vllm": {"vllm_enable_sleep_mode": True}}), "rl")
    assert "vLLM" not in asleep.parts
    server = needed(recipe(rl={**vllm, "engine": "vllm_server"}), "rl")
    assert "vLLM" not in server.parts


def test_answers_to_dev_questions_need_a_copy_and_a_cache_as_well() -> None:
    plain, measured = (needed(recipe(sft={"dev_every": n, "micro_batch": 1}), "sft") for n in (0, 5))
    assert measured.total - plain.total == qwen().bytes


def test_a_kl_term_needs_the_model_at_the_start() -> None:
    def held(**settings: Any) -> dict[str, int]:
        return needed(recipe(rl={"beta": 0.1, "micro_batch": 1} | settings.pop("rl", {}), **settings), "rl").parts

    assert held()["reference model"] == 4 * qwen().parameters
    assert held(training={"devices": 4, "shard": "fsdp2"})["reference model"] == qwen().parameters
    assert held(training={"devices": 4, "shard": "zero2"})["reference model"] == 2 * qwen().parameters
    assert "reference model" not in held(rl={"lora": {"rank": 8}})  # adapters are switched off for it
    assert "reference model" not in held(rl={"beta": 0})


# --- the machine, and advice


def test_nothing_is_said_where_it_fits() -> None:
    tiny = make_recipe()
    assert room.check_memory(tiny, "sft") == room.check_memory(tiny, "rl") == {}
    assert room.check_memory(make_recipe(model="org/of-a-size-that-nobody-knows"), "rl") == {}


def test_a_warning_names_parts_and_settings_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base with 600 MB: the warning's own advice is followed, and then there is none."""
    monkeypatch.setattr(room, "main_memory", lambda: (600 * 10**6, 10**9))
    large = make_recipe(sft={"micro_batch": 64, "batch_size": 64}, traces={"max_tokens": 1000})
    found = room.check_memory(large, "sft")
    assert set(found) == {"memory"}
    assert "600 MB" not in found["memory"]
    assert "where 0.6 GB are free (training: activations" in found["memory"]
    key, value = found["memory"].rpartition("; ")[2].partition(" would come to")[0].split("=")
    assert key == "sft.micro_batch"
    assert room.check_memory(changed(large, {key: int(value)}), "sft") == {}


def test_lengths_of_the_run_count_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "main_memory", lambda: (600 * 10**6, 10**9))
    large = make_recipe(sft={"micro_batch": 64, "batch_size": 64}, traces={"max_tokens": 1000})
    assert room.check_memory(large, "sft", Lengths(20, 60)) == {}


def gpu(free: float, gpus: int = 8) -> Callable[..., tuple[Device, int, int]]:
    return lambda *_: (H100, round(free * 1e9), gpus)


@pytest.fixture
def large(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("rl", "free", "gpus", "advised"),
    [
        ({}, 79, 8, "training.devices=4 training.shard=fsdp2 would"),
        ({}, 79, 1, "rl.lora.rank=16"),
        ({"lora": {"rank": 8}, "micro_batch": 16}, 79, 1, "rl.micro_batch"),
        ({"lora": {"rank": 8}, "micro_batch": 1}, 75, 1, "machine.batch_size"),
        ({"lora": {"rank": 8}, "micro_batch": 1, "engine": "vllm_colocate"}, 70, 1, "'{vllm_enable_sleep_mode: true}'"),
    ],
)
def test_advice_begins_with_what_changes_least(
    rl: dict[str, Any], free: float, gpus: int, advised: str, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = changed(recipe(rl={**rl}), {"model": large})
    found = room.mend(made, "rl", qwen(), H100, round(free * 1e9), gpus)
    assert found is not None
    assert advised in str(found)
    assert found.memory.total <= free * 1e9
    assert ("changes what is learnt" in str(found)) == ("lora.rank=16" in str(found))


def test_what_cannot_even_hold_its_state_is_refused(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = changed(recipe(), {"model": large})
    monkeypatch.setattr(room, "here", gpu(79))
    with pytest.raises(RecipeError, match=r"alone take 122 GB of a GPU's 80 GB; .*training\.shard=fsdp2"):
        room.check_memory(made, "sft")
    own = changed(made, {"training.accelerate": "mine.yaml"})  # which may put the optimizer elsewhere
    assert set(room.check_memory(own, "sft")) == {"memory"}


def test_main_memory_of_several_processes(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = {"model": large, "training.devices": 4, "training.shard": "fsdp2", "sft.gradient_checkpointing": True}
    monkeypatch.setattr(room, "here", gpu(79))
    monkeypatch.setattr(room, "main_memory", lambda: (100 * 10**9, 128 * 10**9))
    found = room.check_memory(changed(recipe(), split), "sft")
    assert set(found) == {"main_memory"}
    assert "122 GB of main memory" in found["main_memory"]


def test_control_groups_limit_what_is_free(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    own.write_text("0::/a/b\n")
    for folder, limit, used in ((root / "a", "4000", "3000"), (inner, "max", "500")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 200\n")
    assert list(room._limits(root, own)) == [(4000, 2800)]
    assert list(room._limits(tmp_path / "none", own)) == []
    free, size = room.main_memory()
    assert 0 < free <= size


# --- shapes


def test_a_shape_counts_its_parameters() -> None:
    shape = shape_of(QWEN_7B)
    assert shape is not None
    assert shape.parameters == pytest.approx(7_615_616_512, rel=1e-4)
    tiny = weights_of(make_recipe())
    assert tiny.known_shape is not None
    assert tiny.known_shape.parameters == tiny.parameters


@pytest.mark.parametrize("billions", [0.135, 0.5, 1.5, 7, 32, 70])
def test_a_guessed_shape_has_about_the_size(billions: float) -> None:
    assert Shape.like(round(billions * 1e9)).parameters == pytest.approx(billions * 1e9, rel=0.2)
