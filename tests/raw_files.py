"""Files as the authors' raw data sets, in both ways of naming their columns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CODE = "model_responses__mutated_prompts"
README = "model_responses__example_annotation"


def columns(naming: str = "code") -> dict[str, str]:
    """What each of our columns is called by the authors' code, or by their README."""
    prefix, variant = (CODE, "prompt_variant") if naming == "code" else (README, "prompt_type")
    return {
        "question": "question",
        "answer": "answer",
        "variant": variant,
        "texts": prefix,
        "correct": f"{prefix}__eval_is_correct",
        "extracted": f"{prefix}__eval_extracted_answers",
        "reflections": f"{prefix}_reflection",
    }


def make_rows(n: int, reflections: int = 4) -> list[dict[str, Any]]:
    """Rows of one response each, under our names."""
    variants = ("original", "plan_and_execute", "alternatively", "rephrase")
    return [
        {
            "question": f"Make {i // 4} of 1, 2, 3.",
            "answer": str(i // 4),
            "variant": variants[i % 4],
            "texts": [f"1 + 2 = 3, so <answer>{i}</answer>"],
            "correct": [i % 3 == 0],
            "extracted": [str(i)],
            "reflections": [f"Reflection {k} on {i}. <verdict>Correct</verdict>" for k in range(reflections)],
        }
        for i in range(n)
    ]


def write_raw(path: Path, rows: Sequence[dict[str, Any]], naming: str = "code", group: int = 1000) -> Path:
    """Write rows, given under our names, as Parquet or as JSON lines, by the path's suffix."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = columns(naming)
    named = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(named), path, row_group_size=group)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in named), encoding="utf-8")
    return path
