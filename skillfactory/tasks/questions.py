"""Stage `questions`: the questions of every split, and of every evaluation set.

The paper takes SFT and RL questions from disjoint parts of one level, and evaluates on that level, harder ones and
other tasks. Splits are disjoint by content: a generated question is at home in one split by its hash, whatever seed or
level drew it; the user's own are dealt out. Every method gets the same questions, also those that need no SFT data.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from skillfactory import seeds
from skillfactory.errors import QuestionError, RecipeError
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import Grade, Question
from skillfactory.tasks.base import Task, check_references, get

if TYPE_CHECKING:
    from skillfactory.store import Run

SPLITS = ("sft", "rl", "dev")


@runtime_checkable
class Pool(Protocol):
    """A task with a given stock of questions, such as a file: it deals them out itself."""

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Disjoint questions for each name; see Jsonl.allot."""
        ...


@dataclass(frozen=True)
class Made:
    """All questions, each once and with its split, and which belong to `dev` and to each evaluation set."""

    rows: list[Question]
    sets: dict[str, list[str]]


def task_of(spec: TaskSpec) -> Task:
    """The task that a recipe names, with its parameters. Raises QuestionError."""
    return get(spec.name, **spec.params)


def grade(task: Task, question: Question, text: str) -> Grade:
    """The task's grade of a completion. A verifier that breaks gives "check_failed": counted, never scored wrong."""
    try:
        return task.grade(question, text)
    except Exception:  # whatever it is, it is the verifier's failure and not the model's
        return Grade("no_answer", reason="check_failed")


def make_questions(recipe: Recipe) -> Made:
    """The recipe's questions. Raises QuestionError where there are too few, or a reference fails its own check."""
    wanted: dict[str, tuple[TaskSpec, int]] = {
        split: (recipe.questions.task, getattr(recipe.questions, split)) for split in SPLITS
    }
    # Evaluation sets come before the splits that train, so that a question file's test rows stay what they are
    # when the recipe asks for more or fewer training questions.
    sets = {f"evaluation.sets.{name}": (spec.task, spec.n) for name, spec in recipe.evaluation.sets.items()}
    if "dev" in recipe.evaluation.sets:
        raise RecipeError("evaluation.sets: `dev` is the name of the development split; choose another name.")
    homes: dict[str, str] = {f"evaluation.sets.{name}": spec.split for name, spec in recipe.evaluation.sets.items()}
    homes |= {split: split for split in SPLITS}
    found = _all(recipe.seed, sets | wanted, homes)

    rows: dict[str, Question] = {}
    for name, (spec, _) in (wanted | sets).items():
        split = homes[name]
        check_references(task_of(spec), found[name])
        for question in found[name]:
            other = rows.setdefault(question.id, replace(question, level=spec.level or question.level, split=split))
            if other.split != split:
                raise QuestionError(
                    f"Task `{spec.name}`: question {question.id} is in both the {other.split} and the {split} split; "
                    "its `generate` must give only questions at home in the split asked for."
                )
    ids = {name: [question.id for question in found[name]] for name in found}
    named = {name: ids[f"evaluation.sets.{name}"] for name in recipe.evaluation.sets}
    return Made(list(rows.values()), {"dev": ids["dev"], **named})


def _all(seed: int, wanted: dict[str, tuple[TaskSpec, int]], homes: dict[str, str]) -> dict[str, list[Question]]:
    """The questions of every name in `wanted`, at home in its split; evaluation sets of different specs share none."""
    found: dict[str, list[Question]] = {}
    owner: dict[str, TaskSpec] = {}
    pools: dict[str, dict[str, int]] = {}
    for name, (spec, n) in wanted.items():
        if isinstance(task_of(spec), Pool):
            pools.setdefault(_key(spec), {})[name] = n
            continue
        split = homes[name]
        taken = {question_id for question_id, other in owner.items() if other != spec}
        try:
            found[name] = _draw(task_of(spec), n, seeds.derive(seed, "questions", name), split, taken)
        except QuestionError as error:
            raise QuestionError(f"{f'questions.{name}' if name in SPLITS else name}: {error}") from error
        if name not in SPLITS:
            owner |= {question.id: spec for question in found[name]}
    # A file that is for evaluation alone is dealt out first; then training does without the questions it holds.
    for counts in sorted(pools.values(), key=lambda counts: "sft" in counts):
        pool = task_of(wanted[next(iter(counts))][0])
        assert isinstance(pool, Pool)
        taken = {question.id for questions in found.values() for question in questions}
        found |= pool.allot(counts, seeds.derive(seed, "questions"), taken)
    return found


def _draw(task: Task, n: int, seed: int, split: str, taken: set[str]) -> list[Question]:
    """`n` questions of a split, none of which is taken."""
    asked = n
    while True:
        drawn = task.generate(asked, seed, split) if asked else []
        free = [question for question in drawn if question.id not in taken]
        if len(free) >= n:
            return free[:n]
        asked += n - len(free)


def _key(spec: TaskSpec) -> str:
    """The same for specs that draw on the same stock; a level is only a label."""
    return json.dumps([spec.name, spec.params], sort_keys=True, default=str)


def run(recipe: Recipe, run: "Run") -> None:
    """Write the questions (split in each row) and `sets.json`: {"dev" or name of an evaluation set: [question ids]}."""
    stage = run.stage("questions")
    made = make_questions(recipe)
    kept = {question.id for question in stage.rows(Question)}  # of a run that was interrupted here
    stage.append([question for question in made.rows if question.id not in kept])
    stage.write_json("sets.json", made.sets)
    if (got := len(made.sets["dev"])) < recipe.questions.dev:
        run.log("questions", "fewer dev questions than asked for", asked=recipe.questions.dev, got=got)
    counts = {split: sum(question.split == split for question in made.rows) for split in (*SPLITS, "eval")}
    stage.finish(**counts, sets={name: len(ids) for name, ids in made.sets.items()})
