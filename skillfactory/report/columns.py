"""Which columns the trace viewer has: one a model and way of sampling it, of one run or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skillfactory.evaluation.accuracy import Responses, is_kept_step
from skillfactory.report.tables import model_name

AT_FIRST = 3  # columns that are shown before anyone chooses


@dataclass(frozen=True, slots=True)
class Column:
    """Responses of one model in one mode. `key` names it in links, `label` on the page; `run` is a number."""

    key: str
    label: str
    run: int
    model: str
    mode: str


def columns_of(labels: Sequence[str], responses: Sequence[Responses]) -> list[Column]:
    """The columns of runs with these labels. A base model that answered alike in all runs stands there once."""
    bases = [{key: rows for key, rows in found.items() if key[0] == "base"} for found in responses]
    shared = len(bases) > 1 and bool(bases[0]) and all(each == bases[0] for each in bases)
    columns = []
    for run, found in enumerate(responses):
        for model, mode in dict.fromkeys((model, mode) for model, _, mode in found):
            everyone = shared and model == "base"
            if everyone and run:
                continue
            alone = len(labels) == 1 or everyone
            words = model_name(model) + _mode_words(mode)
            columns.append(
                Column(
                    key="/".join([*([] if alone else [str(run + 1)]), model, *([] if mode == "sampled" else [mode])]),
                    label=words if alone else f"{labels[run]} · {words}",
                    run=run, model=model, mode=mode,
                )
            )  # fmt: skip
    return columns


def first_shown(columns: Sequence[Column], runs: int) -> list[int]:
    """The columns to begin with: of one run base, SFT and RL, of several the RL models before the others."""
    wanted = ("rl", "base", "sft") if runs > 1 else ("base", "sft", "rl")

    def rank(number: int) -> tuple[Any, ...]:
        column = columns[number]
        known = wanted.index(column.model) if column.model in wanted else len(wanted)
        return column.mode != "sampled", is_kept_step(column.model), known, number

    return sorted(sorted(range(len(columns)), key=rank)[:AT_FIRST])


def first_pair(columns: Sequence[Column], shown: Sequence[int], methods: Sequence[str]) -> tuple[int, int]:
    """Between which two columns a change is looked for at first: the first and the last, or the RL models of two runs.

    RL alone, where one of the runs is that, comes before the others. `methods`: of each run.
    """
    trained = [number for number in shown if columns[number].model == "rl"]
    pair = sorted(trained, key=lambda number: methods[columns[number].run] != "rl_only") if trained[1:] else shown
    return pair[0], pair[-1]


def _mode_words(mode: str) -> str:
    """ "", ", greedy" or ", forced to 1,600 tokens"."""
    line, _, budget = mode.partition("-")
    if mode == "sampled":
        return ""
    return f", {line} to {int(budget):,} tokens" if budget.isdecimal() else f", {mode}"
