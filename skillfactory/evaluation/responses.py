"""Sample and grade responses of the base, SFT and RL models on every evaluation set (paper §4, evaluation).

All models answer the same questions with the same prompt and the same random seeds. Responses are kept in shards as
they come; a resumed stage asks only for those that are missing.

Deviations: the paper samples 34 responses for GPQA, AIME and AMC; here `evaluation.samples` holds for every set.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from skillfactory import methods, seeds
from skillfactory.curation.prompts import Prompts, load_prompts
from skillfactory.errors import QuestionError, StoreError
from skillfactory.recipe import Recipe
from skillfactory.records import BROKEN, Grade, Question, Response
from skillfactory.tasks.base import Task
from skillfactory.tasks.deadline import ahead
from skillfactory.tasks.questions import grade as grade_of
from skillfactory.tasks.questions import is_slow, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Engine, Request, SamplingParams
    from skillfactory.store import Run, Stage

SHARD = 500  # responses; a kill loses at most this many
Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class Ask:
    """One response that is wanted: who answers what, and how."""

    model: str
    set: str
    mode: str
    question: Question
    sample: int

    @property
    def key(self) -> Key:
        return self.model, self.set, self.mode, self.question.id, self.sample


def models_of(recipe: Recipe, run: "Run") -> dict[str, Path | None]:
    """The models to evaluate, by name: None is the recipe's own. More may join here, under names of their own."""
    stages = methods.get(recipe.method)
    models: dict[str, Path | None] = {"base": None}
    for stage in ("sft", "rl"):
        if stage in stages:
            folder = run.stage(stage).path / "model"
            if not folder.is_dir():
                raise StoreError(f"{folder} is missing though the {stage} stage is done; redo it with --fresh {stage}.")
            models[stage] = folder
    return models


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
    """Every response wanted of one model: `samples` sampled ones a question, and a greedy one if the recipe says so."""
    counts = {"sampled": recipe.evaluation.samples, "greedy": int(recipe.evaluation.greedy)}
    return [
        Ask(model, name, mode, question, sample)
        for mode, count in counts.items()
        for name, members in questions.items()
        for question in members
        for sample in range(count)
    ]


def request_of(ask: Ask, number: int, prompts: Prompts, recipe: Recipe) -> "Request":
    """The engine's request. Its seed does not depend on the model, so that models differ by nothing but themselves."""
    from skillfactory.engines.base import Request

    own = seeds.derive(recipe.seed, "evaluation", ask.question.id, ask.mode, ask.sample)
    return Request(str(number), prompts.train(ask.question.text), own, params_of(recipe, ask.mode))


def response_of(ask: Ask, completion: "Completion", task: Task) -> Response:
    """Grade a completion. One that the engine could not make, or that the check broke on, is not scored wrong."""
    if completion.finish_reason == "failed":
        grade = Grade("no_answer", reason=completion.error or "engine_failed")
    else:
        grade = grade_of(task, ask.question, completion.text)
    return Response(
        question_id=ask.question.id,
        model=ask.model,
        set=ask.set,
        mode=ask.mode,
        sample=ask.sample,
        text=completion.text,
        answer=grade.answer,
        outcome=grade.outcome,
        reason=grade.reason,
        finish_reason=completion.finish_reason,
        tokens=completion.tokens,
    )


def respond(engine: "Engine", wanted: Iterable[Ask], recipe: Recipe) -> Iterator[Response]:
    """Responses in the order in which they finish. All sets go to the engine at once, to keep its batches full."""
    tasks = {name: task_of(section.task) for name, section in recipe.evaluation.sets.items()}
    prompts = load_prompts(recipe.attempts.prompts)
    asked = dict(enumerate(wanted))
    completions = engine.generate(request_of(ask, number, prompts, recipe) for number, ask in asked.items())
    answered = ((asked[int(completion.id)], completion) for completion in completions)
    yield from ahead(
        lambda pair: response_of(*pair, tasks[pair[0].set]), answered, lambda pair: is_slow(tasks[pair[0].set])
    )


def params_of(recipe: Recipe, mode: str) -> "SamplingParams":
    """The engine's sampling parameters; greedy is temperature 0."""
    from skillfactory.engines.base import SamplingParams

    section = recipe.evaluation
    return SamplingParams.of(section if mode == "sampled" else section.model_copy(update={"temperature": 0.0}))


def run(recipe: Recipe, run: "Run") -> None:
    """The evaluation stage."""
    from skillfactory import engines

    stage, source = run.stage("evaluation"), run.stage("questions")
    questions = questions_of(source.rows(Question), source.read_json("sets.json"), recipe)
    models = models_of(recipe, run)
    kept = stage.rows(Response)
    done = {(r.model, r.set, r.mode, r.question_id, r.sample) for r in kept}
    for model, folder in models.items():
        every = asks(model, questions, recipe)
        wanted = [ask for ask in every if ask.key not in done]
        if wanted:
            with stage.track(len(every), f"responses of {model}", done=len(every) - len(wanted)) as advance:
                fresh = engines.stream(
                    recipe, recipe.evaluation.engine, partial(respond, recipe=recipe), wanted, folder
                )
                kept += keep(stage, fresh, advance)
    stage.finish(
        responses=len(kept),
        correct=sum(r.outcome == "correct" for r in kept),
        no_answer=sum(r.outcome == "no_answer" for r in kept),
        failed=sum(r.reason in BROKEN for r in kept),
        tokens=sum(r.tokens for r in kept),
    )


def keep(stage: "Stage", responses: Iterator[Response], advance: Callable[..., None]) -> list[Response]:
    """Append responses in shards as they come, and what has come also when interrupted. Returns them all."""
    kept: list[Response] = []
    shard: list[Response] = []
    right = 0
    try:
        for response in responses:
            shard.append(response)
            right += response.outcome == "correct"
            advance(1, correct=right / (len(kept) + len(shard)))
            if len(shard) >= SHARD:
                full, shard = shard, []
                stage.append(full)
                kept += full
    finally:
        stage.append(shard)
    return kept + shard
