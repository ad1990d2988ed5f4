"""Sampling against transformers' own generation and warpers: draws, limits, prompts read in slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_recipe
from scipy.stats import chi2, kstest
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from skillfactory import seeds
from skillfactory.engines import cache
from skillfactory.engines.base import SamplingParams
from skillfactory.engines.cache import CHUNK
from skillfactory.engines.models import load_model
from skillfactory.engines.sampler import Sample, draw, sample, uniform

PLAIN = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=40)
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=40)


@pytest.fixture(scope="module")
def model(random_model: Path) -> Any:
    return load_model(make_recipe(model=str(random_model))).eval()


def prompts_of(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def by_index(samples: Any, count: int) -> list[Sample]:
    found = {done.index: done for done in samples}
    assert sorted(found) == list(range(count))
    return [found[i] for i in range(count)]


def generated(model: Any, prompt: list[int], max_tokens: int, penalty: float, stops: list[int]) -> list[int]:
    """What transformers' own greedy generation adds to one prompt."""
    out = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=max_tokens, repetition_penalty=penalty,
        eos_token_id=stops, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("attention", ["grouped", "sdpa", "eager"])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_generates_greedy_token_by_token(random_model: Path, attention: str, penalty: float) -> None:
    recipe = make_recipe(model=str(random_model))
    tried = load_model(
        recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"attention": attention})})
    )
    plain = load_model(recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"attention": "eager"})}))
    prompts = prompts_of([3, 40, 17, 1, 17, 9], tried.config.vocab_size)
    long = CHUNK + 10  # beyond the cache's first room
    # Tokens that come up at different places end some rows early: the batch shrinks while others go on.
    free = [generated(plain, prompt, long, penalty, []) for prompt in prompts]
    stops = sorted({free[0][4], free[3][20 % len(free[3])]})
    wanted = [generated(plain, prompt, long, penalty, stops) for prompt in prompts]
    assert len(set(map(len, wanted))) > 1
    params = SamplingParams(0.0, 1.0, 0, penalty, long)
    for batch_size in (1, 4, 64):
        found = by_index(sample(tried, prompts, [0] * len(prompts), params, stops, batch_size), len(prompts))
        assert [done.ids for done in found] == wanted
        assert [done.stopped for done in found] == [ids[-1] in stops for ids in wanted]


