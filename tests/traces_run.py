"""Runs that hold traces and nothing else, for the tests of exports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers import make_recipe

from skillfactory.records import Step, Trace
from skillfactory.store import LoadedRun, Run, load_run

TINY = Path(__file__).parents[1] / "skillfactory" / "tiny" / "model"
PATTERNS = ("algorithm1", "ladder", "backtrack", "confirm", "single")


def make_trace(i: int, text: str = "", system: bool = False) -> Trace:
    """A trace with line ends, quotes and letters of other scripts in it, and a system prompt if asked for."""
    pairs = i % 3 + 1
    middle = "\n".join(
        f"<sample>\n{text}3 + {i} = {3 + i} … “ä”, 漢, {{'a': \"b\\n\"}}\n</sample>\n"
        "<reflect>\nThat holds. <verdict>Correct</verdict>\n</reflect>"
        for _ in range(pairs)
    )
    completion = f"<think>\n{middle}\n</think>\n\nThis is the final answer.\n\n<answer>\n{3 + i}\n</answer>"
    prompt = [{"role": "system", "content": "End with an answer."}] if system else []
    return Trace(
        id=f"t{i}",
        question_id=f"q{i // 2}",
        pattern=PATTERNS[i % len(PATTERNS)],
        steps=[Step(f"a{i}-{k}", f"r{i}-{k}", "" if k == pairs - 1 else "Wait.") for k in range(pairs)],
        prompt=[*prompt, {"role": "user", "content": f"{text}What is 3 + {i}?\nSay it."}],
        completion=completion,
        tokens=100 + i,
    )


def make_run(folder: Path, shards: Sequence[Sequence[Trace]], **sections: Any) -> LoadedRun:
    """A run whose stage `traces` is finished and has these shards."""
    with Run.open(folder, make_recipe(**sections)) as run:
        stage = run.begin("traces", {}, {})
        for shard in shards:
            stage.append(shard)
        stage.finish(made=sum(map(len, shards)), dropped={"too_long": 3})
    return load_run(folder)


def dialogue(trace: Trace) -> list[dict[str, str]]:
    """The messages of a trace, the completion as the assistant's."""
    return [*map(dict, trace.prompt), {"role": "assistant", "content": trace.completion}]
