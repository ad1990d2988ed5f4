"""vLLM's part of bench_sampling.py, for the Python of an environment that has vLLM: it imports nothing of this project.

Reads {"model", "prompts", "lengths", "short", "cache"} as JSON from standard input; the last line that it prints is
figures as JSON.
"""

import json
import os
import resource
import sys
import time


def main() -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import vllm

    given = json.load(sys.stdin)
    prompts = [{"prompt_token_ids": ids} for ids in given["prompts"]]
    longest = max(map(len, given["prompts"])) + max(given["lengths"])
    engine = vllm.LLM(
        given["model"], dtype="bfloat16", kv_cache_memory_bytes=given["cache"], max_model_len=longest,
        max_num_seqs=len(prompts), use_tqdm_on_load=False,
    )  # fmt: skip

    def run(lengths: list[int]) -> int:
        params = [
            vllm.SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, detokenize=False)
            for length in lengths
        ]
        done = engine.generate(prompts, params, use_tqdm=False)
        return sum(len(output.token_ids) for each in done for output in each.outputs)

    run(given["short"])
    engine.reset_prefix_cache()
    start = time.perf_counter()
    tokens = run(given["lengths"])
    seconds = time.perf_counter() - start
    assert tokens == sum(given["lengths"]), (tokens, sum(given["lengths"]))
    engine.llm_engine.engine_core.shutdown()  # ends its process, whose memory counts then
    used = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    figures = {"tokens a second": tokens / seconds, "tokens": tokens, "seconds": seconds, "peak_memory_mb": sum(used)}
    print(json.dumps(figures | {"vllm": vllm.__version__}))


if __name__ == "__main__":
    main()
