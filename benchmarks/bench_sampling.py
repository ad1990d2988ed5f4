"""Tokens a second of our sampler, of transformers and of vLLM: same model, prompts, rows at once and lengths.

Every row has a length that is drawn before, and no token ends a row earlier, so that all engines make the same number
of tokens. All rows are given at once; each figure is of one run after a short one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floor import Work
from sizes import ROOT, folder_of, size_of

from skillfactory import seeds
from skillfactory.engines.base import SamplingParams
from skillfactory.engines.models import ChatTokenizer, load_model, locate
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.tasks.questions import task_of

VLLM = ROOT / ".venv-vllm" / "bin" / "python"  # `make test-interop` makes it
CACHE = 2 * 2**30  # bytes of key-value cache that generate_batch and vLLM may take
ANSWERS, BEGUN, MORE = 256, 900, 32  # answers that have begun, tokens of each, and tokens more of each

Figures = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """What every engine samples: token ids of prompts, equal ones in a row, and how many tokens each is to get."""

    recipe: Recipe
    prompts: list[list[int]]
    lengths: list[int]

    @property
    def work(self) -> Work:
        """The same for the floor."""
        different = {tuple(prompt) for prompt in self.prompts}
        return Work(self.lengths, [len(p) for p in self.prompts], sum(map(len, different)))


def rows_of(model: str, quick: bool, uneven: bool, threads: int = 0) -> Rows:
    """`threads` 0 is what our engine takes for such a model."""
    import numpy as np

    size = size_of(model, quick).sampling
    recipe = load_recipe("demo", [f"model={folder_of(model)}", "machine.device=cpu", f"machine.threads={threads}"])
    chat = ChatTokenizer.load(recipe)
    questions = task_of(recipe.questions.task).generate(size.prompts, 0, "dev")
    prompts = [chat.encode([{"role": "user", "content": q.text}]) for q in questions for _ in range(size.copies)]
    drawn = np.random.default_rng(0).geometric(1 / size.mean, len(prompts)).clip(max=size.longest)
    return Rows(recipe, prompts, drawn.tolist() if uneven else [size.even] * len(prompts))


def ours(model: str, quick: bool, uneven: bool, threads: int = 0) -> Figures:
    """Our sampler."""
    from skillfactory.engines.sampler import sample

    rows = rows_of(model, quick, uneven, threads)
    loaded = load_model(rows.recipe).eval()
    streams = [seeds.derive(0, i) for i in range(len(rows.prompts))]

    def run(lengths: list[int]) -> int:
        params = SamplingParams(1.0, 1.0, 0, 1.0, max(lengths))
        batch = sample(loaded, rows.prompts, streams, params, [], len(rows.prompts), lengths)
        return sum(len(done.ids) for done in batch)

    return _timed(run, rows)


def generate(model: str, quick: bool, uneven: bool, threads: int) -> Figures:
    """transformers' `generate` on one batch, with `threads` threads; 0 is torch's choice."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    rows = rows_of(model, quick, uneven)
    loaded, chat = _plain(rows, threads)
    batch = chat.tokenizer.pad({"input_ids": rows.prompts}, return_tensors="pt", padding_side="left")
    begun = batch["input_ids"].shape[1]

    class Lengths(StoppingCriteria):  # type: ignore[misc]
        def __init__(self, lengths: list[int]) -> None:
            self.lengths = torch.tensor(lengths)

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return input_ids.shape[1] - begun >= self.lengths

    def run(lengths: list[int]) -> int:
        torch.manual_seed(0)
        out = loaded.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max(lengths),
            pad_token_id=chat.tokenizer.pad_token_id, stopping_criteria=StoppingCriteriaList([Lengths(lengths)]),
        )  # fmt: skip
        assert out.shape[1] - begun == max(lengths), "generate has stopped early"
        return sum(lengths)

    return _timed(run, rows)


def generate_batch(model: str, quick: bool, uneven: bool) -> Figures:
    """transformers' continuous batching, with torch's choice of threads and its own choices but for the cache.

    (It would take more than half of the machine's memory, where vLLM is given as much as here.)
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    rows = rows_of(model, quick, uneven)
    loaded, chat = _plain(rows, 0)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max(rows.lengths), eos_token_id=-1,
        pad_token_id=chat.tokenizer.pad_token_id,
    )  # fmt: skip
    hints = WorkloadHints(
        max_prompt_length=max(map(len, rows.prompts)), max_generated_length=max(rows.lengths),
        num_requests=len(rows.prompts),
    )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limited = ContinuousBatchingConfig(max_memory_percent=CACHE / memory)
    with loaded.continuous_batching_context_manager(
        config, continuous_batching_config=limited, workload_hints=hints
    ) as manager:

        def run(lengths: list[int]) -> int:
            for prompt, length in zip(rows.prompts, lengths, strict=True):
                manager.add_request(prompt, max_new_tokens=length)
            made = left = 0
            left = len(lengths)
            while left:
                done = manager.get_result(timeout=1)
                if done is not None and done.is_finished():
                    made, left = made + len(done.generated_tokens), left - 1
                elif done is None and not manager.is_running():
                    raise RuntimeError("continuous batching broke off")
            return made

        return _timed(run, rows)


def vllm(model: str, quick: bool, uneven: bool) -> Figures:
    """vLLM with its defaults for CPUs, in an environment of its own: vllm_sampling.py."""
    rows = rows_of(model, quick, uneven)
    given = {
        "model": locate(rows.recipe), "prompts": rows.prompts, "lengths": rows.lengths, "short": _short(rows.lengths),
        "cache": CACHE,
    }  # fmt: skip
    script = Path(__file__).with_name("vllm_sampling.py")
    command = [str(VLLM), str(script)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"vLLM failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures | {"work": rows.work.__dict__}


def long_prompts(model: str, quick: bool) -> Figures:
    """Our sampler on one batch of long prompts that share nothing, as when answers go on; what counts is the memory."""
    import torch

    from skillfactory.engines.sampler import sample

    recipe = load_recipe("demo", [f"model={folder_of(model)}", "machine.device=cpu"])
    chat, loaded = ChatTokenizer.load(recipe), load_model(recipe).eval()
    answers, begun = (ANSWERS // 16, BEGUN // 8) if quick else (ANSWERS, BEGUN)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, len(chat.tokenizer), (answers, begun), generator=generator).tolist()
    start = time.perf_counter()
    params = SamplingParams(1.0, 1.0, 0, 1.0, MORE)
    made = sum(len(done.ids) for done in sample(loaded, prompts, range(answers), params, [], answers))
    return {"seconds": time.perf_counter() - start, "tokens": made}


def _plain(rows: Rows, threads: int) -> tuple[Any, ChatTokenizer]:
    """The model as transformers loads it, to which nothing ends a text; `threads` 0 is torch's choice."""
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    loaded = AutoModelForCausalLM.from_pretrained(locate(rows.recipe), dtype="auto").eval()
    loaded.generation_config.eos_token_id = None
    return loaded, ChatTokenizer.load(rows.recipe)


def _timed(run: Callable[[list[int]], int], rows: Rows) -> Figures:
    run(_short(rows.lengths))
    start = time.perf_counter()
    tokens = run(rows.lengths)
    seconds = time.perf_counter() - start
    assert tokens == sum(rows.lengths), (tokens, sum(rows.lengths))
    return {"tokens a second": tokens / seconds, "tokens": tokens, "seconds": seconds, "work": rows.work.__dict__}


def _short(lengths: list[int]) -> list[int]:
    """Lengths of the run that warms up."""
    return [min(8, length) for length in lengths]
