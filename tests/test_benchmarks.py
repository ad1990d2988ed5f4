"""The benchmarks' own arithmetic, and that what they time is what they say. Their figures are no test's business."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def shapes() -> Any:
    """One layer of width 4 with two heads that share one key head, 6 inner, 10 tokens: 24 + 16 + 72 elements."""
    from floor import Shapes

    linear = ((4, 4, 1), (2, 4, 2), (4, 4, 1), (6, 4, 2), (4, 6, 1))
    return Shapes(layers=1, heads=2, kv_heads=1, width=2, linear=linear, head=(10, 4))


def rates(read: float, multiplied: float) -> dict[str, Any]:
    return {"read": {"1": read}, "multiplied when sampling": multiplied, "multiplied when training": multiplied}


def test_a_models_matrices_are_those_of_its_configuration() -> None:
    import floor
    from transformers import AutoModelForCausalLM

    from skillfactory.tiny import FOLDER

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    found = floor.shapes_of(model.config)
    matrices = [p.numel() for p in model.parameters() if p.dim() == 2]  # the embedding is the head, too
    assert found.body + math.prod(found.head) == sum(matrices)
    assert found.cache == 2 * 2 * 4 * 2 * 32


def test_the_floor_of_sampling_is_what_its_formula_says() -> None:
    import floor

    assert (shapes().body, shapes().weights, shapes().cache) == (120, 2 * 160, 8)
    work = floor.Work(lengths=[3, 1], prompts=[5, 5], read=5)
    contexts = (6 + 7 + 8) + 6
    assert work.contexts == contexts
    read = 3 * 320 + contexts * 8  # three steps, each of which reads all weights
    assert floor.sampling(rates(100.0, 1e12), shapes(), work) == pytest.approx(read / 100)
    operations = 2 * 160 * 4 + 2 * 120 * 5 + 4 * 2 * 2 * contexts
    assert floor.sampling(rates(1e12, 100.0), shapes(), work) == pytest.approx(operations / 100)


def test_the_floor_of_training_counts_the_head_where_a_token_is_learnt() -> None:
    import floor

    operations = 2 * 120 * 7 + 2 * 40 * 4 + 4 * 2 * 2 * (3 + 2 + 1 + 4 + 3 + 2 + 1)
    assert floor.training(rates(1.0, 100.0), shapes(), [3, 4], learnt=4) == pytest.approx(3 * operations / 100)


def test_a_model_that_fits_into_a_cache_gets_the_caches_rate() -> None:
    import floor

    measured = {"read": {"100": 50.0, "1000": 5.0}}
    assert [floor._rate(measured, size) for size in (10, 100, 999, 1000, 10**6)] == [50, 50, 50, 5, 5]


def test_shares_are_of_the_floor_of_what_was_done() -> None:
    import floor
    import shown

    given = {**rates(1e12, 1e3), "shapes": shapes().__dict__}
    sampled = {"tokens a second": 1.0, "tokens": 4, "work": {"lengths": [3, 1], "prompts": [5, 5], "read": 5}}
    stepped = {"seconds a step": 100.0, "prompts": 1, "rows": [([5, 5], [3, 1])]}
    measured: dict[str, Any] = {"floor": given, "sampled": sampled, "stepped": stepped, "failed": {"failed": True}}
    shown.shares(measured)
    best = floor.sampling(given, shapes(), floor.Work([3, 1], [5, 5], 5))
    assert sampled["share of the floor"] == pytest.approx(best / 4)
    learning = floor.training(given, shapes(), [8, 6], learnt=4)
    assert stepped["share of the floor"] == pytest.approx((best + learning) / 100)
    assert "work" not in sampled
    assert "rows" not in stepped


def test_a_step_of_ours_is_split_into_all_its_parts() -> None:
    import bench_training

    found = bench_training.grpo_ours("tiny", quick=True, updates=2)
    parts = found["parts"]
    assert all(parts[part] > 0 for part in parts)
    assert sum(parts.values()) == pytest.approx(found["seconds a step"])
    assert parts["rollouts"] + parts["forward"] + parts["backward"] > 0.5 * found["seconds a step"]
    assert found["percent of a step in the reward"] == pytest.approx(100 * parts["reward"] / found["seconds a step"])
    (prompts, completions), size = found["rows"][0], 16
    assert len(prompts) == len(completions) == size
    assert len(set(completions)) > 3  # a law, whatever the model has learnt: the tiny base alone writes 14 tokens


@pytest.mark.slow
def test_a_step_of_trl_samples_by_the_same_law() -> None:
    import bench_training

    found = bench_training.grpo_trl("tiny", quick=True, updates=1, threads=1)
    (_, completions) = found["rows"][0]
    assert len(set(completions)) > 3
    assert found["parts"]["log-probabilities"] == 0  # one update a step needs none


def test_both_fine_tunings_read_the_same_tokens() -> None:
    import bench_sft

    ours, theirs = (run("tiny", quick=True) for run in (bench_sft.ours, bench_sft.trl))
    assert ours["tokens"] == theirs["tokens"] == sum(ours["lengths"])
    assert ours["steps"] == theirs["steps"] == 3


def test_generate_and_our_sampler_make_the_same_lengths() -> None:
    import bench_sampling

    for uneven in (False, True):
        ours = bench_sampling.ours("tiny", True, uneven)
        theirs = bench_sampling.generate("tiny", True, uneven, threads=1)
        assert ours["work"] == theirs["work"]
        assert ours["tokens"] == theirs["tokens"] == sum(ours["work"]["lengths"])
    assert len(set(ours["work"]["lengths"])) > 3


@pytest.mark.slow
def test_continuous_batching_makes_the_same_lengths() -> None:
    import bench_sampling

    assert bench_sampling.generate_batch("tiny", True, True)["tokens"] == 236


def test_curves_are_summed_up_and_drawn(tmp_path: Path) -> None:
    import bench_curves

    def curve(method: str, seed: int, seconds: float) -> dict[str, Any]:
        steps = [{"reward": 0.1 * (i + seed), "length": 10.0, "seconds": seconds} for i in range(4)]
        return {"method": method, "seed": seed, "size": {"rl.steps": 4}, "steps": steps}

    curves = {f"{m}-{s}": curve(m, s, seconds) for m, seconds in (("ours", 2.0), ("trl", 8.0)) for s in (0, 1)}
    curves["killed-0"] = curve("killed", 0, 3.0)
    curves["killed-0"]["steps"][2]["reward"] += 0.25
    found = bench_curves.summary(curves)
    assert found["largest difference of a step after three kills"] == {"reward": 0.25, "length": 0.0}
    assert found["times as fast"] == pytest.approx(4)
    assert found["ours"]["of each seed"] == pytest.approx([0.3, 0.4])
    assert found["trl"]["reward at the end"] == pytest.approx(0.35)
    bench_curves.draw(curves, tmp_path)
    drawn = (tmp_path / "curves.svg").read_text()
    assert all(label in drawn for label in ("SkillFactory", "TRL's defaults", "killed", "second of training"))


def test_all_sizes_can_be_cut_into_the_micro_batches_of_both() -> None:
    import sizes
    from bench_training import TRL_MICRO

    for size in [*sizes.FULL.values(), *sizes.QUICK.values()]:
        for updates in (1, 2):
            rollouts = size.grpo.prompts * size.grpo.group // updates
            assert size.grpo.prompts % updates == rollouts % TRL_MICRO == rollouts % size.grpo.micro == 0
            assert rollouts >= TRL_MICRO
        assert size.sft.traces > size.sft.batch  # two steps, of which one is counted


def test_steps_are_compared_at_equal_tokens() -> None:
    import shown

    ours, theirs = (
        {"seconds a step": s, "mean tokens": t, "peak_memory_mb": 1.0} for s, t in ((2.0, 50.0), (6.0, 100))
    )
    case = shown.Case("", dict, (shown.STEP,), {"TRL": "theirs", "not measured": "another"})
    assert shown._ratios(case, shown.STEP, ours, {"theirs": theirs}) == "TRL 1.50"
    fast, slow = {"tokens a second": 30.0}, {"tokens a second": 10.0}
    assert shown._ratios(case, shown.SPEED, fast, {"theirs": slow}) == "TRL 3.00"


@pytest.mark.slow
def test_the_command_writes_its_tables_and_its_file(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "--model", "tiny", "--only", "sft"]
    done = subprocess.run(
        [*command, "--name", "of-a-test", "--demo", str(tmp_path)], capture_output=True, text=True, check=False
    )
    file = ROOT / "benchmarks" / "results" / "of-a-test.json"
    try:
        assert done.returncode == 0, done.stderr
        assert "SFT: ours" in done.stdout
        cases = json.loads(file.read_text())["models"]["tiny"]
        assert set(cases) == {"floor", "sft-trl", "sft-ours"}
        assert 0 < cases["sft-ours"]["share of the floor"] < 1
    finally:
        file.unlink(missing_ok=True)