def warped(logits: torch.Tensor, history: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The probabilities [B, V] that transformers draws from."""
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    return steps(history, logits).softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "params",
    [
        PLAIN,
        SamplingParams(0.7, 0.8, 20, 1.1, 1),
        SamplingParams(0.7, 1.0, 5, 1.0, 1),
        SamplingParams(1.5, 0.5, 0, 1.0, 1),
        SamplingParams(0.3, 0.95, 1000, 2.0, 1),
        SamplingParams(1.0, 0.01, 0, 1.0, 1),
    ],
)
def test_draws_have_the_distribution_of_transformers_warpers(params: SamplingParams) -> None:
    torch.manual_seed(0)
    vocabulary, draws = 50, 40_000
    logits = torch.randn(1, vocabulary) * 2
    history = torch.tensor([[3, 7, 7, 20, int(logits.argmax())]])
    seen = torch.zeros(1, vocabulary, dtype=torch.bool).scatter_(1, history, True)
    wanted = warped(logits.clone(), history, params)[0].double()

    # An even grid of chances measures the drawn probabilities exactly, up to its spacing.
    grid = (torch.arange(draws).double() + 0.5) / draws
    tokens = draw(logits.expand(draws, -1), seen.expand(draws, -1), grid, params)
    measured = torch.bincount(tokens, minlength=vocabulary).double() / draws
    assert torch.allclose(measured, wanted, atol=2.5 / draws)

    # And the numbers that sampling really uses.
    streams = torch.tensor([seeds.derive(0, "draw", i) for i in range(draws)])
    tokens = draw(logits.expand(draws, -1), seen.expand(draws, -1), uniform(streams, 0), params)
    counts = torch.bincount(tokens, minlength=vocabulary).double()
    assert counts[wanted == 0].sum() == 0
    likely = wanted * draws >= 5
    statistic = float(((counts - wanted * draws)[likely] ** 2 / (wanted * draws)[likely]).sum())
    assert statistic <= chi2.ppf(1 - 1e-6, max(1, int(likely.sum()) - 1))


def test_the_ends_of_the_unit_interval_draw_possible_tokens() -> None:
    logits = torch.tensor([[-1e9, 2.0, 1.0, 0.0, -1e9]]).expand(2, -1)
    ends = torch.tensor([0.0, 1 - 2**-24], dtype=torch.double)
    assert draw(logits, None, ends, PLAIN).tolist() == [1, 3]
    assert draw(logits, None, ends, SamplingParams(1.0, 0.9, 0, 1.0, 1)).tolist() == [1, 2]


def test_uniform_numbers_are_uniform_and_each_stream_has_its_own() -> None:
    streams = torch.tensor([seeds.derive(0, "stream", i) for i in range(500)])
    numbers = torch.stack([uniform(streams, step) for step in range(100)], dim=1)  # [500, 100]
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-4
    assert len(set(map(tuple, numbers.tolist()))) == 500
    correlations = torch.corrcoef(numbers) - torch.eye(500)
    assert float(correlations.abs().max()) < 0.6  # of 125,000 pairs of 100 numbers
    along = torch.corrcoef(torch.stack([numbers[:, :-1].flatten(), numbers[:, 1:].flatten()]))[0, 1]
    assert abs(float(along)) < 0.02
    # splitmix64 of seed 0, as published: 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4
    published = [(0xE220A8397B1DCDAF >> 40) / 2**24, (0x6E789E6AA1B965F4 >> 40) / 2**24]
    assert [float(uniform(torch.tensor([0]), step)) for step in (0, 1)] == published


def test_a_rows_text_does_not_depend_on_its_neighbours(model: Any) -> None:
    prompts = prompts_of([5, 30, 12, 12, 7, 21, 3, 30], model.config.vocab_size)
    streams = [seeds.derive(0, i) for i in range(len(prompts))]
    params = SamplingParams(1.0, 0.95, 50, 1.1, 40)
    stops = [1, *range(10, 60)]  # rows end at different steps
    together = by_index(sample(model, prompts, streams, params, stops, 64), len(prompts))
    assert len({len(done.ids) for done in together}) > 2
    for size in (1, 3):
        assert by_index(sample(model, prompts, streams, params, stops, size), len(prompts)) == together
    backwards = by_index(sample(model, prompts[::-1], streams[::-1], params, stops, 64), len(prompts))
    assert [done.ids for done in backwards[::-1]] == [done.ids for done in together]


def test_a_prompt_asked_often_is_read_once_and_answered_differently(model: Any) -> None:
    read: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    [prompt, other] = prompts_of([20, 6], model.config.vocab_size)
    try:
        found = by_index(sample(model, [prompt, other] * 8, list(range(16)), PLAIN, [1], 64), 16)
    finally:
        handle.remove()
    assert read[0] == 2
    assert len({tuple(done.ids) for done in found}) == 16
    alone = by_index(sample(model, [prompt], [4], PLAIN, [1], 64), 1)
    assert found[4].ids == alone[0].ids


def test_lengths_and_ends(model: Any) -> None:
    prompts = prompts_of([4, 8], model.config.vocab_size)
    free = by_index(sample(model, prompts, [0, 1], GREEDY, [], 64), 2)
    assert [(len(done.ids), done.stopped) for done in free] == [(40, False)] * 2
    one = by_index(sample(model, prompts, [0, 1], SamplingParams(0.0, 1.0, 0, 1.0, 1), [free[0].ids[0]], 64), 2)
    assert (one[0].ids, one[0].stopped) == ([free[0].ids[0]], True)
    everything = list(range(model.config.vocab_size))
    assert all(len(done.ids) == 1 and done.stopped for done in sample(model, prompts, [0, 1], PLAIN, everything, 64))
    assert list(sample(model, [], [], PLAIN, [1], 64)) == []


def test_each_row_has_a_limit_of_its_own(model: Any) -> None:
    prompts = prompts_of([5, 30, 12, 12, 7, 21, 3, 30], model.config.vocab_size)
    streams = [seeds.derive(0, i) for i in range(len(prompts))]
    params = SamplingParams(1.0, 0.95, 50, 1.1, CHUNK + 20)
    limits = [CHUNK + 20, 1, 7, 8, 8, 40, CHUNK, CHUNK + 1]
    for stops in ([], [1, *range(10, 40)]):
        free = by_index(sample(model, prompts, streams, params, stops, 64), len(prompts))
        wanted = [
            Sample(i, done.ids[:limit], done.stopped and len(done.ids) <= limit)
            for i, (done, limit) in enumerate(zip(free, limits, strict=True))
        ]
        for size in (1, 3, 64):
            assert by_index(sample(model, prompts, streams, params, stops, size, limits), len(prompts)) == wanted
    assert any(done.stopped for done in wanted)
    assert [len(done.ids) for done in wanted] != limits
    stop = free[2].ids[6]  # one that comes at the limit is the row's own end
    [done] = sample(model, prompts[2:3], streams[2:3], params, [stop], 64, [7])
    assert done == Sample(0, free[2].ids[:7], True)


def test_rows_leave_as_they_reach_their_limits(model: Any) -> None:
    width: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: width.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        found = list(sample(model, prompts_of([6] * 8, 300), range(8), PLAIN, [], 64, [2, 2, 2, 2, 30, 30, 30, 40]))
    finally:
        handle.remove()
    groups = (found[:4], found[4:7], found[7:])
    assert [{done.index for done in group} for group in groups] == [{0, 1, 2, 3}, {4, 5, 6}, {7}]
    assert width == [8] * 2 + [4] * 28 + [1] * 10


def other_models() -> dict[str, Any]:
    """Random models whose caches are not those of the rest: a window, learnt positions, a state beside the keys."""
    from transformers import (
        FalconH1Config,
        FalconH1ForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        MistralConfig,
        MistralForCausalLM,
    )

    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3}  # fmt: skip
    learnt = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    hybrid = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
    return {
        "window": MistralForCausalLM(MistralConfig(**sizes, sliding_window=16)).eval(),
        "learnt positions": GPT2LMHeadModel(learnt).eval(),
        "state": FalconH1ForCausalLM(FalconH1Config(**sizes, **hybrid)).eval(),
    }


@pytest.fixture(scope="module")
def others() -> dict[str, Any]:
    return other_models()


@pytest.mark.parametrize("name", ["plain", "window", "learnt positions", "state"])
def test_prompts_read_in_slices_give_the_same(
    model: Any, others: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = model if name == "plain" else others[name]
    prompts = prompts_of([40, 3, 17, 17, 1, 25, 9, 40, 38], 300)
    prompts += prompts[:2]  # asked twice
    streams = list(range(len(prompts)))
    params = SamplingParams(1.0, 0.95, 50, 1.1, 20)
    wanted = by_index(sample(tried, prompts, streams, params, [], 64), len(prompts))
    assert by_index(sample(tried, prompts, streams, params, [], 1), len(prompts)) == wanted
    read: list[int] = []
    handle = tried.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        for most in (50, 90, 1):
            read.clear()
            monkeypatch.setattr(cache, "READ", most)
            assert by_index(sample(tried, prompts, streams, params, [], 64), len(prompts)) == wanted
            passes = len(read) - (params.max_tokens - 1)  # what is not a token for each row
            if name == "state":
                assert passes == 1  # it cannot be put together
            else:
                assert max(read[:passes]) <= max(most, 40)
                assert passes > 2
                assert sum(read[:passes]) < 9 * 40  # short ones are not padded to the longest
    finally:
        handle.remove()


@pytest.mark.parametrize("size", [1, 5, 64])
def test_rows_go_up_to_the_end_of_the_context_each(others: dict[str, Any], size: int) -> None:
    """With learnt positions one position too many is an error."""
    tried, lengths = others["learnt positions"], [63, 5, 33, 12, 30, 21, 7, 40]
    prompts = prompts_of(lengths, 300)
    found = by_index(sample(tried, prompts, range(8), PLAIN, [], size, [64 - length for length in lengths]), 8)
    assert [len(done.ids) for done in found] == [64 - length for length in lengths]
