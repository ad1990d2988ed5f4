"""Curation on demand against the paper's fixed budget (64 attempts x 4 reflections a question): cost, and the law.

    python benchmarks/bench_curation.py cost --out benchmarks/results/curation-cost.json
    python benchmarks/bench_curation.py cost --task "12 %" --dtype auto --questions 300 \\
        --out benchmarks/results/curation-time.json
    python benchmarks/bench_curation.py law --out benchmarks/results/curation-law.json
    python benchmarks/bench_curation.py overhead --out benchmarks/results/curation-overhead.json

`cost` draws the same questions by both budgets with the embedded model, at several success rates, and checks that the
traces are the same. `law` compares traces of unlike questions and seeds: if both budgets follow one law, p-values are
anywhere between 0 and 1. `overhead` draws attempts by the engine alone and through curation (requests that follow from
completions, grading, shards on disk), on the same requests.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skillfactory import engines, load_run
from skillfactory.curation.attempts import attempt_request
from skillfactory.curation.drawing import Known, draw, slots_of
from skillfactory.curation.prompts import load_prompts
from skillfactory.curation.samples import QuestionSamples
from skillfactory.curation.sampling import save
from skillfactory.recipes import load_recipe
from skillfactory.records import Attempt
from skillfactory.store import LoadedRun, Run
from skillfactory.tasks.questions import task_of

SIGNS = "count: 5, high: 19, target_high: 60, operators: '+-', in_order: true"
# Tasks at which the embedded model is right about as often as their names say.
TASKS = {
    "2 %": "{name: multiplication, params: {digits: 2, digits_b: 1}}",
    "12 %": f"{{name: countdown, params: {{{SIGNS}, solutions_low: 2, solutions_high: 4}}}}",
    "20 %": "{name: countdown, params: {count: 4, high: 9, target_high: 40, operators: '+-', in_order: true, "
    "solutions_low: 2, solutions_high: 8}}",
    "50 %": "{name: countdown, params: {count: 3, high: 19, target_high: 60, operators: '+-', in_order: true, "
    "solutions_low: 2, solutions_high: 4}}",
}
PERMUTATIONS = 2000
TRACES = 10_000  # of each side of `law`


def curate(
    folder: Path, task: str, questions: int, budget: str, seed: int, pattern: str, dtype: str, limit: int = 0
) -> LoadedRun:
    """A run of the demo's recipe with the paper's numbers of samples, as far as its traces."""
    words = [
        "run", "demo", f"questions.task={task}", f"questions.sft={questions}", f"seed={seed}", "--until", "traces",
        "questions.rl=1", "questions.dev=0", "evaluation.sets={same: {n: 1, task: " + task + "}}",
        f"attempts.budget={budget}", "attempts.per_variant=16", "reflections.per_attempt=4",
        f"traces.pattern={pattern}", "traces.max_pairs=5", "traces.per_question=0", f"traces.limit={limit}",
        f"machine.dtype={dtype}", "--run", str(folder),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "skillfactory", *words], check=True, stdout=sys.stderr)
    return load_run(folder)


def figures(run: LoadedRun) -> dict[str, Any]:
    """Tokens and seconds of sampling, and how many traces they gave."""
    attempts, reflections, traces = (run.manifest(name) for name in ("attempts", "reflections", "traces"))
    counts = attempts["counts"]
    found = {
        "questions": traces["counts"]["questions"],
        "correct": counts["correct"] / counts["attempts"],
        "attempts": counts["attempts"],
        "reflections": reflections["counts"]["reflections"],
        "tokens": counts["tokens"] + reflections["counts"]["tokens"],
        "seconds": attempts["seconds"] + reflections["seconds"],
        "traces": traces["counts"]["traces"],
    }
    return found | {f"{key}_a_trace": found[key] / found["traces"] for key in ("tokens", "seconds")}


def cost(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both budgets at each success rate. In float32 a text does not depend on its batch, so traces must be the same."""
    found: dict[str, Any] = {}
    print(
        f"{'task':6} {'correct':>8} {'pattern':12} {'tokens a trace':>24} {'ratio':>6} {'ms a trace':>16} {'ratio':>6}"
    )
    for name, task in {args.task: TASKS[args.task]}.items() if args.task else TASKS.items():
        for pattern in ("ladder", "algorithm1"):
            runs = {}
            for budget in ("paper", "on_demand"):
                place = folder / f"{name.partition(' ')[0]}-{pattern}-{budget}"
                runs[budget] = curate(place, task, args.questions, budget, 0, pattern, args.dtype)
            same = _texts(runs["paper"]) == _texts(runs["on_demand"])
            paper, demand = figures(runs["paper"]), figures(runs["on_demand"])
            ratios = {key: paper[f"{key}_a_trace"] / demand[f"{key}_a_trace"] for key in ("tokens", "seconds")}
            found[f"{name}, {pattern}"] = {
                "paper": paper, "on_demand": demand, "same_traces": same, "ratios": ratios,
            }  # fmt: skip
            print(
                f"{name:6} {paper['correct']:8.1%} {pattern:12} {paper['tokens_a_trace']:12.0f} "
                f"{demand['tokens_a_trace']:11.0f} {ratios['tokens']:6.1f} {1000 * paper['seconds_a_trace']:8.0f} "
                f"{1000 * demand['seconds_a_trace']:7.0f} {ratios['seconds']:6.1f}"
                f"{'' if same else '  traces differ'}",
                flush=True,
            )
    return found


