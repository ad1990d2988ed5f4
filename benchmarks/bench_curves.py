"""Learning curves of GRPO, ours beside TRL's: reward by step and by second, over seeds.

The tiny base learns Countdown with numbers to 9 and targets to 20 by RL alone: so it learns within a minute.

    python benchmarks/bench_curves.py              # ten minutes on two otherwise idle cores
    python benchmarks/bench_curves.py --quick      # only shows that it runs

TRL's trainer has its own defaults for how a step is computed (`generate`, gradient checkpoints, micro-batches of 8 as
they come, its order of the questions, torch's choice of threads), and the recipe's numbers for what is computed:
learning rate and its course, AdamW's, clipping, loss, temperature, rollouts a step, longest rollout. So the curves by
step should agree, and those by second not. Seconds are those of training alone.

Ours with seed 0 is trained once more, killed (SIGKILL) after some steps and started again, three times.

Each method and seed is a process and a file of its own in benchmarks/results/curves/; what is there is not made again,
and ours goes on from its last checkpoint. Also written there: summary.json and curves.svg.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from bench_training import rl_questions, trl_trainer
from sizes import ROOT

from skillfactory import pipeline
from skillfactory.engines.models import ChatTokenizer
from skillfactory.files import write_atomic
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe

RESULTS = Path(__file__).parent / "results" / "curves"
RUNS = ROOT / "runs" / "curves"
TASK = "{name: countdown, params: {count: 3, high: 9, target_high: 20}}"
METHODS = {"ours": ("SkillFactory", "#0072b2"), "trl": ("TRL's defaults", "#d55e00")}
SMOOTH = 8  # steps of the thick lines
KILLED, KILLS = "killed-0", (1 / 4, 1 / 2, 5 / 6)  # after these shares of the steps
SIZE = {
    "rl.steps": 80, "rl.prompts_per_step": 8, "rl.group_size": 16, "rl.max_tokens": 48, "questions.rl": 400,
    "rl.save_every": 15,
}  # fmt: skip
QUICK = {"rl.steps": 2, "rl.prompts_per_step": 2, "rl.group_size": 8, "rl.max_tokens": 24, "questions.rl": 4}


def main(
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0.")] = 3,
    quick: Annotated[bool, typer.Option(help="The smallest size; writes below runs/ alone.")] = False,
    one: Annotated[str, typer.Option(hidden=True, help="METHOD-SEED to train here.")] = "",
) -> None:
    """Train what is missing, then summarize and draw."""
    results = RUNS / "quick" if quick else RESULTS
    size = QUICK if quick else SIZE
    if one:
        method, _, seed = one.partition("-")
        train(method, int(seed), size, results / f"{one}.json")
        return
    results.mkdir(parents=True, exist_ok=True)
    names = [*(f"{method}-{seed}" for seed in range(seeds) for method in METHODS), KILLED]
    for name in names:
        if not _is_made(results / f"{name}.json", size):
            print(f"{name} …", flush=True)
            command = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
            for share in KILLS if name == KILLED else ():
                kill_after(command, run_of(name, size) / "rl" / "metrics.jsonl", int(share * size["rl.steps"]))
            subprocess.run(command, check=True)
    curves = {name: json.loads((results / f"{name}.json").read_text()) for name in names}
    found = summary(curves)
    (results / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(curves, results)
    print(json.dumps(found, indent=1))


def train(method: str, seed: int, size: dict[str, Any], file: Path) -> None:
    """Train one curve and write it."""
    recipe = recipe_of(seed, size)
    folder = run_of(file.stem, size)
    lines = trl(recipe, folder) if method == "trl" else ours(recipe, folder)
    told = {"method": method, "seed": seed, "size": size, "steps": lines}
    write_atomic(file, (json.dumps(told, indent=1) + "\n").encode())


def run_of(name: str, size: dict[str, Any]) -> Path:
    """The run's folder; another size has another."""
    return RUNS / "-".join(str(value) for value in size.values()) / name


def kill_after(command: list[str], metrics: Path, steps: int) -> None:
    """Start it, and kill it when its metrics have so many steps. Raises RuntimeError where it ends before."""
    with subprocess.Popen(command) as process:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < steps:
            if process.poll() is not None:
                raise RuntimeError(f"it has ended before step {steps}")
            time.sleep(0.2)
        process.kill()


def recipe_of(seed: int, size: dict[str, Any]) -> Recipe:
    """The demo's RL from the base, on another task."""
    settings = {
        "questions.task": TASK, "method": "rl_only", "seed": seed, "machine.device": "cpu", "questions.sft": 0,
        "questions.dev": 0, "rl.mini_batch": 0, "rl.keep_every": 0, **size,
    }  # fmt: skip
    return load_recipe("demo", [f"{key}={value}" for key, value in settings.items()])


