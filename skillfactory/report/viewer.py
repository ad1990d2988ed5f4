"""The page's trace viewer: questions of every set, with all models' responses to them side by side.

What the models wrote is hostile. It goes into the page as JSON that cannot end its element, and templates/viewer.js
puts it on the page as text, never as markup. The page can forbid all scripts but this one, which it knows by its hash.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import seeds
from skillfactory.curation.prompts import prompts_of
from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.accuracy import Responses
from skillfactory.evaluation.summary import responses_of
from skillfactory.recipe import TaskSpec
from skillfactory.records import Question, Response
from skillfactory.report.chosen import GRADES, QuestionSet, as_json, choose, grade_attempts, rows_of, size
from skillfactory.report.columns import Column, columns_of, first_pair, first_shown
from skillfactory.report.pieces import shown
from skillfactory.report.tables import KIND_NAMES
from skillfactory.rows import to_records
from skillfactory.tasks.base import Task
from skillfactory.tasks.questions import task_of

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

LONGEST = (20_000, 5_000, 1_000)  # characters of a text; the next where there is no room for one question a set
SMALLEST = 100  # bytes of a question and column, about: how many questions are worth reading
_SCRIPTS = [Path(__file__).parent / "templates" / name for name in ("viewer-response.js", "viewer.js")]


@dataclass(frozen=True, slots=True)
class Viewer:
    """What templates/viewer.html needs. `shown` and `there`: questions of each set on the page, and in the runs."""

    data: str
    shown: dict[str, int]
    there: dict[str, int]
    script: str
    script_hash: str


def build(runs: Sequence["LoadedRun"], labels: Sequence[str], budget: int = 2_500_000) -> Viewer | None:
    """The viewer of one run, or of several over the same questions; None where there are no responses, or no room.

    `data` takes `budget` bytes at most: of each set as many questions, in an order of hashes, as there is room for.
    """
    there = [responses_of(run, texts=False) for run in runs]
    asked = (
        {question.id: question for run in runs for question in run.rows("questions", Question)} if any(there) else {}
    )
    sets = _sets(runs, there, asked)
    if not sets:
        return None
    most = budget // (SMALLEST * sum(len({(model, mode) for model, _, mode in each}) for each in there))
    wanted = {(each.name, question_id) for each in sets for question_id in each.ids[:most]}
    responses = [_with_texts(run, each, wanted) for run, each in zip(runs, there, strict=True)]
    columns = columns_of(labels, responses)
    data = _frame(runs, columns) | {"sets": [_about(each, []) for each in sets]}
    rows = [rows_of(responses[each.run], each, runs[each.run].recipe.evaluation.forcing) for each in columns]
    room = budget - size(data) - GRADES * size(["no_answer", "x" * 40]) - size({"grades": [], "responses": []})
    for longest in LONGEST:
        chosen = choose(sets, asked, rows, longest, room)
        if all(chosen.questions.values()):
            break
    if not chosen.entries:
        return None
    data["grades"] = grade_attempts(chosen.entries)
    data["responses"] = [entry.data for entry in chosen.entries]
    data["sets"] = [_about(each, chosen.questions[each.name]) for each in sets]
    script = "\n".join(['"use strict"; {', *(part.read_text(encoding="utf-8") for part in _SCRIPTS), "}"])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Viewer(
        data=as_json(data),
        shown={name: len(questions) for name, questions in chosen.questions.items()},
        there={each.name: len(each.ids) for each in sets},
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _frame(runs: Sequence["LoadedRun"], columns: Sequence[Column]) -> dict[str, Any]:
    """Columns, which of them to begin with, and the prompts that the models were given."""
    prompts: list[Any] = []
    given = []
    for run in runs:
        prompt = _prompt(run)
        if prompt not in prompts:
            prompts.append(prompt)
        given.append(prompts.index(prompt))
    begin = first_shown(columns, len(runs))
    return {
        "columns": [{"key": shown(c.key), "label": shown(c.label), "prompt": given[c.run]} for c in columns],
        "show": begin,
        "pair": first_pair(columns, begin, [run.recipe.method for run in runs]),
        "prompts": prompts,
    }


def _prompt(run: "LoadedRun") -> list[Any] | None:
    """The turns of the chat that asks a question: [role, [text before the question, text after it]]."""
    try:
        turns = prompts_of(run.recipe.attempts).train("\0")
    except SkillFactoryError:  # its file is gone since: no reason to do without the responses
        return None
    return [[turn["role"], [shown(part)[: LONGEST[0]] for part in turn["content"].split("\0")]] for turn in turns]


def _with_texts(run: "LoadedRun", there: Responses, wanted: Collection[tuple[str, str]]) -> Responses:
    """The responses to these questions of sets, in the order of `there`, read shard by shard: all may be too many."""
    found: Responses = {key: [] for key in there}
    for table in run.stage("evaluation").tables() if there else ():
        for row in to_records(table, Response, str(run.path)):
            if (row.set, row.question_id) in wanted:
                found[row.model, row.set, row.mode].append(row)
    return {key: sorted(rows, key=lambda r: (r.question_id, r.sample)) for key, rows in found.items()}


def _sets(
    runs: Sequence["LoadedRun"], responses: Sequence[Responses], asked: Mapping[str, Question]
) -> list[QuestionSet]:
    """The sets that there are responses of: in domain, harder, other."""
    kinds = list(KIND_NAMES)
    found = []
    for name, section in sorted(runs[0].recipe.evaluation.sets.items(), key=lambda each: kinds.index(each[1].kind)):
        rows = [r for each in responses for (_, other, _), rows in each.items() if other == name for r in rows]
        ids = {row.question_id for row in rows if row.question_id in asked}
        if ids:
            one = asked[min(ids)]
            about = (one.task, section.task.level or one.level, KIND_NAMES[section.kind])
            order = sorted(ids, key=lambda question_id: seeds.content_id("viewer", question_id))
            found.append(QuestionSet(name, " · ".join(filter(None, about)), _task(section.task), order))
    return found


def _task(spec: TaskSpec) -> Task | None:
    try:
        return task_of(spec)
    except SkillFactoryError:  # its file or library is gone since: attempts are shown without a grade
        return None


def _about(each: QuestionSet, questions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": shown(each.name), "about": shown(each.about), "there": len(each.ids), "questions": questions}
