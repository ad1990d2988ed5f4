"""The picture of the package's layers in docs/architecture.md, drawn from its imports.

With --check it draws nothing, and fails where the committed picture is not what the imports give. What is in which box
is written down here; which box imports which, and so the layers and arrows, is read from the code (by grimp, with
import-linter). An arrow that a way over other boxes says already is left out. `basics` is what nearly all import: a bar
without arrows.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

PICTURE = Path(__file__).parent / "images" / "architecture.svg"
ROOT, BASICS = "skillfactory", "basics"
# Boxes from the top: what they are, and the modules in them beside the package or module of their name.
BOXES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cli": ("the commands", ("__main__", "demo", "catalog", "writing")),
    "starting": ("init: a first recipe", ()),
    "checkup": ("doctor, and repair", ()),
    "experiments": ("methods x seeds", ()),
    "pipeline": ("stages, resuming", ("contents", "shortage")),
    "report": ("tables and pages", ()),
    "evaluation": ("responses, figures", ()),
    "training": ("sft and rl", ()),
    "planning": ("hours, disk, memory", ()),
    "console": ("facts on a terminal", ("watch",)),
    "tiny": ("the embedded model", ()),
    "curation": ("samples to traces", ("overview",)),
    "store": ("a run's folder", ("stage", "shards", "children", "recipes")),
    "methods": ("where data come from", ("rounds",)),
    "engines": ("where text comes from", ("tiny.__init__",)),  # the folder of the embedded model
    "tasks": ("questions, grading", ()),
    "formats": ("others' files", ()),
    "recipe": ("what a user sets", ("machinery",)),
    BASICS: (
        "errors, files, rows, records, seeds, tags, characters, progress, machine, versions",
        ("errors", "files", "rows", "records", "seeds", "tags", "characters", "progress", "machine", "versions",
         "plain_yaml", "reading", "intact"),
    ),
}  # fmt: skip
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 178, 54, 24, 46, 20  # of a box, between boxes, around all
BESIDE = 50  # from the middle of a box: where arrows go up
HEAD = 'role="img" aria-labelledby="title about" font-family="system-ui, sans-serif" font-size="14"'
ARROW = (
    '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0L10 5L0 10z"/></marker>'
)
STYLE = """
    .paper { fill: #ffffff; } .box { fill: #f3f7fc; stroke: #57606a; } .what { fill: #4a525b; }
    .name { fill: #1b1f24; font-weight: 600; font-size: 17px; }
    .line { fill: none; stroke: #57606a; stroke-width: 1.5; } .head { fill: #57606a; }
    .up { stroke: #bc4c00; stroke-dasharray: 6 4; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; } .box { fill: #151f2e; stroke: #8b949e; }
      .name { fill: #e6edf3; } .what { fill: #b1bac4; }
      .line { stroke: #8b949e; } .head { fill: #8b949e; } .up { stroke: #f0883e; }
    }
"""


@dataclass(frozen=True)
class Node:
    """A place in a layer: a box, or where an arrow passes on its way down (`via` names its two ends)."""

    name: str
    via: tuple[str, str] | None = None


def imports() -> dict[str, set[str]]:
    """{box: boxes that it imports}. Raises SystemExit for a module that has no box, and a box that has no module."""
    graph = grimp.build_graph(ROOT, exclude_type_checking_imports=True, cache_dir=None)
    home = {module: box for module in graph.modules if (box := box_of(module, graph.modules))}
    if homeless := sorted({".".join(m.split(".")[:2]) for m in graph.modules - set(home) - {ROOT}}):
        raise SystemExit(f"docs/make_architecture.py: no box has {', '.join(homeless)}; add it to BOXES.")
    if empty := set(BOXES) - set(home.values()):
        raise SystemExit(f"docs/make_architecture.py: there are no modules for {', '.join(sorted(empty))}.")
    found: dict[str, set[str]] = {box: set() for box in BOXES}
    for module, box in home.items():
        found[box] |= {home[other] for other in graph.find_modules_directly_imported_by(module) if other in home}
    return {box: others - {box} for box, others in found.items()}


def box_of(module: str, modules: set[str]) -> str:
    """The box of a module; "" for the root, whose few names are only handed on, or where there is none."""
    own = module.removeprefix(f"{ROOT}.")
    is_package = any(other.startswith(f"{module}.") for other in modules)
    first = own.split(".")[0]
    if is_package and (named := _named(f"{own}.__init__")):
        return named
    return "" if module == ROOT else _named(own) or _named(first) or (first if first in BOXES else "")


@cache
def _named(module: str) -> str:
    return next((box for box, (_, others) in BOXES.items() if module in others), "")


def layers(found: dict[str, set[str]]) -> tuple[list[list[Node]], list[tuple[str, str]], list[tuple[str, str]]]:
    """Layers from the top, arrows down, and arrows that go against the order of BOXES."""
    order = {box: i for i, box in enumerate(BOXES)}
    down = {box: {other for other in others if order[other] > order[box]} for box, others in found.items()}
    up = [(box, other) for box, others in found.items() for other in sorted(others - down[box])]
    depth: dict[str, int] = {}
    for box in reversed(BOXES):
        depth[box] = 0 if box == BASICS else 1 + max((depth[other] for other in down[box]), default=0)
    shown = [
        (box, other)
        for box in BOXES
        for other in sorted(down[box])
        if other != BASICS and not any(other in _reached(middle, down) for middle in down[box] - {other})
    ]
    rows: list[list[Node]] = [[] for _ in range(max(depth.values()) + 1)]
    for box in BOXES:
        rows[depth[box]].append(Node(box))
    for start, end in shown:
        for level in range(depth[end] + 1, depth[start]):
            rows[level].append(Node(f"{start}>{end}", (start, end)))
    return _ordered(rows[::-1], shown), shown, up


def _reached(box: str, down: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [box]
    while waiting:
        for other in down[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def ways(rows: list[list[Node]], shown: list[tuple[str, str]]) -> Iterator[list[Node]]:
    """Each arrow as the nodes it goes through, from the top."""
    for start, end in shown:
        yield [node for row in rows for node in row if node.name in (start, end) or node.via == (start, end)]


def _ordered(rows: list[list[Node]], shown: list[tuple[str, str]]) -> list[list[Node]]:
    """Rows in which nodes stand near those they are joined to: the usual sweeps by the mean place of neighbours."""
    joined: dict[Node, set[Node]] = {node: set() for row in rows for node in row}
    for way in ways(rows, shown):
        for one, other in pairwise(way):
            joined[one].add(other)
            joined[other].add(one)
    for sweep in range(24):
        for row in rows if sweep % 2 else rows[::-1]:
            place = {node: (i + 0.5) / len(each) for each in rows for i, node in enumerate(each)}
            mean = {n: sum(place[o] for o in joined[n]) / len(joined[n]) if joined[n] else place[n] for n in row}
            row.sort(key=lambda node: (mean[node], node.name))
    return rows


def drawn(found: dict[str, set[str]]) -> str:
    """The picture as SVG."""
    rows, shown, up = layers(found)
    widths = [sum(_width(node) for node in row) + ACROSS * (len(row) - 1) for row in rows]
    width = max(widths) + 2 * MARGIN
    height = len(rows) * (HEIGHT + DOWN) - DOWN + 2 * MARGIN
    middle: dict[Node, float] = {}
    top: dict[Node, float] = {}
    for level, (row, own) in enumerate(zip(rows, widths, strict=True)):
        x = (width - own) / 2
        for node in row:
            middle[node], top[node] = x + _width(node) / 2, MARGIN + level * (HEIGHT + DOWN)
            x += _width(node) + ACROSS
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {HEAD}>',
        '  <title id="title">What imports what in skillfactory</title>',
        f'  <desc id="about">{escape(described(shown, up))}</desc>',
        f"  <style>{STYLE}  </style>",
        f"  <defs>{ARROW}</defs>",
        f'  <rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="10"/>',
    ]
    for way in ways(rows, shown):
        lines.append(f'  <path class="line" d="{_curve(way, middle, top)}" marker-end="url(#arrow)"/>')
    boxes = {node.name: node for row in rows for node in row if node.via is None}
    for start, end in up:
        one, other = boxes[start], boxes[end]
        path = f"M{middle[one] - BESIDE:.0f} {top[one]:.0f}L{middle[other] - BESIDE:.0f} {top[other] + HEIGHT:.0f}"
        lines.append(f'  <path class="line up" d="{path}" marker-end="url(#arrow)"/>')
    for name, node in boxes.items():
        lines += _box(name, middle[node], top[node], width)
    return "\n".join([*lines, "</svg>"]) + "\n"


def described(shown: list[tuple[str, str]], up: list[tuple[str, str]]) -> str:
    """The arrows in words, for those who do not see them."""
    said = [f"{box} imports {', '.join(end for start, end in shown if start == box)}" for box, _ in dict(shown).items()]
    against = [f"{start} also imports {end}, which stands above it" for start, end in up]
    return ". ".join([*said, *against]) + f". All import {BASICS}."


def _width(node: Node) -> float:
    return WIDTH if node.via is None else 14


def _curve(way: list[Node], middle: dict[Node, float], top: dict[Node, float]) -> str:
    """From the lower edge of the first box to the upper edge of the last, straight down through what is between."""
    x, y = middle[way[0]], top[way[0]] + HEIGHT
    path = f"M{x:.0f} {y:.0f}"
    for node in way[1:]:
        half = DOWN / 2
        path += f"C{x:.0f} {y + half:.0f} {middle[node]:.0f} {top[node] - half:.0f} {middle[node]:.0f} {top[node]:.0f}"
        x, y = middle[node], top[node] + HEIGHT
        path += f"V{y:.0f}" if node.via else ""
    return path


def _box(name: str, x: float, y: float, width: float) -> list[str]:
    what, _ = BOXES[name]
    own = width - 2 * MARGIN if name == BASICS else WIDTH
    return [
        f'  <rect class="box" x="{x - own / 2:.0f}" y="{y:.0f}" width="{own:.0f}" height="{HEIGHT}" rx="8"/>',
        f'  <text class="name" x="{x:.0f}" y="{y + 23:.0f}" text-anchor="middle">{name}</text>',
        f'  <text class="what" x="{x:.0f}" y="{y + 43:.0f}" text-anchor="middle">{escape(what)}</text>',
    ]


def main(words: list[str]) -> int:
    """Write the picture, or look at it; gives the exit code."""
    picture = drawn(imports())
    if "--check" not in words:
        PICTURE.write_text(picture, encoding="utf-8")
        return 0
    if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture:
        return 0
    print(f"{PICTURE} is not what the imports give; run `python docs/make_architecture.py`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
