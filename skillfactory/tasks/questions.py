"""Stage `questions`: the questions of every split, and of every evaluation set.

The paper takes SFT and RL questions from disjoint parts of one level, and evaluates on that level, harder ones and
other tasks. Splits are disjoint by content: a generated question is at home in one split by its hash, whatever seed or
level drew it; the user's own are dealt out. Every method gets the same questions, also those that need no SFT data.

Training does without what an evaluation set holds, also where that came from another file or data set, and the manifest
says how much that was. At the end the splits are compared once more, whatever drew them.
"""

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from skillfactory import seeds
from skillfactory.errors import QuestionError, RecipeError
from skillfactory.recipe import Recipe, TaskSpec
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline
from skillfactory.tasks.base import Task, check_references, get, progress
from skillfactory.tasks.overlap import Overlap, check_disjoint, overlaps, text_key

if TYPE_CHECKING:
    from skillfactory.stage import Stage
    from skillfactory.store import Run

SPLITS = ("sft", "rl", "dev")
SHARD = 20_000  # questions of one shard, for memory
QUIET = 2.0  # seconds before progress is shown


@runtime_checkable
class Pool(Protocol):
    """A task with a given stock of questions, such as a file: it deals them out itself.

    It also has the whole stock as `questions`; where that is too large to look through, it says so by `lazy = True`.
    """  # `questions` is no part of the protocol: isinstance() would read the whole stock to see whether it is there

    def allot(self, counts: dict[str, int], seed: int, exclude: Collection[str] = ()) -> dict[str, list[Question]]:
        """Disjoint questions for each name, none with an id in `exclude`; see pool.allot."""
        ...


class Wanted(NamedTuple):
    """`n` questions of a task, to be used in a split."""

    spec: TaskSpec
    n: int
    split: str


@dataclass(frozen=True)
class Made:
    """All questions, each once and with its split, and which belong to `dev` and to each evaluation set.

    `sources` says where they come from, for tasks that know: {task: facts}.
    """

    rows: list[Question]
    sets: dict[str, list[str]]
    sources: dict[str, Any] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)


def task_of(spec: TaskSpec) -> Task:
    """The task that a recipe names, with its parameters. Raises QuestionError."""
    return get(spec.name, **spec.params)


def sft_spec(recipe: Recipe) -> TaskSpec:
    """What SFT questions come from: the recipe's task, or the samples that it is given."""
    given = recipe.attempts.given
    return TaskSpec(name="raw_data", params={"path": given}) if given else recipe.questions.task


def grade(task: Task, question: Question, text: str) -> Grade:
    """The task's grade of a completion. A verifier that breaks gives "check_failed": counted, never scored wrong."""
    try:
        return task.grade(question, text)
    except Exception:  # whatever it is, it is the verifier's failure and not the model's
        return Grade("no_answer", reason="check_failed")


def is_slow(task: Task) -> bool:
    """Whether the task's checks wait for other processes, so that several are worth making at once."""
    return bool(getattr(task, "slow_checks", False))


def grade_all(task: Task, completions: Sequence[tuple[Question, str]]) -> list[Grade]:
    """The grade of each completion; several checks at once where they wait for other processes (`slow_checks`)."""
    slow = len(completions) > 1 and is_slow(task)
    with closing(deadline.ahead(lambda each: grade(task, *each), completions, lambda each: slow)) as grades:
        return list(grades)


