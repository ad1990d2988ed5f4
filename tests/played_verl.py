"""A run whose RL is verl's, played by fake_verl.py."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

from helpers import make_recipe

from skillfactory.recipe import Recipe
from skillfactory.store import Run, load_run
from skillfactory.tasks.questions import make_questions
from skillfactory.training.elsewhere import verl

RL = {"steps": 4, "prompts_per_step": 2, "group_size": 4, "mini_batch": 2, "micro_batch": 2, "max_tokens": 12,
      "save_every": 2}  # fmt: skip


class Stage:
    """A run up to RL, and a Python that plays verl's."""

    def __init__(self, folder: Path, model: Path, **rl: Any) -> None:
        self.folder = folder
        self.python, self.play_file = folder / "bin" / "python", folder / "play.json"
        self.python.parent.mkdir()
        fake = Path(__file__).with_name("fake_verl.py")
        self.python.write_text(f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.model = model
        self.recipe = self.make(**rl)
        self.play(model=str(model), pattern=[2])

    def make(self, **rl: Any) -> Recipe:
        system = {"backend": "verl", "verl": {"python": str(self.python)}}
        return make_recipe(model=str(self.model), machine={}, rl=RL | rl, training=system)

    def play(self, **how: Any) -> None:
        old = json.loads(self.play_file.read_text()) if self.play_file.exists() else {}
        new = self.play_file.with_suffix(".new")
        new.write_text(json.dumps(old | how))
        new.replace(self.play_file)

    def train(self) -> None:
        with Run.open(self.folder / "run", self.recipe) as run:
            made = make_questions(self.recipe)
            stage = run.begin("questions", {}, {})
            if not stage.is_finished():
                stage.append(made.rows)
                stage.write_json("sets.json", made.sets)
                stage.finish()
            run.begin("rl", {}, {})
            verl.run(self.recipe, run)

    @property
    def rl(self) -> Path:
        return self.folder / "run" / "rl"

    def lines(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.rl / name).read_text().splitlines()]

    def counts(self) -> dict[str, Any]:
        manifest = load_run(self.folder / "run").manifest("rl")
        assert manifest["finished"]
        return dict(manifest["counts"])

    def merged(self) -> list[str]:
        return (self.folder / "merged").read_text().split()


def with_verl(**sections: Any) -> Recipe:
    system = {"backend": "verl", "verl": {"python": sys.executable}} | sections.pop("training", {})
    return make_recipe(**{"machine": {}, "rl": RL | sections.pop("rl", {}), "training": system} | sections)
