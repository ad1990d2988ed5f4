"""The tables of docs/scaling.md: `python benchmarks/scale.py`, and with --write into that page.

Nothing is measured here, though what bench_memory.py has measured is shown. Recipes are changed to other models,
questions and GPUs, and what `--dry-run` says of them is put side by side; its assumptions are theirs (section
`estimate`). The shapes are those of the models' config.json.
"""

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_memory

from skillfactory.console import bytes_text
from skillfactory.planning import estimate, memory, plan
from skillfactory.planning.basis import basis_of
from skillfactory.planning.passes import HALF, Device
from skillfactory.planning.sizes import weights_of
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
PAPER = (
    "countdown-qwen2.5-1.5b", "countdown-qwen2.5-7b", "countdown-olmo3-7b", "openthoughts-qwen2.5-7b-1k",
    "openthoughts-qwen2.5-7b-10k",
)  # fmt: skip
# Qwen2.5-1.5B, Qwen2.5-7B and Llama-3.1-70B: what their config.json says.
SHAPES: dict[str, dict[str, Any]] = {
    "1.5B": {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "70B": {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672, "vocab_size": 128256, "tie_word_embeddings": False,
    },
}  # fmt: skip
QUESTIONS = {"4 k": 4_000, "1 M": 1_000_000, "10 M": 10_000_000, "100 M": 100_000_000}
GPUS = {"1.5B": (1, 4), "7B": (1, 4, 8), "70B": (8, 16, 32, 64)}
DOLLARS = 3.0  # a GPU and hour: a round number, to be put right
WEEK = 168  # hours
CARD, MACHINE = 80 * 10**9, 8  # bytes of a GPU, and GPUs of a machine
STAGES = ("curation", "sft", "rl", "evaluation")
LINKS = {"NVLink (H100)": 450, "PCIe 5": 63, "PCIe 4": 31, "100 Gbit Ethernet": 12}  # GB/s one way, by their makers


def main(words: Sequence[str]) -> None:
    """Print the tables, or write them into the page."""
    made = tables()
    if "--write" in words:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
        return
    for name, lines in made.items():
        print(f"{name}\n\n" + "\n".join(lines) + "\n")


def tables() -> dict[str, list[str]]:
    """All tables by name, as lines of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        models = {name: _model(Path(folder) / name, shape) for name, shape in SHAPES.items()}
        return {
            "paper": paper_table(),
            "tokens": tokens_table(models["7B"]),
            "cost": cost_table(models),
            "memory": memory_table(models),
            "measured": bench_memory.table(),
            "links": links_table(),
        }


def written(page: str, made: dict[str, list[str]]) -> str:
    """The page with each table in its place: between `<!-- table: NAME -->` and the next empty line."""
    lines = page.split("\n")
    for name, rows in made.items():
        start = lines.index(f"<!-- table: {name} -->") + 2  # an empty line, so that what follows is Markdown
        end = lines.index("", start)
        lines[start:end] = rows
    return "\n".join(lines)


def _model(folder: Path, shape: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape))
    return str(folder)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column is of names, the others of figures."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    first, *others = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return [first, "|" + "|".join(marks) + "|", *others]


# --- the paper's recipes


def paper_table() -> list[str]:
    """What `--dry-run` says of each recipe of the paper."""
    head = (
        "recipe", "tokens at most", "expected", "GPU hours at most", "expected", "disk at most", "at the end",
        "GPUs of 80 GB",
    )  # fmt: skip
    return _table(head, [paper_row(load_recipe(name)) for name in PAPER])


def paper_row(recipe: Recipe) -> list[str]:
    """A row of the paper's table."""
    planned = plan.plan(recipe, Path("none"))
    costs = [plan.total([each.most for each in planned]), plan.total([each.expected for each in planned])]
    return [
        f"`{recipe.name}`", *(f"{cost.tokens / 1e6:,.0f} M" for cost in costs),
        *(f"{cost.gpu_hours or 0:,.0f}" for cost in costs), *(bytes_text(cost.disk or 0) for cost in costs),
        str((basis_of(recipe)["memory"] or {})["cards"]),
    ]  # fmt: skip


# --- other models and other numbers of questions


def recipe_of(model: str, **settings: Any) -> Recipe:
    """The paper's Countdown with another model, all of it sampled by vLLM."""
    chosen = {
        "model": model, "attempts.engine": "vllm", "evaluation.engine": "vllm", "rl.engine": "vllm_colocate",
        "estimate.dollars_per_gpu_hour": DOLLARS, **settings,
    }  # fmt: skip
    return load_recipe("countdown-qwen2.5-7b", [f"{key}={json.dumps(value)}" for key, value in chosen.items()])


def tokens_table(model: str) -> list[str]:
    """Tokens by number of questions, as expected, and what they take on disk; the model does not matter."""
    head = ("questions", "curation: rows", "tokens", "traces", "SFT: tokens", "RL", "evaluation", "text on disk")
    rows = []
    for label, questions in QUESTIONS.items():
        recipe = recipe_of(model, **{"questions.sft": questions})
        found = {each.name: each.expected for each in plan.plan(recipe, Path("none"))}
        text = sum(found[name].disk or 0 for name in ("questions", "attempts", "reflections", "traces"))
        expected = estimate.expected_curation(recipe)
        tokens = [_tokens(_sum(found, stage).tokens) for stage in STAGES]
        drawn = _tokens(expected.attempts + expected.reflections)
        rows.append([label, drawn, tokens[0], _tokens(expected.traces), *tokens[1:], bytes_text(text)])
    return _table(head, rows)


def cost_table(models: dict[str, str]) -> list[str]:
    """Operations, GPU hours and dollars by model and number of questions, as expected."""
    head = (
        "model, questions", "operations", "GPU hours: curation", "SFT", "RL", "evaluation", "dollars",
        "GPUs, to take a week",
    )  # fmt: skip
    rows = []
    for name, folder in models.items():
        for label, questions in QUESTIONS.items():
            recipe = recipe_of(folder, **{"questions.sft": questions})
            found = {each.name: each.expected for each in plan.plan(recipe, Path("none"))}
            costs = {stage: _sum(found, stage) for stage in STAGES}
            hours = [costs[stage].gpu_hours or 0.0 for stage in STAGES]
            rows.append([
                f"{name}, {label}", _power(operations(recipe, {stage: costs[stage].tokens for stage in STAGES})),
                *(f"{each:,.0f}" for each in hours), f"{sum(hours) * DOLLARS:,.0f}",
                f"{max(1, math.ceil(sum(hours) / WEEK)):,}",
            ])  # fmt: skip
    return _table(head, rows)


def _sum(found: dict[str, plan.Cost], stage: str) -> plan.Cost:
    names = ("attempts", "reflections", "traces") if stage == "curation" else (stage,)
    return plan.total([found[name] for name in names])


def operations(recipe: Recipe, tokens: dict[str, int]) -> float:
    """All operations: forward of what is sampled, and what learning takes."""
    sampled = estimate.FORWARD * (tokens["curation"] + tokens["rl"] + tokens["evaluation"])
    learnt = sum(
        estimate.training_flops(recipe, section) * tokens[name]
        for name, section in (("sft", recipe.sft), ("rl", recipe.rl))
    )
    return float(sampled + learnt) * (weights_of(recipe).parameters or 0)


def memory_table(models: dict[str, str]) -> list[str]:
    """Memory of each GPU by model and number of GPUs, split by FSDP2; main memory of a machine; a checkpoint."""
    head = (
        "model, GPUs", "SFT", "SFT, LoRA", "RL, our sampler", "RL, vLLM", "RL, vLLM, LoRA", "RL, verl", "main memory",
        "a checkpoint",
    )  # fmt: skip
    lora = {"sft.lora.rank": 16, "rl.lora.rank": 16}
    asleep = {"rl.vllm": {"vllm_enable_sleep_mode": True, "vllm_gpu_memory_utilization": 0.5}}
    rows = []
    for name, folder in models.items():
        for gpus in GPUS[name]:
            split = {"training.devices": min(gpus, MACHINE), "training.shard": "fsdp2" if gpus > 1 else "none"}
            over = {"actor_rollout_ref.rollout.tensor_model_parallel_size": min(gpus, MACHINE)}
            verl = split | {
                "training.backend": "verl", "training.verl.nodes": max(1, gpus // MACHINE),
                "training.verl.options": over,
            }  # fmt: skip
            plain = _needed(recipe_of(folder, **split), "sft")
            cells = [
                plain, _needed(recipe_of(folder, **split, **lora), "sft"),
                _needed(recipe_of(folder, **split, **{"rl.engine": "sampler"}), "rl"),
                _needed(recipe_of(folder, **split, **asleep), "rl"),
                _needed(recipe_of(folder, **split, **asleep, **lora), "rl"),
            ]  # fmt: skip
            one = gpus <= MACHINE
            shown = [_fits(each) if one else "" for each in cells] + [_fits(_needed(recipe_of(folder, **verl), "rl"))]
            checkpoint = plan.CHECKPOINT_BYTES * (weights_of(recipe_of(folder)).parameters or 0)
            main = bytes_text(plain.host) if one else ""
            rows.append([f"{name}, {gpus}", *shown, main, bytes_text(checkpoint)])
    return _table(head, rows)


def _fits(needed: memory.Memory) -> str:
    return bytes_text(needed.total) + ("" if needed.total <= CARD else " (!)")


def _needed(recipe: Recipe, stage: str) -> memory.Memory:
    device = Device("cuda", CARD)
    return memory.of_stage(recipe, stage, weights_of(recipe), device)


def links_table() -> list[str]:
    """Share of its time that a GPU waits for others with FSDP2, by link and tokens of a micro-batch, if none is hidden.

    A micro-batch brings all weights together twice, in bfloat16; it computes 8 operations a parameter and token.
    """
    recipe = load_recipe("countdown-qwen2.5-7b")
    rate = recipe.estimate.training_use * recipe.estimate.tflops * 1e12
    operations_each = estimate.training_flops(recipe, recipe.sft)  # a parameter and token
    counts = (512, 1024, 2048, 4096, 16384)
    rows = []
    for link, speed in LINKS.items():
        moving = 2 * HALF / (speed * 1e9)
        rows.append(
            [f"{link}, {speed} GB/s", *(f"{moving / (moving + operations_each * n / rate):.0%}" for n in counts)]
        )
    return _table(("link", *(f"{n:,} tokens" for n in counts)), rows)


def _tokens(count: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:,.1f} {unit}" if count < 100 * size else f"{count / size:,.0f} {unit}"
    return f"{count:,.0f}"


def _power(value: float) -> str:
    exponent = math.floor(math.log10(value))
    return f"{value / 10**exponent:.1f}e{exponent}"


if __name__ == "__main__":
    main(sys.argv[1:])
