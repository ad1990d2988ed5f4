"""The command `skillfactory` as the tests of the documents run it: every run is small, and of the tiny model.

    python small_command.py COMMAND ARGUMENTS

What a page tells the reader to type is what runs, but for settings at the end: a few questions, two steps of RL, short
texts, and `model=tiny` where the recipe's model is not a folder.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

TOKENS = 120


def small(arguments: list[str]) -> Iterator[str]:
    """Settings that make a run of seconds of the recipe, or of each cell of the experiment, that arguments name."""
    from skillfactory import recipes
    from skillfactory.experiments.grid import load_experiment

    command, *words = arguments
    named = words[1] if command == "import" else "demo" if command == "demo" else words[0]
    settings = [word for word in words[1:] if "=" in word and not word.startswith("-")]
    if command == "experiment":
        recipe = load_experiment(named).cells[0].recipe
    else:
        recipe = recipes.load_recipe(named, [each for each in settings if not each.startswith("attempts.given")])
    if recipe.model != "tiny" and not Path(recipe.model).is_dir():
        yield "model=tiny"
    yield from (
        "questions.sft=12", "questions.rl=8", f"questions.dev={4 if recipe.rl.dev_every else 0}", "traces.limit=12",
        "rl.steps=2", "rl.prompts_per_step=4", "rl.group_size=4", "rl.mini_batch=0", f"rl.max_tokens={TOKENS}",
        "rl.keep_every=0", "rl.micro_batch=4", "evaluation.samples=1", f"evaluation.max_tokens={TOKENS}",
        "machine.threads=1",
    )  # fmt: skip
    for name in recipe.evaluation.sets:
        yield f"evaluation.sets.{name}.n=3"


if __name__ == "__main__":
    from skillfactory.cli import main

    made = sys.argv[1] in ("run", "demo", "import", "experiment") and not {"--dry-run", "questions"} & set(sys.argv)
    sys.argv[:] = ["skillfactory", *sys.argv[1:], *(small(sys.argv[1:]) if made else ())]
    main()
