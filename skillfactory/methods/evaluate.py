"""No training: only the recipe's model, and those of `evaluation.models`, on the evaluation sets."""

STAGES: tuple[str, ...] = ("questions", "evaluation", "report")
