"""The tables of run.py, and each case's share of the floor."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bench_grading
import floor
from rich.table import Table
from stopwatch import PARTS

SPEED, STEP = "tokens a second", "seconds a step"
HIGHER = (SPEED, *bench_grading.GRADING)  # figures of which more is better
Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Something to measure; `against` are cases that it is compared with, by what the table calls them."""

    what: str
    run: Callable[[], Figures]
    figures: tuple[str, ...]
    against: dict[str, str] = field(default_factory=dict)
    missing: str = ""  # why it cannot run here


def shares(measured: dict[str, Figures]) -> None:
    """Give the cases that have one their floor, and the share of it that they reach; drop the rows it comes from."""
    rates = measured.get("floor", {})
    for figures in measured.values():
        work, rows, lengths = (figures.pop(name, None) for name in ("work", "rows", "lengths"))
        if "shapes" not in rates or not (work or rows or lengths):
            continue
        shapes = floor.Shapes(**rates["shapes"])
        if work:
            figures["floor"] = figures["tokens"] / floor.sampling(rates, shapes, floor.Work(**work))
        elif rows:
            figures["floor"] = sum(_grpo_floor(rates, shapes, figures["prompts"], *step) for step in rows) / len(rows)
        else:
            figures["floor"] = sum(lengths) / floor.training(rates, shapes, lengths, sum(lengths))
        figure = SPEED if SPEED in figures else STEP
        ratio = figures[figure] / figures["floor"]
        figures["share of the floor"] = ratio if figure in HIGHER else 1 / ratio


def _grpo_floor(
    rates: Figures, shapes: floor.Shapes, different: int, prompts: list[int], completions: list[int]
) -> float:
    """Seconds of sampling these rollouts and learning from them."""
    work = floor.Work(completions, prompts, sum(prompts) * different // len(prompts))
    whole = [p + c for p, c in zip(prompts, completions, strict=True)]
    return floor.sampling(rates, shapes, work) + floor.training(rates, shapes, whole, sum(completions))


def table(model: str, found: dict[str, Case], measured: dict[str, Figures]) -> Table:
    """One line a figure, with how many times as fast as others it is, and its share of the floor."""
    shown = Table("", "figure", "", "times as fast as", "of the floor", "peak memory", title=model, box=None)
    for column in (1, 4, 5):
        shown.columns[column].justify = "right"
    for key, figures in measured.items():
        case = found[key]
        if reason := _no_figures(figures):
            shown.add_row(case.what, "", reason, "", "", "")
            continue
        for figure in case.figures:
            share = figures.get("share of the floor")
            shown.add_row(
                case.what, _short(figures[figure]), figure, _ratios(case, figure, figures, measured),
                "" if share is None else f"{share:.1%}", f"{figures['peak_memory_mb']:,.0f} MB",
            )  # fmt: skip
    return shown


def _no_figures(figures: Figures) -> str:
    if "stopped_after_seconds" in figures:
        return f"stopped after {figures['stopped_after_seconds']} seconds"
    return "left out" if "left_out" in figures else "failed" if "failed" in figures else ""


def _ratios(case: Case, figure: str, figures: Figures, measured: dict[str, Figures]) -> str:
    found = []
    for label, key in case.against.items():
        other = measured.get(key, {})
        if figure in other:
            faster = figures[figure] / other[figure] if figure in HIGHER else other[figure] / figures[figure]
            if figure == STEP:  # rollouts of one law are not equally long: at equal tokens
                faster *= figures["mean tokens"] / other["mean tokens"]
            found.append(f"{label} {faster:.2f}")
    return ", ".join(found)


def split(found: dict[str, Case], measured: dict[str, Figures]) -> Table:
    """Where the seconds of a GRPO step go."""
    shown = Table("seconds of a GRPO step", *PARTS, "in all", "reward", box=None)
    for column in shown.columns[1:]:
        column.justify = "right"
    for key, figures in measured.items():
        if "parts" in figures:
            seconds = [*(figures["parts"][part] for part in PARTS), figures[STEP]]
            shown.add_row(found[key].what, *map(_short, seconds), f"{figures['percent of a step in the reward']:.2f} %")
    return shown


def demo_table(stages: list[Figures]) -> Table:
    """The demo's stages, where it has been run."""
    shown = Table("demo", "seconds", "peak memory", box=None)
    for each in stages:
        memory = f"{each['peak_memory_mb']:,.0f} MB" if each["peak_memory_mb"] else ""
        shown.add_row(f"{each['run']}: {each['stage']}", _short(each["seconds"]), memory)
    return shown


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
