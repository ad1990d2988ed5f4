"""A report as one HTML file that stands alone: no script, no network, readable offline, on a phone, by day and night.

All text from models and recipes is escaped by jinja2; only figures, which we draw, are inserted as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import files, seeds
from skillfactory.evaluation.summary import read_jsonl, responses_of
from skillfactory.overview import some_traces
from skillfactory.records import Question, Response
from skillfactory.report import figures, tables, verdict
from skillfactory.report.comparison import Comparison, compare, difference_tables, metrics_of, settings_table
from skillfactory.report.curation import curation_tables
from skillfactory.report.tables import KIND_NAMES, MODEL_NAMES, Table, clean
from skillfactory.tags import blocks

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

SHOWN_RESPONSES = 6
SHOWN_TRACES = 10
SHOWN_CHARACTERS = 6000
Curve = tuple[str, list[dict[str, float]], int]  # label, lines of metrics.jsonl, colour
_PIECE = re.compile(r"(<verdict>\s*\w{1,20}\s*</verdict>|<answer>[^<]{0,500}</answer>)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a response; `kind` is a class of the style sheet: sample, reflect, verdict-…, answer or plain."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A response to look at, with its question."""

    title: str
    outcome: str
    question: str
    reference: str
    answer: str
    pieces: list[Piece]
    cut: int


@dataclass(frozen=True, slots=True)
class ShownTrace:
    """A trace to look at, with its question."""

    title: str
    question: str
    pieces: list[Piece]
    cut: int


