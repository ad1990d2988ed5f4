"""How often the 95 % interval of an accuracy holds the true one, beside mean ± 1.96 standard errors: by simulation.

    python benchmarks/bench_intervals.py            # seconds; writes benchmarks/results/intervals.json

Questions differ in difficulty (a beta distribution), samples of one question are drawn with that question's chance.
"""

import json
from pathlib import Path

import numpy as np

from skillfactory.evaluation.statistics import estimate

RESULTS = Path(__file__).parent / "results" / "intervals.json"
TRIALS = 2000
MEANS = (0.01, 0.05, 0.2, 0.5, 0.9)
DESIGNS = ((30, 34), (60, 4), (200, 4), (500, 4))  # questions, samples of each: AIME as the paper asks it, and ours


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for mean in MEANS:
        for questions, samples in DESIGNS:
            ours = plain = 0
            for _ in range(TRIALS):
                chance = rng.beta(mean, 1 - mean, size=questions)
                found = estimate(list(rng.binomial(samples, chance) / samples))
                assert found.low is not None
                assert found.high is not None
                assert found.se is not None
                ours += found.low <= mean <= found.high
                plain += abs(found.mean - mean) <= 1.96 * found.se
            row = {"mean": mean, "questions": questions, "samples": samples, "trials": TRIALS}
            rows.append(row | {"ours": ours / TRIALS, "mean_and_two_se": plain / TRIALS})
            print(f"{mean:5.2f}  {questions:4} x {samples:2}  ours {ours / TRIALS:.3f}  ± 1.96 se {plain / TRIALS:.3f}")
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
