"""What `skillfactory run --dry-run` shows on a terminal: stages, what they take, on what that rests."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skillfactory.console import bytes_text, new_table, plain, state_text
from skillfactory.planning import plan
from skillfactory.planning.plan import Cost, StagePlan
from skillfactory.planning.room import shown
from skillfactory.progress import duration

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_KNOWN_BY = {"weights": "its files", "config": "its config.json", "name": "its name"}


def plan_table(title: str, stages: Sequence[StagePlan]) -> "Table":
    """What each stage does, a row each."""
    table = new_table(title, "stage", "state", "what")
    for each in stages:
        what = ", ".join(f"{name} {value:,}" for name, value in each.counts.items())
        table.add_row(each.name, state_text("to do" if each.state == "missing" else each.state), what)
    return table


def cost_table(stages: Sequence[StagePlan]) -> "Table":
    """What each stage takes, at most and by the assumptions, and all of them; dollars where there is a price."""
    title = "What it takes: at most (every sample to its cap; disk while it runs), and as expected (disk afterwards)"
    most, expected = plan.total([s.most for s in stages]), plan.total([s.expected for s in stages])
    priced = most.dollars is not None
    columns = ["tokens", "GPU hours", "disk", *(["dollars"] if priced else [])]
    table = new_table(title, "stage", *(name for each in columns for name in (f"{each}: at most>", "expected>")))
    for each in stages:
        table.add_row(each.name, *_cost_cells(each.most, each.expected, priced))
    table.add_section()
    table.add_row("all", *_cost_cells(most, expected, priced))
    return table


def _cost_cells(most: Cost, expected: Cost, priced: bool) -> list[str]:
    both = (most, expected)
    tokens = [f"{cost.tokens / 1e6:,.1f} M" if cost.tokens else "" for cost in both]
    hours = [_hours(cost.gpu_hours) for cost in both]
    disk = ["?" if cost.disk is None else bytes_text(cost.disk) if cost.disk else "" for cost in both]
    dollars = ["?" if cost.dollars is None else f"{cost.dollars:,.0f}" if cost.dollars else "" for cost in both]
    return [*tokens, *hours, *disk, *(dollars if priced else [])]


def _hours(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.1f}" if value >= 0.05 else "<0.1" if value else ""


def memory_table(memory: dict[str, Any]) -> "Table":
    """What each training takes of every GPU, by parts, at the moment that takes most."""
    devices = memory["devices"]
    split = f", split by {memory['shard']}" if memory["shard"] != "none" else ""
    on = f"each of {devices} GPUs{split}" if devices > 1 else "the GPU"
    title = f"Memory of {on}, estimated for the longest sequences ({bytes_text(memory['device_bytes'])} are there)"
    table = new_table(title, "stage", "at most>", "when", "of which", "")
    for name, each in memory["stages"].items():
        parts = sorted(each["parts"].items(), key=lambda part: -part[1])
        of = ", ".join(f"{part} {bytes_text(size)}" for part, size in parts if size >= each["bytes"] / 50)
        table.add_row(name, bytes_text(each["bytes"]), each["moment"], of, "fits" if each["fits"] else "does not fit")
    return table


def basis_lines(basis: dict[str, Any]) -> "Text":
    """What the figures rest on, a line for the model, the assumptions and the number of GPUs each."""
    a, held, count = basis["assumed"], basis["memory"], basis["parameters"]
    model = f"{_parameters(count)} parameters, by {_KNOWN_BY[basis['parameters_known_by']]}" if count else ""
    shape = "" if basis["shape_known"] or not count else "; its shape is guessed from that"
    measured = basis["measured"]
    said = f"measured on {measured['questions']} questions: right {measured['right']:.2f}; " if measured else ""
    drawn = "filled" if measured else "right, true_verdicts, filled"
    numbers = ", ".join(f"{key} {a[key]:g}" for key in drawn.split(", "))
    uses = ", ".join(f"{key} {a[key]:g}" for key in ("sampling_use", "training_use"))
    lines = [
        f"model: {model or '? (size unknown)'}{shape}",
        f"samples: {said}assumed {numbers}; questions are alike; prompts are not counted",
        f"GPU: {a['tflops']:g} TFLOP/s, of which are reached, by guess: {uses}",
        f"our own sampler takes {a['layer_ms']:g} ms a layer and step at least, by guess; vLLM does not",
        "nothing is measured here unless it says so; for other assumptions: estimate.KEY=VALUE",
    ]
    if held and basis["trains"]:
        lines.append(_cards(held, a["memory_gb"]))
        lines.append(f"main memory: {bytes_text(held['host_bytes'])} of a machine, to load and save the weights")
    return plain("\n".join(f"  {line}." for line in lines) + "\n")


def _cards(held: dict[str, Any], size: float) -> str:
    state, cards = f"memory: {bytes_text(held['state_bytes'])} of training state a GPU", held["cards"]
    if cards is None:
        copy = f"the copy that is sampled from ({bytes_text(held['copy_bytes'])}) is whole on each, as are other things"
        return f"{state}; no number of GPUs of {size:g} GB is enough: {copy}; see training.backend: verl"
    if all(each["fits"] for each in held["stages"].values()):
        return f"{state}; as the recipe stands, it fits"
    settings = " ".join(f"{key}={shown(value)}" for key, value in held["cards_settings"].items())
    return f"{state}; {cards} GPU{'s' if cards > 1 else ''} of {size:g} GB would do, with {settings}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def estimate_table(facts: dict[str, Any]) -> "Table":
    """What a probe says of curation, beside the paper's fixed budget."""
    title = (
        f"Estimate from {facts['probed']} questions, of whose attempts {facts['share_correct']:.0%} were correct "
        f"({duration(facts['probe_seconds'])}; a full run has larger batches and is faster)"
    )
    columns = ("questions>", "attempts>", "reflections>", "traces>", "tokens>", "paper's budget>", "time>")
    table = new_table(title, *columns)
    keys = ("questions", "attempts", "reflections", "traces", "tokens", "paper_tokens")
    table.add_row(*(f"{facts[key]:,}" for key in keys), duration(facts["seconds"]))
    return table