def write_run(run: "LoadedRun", path: Path, metrics: dict[str, Any] | None = None) -> None:
    """Write the page of one run. Raises StoreError where the disk is full."""
    metrics = metrics or metrics_of(run)
    rl = [("RL", read_jsonl(run.path / "rl" / "metrics.jsonl"), figures.RL)]
    sft = [("SFT", read_jsonl(run.path / "sft" / "metrics.jsonl"), figures.SFT)]
    drawn = (
        figures.accuracy_figure(figures.model_series(metrics), metrics),
        *training_figures(rl, sft),
        figures.pairs_figure(metrics["curation"]),
    )
    responses = responses_of(run)
    sections = [
        tables.differences_table(metrics),
        tables.length_table([metrics]),
        tables.skill_table([metrics]),
        tables.training_table([metrics]),
        tables.cost_table(metrics),
        *curation_tables(metrics["curation"]),
    ]
    html = render(
        "run.html",
        title=tables.run_label(metrics),
        verdict=verdict.of_run(metrics),
        accuracy=tables.accuracy_table([metrics]),
        figures=[figure for figure in drawn if figure],
        tables=[table for table in sections if table.rows],
        responses=choose(run, responses),
        traces=show_traces(run),
        recipe=(run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace"),
        versions=versions(run),
        run=metrics["run"],
    )
    files.write_atomic(path, html.encode())


def write_comparison(runs: Sequence["LoadedRun"], path: Path, comparison: Comparison | None = None) -> None:
    """Write the page that holds runs side by side. Raises SkillFactoryError where they were not asked the same."""
    comparison = comparison or compare(runs)
    metrics = comparison.metrics
    labels = [each["run"]["label"] for each in metrics]
    same_base = len({each["run"]["model"] for each in metrics}) == 1  # then one line stands for all
    series = [("base", metrics[0]["accuracy"].get("base", {}), figures.BASE)] if same_base else []
    curves: dict[str, list[Curve]] = {"rl": [], "sft": []}
    for label, each, run in zip(labels, metrics, runs, strict=True):
        for model, sets in each["accuracy"].items():
            if model != "base" or not same_base:
                if model in curves:
                    curves[model].append((label, read_jsonl(run.path / model / "metrics.jsonl"), len(series)))
                series.append((f"{label}, {MODEL_NAMES.get(model, model)}", sets, len(series)))
    drawn = (figures.accuracy_figure(series, metrics[0]), *training_figures(curves["rl"], curves["sft"]))
    sections = [
        *difference_tables(comparison),
        tables.length_table(metrics),
        tables.skill_table(metrics),
        tables.training_table(metrics),
        settings_table(comparison),
    ]
    html = render(
        "comparison.html",
        title=f"Comparison of {len(runs)} runs",
        verdict=verdict.of_comparison(comparison),
        accuracy=tables.accuracy_table(metrics),
        figures=[figure for figure in drawn if figure],
        tables=[table for table in sections if table.rows],
        runs=[each["run"] for each in metrics],
    )
    files.write_atomic(path, html.encode())


def training_figures(rl: Sequence[Curve], sft: Sequence[Curve]) -> list[figures.Figure | None]:
    """The curves of RL and SFT; None for those without data."""
    return [
        figures.curve("Reward in RL", "reward", rl, "mean reward"),
        figures.curve("Response length in RL", "length", rl, "tokens"),
        figures.curve("Groups without signal in RL", "no_signal", rl, "share of groups"),
        figures.curve("Loss in SFT", "loss", sft, "loss"),
    ]


def render(template: str, **values: Any) -> str:
    """Fill a template. Everything is escaped, except the SVG of figures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # only ever applied to what figures.py drew
    return environment.get_template(template).render(**values)


def choose(run: "LoadedRun", responses: dict[tuple[str, str, str], list[Response]]) -> list[Shown]:
    """A few responses of the last model: of each set a right and a wrong one, by hash, not by eye."""
    model = next((m for m in ("rl", "sft", "base") if any(key[0] == m for key in responses)), None)
    if model is None:
        return []
    questions = {q.id: q for q in run.rows("questions", Question)}
    shown = []
    for name, section in run.recipe.evaluation.sets.items():
        rows = [r for r in responses.get((model, name, "sampled"), []) if r.question_id in questions]
        rows.sort(key=lambda r: seeds.content_id("shown", r.question_id, r.sample))
        for right in (True, False):
            picked = next((r for r in rows if (r.outcome == "correct") == right), None)
            if picked:
                title = f"{MODEL_NAMES[model]} on {name} ({KIND_NAMES[section.kind]})"
                shown.append(_shown(title, picked, questions[picked.question_id]))
    return shown[:SHOWN_RESPONSES]


def show_traces(run: "LoadedRun") -> list[ShownTrace]:
    """Some of the traces that SFT learns from."""
    asked = {q.id: q.text for q in run.rows("questions", Question)} if run.state("questions") != "missing" else {}
    return [
        ShownTrace(
            f"{trace.pattern}, {len(trace.steps)} attempts, {trace.tokens:,} tokens",
            clean(asked.get(trace.question_id, "")),
            pieces_of(trace.completion[:SHOWN_CHARACTERS]),
            max(0, len(trace.completion) - SHOWN_CHARACTERS),
        )
        for trace in some_traces(run, SHOWN_TRACES)
    ]


def _shown(title: str, response: Response, question: Question) -> Shown:
    text = response.text[:SHOWN_CHARACTERS]
    return Shown(
        title=title,
        outcome=response.outcome.replace("_", " "),
        question=clean(question.text),
        reference=clean(question.answer),
        answer=clean(response.answer),
        pieces=pieces_of(text),
        cut=len(response.text) - len(text),
    )


def pieces_of(text: str) -> list[Piece]:
    """A response in pieces, whose texts joined are the response (control characters replaced)."""
    pieces: list[Piece] = []
    position = 0
    for block in blocks(text)[0]:
        if block.kind != "broken":
            pieces += _split(text[position : block.start], "plain")
            pieces += _split(text[block.start : block.end], block.kind)
            position = block.end
    return pieces + _split(text[position:], "plain")


def _split(text: str, kind: str) -> list[Piece]:
    """Set verdicts and answers apart."""
    found = []
    for part in _PIECE.split(clean(text)):
        if part:
            if part.startswith("<verdict>") and part.endswith("</verdict>"):
                said = part[len("<verdict>") : -len("</verdict>")].strip().lower()
                found.append(Piece(f"verdict-{said}" if said in ("correct", "incorrect") else kind, part))
            elif part.startswith("<answer>") and part.endswith("</answer>"):
                found.append(Piece("answer", part))
            else:
                found.append(Piece(kind, part))
    return found


def versions(run: "LoadedRun") -> Table:
    """Code and library versions as the last finished stage noted them."""
    rows: dict[str, str] = {}
    for stage in ("questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation"):
        manifest = run.manifest(stage)
        if manifest.get("code"):
            code, libraries = manifest["code"], manifest.get("libraries") or {}
            rows |= {"skillfactory": _text(code)} | {str(name): _text(version) for name, version in libraries.items()}
    return Table("Versions", ["package", "version"], [[name, version] for name, version in rows.items()], labels=2)


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else str(value)


def write_markdown(metrics: dict[str, Any], path: Path) -> None:
    """The accuracy table as Markdown, to paste elsewhere."""
    text = f"# {tables.run_label(metrics)}\n\n{verdict.of_run(metrics)}\n\n"
    files.write_atomic(path, (text + tables.markdown(tables.accuracy_table([metrics]))).encode())
