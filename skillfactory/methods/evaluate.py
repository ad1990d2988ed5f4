"""No training: only the recipe's model, and those of `evaluation.models`, on the evaluation sets."""

from skillfactory.methods.base import Method

METHOD = Method("nothing is trained", ("questions", "evaluation", "report"))
