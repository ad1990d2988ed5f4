"""How facts look on a terminal: tables and coloured traces.

Model output is hostile: it is shown as text, never as markup, and without control characters.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory.characters import clean
from skillfactory.progress import describe, duration, seconds_until_now
from skillfactory.store import LoadedRun, State

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_SKILLS = {"sample": "cyan", "reflect": "yellow", "answer": "bold green", "verdict": "bold magenta"}
_TAG = re.compile(r"</?(think|sample|reflect|answer|verdict)>")
_STATES: dict[str, str] = {"finished": "green", "running": "cyan", "partial": "yellow", "other settings": "red"}


def state_text(state: str) -> "Text":
    """A stage's state in its colour."""
    from rich.text import Text

    return Text(state, _STATES.get(state, "dim"))


def stage_facts(run: LoadedRun, stages: tuple[str, ...]) -> list[dict[str, Any]]:
    """State, rows, seconds and live progress of each stage."""
    found = []
    for name in stages:
        manifest, state = run.manifest(name), run.state(name)
        live = run.progress(name) if state == "running" else {}
        seconds = seconds_until_now(live) if live else manifest.get("seconds")
        counts = manifest.get("counts", {})
        found.append(
            {"stage": name, "state": state, "rows": _rows(run.path / name, manifest, state), "seconds": seconds}
            | ({"progress": live} if live else {}) | ({"counts": counts} if counts else {})
        )  # fmt: skip
    return found


def _rows(folder: Path, manifest: dict[str, Any], state: State) -> int | None:
    """Rows of a stage: its manifest's, or of the shards so far."""
    if state == "finished":
        return int(manifest["rows"]) or None
    shards = sorted(folder.glob("part-*.parquet"))
    if not shards:
        return None
    import pyarrow.parquet

    return sum(int(pyarrow.parquet.read_metadata(path).num_rows) for path in shards)


def stage_table(title: str, facts: list[dict[str, Any]]) -> "Table":
    """One row a stage, for `status` and the demo."""
    table = new_table(title, "stage", "state", "rows>", "time>", "now")
    for each in facts:
        now = (
            describe(each["stage"], each["progress"]).partition(": ")[2]
            if "progress" in each
            else _few(each.get("counts", {}))
        )
        table.add_row(
            each["stage"], state_text(each["state"]), "" if each["rows"] is None else f"{each['rows']:,}",
            "" if each["seconds"] is None else duration(each["seconds"]), plain(now),
        )  # fmt: skip
    return table


def _few(counts: dict[str, Any]) -> str:
    plain = {k: v for k, v in counts.items() if isinstance(v, int | float | str) and v}
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in plain.items()
    )


def bytes_text(size: float) -> str:
    """Bytes in a unit that leaves few digits."""
    value, units = size, ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"


def trace_text(completion: str) -> "Text":
    """A trace with its skills coloured: attempts, reflections, verdicts, the answer; glue phrases stay plain.

    Takes time in proportion to the length, whatever tags are open.
    """
    from rich.text import Text

    text, at = Text(), 0
    opened: list[tuple[str, str]] = []  # tags that are open, with the style within each
    count = Counter[str]()
    completion = clean(completion)
    for match in _TAG.finditer(completion):
        style = opened[-1][1] if opened else ""
        text.append(completion[at : match.start()], style)
        text.append(match.group(), "dim")
        tag = match.group(1)
        if not match.group().startswith("</"):
            opened.append((tag, _SKILLS.get(tag, style)))
            count[tag] += 1
        while match.group().startswith("</") and count[tag]:
            last, _ = opened.pop()
            count[last] -= 1
            if last == tag:
                break
        at = match.end()
    text.append(completion[at:])
    return text


def plain(text: str) -> "Text":
    """Text without markup and controls."""
    from rich.text import Text

    return Text(clean(text))


def new_table(title: str, *columns: str) -> "Table":
    """A table; a column whose name ends in `>` holds figures and is set to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            plain(column.removesuffix(">")), justify="right" if column.endswith(">") else "left", overflow="fold"
        )
    return table


def task_table(tasks: list[dict[str, Any]]) -> "Table":
    """All tasks, a row each, with an example question and its graded reference, for `tasks`."""
    from rich.text import Text

    table = new_table("", "task", "what, and an example", "levels", "graded by")
    table.title = None
    table.columns[1].ratio, table.columns[2].max_width = 1, 24
    for each in tasks:
        levels = ", ".join(each["levels"])
        if "members" in each:
            levels = f"{len(each['members'])} tasks" if each["members"] else "(not installed)"
        what = plain(each["about"])
        if example := each.get("example"):
            question, answer = _short(example["text"], 110), _short(example["answer"], 40)
            what.append_text(Text(clean(f"\n{question} → {answer} ({example['outcome']})"), "dim"))
        table.add_row(plain(each["name"]), what, plain(levels), plain(each["graded_by"]))
    return table


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def task_parts(facts: dict[str, Any]) -> "Iterator[RenderableType]":
    """One task in full: what it is, its parameters, its levels and an example of each."""
    from rich.padding import Padding
    from rich.text import Text

    yield Text.assemble((clean(facts["name"]), "bold"), f" {clean(facts['about'])} Graded by {facts['graded_by']}.")
    if facts["parameters"]:
        yield Padding(facts_table(facts["parameters"]), (0, 0, 0, 2))
    if facts.get("members"):
        yield Padding(plain(", ".join(facts["members"])), (1, 2))
    for label, params in facts["levels"].items():
        shown = ", ".join(f"{key}: {value}" for key, value in params.items())
        yield plain(f"  level {label}: {{{shown}}}")
    for example in facts.get("examples", []):
        yield Text(f"\n  For example ({clean(example['level'])}):", "bold")
        yield Padding(Text(clean(example["text"])), (0, 4))
        yield Padding(Text(clean(f"<answer>{example['answer']}</answer> is {example['outcome']}"), "green"), (0, 4))


def facts_table(facts: list[dict[str, str]]) -> "Table":
    """Facts of one kind, a row each, a column a key."""
    table = new_table("", *(facts[0] if facts else ("none",)))
    table.title = None
    for each in facts:
        table.add_row(*(plain(value) for value in each.values()))
    return table
