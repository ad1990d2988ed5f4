"""Tokens a second of an engine beside its library's own generation, on the same requests.

    python benchmarks/bench_engines.py transformers --questions 16
    python benchmarks/bench_engines.py vllm               # in an environment with vLLM

Prints one table and, last, the same as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from skillfactory import seeds
from skillfactory.engines.base import Request, SamplingParams
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.tasks.questions import task_of

Case = Callable[[], int]  # makes all completions, and says how many tokens they have


def requests_of(recipe: Recipe, questions: int, samples: int, params: SamplingParams) -> list[Request]:
    """`samples` of each question, those of one question in a row."""
    drawn = task_of(recipe.questions.task).generate(questions, 0, "dev")
    return [
        Request(f"{q.id}-{i}", [{"role": "user", "content": q.text}], seeds.derive(0, q.id, i), params)
        for q in drawn
        for i in range(samples)
    ]


def vllm_cases(recipe: Recipe, requests: list[Request], samples: int) -> dict[str, Case]:
    """`vllm.LLM.generate` on all requests at once, the same as one request a question with n, and ours."""
    from vllm import SamplingParams as Params

    from skillfactory.engines.vllm import VllmEngine

    engine = VllmEngine.load(recipe)
    prompts: list[Any] = [{"prompt_token_ids": engine.chat.encode(request.messages)} for request in requests]

    def params(request: Request, n: int) -> Any:
        p = request.params
        return Params(
            n=n, temperature=p.temperature, top_p=p.top_p, top_k=p.top_k, repetition_penalty=p.repetition_penalty,
            max_tokens=p.max_tokens, seed=request.seed, stop_token_ids=engine.stops,
        )  # fmt: skip

    def bare(n: int) -> int:
        engine.llm.reset_prefix_cache()
        done = engine.llm.generate(prompts[::n], [params(request, n) for request in requests[::n]], use_tqdm=False)
        return sum(len(output.token_ids) for each in done for output in each.outputs)

    def ours() -> int:
        engine.llm.reset_prefix_cache()
        return tokens(engine.generate(requests))

    return {"vllm.LLM.generate": lambda: bare(1), f"the same, n={samples}": lambda: bare(samples), "vllm engine": ours}


def transformers_cases(recipe: Recipe, requests: list[Request], samples: int) -> dict[str, Case]:
    """Plain `generate` in batches as they come, transformers' continuous batching, and ours."""
    import torch
    from transformers import GenerationConfig

    from skillfactory.engines.models import load_model
    from skillfactory.engines.transformers import TransformersEngine, stop_ids

    engine = TransformersEngine.load(recipe)
    plain = load_model(recipe).eval()
    plain.set_attn_implementation("sdpa")
    prompts = [engine.chat.encode(request.messages) for request in requests]
    params, stops = requests[0].params, stop_ids(plain, engine.chat.tokenizer)
    config = GenerationConfig(
        do_sample=True, temperature=params.temperature, top_p=params.top_p, top_k=params.top_k,
        repetition_penalty=params.repetition_penalty, max_new_tokens=params.max_tokens, eos_token_id=stops,
        pad_token_id=engine.chat.tokenizer.pad_token_id,
    )  # fmt: skip

    def generate() -> int:
        made = 0
        for start in range(0, len(prompts), engine.batch_size):
            batch = engine.chat.tokenizer.pad(
                {"input_ids": prompts[start : start + engine.batch_size]}, return_tensors="pt"
            )
            with torch.inference_mode():
                out = plain.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
            ended = torch.isin(out, torch.tensor(stops)).cumsum(1)
            made += int((ended - torch.isin(out, torch.tensor(stops)).long() == 0).sum())
        return made

    def continuous() -> int:
        done = plain.generate_batch(inputs=prompts, generation_config=config, progress_bar=False)
        return sum(len(each.generated_tokens) for each in done.values())

    return {"generate": generate, "generate_batch": continuous, "our engine": lambda: tokens(engine.generate(requests))}


def tokens(completions: Iterable[Any]) -> int:
    """Tokens of all completions."""
    return sum(done.tokens for done in completions)


def measure(cases: dict[str, Case], rounds: int) -> list[dict[str, Any]]:
    """Median speed of each case over rounds of all of them, after one to warm up.

    `ratio` is the median of each round's ratio to the first case: a busy machine slows a whole round down.
    """
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    made: dict[str, int] = {}
    for number in range(rounds + 1):
        for name in list(cases) if number % 2 else reversed(list(cases)):
            start = time.perf_counter()
            made[name] = cases[name]()
            if number:
                speeds[name].append(made[name] / (time.perf_counter() - start))
    first = next(iter(speeds.values()))
    return [
        {
            "case": name,
            "tokens a second": round(statistics.median(found), 1),
            "ratio": round(statistics.median(mine / other for mine, other in zip(found, first, strict=True)), 3),
            "tokens": made[name],
        }
        for name, found in speeds.items()
    ]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["vllm", "transformers"])
    parser.add_argument("--model", default="tiny", help="`tiny`, or a model folder")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8, help="samples of each question")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    recipe = load_recipe("demo", [f"model={given.model}", f"engines.vllm.in_flight={given.in_flight}"])
    params = SamplingParams(0.7, 0.8, 20, 1.1, given.max_tokens)
    requests = requests_of(recipe, given.questions, given.samples, params)
    cases = vllm_cases if given.engine == "vllm" else transformers_cases
    rows = measure(cases(recipe, requests, given.samples), given.rounds)
    table = Table("case", "tokens a second", "ratio", "tokens", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    Console(width=100).print(table)
    print(json.dumps({"settings": vars(given), "cases": rows}))


if __name__ == "__main__":
    main()
