"""Building traces from synthetic samples at the paper's size and at ten times that: seconds and peak memory.

python benchmarks/bench_build.py                 # 4,000 questions x 64 attempts x 4 reflections -> 20,000 traces
python benchmarks/bench_build.py --questions 40000
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skillfactory import engines, pipeline, seeds
from skillfactory.curation.curate import questions_of
from skillfactory.curation.drawing import slots_of
from skillfactory.curation.phrases import load_phrases
from skillfactory.curation.samples import chunks
from skillfactory.curation.traces import Builder, Piece, write_trace
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.store import Run
from skillfactory.tasks.questions import task_of

VARIANTS = ("original", "plan_and_execute", "alternatively", "rephrase")
PER_VARIANT, PER_ATTEMPT, BLOCK = 16, 4, 50


def recipe_of(questions: int) -> Recipe:
    task = {"name": "multiplication", "params": {"digits": 4}}
    return Recipe.model_validate(
        {
            "name": "build", "questions": {"task": task, "sft": questions, "rl": 1, "dev": 0},
            "evaluation": {"sets": {"same": {"task": task, "n": 1}}},
            "traces": {"pattern": "ladder", "max_pairs": 5, "max_tokens": 100_000},
        }
    )  # fmt: skip


def write(folder: Path, questions: int) -> None:
    """A run with samples for every question, one attempt in five correct, four reflections in five true."""
    recipe, rng = recipe_of(questions), random.Random(0)
    pipeline.run(recipe, folder, until="questions")
    wanted = pipeline.identities(recipe)
    with Run.open(folder, recipe) as run:
        asked = questions_of(recipe, run.stage("questions"))  # in the order in which curation draws
        stages = [run.begin(n, wanted[n].settings, wanted[n].inputs, "traces") for n in ("attempts", "reflections")]
        for start in range(0, questions, BLOCK):
            attempts = [a for question in asked[start : start + BLOCK] for a in attempts_at(question, rng)]
            stages[0].append(attempts)
            reflections = [r for attempt in attempts for r in reflections_on(attempt, rng)]
            for at in range(0, len(reflections), 4000):
                stages[1].append(reflections[at : at + 4000])


def attempts_at(question: Question, rng: random.Random) -> list[Attempt]:
    found = []
    for variant in VARIANTS:
        for index in range(PER_VARIANT):
            right = rng.random() < 0.2
            answer = question.answer if right else str(rng.randrange(10**7))
            text = f"{text_of(rng, 40)}\n<answer>{answer}</answer>"
            found.append(
                Attempt(
                    seeds.content_id("attempt", question.id, variant, index), question.id, variant, index, text,
                    answer, "correct" if right else "wrong", "", "stop", 50,
                )
            )  # fmt: skip
    return found


def reflections_on(attempt: Attempt, rng: random.Random) -> list[Reflection]:
    found = []
    for index in range(PER_ATTEMPT):
        agrees = rng.random() < 0.8
        said = "correct" if (attempt.outcome == "correct") == agrees else "incorrect"
        text = f"{text_of(rng, 30)}\n<verdict>{said.title()}</verdict>"
        found.append(
            Reflection(
                seeds.content_id("reflection", attempt.id, index), attempt.question_id, attempt.id, index, text, said,
                agrees, "stop", 40,
            )
        )  # fmt: skip
    return found


def text_of(rng: random.Random, n: int) -> str:
    """Sums of `n` numbers, which the embedded model's tokenizer reads as a model's text: about a token a word."""
    return " ".join(f"{rng.randrange(100)} {rng.choice('+-*=')}" for _ in range(n // 2))


def fresh(function: str, folder: Path, questions: int) -> dict[str, Any]:
    """What a function of this module returns in a process of its own, with that process's peak memory."""
    code = (
        "import json, pathlib, resource, sys; sys.path.insert(0, 'benchmarks'); import bench_build as b\n"
        f"found = b.{function}(pathlib.Path({str(folder)!r}), {questions})\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps(found | {'peak_memory_mb': round(peak)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def ours(folder: Path, questions: int) -> dict[str, Any]:
    """Read, arrange, write, grade, count tokens, store."""
    return _ours(folder, questions, engines.load_tokenizer(recipe_of(questions)))


def ours_uncounted(folder: Path, questions: int) -> dict[str, Any]:
    """The same without counting tokens, and so without loading torch."""

    class Nothing:
        def count_tokens(self, messages: Any, completion: str = "") -> int:
            return 0

        def count_each(self, texts: Sequence[str]) -> list[int]:
            return [0] * len(texts)

    return _ours(folder, questions, Nothing())


def _ours(folder: Path, questions: int, counter: Any) -> dict[str, Any]:
    recipe = recipe_of(questions)
    task = task_of(recipe.questions.task)
    start = time.perf_counter()
    with Run.open(folder, recipe) as run:
        stage = run.stage("traces")
        asked = questions_of(recipe, run.stage("questions"))
        builder = Builder(recipe, task, counter)
        for traces in builder.build(chunks(asked, run.stage("attempts"), run.stage("reflections"), slots_of(recipe))):
            stage.append(traces)
        seconds = time.perf_counter() - start
        run.drop("traces")
    return {"traces": builder.traces, "seconds": seconds}


def naive(folder: Path, questions: int) -> dict[str, Any]:
    """All rows in memory as dictionaries; ladders drawn and written as JSON lines."""
    import pyarrow.parquet

    start = time.perf_counter()
    rng, phrases = random.Random(0), load_phrases()
    attempts = pyarrow.parquet.read_table(sorted((folder / "attempts").glob("part-*"))).to_pylist()
    by_attempt: dict[str, list[str]] = {}
    for row in pyarrow.parquet.read_table(sorted((folder / "reflections").glob("part-*"))).to_pylist():
        if row["agrees"]:
            by_attempt.setdefault(row["attempt_id"], []).append(row["text"])
    by_question: dict[str, list[dict[str, Any]]] = {}
    for row in attempts:
        if row["id"] in by_attempt:
            by_question.setdefault(row["question_id"], []).append(row)
    made = 0
    with (folder / "naive.jsonl").open("w") as file:
        for question, pairs in by_question.items():
            right = [row for row in pairs if row["outcome"] == "correct"]
            for n in range(1, min(5, len(pairs)) + 1 if right else 0):
                last = rng.choice(right)
                others = rng.sample([row for row in pairs if row is not last], n - 1)
                pieces = [
                    Piece(
                        r["id"], r["text"], r["answer"], r["outcome"] == "correct", "", rng.choice(by_attempt[r["id"]])
                    )
                    for r in [*others, last]
                ]
                text, _ = write_trace(pieces, phrases, "closing", rng)
                file.write(json.dumps({"question": question, "completion": text}) + "\n")
                made += 1
    (folder / "naive.jsonl").unlink()
    return {"traces": made, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("ours", "ours_uncounted", "naive"))
    parser.add_argument("--keep", type=Path, help="folder of the samples, to use again")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "run"
        if not folder.exists():
            write(folder, args.questions)
        size = sum(path.stat().st_size for path in folder.rglob("part-*")) / 1e6
        rows = args.questions * len(VARIANTS) * PER_VARIANT * (1 + PER_ATTEMPT)
        print(f"{rows:,} rows of {args.questions:,} questions, {size:.0f} MB; median of {args.runs}")
        found: dict[str, Any] = {"rows": rows, "megabytes": round(size)}
        for name in (args.only,) if args.only else ("naive", "ours", "ours_uncounted"):
            runs = sorted((fresh(name, folder, args.questions) for _ in range(args.runs)), key=lambda r: r["seconds"])
            found[name] = runs[len(runs) // 2] | {"all_seconds": [round(run["seconds"], 2) for run in runs]}
            middle = found[name]
            print(
                f"{name:16} {middle['traces']:8,} traces {middle['seconds']:7.2f} s {middle['peak_memory_mb']:7,} MB",
                flush=True,
            )
    if args.out:
        args.out.write_text(
            json.dumps({"command": f"python benchmarks/bench_build.py --questions {args.questions}", **found}, indent=1)
        )


if __name__ == "__main__":
    main()
