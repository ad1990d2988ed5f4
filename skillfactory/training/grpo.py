"""TRL's GRPO trainer with the methods that decide its speed, and the order of its questions, replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from trl import GRPOTrainer

from skillfactory.training.order import PromptOrder

LOGITS = 2**27  # elements: more are left to TRL, whose tiles of them are as large


class LengthSortedGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose micro-batches hold rollouts of like length, cut to their own longest.

    Micro-batches without any signal are not computed, nor are old log-probabilities that are those of the policy as it
    is. `order` is the order of the questions; TRL's own where None.
    """

    _buffered_inputs: Any

    def __init__(self, *args: Any, order: PromptOrder | None = None, **options: Any) -> None:
        self.order = order
        self._puts_off_old = False
        super().__init__(*args, **options)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return super()._get_train_sampler(dataset) if self.order is None else self.order

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        with self._old_put_off() as put_off:
            inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = self._sorted(self._buffered_inputs, put_off)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    @contextmanager
    def _old_put_off(self) -> Iterator[bool]:
        """TRL's old log-probabilities are zeros meanwhile, to be computed later; yields whether they are.

        Not where TRL itself needs them at once, to correct for vLLM, or computes those of a reference beside them.
        """
        corrects = self.use_vllm and self.vllm_importance_sampling_correction
        self._puts_off_old = self.model.training and self.beta == 0 and not corrects
        try:
            yield self._puts_off_old
        finally:
            self._puts_off_old = False

    def _sorted(self, batches: list[dict[str, Any]], put_off: bool) -> list[dict[str, Any]]:
        size = self.args.gradient_accumulation_steps
        if self.loss_type != "bnpo":  # which weighs a rollout by those that it shares a micro-batch with
            # Within each update, so that updates stay random.
            batches = [b for i in range(0, len(batches), size) for b in by_length(batches[i : i + size])]
        for batch, live in zip(batches, self._live(batches, size), strict=True):
            batch["live"] = live
        if put_off and "old_per_token_logps" in batches[0]:
            self._add_old(batches, size if self.num_iterations == 1 else 0)
        return batches

    def _live(self, batches: list[dict[str, Any]], size: int) -> list[bool]:
        """Which micro-batches are to be computed: those with an advantage, the same in all processes.

        Also one of an update without any, whose gradient of 0 moves the optimizer on, as in TRL. With several
        processes, also the last of each update: it is there that gradients are brought together. All of them with
        DeepSpeed, which takes no loss without a graph.
        """
        if self.beta != 0 or self.is_deepspeed_enabled:
            return [True] * len(batches)
        signal = torch.stack([batch["advantages"].any() for batch in batches]).int()
        if self.accelerator.num_processes > 1:
            signal = self.accelerator.reduce(signal, reduction="sum")
            signal[size - 1 :: size] = 1
        for first in range(0, len(signal), size):
            if not signal[first : first + size].any():
                signal[first] = 1  # the shortest
        return [bool(each) for each in signal]

    def _add_old(self, batches: list[dict[str, Any]], current: int) -> None:
        """Log-probabilities under the policy as it is; not of the first `current`, learnt from before it changes."""
        for i, batch in enumerate(batches):
            batch["old_per_token_logps"] = None  # which TRL takes to be those of the policy
            if i >= current and batch["live"]:
                ids, mask = (
                    torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], dim=1) for kind in ("ids", "mask")
                )
                with torch.no_grad():
                    batch["old_per_token_logps"], *_ = self._get_per_token_logps_and_entropies(
                        self.model, ids, mask, batch["completion_ids"].shape[1]
                    )

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **options: Any
    ) -> tuple[Any, Any, Any]:
        """[B, keep] each. On a CPU by plain torch, where TRL's tiles of the vocabulary are for kernels of GPUs."""
        rows = len(input_ids)
        if self._puts_off_old:
            return input_ids.new_zeros((rows, logits_to_keep), dtype=torch.float32), None, None
        entropy = bool(options.pop("compute_entropy", False))
        logits = rows * (logits_to_keep + 1) * self.model.config.get_text_config().vocab_size
        is_plain = not args and all(value is None or value is False for value in options.values())
        if input_ids.device.type != "cpu" or logits > LOGITS or not is_plain:
            scored = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, compute_entropy=entropy, **options
            )
            return cast(tuple[Any, Any, Any], scored)
        with self.accelerator.autocast():
            return *score(model, input_ids, attention_mask, logits_to_keep, self.temperature, entropy), None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not inputs["live"]:  # such rollouts have no gradient
            return torch.zeros((), device=inputs["advantages"].device, requires_grad=True)
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss


def score(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities of the last `keep` tokens of ids [B, T] under the model at this temperature, and, as a figure
    without gradient, the entropy of what each was drawn from; [B, keep] each."""
    out = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep + 1)
    words = (out.logits[:, :-1].float() / temperature).log_softmax(-1)  # [B, keep, V]
    found = words.gather(-1, ids[:, -keep:, None]).squeeze(-1)
    if not entropy:
        return found, None
    with torch.no_grad():
        return found, -(words.exp() * words).sum(-1)


def by_length(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many micro-batches of the same rows: those with an advantage first, from short to long, padding cut off."""
    count = len(batches)
    whole = {
        key: torch.cat([batch[key] for batch in batches]) if torch.is_tensor(first) and first.dim() else first
        for key, first in batches[0].items()
    }
    lengths = whole["completion_mask"].sum(1)
    order = (lengths + (whole["advantages"] == 0) * (lengths.max() + 1)).argsort()
    sorted_batches = []
    for rows in order.chunk(count):
        batch = {k: v[rows] if torch.is_tensor(v) and v.dim() else v for k, v in whole.items()}
        # At least one column: where `rl.mask_truncated` masks all of them, there is nothing else to compute on.
        prompt, completion = (max(1, int(batch[f"{part}_mask"].sum(1).max())) for part in ("prompt", "completion"))
        for key, value in batch.items():
            if torch.is_tensor(value) and value.dim() == 2:
                batch[key] = value[:, -prompt:] if key.startswith("prompt") else value[:, :completion]
        sorted_batches.append(batch)
    return sorted_batches
