"""Tokens a second: our sampler against plain `generate`, with the same model, prompts and law of lengths."""

import time
from collections.abc import Callable
from typing import Any

from skillfactory import seeds
from skillfactory.engines.base import SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model
from skillfactory.recipes import load_recipe
from skillfactory.tasks.questions import task_of

PROMPTS, COPIES = 64, 2  # different prompts, and how often each is asked
EVEN = 150  # tokens of every row
MEAN, LONGEST = 100, 400  # tokens of uneven rows: geometric, cut at the longest
ANSWERS, BEGUN, MORE = 256, 900, 32  # answers that have begun, tokens of each, and tokens more of each


def end_rows(model: Any, end: int, mean: float) -> None:
    """Make every next token the end of the turn with chance 1 / mean (never where mean is 0), whatever came before.

    So rows have lengths that do not depend on what the model has learnt. Only while sampling: training is left alone.
    """
    import torch

    def hook(_: Any, __: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():
            logits = output.logits
            logits[..., end] = float("-inf")
            if mean:
                logits[..., end] = logits.float().logsumexp(-1).to(logits.dtype) - torch.tensor(mean - 1).log()
        return output

    model.register_forward_hook(hook)


def prepare(name: str, threads: int, attention: str) -> tuple[Any, ChatTokenizer, list[list[int]]]:
    """Model, tokenizer and prompts. `threads` 0 leaves torch and memory as they come."""
    recipe = load_recipe("demo", [f"model={name}", f"machine.threads={threads}", f"machine.attention={attention}"])
    chat = ChatTokenizer.load(recipe)
    questions = task_of(recipe.questions.task).generate(PROMPTS, 0, "dev")
    prompts = [chat.encode([{"role": "user", "content": q.text}]) for q in questions for _ in range(COPIES)]
    if threads:
        return load_model(recipe).eval(), chat, prompts
    from transformers import AutoModelForCausalLM

    from skillfactory.engines.models import locate

    return AutoModelForCausalLM.from_pretrained(locate(recipe), dtype="auto").eval(), chat, prompts


def ours(model: str, uneven: bool) -> dict[str, float]:
    """Our sampler with one thread."""
    from skillfactory.engines.sampler import sample

    loaded, chat, prompts = prepare(model, 1, "auto")
    end = chat.tokenizer.eos_token_id
    end_rows(loaded, end, MEAN if uneven else 0)
    streams = [seeds.derive(0, i) for i in range(len(prompts))]

    def run(longest: int) -> int:
        params = SamplingParams(1.0, 1.0, 0, 1.0, longest)
        return sum(len(done.ids) for done in sample(loaded, prompts, streams, params, [end], len(prompts)))

    return _timed(run, LONGEST if uneven else EVEN)


def long_prompts(model: str) -> dict[str, float]:
    """Our sampler on one batch of long prompts that share nothing, as when answers go on; what counts is the memory."""
    import torch

    from skillfactory.engines.sampler import sample

    loaded, chat, _ = prepare(model, 1, "auto")
    end_rows(loaded, chat.tokenizer.eos_token_id, 0)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, len(chat.tokenizer), (ANSWERS, BEGUN), generator=generator).tolist()

    def run(longest: int) -> int:
        params = SamplingParams(1.0, 1.0, 0, 1.0, longest)
        return sum(len(done.ids) for done in sample(loaded, prompts, range(ANSWERS), params, [], ANSWERS))

    return _timed(run, MORE)


def generate(model: str, uneven: bool, threads: int) -> dict[str, float]:
    """transformers' `generate` on one batch, with `threads` threads; 0 is torch's choice."""
    import torch

    loaded, chat, prompts = prepare(model, 0, "auto")
    if threads:
        torch.set_num_threads(threads)
    end = chat.tokenizer.eos_token_id
    end_rows(loaded, end, MEAN if uneven else 0)
    batch = chat.tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left")

    def run(longest: int) -> int:
        torch.manual_seed(0)
        out = loaded.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=longest, eos_token_id=end,
            pad_token_id=chat.tokenizer.pad_token_id,
        )  # fmt: skip
        added = out[:, batch["input_ids"].shape[1] :]
        ended = (added == end).int()
        return int((ended.cumsum(1) - ended == 0).sum())  # tokens up to and with the end of each row

    return _timed(run, LONGEST if uneven else EVEN)


def _timed(run: Callable[[int], int], longest: int) -> dict[str, float]:
    run(8)
    start = time.perf_counter()
    tokens = run(longest)
    seconds = time.perf_counter() - start
    return {"tokens a second": tokens / seconds, "tokens": tokens, "seconds": seconds}
