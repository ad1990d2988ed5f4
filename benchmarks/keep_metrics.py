"""Keep one part of a run's metrics as a result: `python benchmarks/keep_metrics.py RUN PART FILE`."""

import json
import sys
from pathlib import Path

from skillfactory import load_run


def main() -> None:
    run, part, file = sys.argv[1:]
    metrics = load_run(run).metrics
    kept = {"run": metrics["run"], part: metrics[part], "cost": metrics["cost"]}
    Path(file).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
