"""SkillFactory (paper §1-3): silver traces from the model's own attempts and reflections, SFT on them, then GRPO."""

from skillfactory.methods.base import CURATED, Method

METHOD = Method("silver traces of the model's own attempts and reflections, SFT, GRPO", CURATED)
