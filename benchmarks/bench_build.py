"""Building traces from synthetic samples at the paper's size and at ten times that: seconds and peak memory.

python benchmarks/bench_build.py                 # 4,000 questions x 64 attempts x 4 reflections -> 20,000 traces
python benchmarks/bench_build.py --questions 40000
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skillfactory import engines, pipeline, seeds
from skillfactory.curation.curate import questions_of
from skillfactory.recipe import Recipe
from skillfactory.records import Attempt, Question, Reflection
from skillfactory.store import Run

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


def build(folder: Path, questions: int) -> dict[str, float]:
    """Build the traces in a process of its own that is fresh; what it took."""
    code = (
        "import json, resource, sys, time, pathlib; sys.path.insert(0, 'benchmarks'); import bench_build as b\n"
        f"print(json.dumps(b.build_here(pathlib.Path({str(folder)!r}), {questions})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def build_here(folder: Path, questions: int) -> dict[str, float]:
    from skillfactory.curation.drawing import slots_of
    from skillfactory.curation.samples import chunks
    from skillfactory.curation.traces import Builder
    from skillfactory.tasks.questions import task_of

    recipe = recipe_of(questions)
    counter = engines.load_tokenizer(recipe)
    start = time.perf_counter()
    with Run.open(folder, recipe) as run:
        stage = run.stage("traces")
        asked = questions_of(recipe, run.stage("questions"))
        builder = Builder(recipe, task_of(recipe.questions.task), counter)
        for chunk in chunks(asked, run.stage("attempts"), run.stage("reflections"), slots_of(recipe)):
            stage.append(builder.add(chunk))
        seconds = time.perf_counter() - start
        run.drop("traces")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "questions": questions,
        "traces": builder.traces,
        "seconds": round(seconds, 2),
        "peak_memory_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder of the samples, to use again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "run"
        if not folder.exists():
            write(folder, args.questions)
        size = sum(path.stat().st_size for path in folder.rglob("part-*")) / 1e6
        found = [build(folder, args.questions) for _ in range(args.runs)]
        best = sorted(found, key=lambda each: each["seconds"])[len(found) // 2]
        rows = args.questions * len(VARIANTS) * PER_VARIANT * (1 + PER_ATTEMPT)
        print(json.dumps({"rows": rows, "megabytes": round(size), **best, "all": [f["seconds"] for f in found]}))


if __name__ == "__main__":
    main()