def make_questions(recipe: Recipe) -> Made:
    """The recipe's questions. Raises QuestionError where there are too few, or a reference fails its own check."""
    if "dev" in recipe.evaluation.sets:
        raise RecipeError("evaluation.sets: `dev` is the name of the development split; choose another name.")
    deal = _Deal(recipe.seed, _wanted(recipe))
    deal.run()
    rows: dict[str, Question] = {}
    for name, (spec, _, split) in deal.wanted.items():
        _check(deal.task(spec), deal.found[name])
        for question in deal.found[name]:
            other = rows.setdefault(question.id, replace(question, level=spec.level or question.level, split=split))
            if other.split != split:
                raise QuestionError(
                    f"Task `{spec.name}`: question {question.id} is in both the {other.split} and the {split} split; "
                    "its `generate` must give only questions at home in the split asked for."
                )
    check_disjoint(rows.values())
    sets = {name: [q.id for q in questions] for name, questions in deal.found.items() if name not in ("sft", "rl")}
    return Made(list(rows.values()), {_set(name): ids for name, ids in sets.items()}, deal.sources(), deal.overlaps)


def _check(task: Task, questions: list[Question]) -> None:
    """Every reference passes its own check; several at once where they wait for other processes."""
    if getattr(task, "references_checked", False):
        return
    checks = deadline.ahead(lambda each: check_references(task, [each]), questions, lambda each: is_slow(task))
    with closing(checks):
        for _ in checks:
            pass


def _wanted(recipe: Recipe) -> dict[str, Wanted]:
    """What a recipe asks for, by the key that asks: the splits, then the evaluation sets."""
    splits = {name: Wanted(recipe.questions.task, getattr(recipe.questions, name), name) for name in SPLITS}
    splits["sft"] = splits["sft"]._replace(spec=sft_spec(recipe))
    sets = recipe.evaluation.sets
    return splits | {
        f"evaluation.sets.{name}": Wanted(sets[name].task, sets[name].n, sets[name].split) for name in sets
    }


def _set(key: str) -> str:
    return key.removeprefix("evaluation.sets.")


@dataclass
class _Deal:
    """The questions of every name in `wanted`, found one after the other."""

    seed: int
    wanted: dict[str, Wanted]
    found: dict[str, list[Question]] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    _tasks: dict[str, Task] = field(default_factory=dict)

    def task(self, spec: TaskSpec) -> Task:
        """One task for all that draw on the same stock."""
        return self._tasks.setdefault(_key(spec), task_of(spec))

    def run(self) -> None:
        """Find evaluation sets first, then training questions that are in none of them.

        A file gives its test rows before its training rows, so that they stay what they are when the recipe asks for
        more or fewer training questions.
        """
        pools: dict[str, list[str]] = {}
        generated = []
        for name in sorted(self.wanted, key=lambda name: name in SPLITS):
            spec = self.wanted[name].spec
            if isinstance(self.task(spec), Pool):
                pools.setdefault(_key(spec), []).append(name)
            else:
                generated.append(name)
        for name in generated:
            if name not in SPLITS:
                self._generate(name)
        for names in sorted(pools.values(), key=lambda names: "sft" in names):
            self._allot(names)
        for name in generated:
            if name in SPLITS:
                self._generate(name)

    def sources(self) -> dict[str, Any]:
        """{task: what its questions come from}, for tasks that say so; with its parameters where two have one name."""
        telling = {key: task for key, task in self._tasks.items() if hasattr(task, "facts")}
        times = Counter(task.name for task in telling.values())
        return {
            task.name if times[task.name] == 1 else f"{task.name} {json.dumps(json.loads(key)[1])}": task.facts()
            for key, task in telling.items()
        }

    def _generate(self, name: str) -> None:
        """Questions at home in the split; none that an evaluation set of another task or level holds."""
        spec, n, split = self.wanted[name]
        task = self.task(spec)
        taken = {q.id for other, held in self._sets().items() if self.wanted[other].spec != spec for q in held}
        apart = {_set(other): held for other, held in self._sets().items() if self.wanted[other].split != split}
        splits = [self.found.get(other, []) for other in SPLITS if other != name] if name in SPLITS else []
        said = {text_key(question.text): question.id for held in splits for question in held}
        seed, asked = seeds.derive(self.seed, "questions", name), n
        while True:
            try:
                drawn = task.generate(asked, seed, split) if asked else []
            except QuestionError as error:
                raise QuestionError(f"{f'questions.{name}' if name in SPLITS else name}: {error}") from error
            same = overlaps(task.name, drawn, apart) if name in SPLITS else []
            refused = taken.union(theirs.id for overlap in same for _, theirs in overlap.pairs)
            free = [q for q in drawn if q.id not in refused and not (said and said.get(text_key(q.text), q.id) != q.id)]
            if len(free) >= n:
                self.found[name] = free[:n]
                self.overlaps += same
                return
            asked += n - len(free)

    def _allot(self, names: list[str]) -> None:
        """Questions of one stock for all that draw on it."""
        spec = self.wanted[names[0]].spec
        task = self.task(spec)
        assert isinstance(task, Pool)
        counts = {name: self.wanted[name].n for name in names}
        seed = seeds.derive(self.seed, "questions")
        exclude = {question.id for questions in self.found.values() for question in questions}
        sets = {_set(name): held for name, held in self._sets().items()} if "sft" in names else {}
        met = [] if getattr(task, "lazy", False) or not sets else list(task.questions)  # type: ignore[attr-defined]
        while True:
            same = overlaps(source_of(task), met, sets)
            exclude |= {theirs.id for overlap in same for _, theirs in overlap.pairs}
            dealt = task.allot(counts, seed, exclude)
            new = [question for questions in dealt.values() for question in questions]
            if not overlaps("", new, sets):
                break
            met += new
        self.overlaps += same
        self.found |= dealt
        progress.get()(len(new))

    def _sets(self) -> dict[str, list[Question]]:
        """The evaluation sets found so far."""
        return {name: questions for name, questions in self.found.items() if name not in SPLITS}


