"""Where text comes from: one protocol (`base.py`), one file an engine."""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from skillfactory.engines.base import Completion, Engine, Request, SamplingParams, TokenCounter
from skillfactory.recipe import Recipe

__all__ = ["Completion", "Engine", "Request", "SamplingParams", "TokenCounter", "load", "load_tokenizer", "stream"]

Item = TypeVar("Item")
Row = TypeVar("Row")
_ENGINES = {"transformers": "TransformersEngine", "vllm": "VllmEngine", "openai": "OpenAIEngine"}


def load(recipe: Recipe, model: str | Path | None = None, engine: str = "transformers") -> Engine:
    """An engine over the recipe's base model, or over a model folder.

    Raises ModelError where the model cannot be used, EngineError where the engine cannot.
    """
    kind: Any = getattr(import_module(f"skillfactory.engines.{engine}"), _ENGINES[engine])
    loaded: Engine = kind.load(recipe, model)
    return loaded


def stream(
    recipe: Recipe,
    engine: str,
    work: Callable[[Engine, Iterable[Item]], Iterator[Row]],
    items: Iterable[Item],
    model: str | Path | None = None,
) -> Iterator[Row]:
    """The rows that `work` makes of `items` with an engine, as they come, in no order.

    With `ray` the items are spread over workers, each with an engine of its own; `work`, items and rows are then
    pickled, so `work` is a function of a module or a partial of one.
    """
    if engine == "ray":
        yield from import_module("skillfactory.engines.ray").stream(recipe, work, items, model)
    else:
        source = load(recipe, model, engine)
        try:
            yield from work(source, items)
        finally:
            if hasattr(source, "close"):  # vLLM's: the others hold nothing that outlives them
                source.close()


def load_tokenizer(recipe: Recipe) -> TokenCounter:
    """The base model's tokenizer alone. Raises ModelError where it cannot be used."""
    from skillfactory.engines.models import ChatTokenizer

    return ChatTokenizer.load(recipe)
