"""Where a run's training is not the paper's: settings with other values, and what the implementation does its own way.

The defaults of the sections `sft` and `rl` are the paper's values, as far as it states them (paper §2 and §3).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from skillfactory import methods
from skillfactory.recipe import Recipe, Rl, Sft
from skillfactory.rounds import stage_of

# Settings whose default the paper states. Of all others it says nothing, and the default is TRL's or ours.
STATED = frozenset(
    (
        "sft.learning_rate", "sft.schedule", "sft.warmup", "sft.adam_beta2", "sft.weight_decay", "sft.epochs",
        "sft.batch_size", "sft.lora.rank",  # full fine-tuning
        "rl.learning_rate", "rl.steps", "rl.prompts_per_step", "rl.group_size", "rl.mini_batch", "rl.max_tokens",
        "rl.loss_type", "rl.epsilon", "rl.beta", "rl.lora.rank",
        "rl.shaping.form", "rl.shaping.overlong",  # the reward is binary
        "sft.keep", "rl.keep",  # the last
    )
)  # fmt: skip
# They change when training is looked at or ends where nothing is learnt any more, not what a step does.
WATCHING = frozenset(("sft.dev_every", "rl.dev_every", "rl.patience"))
# In every run; rl.py and order.py say more.
STANDING = (
    "GRPO runs in TRL on one machine or in verl; the paper's ran in verl.",
    "Rollouts are drawn from a copy of the model in the type of `machine.dtype`, by a sampler of ours or by vLLM.",
    "A rollout whose check broke is left out, not punished.",
    "Prompts are not cut: the paper's were at most 512 tokens.",
    "Each pass over the questions and traces has an order drawn from the seed, which a resumed run goes on with.",
    "SFT takes any number of traces an update, in equal parts on the devices; the paper's four GPUs took one each.",
)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A setting that is not the default; `stated` where the paper says that default."""

    setting: str
    value: Any
    default: Any
    stated: bool

    def __str__(self) -> str:
        return (
            f"{self.setting}: {shown(self.value)} ({'the paper' if self.stated else 'default'}: {shown(self.default)})"
        )


def deviations(recipe: Recipe) -> list[Deviation]:
    """Settings of the stages that the recipe's method runs which are not the defaults; none that only change speed."""
    stages = {stage_of(name) for name in methods.stages(recipe)}
    sections: dict[str, tuple[BaseModel, BaseModel]] = {"sft": (recipe.sft, Sft()), "rl": (recipe.rl, Rl())}
    found = []
    for name, (section, default) in sections.items():
        if name in stages:
            usual = dict(_values(name, default))
            found += [
                Deviation(setting, value, usual[setting], setting in STATED)
                for setting, value in _values(name, section)
                if value != usual[setting] and setting not in WATCHING
            ]
    return found


def shown(value: Any) -> str:
    """A value as a recipe has it, in short."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def _values(key: str, section: BaseModel) -> Iterator[tuple[str, Any]]:
    """The settings under a key, dotted, without those that only change the speed."""
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        if isinstance(value, BaseModel):
            yield from _values(f"{key}.{name}", value)
        elif not (isinstance(extra, dict) and extra.get("speed")):
            yield f"{key}.{name}", value