def source_of(task: Task) -> str:
    """The file or data set of a task, or its name."""
    return str(getattr(task, "source", "") or getattr(getattr(task, "params", None), "path", "") or task.name)


def _key(spec: TaskSpec) -> str:
    """The same for specs that draw on the same stock; a level is only a label."""
    return json.dumps([spec.name, spec.params], sort_keys=True, default=str)


def run(recipe: Recipe, run: "Run") -> None:
    """Write the questions (split in each row) and `sets.json`: {"dev" or name of an evaluation set: [question ids]}."""
    stage = run.stage("questions")
    with _shown(stage, sum(wanted.n for wanted in _wanted(recipe).values())):
        made = make_questions(recipe)
    kept = {question.id for question in stage.rows(Question)}  # of a run that was interrupted here
    new = [question for question in made.rows if question.id not in kept]
    for start in range(0, len(new), SHARD):
        stage.append(new[start : start + SHARD])
    stage.write_json("sets.json", made.sets)
    if (got := len(made.sets["dev"])) < recipe.questions.dev:
        run.log("questions", "fewer dev questions than asked for", asked=recipe.questions.dev, got=got)
    for overlap in made.overlaps:
        run.log("questions", "training does without questions of an evaluation set", **overlap.facts())
    counts: dict[str, Any] = {split: sum(q.split == split for q in made.rows) for split in (*SPLITS, "eval")}
    if made.overlaps:
        counts["overlap"] = sum(len(overlap.pairs) for overlap in made.overlaps)
        counts["overlaps"] = [overlap.facts() for overlap in made.overlaps]
    stage.finish(**counts, sets={name: len(ids) for name, ids in made.sets.items()}, sources=made.sources)


@contextmanager
def _shown(stage: "Stage", total: int) -> Iterator[None]:
    """Show how many questions there are, once it has taken a while."""
    start, done = time.monotonic(), 0
    with ExitStack() as stack:
        advance: Any = None

        def tell(n: int) -> None:
            nonlocal advance, done
            done += n
            if advance:
                advance(n)
            elif time.monotonic() - start > QUIET:
                advance = stack.enter_context(stage.track(total, "questions", done))

        token = progress.set(tell)
        stack.callback(progress.reset, token)
        yield