def _texts(run: LoadedRun) -> list[str]:
    return sorted(run.table("traces", ["completion"])["completion"].to_pylist())


# --- the law


def law(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two-sample tests between traces of the paper's budget and of another seed's on demand."""
    task = TASKS["12 %"]
    paper = curate(folder / "law-paper", task, args.questions, "paper", 1, "ladder", "auto", TRACES)
    demand = curate(folder / "law-demand", task, args.questions, "on_demand", 2, "ladder", "auto", TRACES)
    rows = [_rows(paper), _rows(demand)]
    tests: dict[str, tuple[Callable[[dict[str, Any]], list[Any]], str]] = {
        "number of pairs": (lambda row: [len(row["outcomes"])], "chi-square"),
        "share correct": (lambda row: [f"{sum(row['outcomes'])} of {len(row['outcomes'])}"], "chi-square"),
        "places of correct pairs": (lambda row: ["".join("+" if o else "-" for o in row["outcomes"])], "chi-square"),
        "prompt variants": (lambda row: row["variants"], "chi-square"),
        "tokens": (lambda row: [row["tokens"]], "Kolmogorov-Smirnov"),
        "phrases": (lambda row: row["phrases"], "chi-square"),
    }
    found: dict[str, Any] = {"paper": figures(paper), "on_demand": figures(demand), "tests": {}}
    print(f"{found['paper']['traces']:,} traces of the paper's budget, {found['on_demand']['traces']:,} on demand")
    for name, (values, kind) in tests.items():
        p = permuted_p(rows[0], rows[1], values, ordered=kind != "chi-square")
        found["tests"][name] = {"p": p, "statistic": kind}
        print(f"{name:24} p = {p:.3f}  ({kind}, {PERMUTATIONS} permutations of questions)")
    return found


def _rows(run: LoadedRun) -> list[dict[str, Any]]:
    attempts = run.table("attempts", ["id", "outcome", "variant"]).to_pydict()
    known = dict(zip(attempts["id"], zip(attempts["outcome"], attempts["variant"], strict=True), strict=True))
    found = []
    for row in run.table("traces", ["question_id", "steps", "tokens"]).to_pylist():
        used = [known[step["attempt_id"]] for step in row["steps"]]
        found.append(
            {
                "question": row["question_id"], "tokens": row["tokens"], "variants": [v for _, v in used],
                "outcomes": [o == "correct" for o, _ in used], "phrases": [s["phrase"] for s in row["steps"]],
            }
        )  # fmt: skip
    return found


def permuted_p(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], values: Callable[[dict[str, Any]], list[Any]],
    ordered: bool,
) -> float:  # fmt: skip
    """p-value of a statistic between two samples, by permuting whole questions: traces of one are not independent."""
    places = {key: i for i, key in enumerate(sorted({v for row in (*first, *second) for v in values(row)}))}
    counts: list[dict[str, Counter[int]]] = [{}, {}]
    for side, rows in zip(counts, (first, second), strict=True):
        for row in rows:
            side.setdefault(row["question"], Counter()).update(places[v] for v in values(row))
    table = np.zeros((len(counts[0]) + len(counts[1]), len(places)))
    for i, counter in enumerate([*counts[0].values(), *counts[1].values()]):
        table[i, list(counter)] = list(counter.values())
    label = np.arange(len(table)) < len(counts[0])
    rng = np.random.default_rng(0)
    labels = np.stack([label, *(rng.permutation(label) for _ in range(PERMUTATIONS))]).astype(float)
    a = labels @ table  # [1 + P, K]
    b = table.sum(0) - a
    if ordered:
        statistics = np.abs(np.cumsum(a, 1) / a.sum(1, keepdims=True) - np.cumsum(b, 1) / b.sum(1, keepdims=True)).max(
            1
        )
    else:
        shares = (a + b) / (a + b).sum(1, keepdims=True)
        statistics = sum(
            ((x - shares * x.sum(1, keepdims=True)) ** 2 / np.maximum(shares * x.sum(1, keepdims=True), 1e-9)).sum(1)
            for x in (a, b)
        )
    return float((statistics >= statistics[0] - 1e-12).mean())


# --- overhead


def overhead(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Tokens a second of the transformers engine alone and through curation, in turn; the first go warms up."""
    recipe = load_recipe(
        "demo", ["attempts.budget=paper", "attempts.per_variant=16", "traces.pattern=no_reflections", "questions.rl=1"]
    )
    asked = task_of(recipe.questions.task).generate(args.questions, 0, "sft")
    engine, prompts, places = engines.load(recipe), load_prompts(), slots_of(recipe)
    requests = [
        attempt_request(recipe, question, *places.place(slot), prompts)
        for question in asked
        for slot in range(len(places))
    ]

    def bare() -> int:
        return sum(done.tokens for done in engine.generate(requests))

    def curated() -> int:
        items = [Known(question, QuestionSamples.empty(places), {}) for question in asked]
        with Run.open(folder / f"overhead-{time.time_ns()}", recipe) as run:
            stage = run.begin("attempts", {}, {})
            with stage.track(len(asked), "questions") as advance:
                total = 0
                for row in save(draw(engine, items, recipe), {Attempt: stage}):
                    if isinstance(row, Attempt):
                        total += row.tokens
                        advance(0, tokens=total)
                return total

    speeds: dict[str, list[float]] = {"engine alone": [], "through curation": []}
    for repeat in range(args.repeats + 1):
        for name, case in zip(speeds, (bare, curated), strict=True):
            start = time.perf_counter()
            made = case()
            if repeat:
                speeds[name].append(made / (time.perf_counter() - start))
    ratios = sorted(b / a for a, b in zip(*speeds.values(), strict=True))
    for name, values in speeds.items():
        print(f"{name:18} {sorted(values)[len(values) // 2]:10,.0f} tokens a second")
    print(
        f"ratio {ratios[len(ratios) // 2]:.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}), {len(requests):,} requests"
    )
    return {"requests": len(requests), "tokens_a_second": speeds, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "law", "overhead"))
    parser.add_argument("--questions", type=int, help="[default: 60, 4,000 and 32]")
    parser.add_argument("--task", choices=list(TASKS), help="of cost; all where it is not given")
    parser.add_argument("--dtype", default="float32", help="of cost")
    parser.add_argument("--repeats", type=int, default=5, help="of overhead")
    parser.add_argument("--keep", type=Path, help="folder of the runs, to use again")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    args.questions = args.questions or {"cost": 60, "law": 4000, "overhead": 32}[args.what]
    with tempfile.TemporaryDirectory() as temporary:
        found = {"cost": cost, "law": law, "overhead": overhead}[args.what](args, args.keep or Path(temporary))
    command = f"python benchmarks/bench_curation.py {args.what} --questions {args.questions}"
    command += f" --task '{args.task}' --dtype {args.dtype}" if args.task else ""
    if args.out:
        args.out.write_text(json.dumps({"command": command, "questions": args.questions, **found}, indent=1))


if __name__ == "__main__":
    main()
