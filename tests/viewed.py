"""Runs for tests of the trace viewer: real rows, whose texts show all that the viewer can tell apart."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skillfactory import seeds
from skillfactory.evaluation.forcing import reopened
from skillfactory.recipe import Recipe
from skillfactory.records import Question, Response
from skillfactory.store import LoadedRun, Run, load_run
from skillfactory.tasks import questions

EASY = {"name": "multiplication", "params": {"digits": 1, "digits_b": 2}}
HARD = {"name": "multiplication", "params": {"digits": 2}}
MODELS = ("base", "sft", "rl@2", "rl")
Write = Callable[[str, Question, int], str]


def recipe_of(n: int = 6, method: str = "skillfactory", **changes: Any) -> Recipe:
    """Two sets of multiplications; two samples, a greedy one, and budgets to force to."""
    data = {
        "name": f"test-{method}", "method": method,
        "questions": {"task": EASY, "sft": 2, "rl": 2, "dev": 2},
        "evaluation": {
            "samples": 2, "greedy": True, "max_tokens": 100, "forcing": {"budgets": [200, 300]},
            "sets": {"hard": {"task": HARD, "n": n, "kind": "harder"}, "easy": {"task": EASY, "n": n + 1}},
        },
    }  # fmt: skip
    return Recipe.model_validate(data | changes)


def sample(answer: str, words: str = "I multiply.") -> str:
    return f"<sample>\n{words}\n<answer>{answer}</answer>\n</sample>\n"


def reflect(verdict: str) -> str:
    return f"<reflect>\nI check it.\n<verdict>{verdict}</verdict>\n</reflect>\n"


def typical(model: str, question: Question, number: int) -> str:
    """By chance, which the model, the question and the sample's number decide, one of the things that models write."""
    rng = seeds.rng(1, model, question.id, number)
    right, answer = question.answer, rng.choice([question.answer, "7", "no number"])
    if model == "base":
        return rng.choice(
            [f"It is so. <answer>{rng.choice([right, answer])}</answer>", "I do not know.", "No. <answer>5</answer>"]
        )
    tried = sample("7") + reflect(rng.choice(["Correct", "Incorrect"])) + "I look again.\n"
    ended = f"</think>\n\nThis it is.\n\n<answer>\n{answer}\n</answer>"
    return rng.choice(
        [
            f"<think>\n{tried}{sample(answer)}{reflect('Correct')}{ended}",
            f"<think>\n{tried}{sample(right)}{ended}",
            f"<think>\n{sample(answer)}{ended}",
            f"<think>\n<reflect>\nWhat?\n<sample>\nnothing\n</sample>\n{reflect('Incorrect')}{ended}",
            f"<think>\n{tried}{sample('8')}<sample>\nand so",
            f"<think>\n{reflect('Incorrect')}{ended}",
        ]
    )


def make_run(
    path: Path, write: Write = typical, recipe: Recipe | None = None, models: Sequence[str] = MODELS
) -> LoadedRun:  # fmt: skip
    """A run with questions and the responses of these models, also greedy ones and along both lines of forcing."""
    recipe = recipe or recipe_of()
    with Run.open(path, recipe) as run:
        run.begin("questions", {}, {})
        questions.run(recipe, run)
        rows = {q.id: q for q in run.stage("questions").rows(Question)}
        sets = run.stage("questions").read_json("sets.json")
        stage = run.begin("evaluation", {}, {})
        asked = [(name, model, rows[i]) for name in recipe.evaluation.sets for model in models for i in sets[name]]
        stage.append([row for name, model, each in asked for row in answers(recipe, model, name, each, write)])
        stage.finish(tokens=123)
    return load_run(path)


def answers(recipe: Recipe, model: str, name: str, question: Question, write: Write) -> Iterable[Response]:
    """All responses of a model to a question."""
    task = questions.task_of(recipe.evaluation.sets[name].task)

    def graded(mode: str, number: int, text: str, **facts: Any) -> Response:
        grade = questions.grade(task, question, text)
        end = "length" if text.endswith("so") else "stop"
        row = Response(
            question.id, model, name, mode, number, text, grade.answer, grade.outcome, grade.reason, end, len(text)
        )  # fmt: skip
        return replace(row, **facts)

    section = recipe.evaluation
    if section.greedy:
        yield graded("greedy", 0, write(model, question, 99))
    for number in range(section.samples):
        text = write(model, question, number)
        yield graded("sampled", number, text)
        if model in ("sft", "rl"):
            for forced, budget in enumerate(section.forcing.budgets, 1):
                kept = reopened(text, section.forcing)
                text = f"{kept}{sample('9', 'Once more.')}</think>\n\nSo\n\n"[: None if budget == 200 else -1]
                yield graded(f"forced-{budget}", number, f"{text}<answer>\n9\n</answer>", forced=forced, cut=len(text))


def questions_in(run: LoadedRun) -> dict[str, Question]:
    return {question.id: question for question in run.rows("questions", Question)}
