"""`skillfactory examples`: worked examples for the method `bolt`, written by a model and kept where they are right."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import files, seeds
from skillfactory.curation import examples
from skillfactory.curation.curate import questions_in_order
from skillfactory.curation.examples import Example
from skillfactory.curation.prompts import Prompt
from skillfactory.errors import NothingLeftError, RecipeError
from skillfactory.recipe import Recipe
from skillfactory.records import Question
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import Pool, grade, make_questions, task_of

if TYPE_CHECKING:
    from skillfactory.engines.base import Completion, Request

_END = "</answer>"
TRIES = 10  # questions asked for each example that is wanted
ENGINES = ("openai", "transformers", "vllm")
PROMPT = Prompt(
    user="""Write a worked example of careful thinking, from which others are to learn. The question is:

{question}

Open with <think> and think aloud, at length and in plain words. Make a plan and try what it says. Check each result as
soon as you have it; where a try fails, say why and go back to another one. Show at least one try that fails. When you
have an answer, check it against the question once more. Then write </think>, and after it the final answer alone
between <answer> and </answer>, and nothing more."""
)


@dataclass
class Written:
    """What came of it: the examples of the file, how many are new, and why replies were not kept."""

    examples: list[Example]
    new: int = 0
    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def write_examples(
    recipe: Recipe, out: Path, n: int, engine: str = "openai", tell: Callable[[Written], None] = lambda written: None
) -> Written:
    """Have examples written until the file `out` holds `n`; those that are in it stay.

    They are of SFT questions of the recipe, one each, written by `bolt.writer` (the engine's own model where that is
    empty) and sampled as in evaluation. The file is written whole whenever one is kept, and `tell` is called after each
    reply. Raises RecipeError for a file that cannot be used, NothingLeftError where too few replies are right, and what
    the engine raises.
    """
    from skillfactory import engines

    if engine not in ENGINES:
        raise RecipeError(f"--engine {engine}: examples are written by one of {', '.join(ENGINES)}.")
    if out.suffix not in examples.KINDS or not out.parent.is_dir():
        raise RecipeError(f"{out}: name a file ({', '.join(examples.KINDS)}) in a folder that is there.")
    result = Written(list(examples.load_examples(str(out))) if out.exists() else [])
    if len(result.examples) >= n:
        return result
    desk = _Desk(recipe, task_of(recipe.questions.task), result, n, _questions(recipe))
    for completion in engines.load(recipe, recipe.bolt.writer or None, engine).generate(desk.requests()):
        if desk.keeps(completion):
            files.write_atomic(out, examples.written(result.examples, out))
        tell(result)
    if len(result.examples) < n:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(result.dropped.items()))
        raise NothingLeftError(
            f"{out}: {len(result.examples)} of {n} examples after {result.asked} questions"
            f"{f' ({why})' if why else ''}; name another writer (bolt.writer), raise evaluation.max_tokens or choose "
            "easier questions, and run the same again: what is kept stays."
        )
    return result


@dataclass
class _Desk:
    """Asks for as many examples as are missing, and for more where replies are not kept."""

    recipe: Recipe
    task: Task
    result: Written
    n: int
    questions: list[Question]
    out: dict[str, Question] = field(default_factory=dict)  # in flight, by request id

    def requests(self) -> "Iterator[Request | None]":
        """See Engine.generate."""
        known = {example.question for example in self.result.examples}
        free = [question for question in self.questions if question.text.strip() not in known]
        for question in free[: TRIES * (self.n - len(self.result.examples))]:
            while self.out and len(self.result.examples) + len(self.out) >= self.n:
                yield None
            if len(self.result.examples) >= self.n:
                return
            yield self._request(question)

    def keeps(self, completion: "Completion") -> bool:
        """Whether the reply is an example; then it is among them."""
        question = self.out.pop(completion.id)
        text = completion.text.encode(errors="replace").decode()
        response = text[: text.rfind(_END) + len(_END)].strip() if _END in text else text.strip()
        if completion.finish_reason != "stop":
            why = "failed" if completion.finish_reason == "failed" else "cut off"
        elif examples.problem_of(response):
            why = "without an answer in tags"
        else:
            graded = grade(self.task, question, response)
            why = "" if graded.outcome == "correct" else "not checked" if graded.outcome == "no_answer" else "wrong"
        if why:
            self.result.dropped[why] += 1
            return False
        self.result.examples.append(Example(question.text.strip(), response))
        self.result.new += 1
        return True

    def _request(self, question: Question) -> "Request":
        from skillfactory.engines.base import Request, SamplingParams

        request_id = seeds.content_id("example", question.id)
        self.out[request_id] = question
        self.result.asked += 1
        seed = seeds.derive(self.recipe.seed, "example", question.id)
        params = SamplingParams.of(self.recipe.evaluation)
        return Request(request_id, PROMPT.fill(question=question.text), seed, params)


def _questions(recipe: Recipe) -> list[Question]:
    """The SFT questions of the recipe's own task, as a run has them, in the order in which it takes them."""
    changes: dict[str, Any] = {"attempts": recipe.attempts.model_copy(update={"given": ""})}
    if not isinstance(task_of(recipe.questions.task), Pool):  # those of a stock depend on who else draws on it
        changes["questions"] = recipe.questions.model_copy(update={"rl": 1, "dev": 0})
        changes["evaluation"] = recipe.evaluation.model_copy(update={"sets": {}})
    made = make_questions(recipe.model_copy(update=changes))
    return questions_in_order(recipe, [question for question in made.rows if question.split == "sft"])
