"""How often 95 % intervals over seeds and questions hold the true mean: by simulation, for several ways to make them.

    python benchmarks/bench_across.py            # under two minutes; writes benchmarks/results/across.json

A question has a difficulty, a seed's training an effect on all questions, both on the logit; two binary samples a
question. Two sets of 100 questions. `nested`: each seed asks its own questions; `crossed`: all ask the same; `mixed`:
half of them. Differences: a second model on the same questions, with trainings of its own, 5 points worse.
"""

import json
import sys
import time
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skillfactory.evaluation.across import Parts, clustered, reach
from skillfactory.evaluation.statistics import with_interval

RESULTS = Path(__file__).parent / "results" / "across.json"
TRIALS = 1000
SEEDS = (2, 3, 5, 10)
EFFECTS = (0.0, 0.1, 0.3)  # standard deviation of a seed's effect, on the logit: about 0, 2 and 6 points
SETS, QUESTIONS, SAMPLES = 2, 100, 2
DIFFICULTY, EASIER = 1.5, 0.25  # spread of difficulty; what the better model gains
VARIANTS = ("ours", "satterthwaite", "seeds_minus_1", "seeds_alone", "questions_alone")


def main() -> None:
    began = time.monotonic()
    rng = np.random.default_rng(0)
    rows = [
        measure(rng, what, design, seeds, effect)
        for what in ("accuracy", "difference")
        for design in ("nested", "crossed", "mixed")
        for seeds in SEEDS
        for effect in EFFECTS
    ]
    summary = {
        name: {
            "least_coverage": min(row["coverage"][name] for row in rows),
            "mean_coverage": float(np.mean([row["coverage"][name] for row in rows])),
            "mean_half_length": float(np.mean([row["half_length"][name] for row in rows])),
        }
        for name in VARIANTS
    }
    for name, found in summary.items():
        print(name, {key: round(value, 3) for key, value in found.items()})
    setting = {"trials": TRIALS, "sets": SETS, "questions_a_set": QUESTIONS, "samples": SAMPLES}
    command = "python benchmarks/bench_across.py"
    found = {"command": command, "python": sys.version.split()[0], **setting, "summary": summary, "rows": rows}
    found["seconds"] = round(time.monotonic() - began)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def measure(rng: np.random.Generator, what: str, design: str, seeds: int, effect: float) -> dict[str, Any]:
    """Share of trials whose interval holds the truth, and mean half length in points, by variant."""
    truth = true_accuracy(EASIER, effect) - (true_accuracy(0.0, effect) if what == "difference" else 0.0)
    held, length = dict.fromkeys(VARIANTS, 0), dict.fromkeys(VARIANTS, 0.0)
    codes = places(design, seeds)
    for _ in range(TRIALS):
        values = draw(rng, what, codes, seeds, effect)
        parts = clustered(values, *codes, shares=what == "accuracy")
        assert parts is not None
        for name, half in reaches(parts).items():
            low, high = parts.mean - half, parts.mean + half
            if what == "accuracy":
                bounded = with_interval(parts.mean, half / 1.959964, int(codes[2].max()) + 1, np.inf)
                low, high = bounded.low or 0.0, bounded.high or 1.0
            held[name] += low <= truth <= high
            length[name] += 50 * (min(1, high) - max(-1, low)) / TRIALS
    row = {"what": what, "design": design, "seeds": seeds, "seed_effect": effect}
    coverage = {name: n / TRIALS for name, n in held.items()}
    print(f"{what:10} {design:7} {seeds:2} {effect:.1f} ", "  ".join(
        f"{name} {coverage[name]:.3f} ±{length[name]:4.1f}" for name in VARIANTS), flush=True)  # fmt: skip
    return row | {"coverage": coverage, "half_length": length}


def reaches(parts: Parts) -> dict[str, float]:
    """Half the length of the interval of each variant."""
    two_way = max(parts.seeds + parts.questions - parts.both, parts.least)
    spread = parts.seeds**2 / parts.seed_freedom + (parts.questions - parts.both) ** 2 / parts.question_freedom
    freedom = two_way**2 / spread if spread else parts.question_freedom
    by_seed, by_question = (float(stats.t.isf(0.025, f)) for f in (parts.seed_freedom, parts.question_freedom))
    return {
        "ours": reach(parts, 0.05),
        "satterthwaite": float(stats.t.isf(0.025, freedom)) * sqrt(two_way),
        "seeds_minus_1": by_seed * sqrt(two_way),
        "seeds_alone": by_seed * sqrt(parts.seeds),
        "questions_alone": by_question * sqrt(parts.least),
    }


Codes = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def places(design: str, seeds: int) -> Codes:
    """(seed, set, question) of every score."""
    shared = {"nested": 0, "crossed": QUESTIONS, "mixed": QUESTIONS // 2}[design]
    rows, own = [], SETS * QUESTIONS
    for seed in range(seeds):
        for which in range(SETS):
            for i in range(QUESTIONS):
                question = which * QUESTIONS + i
                if seed and i >= shared:
                    question, own = own, own + 1
                rows.append((seed, which, question))
    seed_codes, set_codes, questions = np.asarray(rows).T
    return seed_codes, set_codes, questions


def draw(rng: np.random.Generator, what: str, codes: Codes, seeds: int, effect: float) -> NDArray[np.float64]:
    """A score of each place, or the difference of two models' there."""
    seed, which, question = codes
    difficulty = (DIFFICULTY * rng.standard_normal(int(question.max()) + 1))[question] + 0.5 * which
    found = np.zeros(len(seed))
    for gain, sign in ((EASIER, 1), (0.0, -1)) if what == "difference" else ((EASIER, 1),):
        logit = gain + effect * rng.standard_normal(seeds)[seed] - difficulty
        found += sign * rng.binomial(SAMPLES, 1 / (1 + np.exp(-logit))) / SAMPLES
    return found


def true_accuracy(gain: float, effect: float) -> float:
    """The chance of a right answer over all seeds and questions, mean of the sets: by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = sqrt(DIFFICULTY**2 + effect**2)
    chances = [np.sum(weights / (1 + np.exp(-(gain + spread * nodes - 0.5 * j)))) for j in range(SETS)]
    return float(np.mean(chances) / sqrt(2 * np.pi))


if __name__ == "__main__":
    main()
