"""Sample and grade responses of the base, SFT and RL models on every evaluation set (paper §4, evaluation).

All models answer the same questions with the same prompt and the same random seeds. Where the recipe has budgets beyond
the first, each sampled response goes on by budget forcing (forcing.py). Responses are kept in shards as they come; a
resumed stage asks only for those that are missing.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from skillfactory import methods
from skillfactory.curation.prompts import prompts_of
from skillfactory.errors import QuestionError, RecipeError, StoreError
from skillfactory.evaluation.talks import Ask, Draft, Drafted, Item, Key, modes_of, talk
from skillfactory.recipe import Recipe
from skillfactory.records import BROKEN, Grade, Question, Response
from skillfactory.rounds import stage_of, suffix_of
from skillfactory.tasks.base import Task
from skillfactory.tasks.deadline import ahead
from skillfactory.tasks.questions import grade as grade_of
from skillfactory.tasks.questions import is_slow, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Engine
    from skillfactory.stage import Stage
    from skillfactory.store import Run

SHARD = 500  # responses; a kill loses at most this many
OWN = ("base", "sft", "rl")  # names that evaluation.models cannot take


def models_of(recipe: Recipe, run: "Run") -> dict[str, str | Path | None]:
    """The models to evaluate, by name: None is the recipe's own. Raises StoreError where a folder is gone."""
    stages = methods.stages(recipe)
    earlier = [name for name in stages if stage_of(name) in ("sft", "rl") and suffix_of(name)]
    models: dict[str, str | Path | None] = {"base": None}
    models |= {name: run.stage(name).path / "model" for name in earlier}
    if "sft" in stages:
        models["sft"] = run.stage("sft").path / "model"
    if "rl" in stages:
        folder = run.stage("rl").path
        kept = sorted(int(step.name) for step in folder.glob("steps/*") if step.name.isdecimal())
        models |= {f"rl@{step}": folder / "steps" / str(step) for step in kept}
        models["rl"] = folder / "model"
    for name, model in models.items():
        if isinstance(model, Path) and not model.is_dir():
            stage = name.partition("@")[0]
            raise StoreError(f"{model} is missing though the {stage} stage is done; redo it with --fresh {stage}.")
    for name, named in recipe.evaluation.models.items():
        local = Path(named).expanduser()
        models[name] = local if local.is_dir() else named
    return models


def check(recipe: Recipe) -> None:
    """Raises RecipeError for an evaluation that cannot be done, before anything is."""
    section, last = recipe.evaluation, recipe.evaluation.max_tokens
    for budget in section.forcing.budgets:
        if budget <= last:
            raise RecipeError(
                f"evaluation.forcing.budgets: {budget} is no more than the budget before it, {last}; they must rise, "
                "from above evaluation.max_tokens."
            )
        last = budget
    for name in section.models:
        if stage_of(name) in OWN or "@" in name or not name.strip():
            raise RecipeError(f"evaluation.models: a model cannot be called `{name}`; choose another name.")
    if section.engine == "openai" and {"sft", "rl"} & set(methods.stages(recipe)):
        raise RecipeError(
            "evaluation.engine: a server cannot sample from the models that a run trains; evaluate with transformers, "
            "vllm or ray, or take method=evaluate for models that are served."
        )


def questions_of(questions: list[Question], sets: dict[str, list[str]], recipe: Recipe) -> dict[str, list[Question]]:
    """The questions of each evaluation set of the recipe, in the order of its list of ids."""
    known = {question.id: question for question in questions if question.split in ("eval", "dev")}
    found = {}
    for name in recipe.evaluation.sets:
        ids = sets.get(name)
        missing = next((i for i in ids if i not in known), None) if ids is not None else ""
        if ids is None or missing is not None:
            what = "is not listed in questions/sets.json" if ids is None else f"lists question {missing}, which is gone"
            raise QuestionError(f"Evaluation set `{name}` {what}; redo the questions with --fresh questions.")
        found[name] = [known[i] for i in ids]
    return found


def asks(model: str, questions: dict[str, list[Question]], recipe: Recipe) -> list[Ask]:
    """Every sample wanted of one model: so many sampled ones a question, and a greedy one if the recipe says so.

    A model that RL kept on its way gets one sample a question: enough to see a skill appear.
    """
    section = recipe.evaluation
    if "@" in model:
        return [Ask(model, name, "sampled", question, 0) for name, each in questions.items() for question in each]
    found = []
    for mode in ("sampled", "greedy") if section.greedy else ("sampled",):
        for name, members in questions.items():
            count = (section.sets[name].samples or section.samples) if mode == "sampled" else 1
            found += [Ask(model, name, mode, question, sample) for question in members for sample in range(count)]
    return found


