"""Whether runs were asked the same questions and graded alike, and in what else they differ."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skillfactory.errors import SkillFactoryError
from skillfactory.evaluation.accuracy import Responses
from skillfactory.records import Question
from skillfactory.report.tables import MISSING

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

_DRAWING = ("samples", "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
_CONTENT = " (content)"


def check_same(runs: Sequence["LoadedRun"], responses: Sequence[Responses]) -> None:
    """Refuse runs of different questions or graders, and runs that have not been evaluated.

    Raises SkillFactoryError that names the runs and what differs between them.
    """
    for run, found in zip(runs, responses, strict=True):
        if not found:
            raise SkillFactoryError(f"{run.path} has no responses to compare; let its evaluation finish first.")
        if run.state("questions") == "missing":
            raise SkillFactoryError(
                f"{run.path} has lost its questions (there is no {run.path / 'questions'}), so nobody can tell whether "
                "it was asked the same; run its recipe again."
            )
    first, ours = runs[0], asked_of(runs[0], responses[0])
    for run, found in zip(runs[1:], responses[1:], strict=True):
        refused = f"{first.path} and {run.path} cannot be compared:"
        theirs = asked_of(run, found)
        if set(ours) != set(theirs):
            lonely = min(set(ours) ^ set(theirs))
            there = first.path if lonely in ours else run.path
            raise SkillFactoryError(f"{refused} only {there} has responses to the set `{lonely}`.")
        for name, questions in ours.items():
            if problem := _graded(first, run, name):
                raise SkillFactoryError(f"{refused} {problem}")
            if questions != theirs[name]:
                shared = len(questions & theirs[name])
                raise SkillFactoryError(
                    f"{refused} the questions of set `{name}` differ ({shared} shared, {len(questions)} and "
                    f"{len(theirs[name])} in all{_why(first, run)}); evaluate both on the same."
                )


def asked_of(run: "LoadedRun", responses: Responses) -> dict[str, set[tuple[str, str, str, str]]]:
    """What each set asked: (id, text, answer, data) of its questions."""
    questions = {q.id: (q.id, q.text, q.answer, q.data) for q in run.rows("questions", Question)}
    asked: dict[str, set[tuple[str, str, str, str]]] = {}
    for (_, name, _), rows in responses.items():
        asked.setdefault(name, set()).update(questions.get(r.question_id, (r.question_id, "", "", "")) for r in rows)
    return asked


def _why(first: "LoadedRun", second: "LoadedRun") -> str:
    """What explains that questions differ, where it is known."""
    reasons = []
    if first.recipe.seed != second.recipe.seed:
        reasons.append(f"; their seeds are {first.recipe.seed} and {second.recipe.seed}")
    for run in (first, second):
        if run.state("evaluation") != "finished":
            reasons.append(f"; the evaluation of {run.path} has not finished")
    return "".join(reasons)


def _graded(first: "LoadedRun", second: "LoadedRun", name: str) -> str:
    """How the tasks of a set differ in the two runs, "" for not at all. Where a file lies does not matter."""
    sections = [run.recipe.evaluation.sets.get(name) for run in (first, second)]
    if sections[0] is None or sections[1] is None:
        return ""
    one, other = (section.task for section in sections if section)
    if one.name != other.name:
        return f"set `{name}` is of the task {one.name} in the one and of {other.name} in the other."
    for key in dict.fromkeys([*one.params, *other.params]):
        if key != "path" and one.params.get(key) != other.params.get(key):
            values = " and ".join(_text(spec.params.get(key)) for spec in (one, other))
            return f"the task of set `{name}` differs in `{key}`: {values}."
    for key, what in (("grade", "grading function"), ("path", "file of questions")):
        where = f"evaluation.sets.{name}.task.params.{key}{_CONTENT}"
        contents = [_settings(run, "questions").get(where) for run in (first, second)]
        if None not in contents and contents[0] != contents[1]:
            return f"the {what} of set `{name}` ({_text(one.params.get(key))}) has another content in each."
    kinds = [section.kind for section in sections if section]
    if kinds[0] != kinds[1]:
        return f"set `{name}` counts as {kinds[0]} in the one and as {kinds[1]} in the other."
    return ""


def notes_on(runs: Sequence["LoadedRun"]) -> list[str]:
    """What makes a comparison less than like against like, a sentence each."""
    notes = []
    if differing := _differing([_settings(run, "evaluation").get(f"attempts.prompts{_CONTENT}") for run in runs]):
        notes.append(f"The same questions were asked by different prompts ({differing} versions of attempts.prompts).")
    for key in _DRAWING:
        values = [getattr(run.recipe.evaluation, key) for run in runs]
        if _differing(values):
            notes.append(f"Responses were drawn with evaluation.{key} {_listed(values)}.")
    for key in sorted({name for run in runs for name in run.recipe.evaluation.sets}):
        sets = [run.recipe.evaluation.sets.get(key) for run in runs]
        if _differing([each.samples if each else None for each in sets]):
            notes.append(
                f"Set `{key}` has {_listed([each.samples if each else 0 for each in sets])} samples a question."
            )
    if _differing([run.recipe.model for run in runs]):
        notes.append(f"The base models differ: {_listed([run.recipe.model for run in runs])}.")
    if _differing([run.recipe.seed for run in runs]):
        notes.append(f"Their seeds differ: {_listed([run.recipe.seed for run in runs])}.")
    if _differing(versions := [run.manifest("evaluation").get("code") for run in runs]):
        notes.append(f"Graded by different versions of the package: {_listed(versions)}.")
    notes += [
        f"The evaluation of {run.path} has not finished." for run in runs if run.state("evaluation") != "finished"
    ]
    return notes


def differing_settings(runs: Sequence["LoadedRun"]) -> list[list[str]]:
    """Rows (setting, value in each run) of all that differs but the name; sections that a method skips included."""
    rows = []
    for each, alike in (
        ([_flatten(run.recipe.model_dump(exclude={"name"})) for run in runs], {MISSING}),
        ([_contents(run) for run in runs], set[str]()),  # of a stage that one lacks, nothing is known to differ
    ):
        for key in dict.fromkeys(key for settings in each for key in settings):
            row = [str(settings.get(key, MISSING)) for settings in each]
            if len({*row} - ({MISSING} - alike)) > 1:
                rows.append([key, *row])
    return rows


def _contents(run: "LoadedRun") -> dict[str, str]:
    """Short hashes of the files that a run was made from, where its manifests know them."""
    found: dict[str, str] = {}
    for stage in ("questions", "traces", "evaluation"):
        settings = _settings(run, stage)
        found |= {key: str(value)[:12] for key, value in settings.items() if key.endswith(_CONTENT)}
    return found


def _settings(run: "LoadedRun", stage: str) -> dict[str, Any]:
    return dict(run.manifest(stage).get("settings") or {})


def _differing(values: Sequence[Any]) -> int:
    """How many different values there are; 0 where all are the same. What is not known (None) is left out."""
    found = {_text(value) for value in values if value is not None}
    return len(found) if len(found) > 1 else 0


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(_text(value) for value in values)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
