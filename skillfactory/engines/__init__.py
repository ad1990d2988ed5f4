"""Where text comes from: one protocol (`base.py`), one file an engine."""

from pathlib import Path

from skillfactory.engines.base import Completion, Engine, Request, SamplingParams, TokenCounter
from skillfactory.recipe import Recipe

__all__ = ["Completion", "Engine", "Request", "SamplingParams", "TokenCounter", "load", "load_tokenizer"]


def load(recipe: Recipe, model: str | Path | None = None) -> Engine:
    """The recipe's engine over its base model, or over a model folder. Raises ModelError where it cannot be used."""
    from skillfactory.engines.transformers import TransformersEngine

    return TransformersEngine.load(recipe, model)


def load_tokenizer(recipe: Recipe) -> TokenCounter:
    """The base model's tokenizer alone. Raises ModelError where it cannot be used."""
    from skillfactory.engines.models import ChatTokenizer

    return ChatTokenizer.load(recipe)