def ours(recipe: Recipe, folder: Path) -> list[dict[str, float]]:
    """The stage `rl`."""
    pipeline.run(recipe, folder, "rl")
    lines = [json.loads(line) for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("reward", "length", "seconds")} for line in lines]


def trl(recipe: Recipe, folder: Path) -> list[dict[str, float]]:
    """GRPOTrainer with its defaults but for the recipe's numbers."""
    from transformers import PrinterCallback, TrainerCallback

    rl, lines = recipe.rl, []

    class Lines(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "reward" in logs:
                now = time.monotonic()
                lines.append(
                    {"reward": logs["reward"], "length": logs["completions/mean_length"], "seconds": now - self.last}
                )
                self.last = now

    pipeline.run(recipe, folder, "questions")
    trainer = trl_trainer(
        recipe, ChatTokenizer.load(recipe), rl_questions(folder), str(folder / "trl"), updates=1,
        lr_scheduler_type=rl.schedule, warmup_steps=rl.warmup, adam_beta2=rl.adam_beta2, weight_decay=rl.weight_decay,
        max_grad_norm=rl.max_grad_norm, loss_type=rl.loss_type, epsilon=rl.epsilon, beta=rl.beta,
        temperature=rl.temperature, seed=recipe.seed,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Lines())
    trainer.train()
    return lines


def summary(curves: dict[str, Any]) -> dict[str, Any]:
    """Of each method: seconds a step, and the reward of the last quarter of the steps, means over seeds and each."""
    found: dict[str, Any] = {"size": next(iter(curves.values()))["size"]}
    for method in METHODS:
        mine = [curve["steps"] for curve in curves.values() if curve["method"] == method]
        seconds = [mean(line["seconds"] for line in lines[1:]) for lines in mine]
        last = [mean(line["reward"] for line in lines[-max(1, len(lines) // 4) :]) for lines in mine]
        found[method] = {
            "seconds a step": mean(seconds), "reward at the end": mean(last),
            "mean tokens": mean(line["length"] for lines in mine for line in lines), "of each seed": last,
        }  # fmt: skip
    whole, killed = (curves[name]["steps"] for name in ("ours-0", KILLED))
    found["largest difference of a step after three kills"] = {
        name: max(abs(a[name] - b[name]) for a, b in zip(whole, killed, strict=True)) for name in ("reward", "length")
    }
    found["times as fast"] = found["trl"]["seconds a step"] / found["ours"]["seconds a step"]
    return found


def draw(curves: dict[str, Any], folder: Path) -> None:
    """Two panels: each seed as a thin line, the mean over seeds and a few steps before as a thick one."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9, 3.6), layout="constrained")
    by_step, by_second = canvas.subplots(1, 2, sharey=True)
    for method, (label, colour) in METHODS.items():
        mine = [curve["steps"] for curve in curves.values() if curve["method"] == method]
        rewards = [[line["reward"] for line in lines] for lines in mine]
        seconds = [_sums([line["seconds"] for line in lines]) for lines in mine]
        for reward, second in zip(rewards, seconds, strict=True):
            by_step.plot(range(1, len(reward) + 1), reward, color=colour, linewidth=0.7, alpha=0.5)
            by_second.plot(second, reward, color=colour, linewidth=0.7, alpha=0.5)
        middle = _smooth([mean(step) for step in zip(*rewards, strict=False)])
        by_step.plot(range(1, len(middle) + 1), middle, color=colour, linewidth=2, label=label)
        by_second.plot([mean(step) for step in zip(*seconds, strict=False)], middle, color=colour, linewidth=2)
    killed = [line["reward"] for line in curves[KILLED]["steps"]]
    by_step.plot(range(1, len(killed) + 1), killed, "k:", linewidth=1, label="SkillFactory, a seed killed three times")
    by_step.set(xlabel="step", ylabel="mean reward of the rollouts", ylim=(0, None))
    by_second.set(xlabel="second of training")
    for axes in (by_step, by_second):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    by_step.legend(frameon=False)
    with rc_context({"svg.fonttype": "none"}):
        canvas.savefig(folder / "curves.svg")


def _is_made(file: Path, size: dict[str, Any]) -> bool:
    return file.exists() and json.loads(file.read_text())["size"] == size


def _smooth(values: list[float]) -> list[float]:
    return [mean(values[max(0, i - SMOOTH + 1) : i + 1]) for i in range(len(values))]


def _sums(values: list[float]) -> list[float]:
    return [sum(values[: i + 1]) for i in range(len(values))]


if __name__ == "__main__":
    typer.run(main)
