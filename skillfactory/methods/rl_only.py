"""RL only (paper §5): GRPO on the base model, with the questions, budget and evaluation of the other methods."""

STAGES: tuple[str, ...] = ("questions", "rl", "evaluation", "report")
