"""Checks of a recipe's questions: that there are enough, and that reference answers are right by their own check."""

from collections.abc import Sequence
from dataclasses import dataclass

from skillfactory.checkup.check import Check, failed, ok, problem, warning
from skillfactory.errors import SkillFactoryError
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import Question
from skillfactory.tasks.hub import Published
from skillfactory.tasks.questions import Made, grade_all, make_questions, sft_spec, task_of

SAMPLE = 64  # questions whose answers are graded, and whose prompts are measured
_FEW = 16  # of each split, where questions come over the network


@dataclass(frozen=True)
class Asked:
    """A question, and the task that it is of."""

    spec: TaskSpec
    question: Question

    @property
    def key(self) -> str:
        """The same for questions that one task grades."""
        return self.spec.model_dump_json()


def drawn(recipe: Recipe) -> tuple[Check, list[Asked]]:
    """Whether the recipe's questions can be had, and some of them; of what is fetched only a few are."""
    remote = _is_remote(recipe)
    try:
        made = make_questions(_few(recipe) if remote else recipe)
    except SkillFactoryError as error:
        return failed("questions", error), []
    asked = _asked(recipe, made)
    some = asked[:: max(1, len(asked) // SAMPLE)][:SAMPLE]
    if remote:
        return ok("questions", f"{len(made.rows)} could be fetched; whether there are enough is not tried."), some
    return _counted(recipe, made), some


def _asked(recipe: Recipe, made: Made) -> list[Asked]:
    """Every question with the task that grades it."""
    trained = {"sft": sft_spec(recipe), "rl": recipe.questions.task}
    found = [Asked(trained[question.split], question) for question in made.rows if question.split in trained]
    rows = {question.id: question for question in made.rows}
    for name, ids in made.sets.items():
        spec = recipe.questions.task if name == "dev" else recipe.evaluation.sets[name].task
        found += [Asked(spec, rows[each]) for each in ids]
    return found


def _counted(recipe: Recipe, made: Made) -> Check:
    splits = [f"{split} {sum(q.split == split for q in made.rows):,}" for split in ("sft", "rl")]
    dev = len(made.sets["dev"])
    sets = [f"{name} {len(ids):,}" for name, ids in made.sets.items()]
    text = f"{len(made.rows):,} questions: {', '.join([*splits, *sets])}"
    if dev < recipe.questions.dev:
        return warning(
            "questions", f"{text}; dev gets fewer than {recipe.questions.dev:,}.", "Ask for fewer, or add some."
        )
    overlap = sum(len(each.pairs) for each in made.overlaps)
    more = f"; training does without {overlap:,} that evaluation sets hold" if overlap else ""
    return ok("questions", f"{text}{more}.")


def _is_remote(recipe: Recipe) -> bool:
    specs = [sft_spec(recipe), recipe.questions.task, *(each.task for each in recipe.evaluation.sets.values())]
    tasks = map(task_of, specs)
    return any(isinstance(task, Published) and (not task.params.path or task.lazy) for task in tasks)


def _few(recipe: Recipe) -> Recipe:
    """The recipe with a few questions of each split and set."""
    q, sets = recipe.questions, recipe.evaluation.sets
    sizes = q.model_copy(update={"sft": min(_FEW, q.sft), "rl": min(_FEW, q.rl), "dev": min(_FEW, q.dev)})
    fewer = {name: each.model_copy(update={"n": min(_FEW, each.n)}) for name, each in sets.items()}
    evaluation = recipe.evaluation.model_copy(update={"sets": fewer})
    return recipe.model_copy(update={"questions": sizes, "evaluation": evaluation})


def references(some: Sequence[Asked]) -> Check:
    """Whether the reference answers of some questions are right by the check of their own task."""
    wrong = []
    for key in dict.fromkeys(each.key for each in some):
        own = [each for each in some if each.key == key]
        task = task_of(own[0].spec)
        grades = grade_all(task, [(each.question, f"<answer>{each.question.answer}</answer>") for each in own])
        wrong += [(each.question, grade) for each, grade in zip(own, grades, strict=True) if grade.outcome != "correct"]
    if wrong:
        question, grade = wrong[0]
        return problem(
            "answers", f"{len(wrong)} of {len(some)} reference answers fail their own check; the first, of question "
            f"{question.id}: {question.answer[:80]!r} ({grade.reason or grade.outcome}).",
            "Correct the answers, or the way they are graded.",
        )  # fmt: skip
    return ok("answers", f"The reference answers of {len(some)} questions pass their own check.")


def longest_prompt(recipe: Recipe, some: Sequence[Asked]) -> int:
    """Tokens of the longest prompt for an attempt at one of these questions. Raises SkillFactoryError."""
    from skillfactory.curation.prompts import prompts_of
    from skillfactory.engines import load_tokenizer

    counter, prompts = load_tokenizer(recipe), prompts_of(recipe.attempts)
    variants = dict.fromkeys([prompts.train_variant, *recipe.attempts.variants])
    asked = [each.question for each in some]
    return max(counter.count_tokens(prompts.attempt(v, q.text, q.answer)) for v in variants for q in asked)
