"""What `skillfactory show` says of a run's data before anything is spent on training, as plain facts."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.records import Question, Trace
from skillfactory.rows import to_records

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

SAMPLES = ("attempts", "reflections", "traces")


def overview(run: "LoadedRun") -> dict[str, Any]:
    """Name, method and model; questions by split; counts and cost of attempts, reflections and traces so far."""
    facts: dict[str, Any] = {"name": run.recipe.name, "method": run.recipe.method, "model": run.recipe.model}
    questions = run.stage("questions").table(["split"])
    if questions.num_rows:
        facts["questions"] = dict(Counter(questions["split"].to_pylist()))
    return facts | curation(run)


def curation(run: "LoadedRun") -> dict[str, Any]:
    """Counts of the stages of curation that have rows: their manifests', or of the rows of an unfinished one."""
    finished = {name: dict(run.manifest(name).get("counts") or {}) for name in SAMPLES if run.state(name) == "finished"}
    facts = finished if len(finished) == len(SAMPLES) else _counted(run) | finished
    facts = {name: facts[name] for name in SAMPLES if facts.get(name)}
    cost = {
        name: {"seconds": run.manifest(name).get("seconds"), "tokens": facts[name]["tokens"]}
        for name in ("attempts", "reflections")
        if name in facts
    }
    limit = {"sft_context": run.recipe.traces.max_tokens, "budget": run.recipe.attempts.budget}
    return facts | ({"cost": cost, **limit} if facts else {})


def some_traces(run: "LoadedRun", n: int) -> list[Trace]:
    """Up to `n` traces, drawn at random by the recipe's seed; read shard by shard."""
    stage = run.stage("traces")
    sizes = [table.num_rows for table in stage.tables(["id"])] if n else []
    chosen = sorted(seeds.rng(run.recipe.seed, "show").sample(range(sum(sizes)), min(n, sum(sizes))))
    found: list[Trace] = []
    start = 0
    for number, size in enumerate(sizes):
        rows = [row - start for row in chosen if start <= row < start + size]
        if rows:
            found += to_records(stage.shards().read(number).take(rows), Trace, str(stage.path))
        start += size
    return found


def _counted(run: "LoadedRun") -> dict[str, Any]:
    """The same from the rows that there are."""
    from skillfactory.curation.drawing import slots_of
    from skillfactory.curation.samples import chunks
    from skillfactory.curation.tally import Tally, percentiles

    tally = Tally()
    if run.stage("attempts").shards().paths:
        questions = [question for question in run.rows("questions", Question) if question.split == "sft"]
        for chunk in chunks(questions, run.stage("attempts"), run.stage("reflections"), slots_of(run.recipe)):
            tally.add(chunk)
    found: dict[str, Any] = {}
    if tally.attempts:
        found["attempts"] = tally.attempt_counts()
    if tally.reflections:
        found["reflections"] = tally.reflection_counts()
    traces = run.stage("traces").table(["steps", "tokens", "question_id", "pattern"])
    if traces.num_rows:
        tokens = Counter(traces["tokens"].to_pylist())
        pairs = Counter(map(len, traces["steps"].to_pylist()))
        found["traces"] = {
            "traces": traces.num_rows,
            "questions_with_traces": len(traces["question_id"].unique()),
            "by_pairs": {str(n): pairs[n] for n in sorted(pairs)},
            "by_pattern": dict(Counter(traces["pattern"].to_pylist())),
            "tokens": sum(length * n for length, n in tokens.items()),
            "tokens_percentiles": percentiles(tokens),
        }
    return found
