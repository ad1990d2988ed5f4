"""A report as one HTML file that stands alone: no network, readable offline, on a phone, by day and night, on paper.

All text from models and recipes is escaped by jinja2; only figures, which we draw, are inserted as they are. The one
script is the trace viewer's, which the page's policy knows by its hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory import files
from skillfactory.characters import clean
from skillfactory.overview import some_traces
from skillfactory.records import Question
from skillfactory.report import figures, tables, verdict
from skillfactory.report.charts import Chart
from skillfactory.report.comparison import Comparison, compare, metrics_of
from skillfactory.report.figures import Figure
from skillfactory.report.pieces import Piece, pieces_of
from skillfactory.report.sections import Material, Section, headline, material, sections
from skillfactory.report.tables import MISSING, Table, at, plain

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

LARGEST, VIEWER = 4_900_000, 2_500_000  # bytes of the page, and of the responses on it
SHOWN_TRACES = 10  # in all
SHOWN_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Shown:
    """A section of the page: as sections.Section, with its figures drawn, two in a row where they stand together."""

    id: str
    title: str
    about: str
    parts: list[Table | list[Figure]]


@dataclass(frozen=True, slots=True)
class ShownTrace:
    """A trace to look at, with its question."""

    title: str
    question: str
    pieces: list[Piece]
    cut: int


def write_run(run: "LoadedRun", path: Path, metrics: dict[str, Any] | None = None) -> None:
    """Write the page of one run. Raises StoreError where the disk is full."""
    write(path, material([run], [metrics or metrics_of(run)]))


def write_comparison(runs: Sequence["LoadedRun"], path: Path, comparison: Comparison | None = None) -> None:
    """Write the page that holds runs side by side. Raises SkillFactoryError where they were not asked the same."""
    comparison = comparison or compare(runs)
    write(path, material(runs, comparison.metrics, comparison))


def write(path: Path, given: Material) -> None:
    """Write the page of one run or of several."""
    from skillfactory.report import viewer

    labels = [tables.run_label(each) for each in given.metrics]
    several = len(labels) > 1
    shown = drawn(sections(given))
    lead = headline(given)
    values = {
        "title": title_of(given),
        "about": [_about(each) for each in given.metrics],
        "verdict": verdict_of(given),
        "uncertain": verdict.uncertain(given.metrics, given.comparison),
        "headline": [figures.draw(lead, "verdict")] if lead else [],
        "results": [section for section in shown if section.id != "cost"],
        "background": [section for section in shown if section.id == "cost"],
        "traces": show_traces(given.runs, labels if several else [""]),
        "recipes": [(label, _recipe(run)) for label, run in zip(labels, given.runs, strict=True)],
    }
    rest = len(render("page.html", viewer=None, **values).encode("utf-8", "replace"))
    seen = viewer.build(given.runs, labels, max(0, min(VIEWER, LARGEST - rest)))
    files.write_atomic(path, render("page.html", viewer=seen, **values).encode("utf-8", "replace"))


def write_markdown(path: Path, given: Material) -> None:
    """Write all tables as Markdown, to paste elsewhere."""
    lines = [f"# {plain(title_of(given))}", *(plain(_about(each)) for each in given.metrics), plain(verdict_of(given))]
    lines += ["\n".join(f"- {plain(each)}" for each in verdict.uncertain(given.metrics, given.comparison))]
    for section in sections(given):
        if section.tables:
            lines += [f"## {plain(section.title)}", *map(tables.markdown, section.tables)]
    files.write_atomic(path, ("\n\n".join(line.strip() for line in lines if line) + "\n").encode("utf-8", "replace"))


def title_of(given: Material) -> str:
    """The run's name, or how many there are."""
    return f"Comparison of {len(given.metrics)} runs" if given.comparison else tables.run_label(given.metrics[0])


def verdict_of(given: Material) -> str:
    """The first sentence."""
    return verdict.of_comparison(given.comparison) if given.comparison else verdict.of_run(given.metrics[0])


def drawn(given: Sequence[Section]) -> list[Shown]:
    """The sections with their charts as figures."""
    found = []
    for section in given:
        parts: list[Table | list[Figure]] = []
        for i, part in enumerate(section.parts):
            if isinstance(part, Chart):
                if not parts or isinstance(parts[-1], Table):
                    parts.append([])
                parts[-1].append(figures.draw(part, f"{section.id}-{i}"))  # type: ignore[union-attr]
            else:
                parts.append(part)
        found.append(Shown(section.id, section.title, section.about, parts))
    return found


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


def show_traces(runs: Sequence["LoadedRun"], labels: Sequence[str]) -> list[ShownTrace]:
    """Some of the traces that SFT learns from, of each run that has any."""
    found = []
    with_traces = [(run, label) for run, label in zip(runs, labels, strict=True) if run.state("traces") != "missing"]
    for run, label in with_traces:
        asked = {q.id: q.text for q in run.rows("questions", Question)} if run.state("questions") != "missing" else {}
        start = f"{label}: " if label else ""
        found += [
            ShownTrace(
                f"{start}{trace.pattern}, {len(trace.steps)} attempts, {trace.tokens:,} tokens",
                clean(asked.get(trace.question_id, "")),
                pieces_of(trace.completion[:SHOWN_CHARACTERS]),
                max(0, len(trace.completion) - SHOWN_CHARACTERS),
            )
            for trace in some_traces(run, max(2, SHOWN_TRACES // len(with_traces)))
        ]
    return found


def _about(metrics: dict[str, Any]) -> str:
    label, *known = (at(metrics, "run", key) for key in ("label", "method", "model", "seed", "version"))
    method, model, seed, version = (MISSING if value is None else value for value in known)
    start = f"{label}: " if label else ""
    return f"{start}method {method}, model {model}, seed {seed}, skillfactory {version}"


def _recipe(run: "LoadedRun") -> str:
    return (run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
