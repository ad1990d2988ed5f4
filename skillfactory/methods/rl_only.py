"""RL only (paper §5): GRPO on the base model, with the questions, budget and evaluation of the other methods."""

from skillfactory.methods.base import TRAINED, Method

METHOD = Method("GRPO on the model as it is", TRAINED)
