"""The questions of RL in verl's format: one row a prompt, in the order in which the prompts are asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skillfactory import files
from skillfactory.curation.prompts import prompts_of
from skillfactory.recipe import Recipe
from skillfactory.records import Message, Question
from skillfactory.training.elsewhere.verl_settings import DEV, TRAIN


def write(folder: Path, recipe: Recipe, questions: Sequence[Question], dev: Sequence[Question], chat: Any) -> int:
    """Write train.parquet and dev.parquet; gives the tokens of the longest prompt, as `chat` (ChatTokenizer) has them.

    The training file has the prompts of all steps, a step's after each other, in the order in which TRL would ask them
    (order.py): so both ask the same, and a resumed verl, which reads on where it was, does too. verl wants a file for
    validation in any case.
    """
    from skillfactory.training.order import PromptOrder

    rl, prompts = recipe.rl, prompts_of(recipe.attempts)
    order = PromptOrder(len(questions), rl.steps, rl.prompts_per_step, 1, 1, recipe.seed)
    asked = {TRAIN: [questions[number] for number in order], DEV: list(dev) or questions[:1]}
    texts = {question.id: prompts.train(question.text) for question in [*questions, *dev]}
    for name, chosen in asked.items():
        rows = [
            _row(question, texts[question.id], index, Path(name).stem, recipe) for index, question in enumerate(chosen)
        ]
        files.write_atomic(folder / name, _parquet(rows))
    return max(len(chat.encode(text)) for text in texts.values())


def _row(question: Question, prompt: list[Message], index: int, split: str, recipe: Recipe) -> dict[str, Any]:
    """A row of verl's data. Its reward gets `extra_info`, and finds the question by its id."""
    return {
        "data_source": recipe.questions.task.name,
        "prompt": prompt,
        "ability": question.level or question.task,
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question_id": question.id},
    }


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    text, struct = pyarrow.string(), pyarrow.struct
    schema = pyarrow.schema(
        {
            "data_source": text,
            "prompt": pyarrow.list_(struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": struct({"style": text, "ground_truth": text}),
            "extra_info": struct({"split": text, "index": pyarrow.int64(), "question_id": text}),
        }
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), sink, compression="zstd")
    return bytes(sink.getvalue())