def response_of(drafted: Drafted, task: Task) -> Response:
    """Grade a draft. One that the engine could not make, or that the check broke on, is not scored wrong."""
    ask, draft = drafted.ask, drafted.draft
    grade = Grade("no_answer", reason=draft.error) if draft.error else grade_of(task, ask.question, draft.text)
    return Response(
        question_id=ask.question.id,
        model=ask.model,
        set=ask.set,
        mode=drafted.mode,
        sample=ask.sample,
        text=draft.text,
        answer=grade.answer,
        outcome=grade.outcome,
        reason=grade.reason,
        finish_reason=draft.finish_reason,
        tokens=draft.tokens,
        forced=draft.forced,
        cut=draft.cut,
    )


def respond(engine: "Engine", items: Iterable[Item], recipe: Recipe) -> Iterator[Response]:
    """Responses in the order in which they finish. All sets go to the engine at once, to keep its batches full."""
    from skillfactory.engines.talk import converse

    tasks = {name: task_of(section.task) for name, section in recipe.evaluation.sets.items()}
    prompts = prompts_of(recipe.attempts)
    drafts = converse(engine, (talk(item, prompts, recipe) for item in items))
    yield from ahead(
        lambda drafted: response_of(drafted, tasks[drafted.ask.set]),
        drafts,
        lambda drafted: is_slow(tasks[drafted.ask.set]),
    )


def run(recipe: Recipe, run: "Run") -> None:
    """The evaluation stage."""
    from skillfactory import engines

    stage, source = run.stage("evaluation"), run.stage("questions")
    questions = questions_of(source.rows(Question), source.read_json("sets.json"), recipe)
    models = models_of(recipe, run)
    done = keys_of(stage)
    for model, folder in models.items():
        items = _items(stage, asks(model, questions, recipe), recipe, done)
        if missing := sum(len(item.missing) for item in items):
            total = sum(len(modes_of(ask, recipe)) for ask in asks(model, questions, recipe))
            with stage.track(total, f"responses of {model}", done=total - missing) as advance:
                fresh = engines.stream(recipe, recipe.evaluation.engine, partial(respond, recipe=recipe), items, folder)
                keep(stage, fresh, advance)
    stage.finish(**_counts(stage, recipe))


def keys_of(stage: "Stage") -> set[Key]:
    """The responses that there are."""
    columns = ("model", "set", "mode", "question_id", "sample")
    tables = stage.tables(columns)
    return {key for table in tables for key in zip(*(table[name].to_pylist() for name in columns), strict=True)}


def _items(stage: "Stage", asked: list[Ask], recipe: Recipe, done: set[Key]) -> list[Item]:
    """What is lacking. The texts of first budgets that others go on from are read back from the shards."""
    missing = {ask: tuple(mode for mode in modes_of(ask, recipe) if ask.key(mode) not in done) for ask in asked}
    begun = {ask.key(ask.mode) for ask, modes in missing.items() if modes and ask.mode not in modes}
    drafts: dict[Key, Draft] = {}
    for table in stage.tables() if begun else ():
        for row in table.to_pylist():
            key = row["model"], row["set"], row["mode"], row["question_id"], row["sample"]
            if key in begun:
                error = row["reason"] if row["finish_reason"] == "failed" else ""
                drafts[key] = Draft(row["text"], row["tokens"], row["finish_reason"], error=error)
    return [Item(ask, modes, drafts.get(ask.key(ask.mode))) for ask, modes in missing.items() if modes]


def keep(stage: "Stage", responses: Iterator[Response], advance: Callable[..., None]) -> None:
    """Append responses in shards as they come, and what has come also when interrupted."""
    shard: list[Response] = []
    right = there = 0
    try:
        for response in responses:
            shard.append(response)
            there += 1
            right += response.outcome == "correct"
            advance(1, correct=right / there)
            if len(shard) >= SHARD:
                full, shard = shard, []
                stage.append(full)
    finally:
        stage.append(shard)


def _counts(stage: "Stage", recipe: Recipe) -> dict[str, int]:
    """What the manifest says. `tokens` are those sampled: both lines of budget forcing hold the sample before them."""
    counts = dict.fromkeys(("responses", "correct", "no_answer", "failed", "tokens"), 0)
    budgets = recipe.evaluation.forcing.budgets
    # What each response's tokens count for: the ends of both lines hold the sample that they went on from.
    weights = {"sampled": 1, "greedy": 1} | {f"{line}-{budgets[-1]}": 1 for line in ("unforced", "forced") if budgets}
    for table in stage.tables(("model", "mode", "outcome", "reason", "tokens")):
        columns = [table[name].to_pylist() for name in ("model", "mode", "outcome", "reason", "tokens")]
        for model, mode, outcome, reason, tokens in zip(*columns, strict=True):
            goes_on = mode == "sampled" and budgets and "@" not in model
            counts["responses"] += 1
            counts["correct"] += outcome == "correct"
            counts["no_answer"] += outcome == "no_answer"
            counts["failed"] += reason in BROKEN
            counts["tokens"] += (weights.get(mode, 0) - 2 * bool(goes_on)) * tokens
    return counts
