"""The embedded tiny base model: a model organism for the method, not a language model."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
