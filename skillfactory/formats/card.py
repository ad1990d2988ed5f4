"""The data card of an exported data set: the hub's YAML header, and text that says what the rows are and how made.

What a recipe holds is any text: in the header it is written by a YAML library, below it is escaped.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillfactory.characters import clean

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun

_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_STAGES = ("questions", "attempts", "reflections", "traces")
# What decides the traces; the rest of a recipe says where it ran, down to addresses of servers.
_SECTIONS = ("name", "seed", "method", "model", "revision", *_STAGES)
_SPECIAL = re.compile(r"([\\`*_\[\]!|~$])")  # in the middle of a line; < > & become entities


@dataclass(slots=True)
class Seen:
    """What passed through an export, counted on the way."""

    traces: int = 0
    questions: set[int] = field(default_factory=set)  # by hash, for memory
    patterns: Counter[str] = field(default_factory=Counter)
    pairs: Counter[int] = field(default_factory=Counter)
    tokens: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of the traces."""
        self.traces += 1
        self.questions.add(hash(row["question_id"]))
        self.patterns[row["pattern"]] += 1
        self.pairs[len(row["steps"])] += 1
        self.tokens.append(row["tokens"])


def render(run: "LoadedRun", seen: Seen, config: str, license: str, language: str) -> str:
    """The README.md of a folder that holds the traces as `config`, split `train`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Not escaped as HTML but as Markdown, by a `finalize` that only `fenced` gets around.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, _Fenced | int | float) else escaped(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fenced"] = fenced
    text = environment.get_template("card.md.jinja").render(**_facts(run, seen), license=license, language=language)
    return f"---\n{header(run.recipe.name, seen.traces, config, license, language)}\n---\n\n{text}"


def header(name: str, traces: int, config: str, license: str, language: str) -> str:
    """The YAML that the hub reads, without its fences."""
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        pretty_name=f"SkillFactory traces: {name}",
        license=one_line(license),
        language=[one_line(language)],
        size_categories=[next((size for limit, size in _SIZES.items() if traces < limit), "n>10M")],
        task_categories=["text-generation"],
        tags=["skillfactory", "sft", "self-distillation", "reasoning", "synthetic", "arxiv:2512.04072"],
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": "train", "path": f"{config}/train-*.parquet"}],
                "default": True,
            }
        ],
    )
    text: str = data.to_yaml()
    return text


def escaped(value: object) -> str:
    """Text that Markdown shows as it is, on one line: no markup, no link, no HTML, no table cell of its own."""
    text = _SPECIAL.sub(r"\\\1", one_line(value))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def one_line(value: object) -> str:
    """Text without line ends and characters that cannot be seen; YAML does not bring all of them back as they were."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


class _Fenced(str):
    """A fenced block, which is not escaped again."""


def fenced(text: str, kind: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    text = clean(text.rstrip("\n"))
    return _Fenced(f"{fence}{kind}\n{text}\n{fence}")


def _facts(run: "LoadedRun", seen: Seen) -> dict[str, Any]:
    import numpy as np
    import yaml

    from skillfactory.recipe import Sampling

    recipe = run.recipe
    whole = recipe.model_dump(mode="json")
    task = recipe.questions.task
    manifests = {stage: run.manifest(stage) for stage in _STAGES}
    return {
        "recipe": recipe,
        "recipe_text": yaml.safe_dump(
            {name: whole[name] for name in _SECTIONS if name in whole}, sort_keys=False, allow_unicode=True
        ),
        "task": f"{task.name} {json.dumps(task.params, ensure_ascii=False)}" if task.params else task.name,
        "seen": seen,
        "patterns": sorted(seen.patterns.items()),
        "pairs": sorted(seen.pairs.items()),
        "percentiles": [(p, round(float(np.percentile(seen.tokens, p)))) for p in (0, 5, 25, 50, 75, 95, 100)],
        "sampling": [
            (name, getattr(recipe.attempts, name), getattr(recipe.reflections, name)) for name in Sampling.model_fields
        ],
        "counts": [pair for stage in _STAGES for pair in _counts(stage, manifests[stage])],
        "versions": _versions(manifests),
    }


def _counts(stage: str, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Stage, name and number of all that a stage counted; nested names joined by dots."""

    def walk(name: str, value: object) -> Iterator[tuple[str, str, object]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield stage, name, value

    if "rows" in manifest:
        yield stage, "rows", manifest["rows"]
    yield from walk("", manifest.get("counts", {}))


def _versions(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Libraries and code that made the stages; two versions of one where the run was taken up with another."""
    found: dict[str, list[str]] = {}
    for manifest in manifests.values():
        for name, version in {"skillfactory": manifest.get("code"), **manifest.get("libraries", {})}.items():
            if version and version not in found.setdefault(name, []):
                found[name].append(str(version))
    return ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())
