"""SkillFactory (paper §1-3): silver traces from the model's own attempts and reflections, SFT on them, then GRPO."""

STAGES: tuple[str, ...] = (
    "questions", "attempts", "reflections", "traces", "sft", "rl", "evaluation", "report",
)  # fmt: skip
