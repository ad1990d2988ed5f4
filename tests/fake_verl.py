"""Plays the Python of verl's environment: does with its files what verl does, without training anything.

    fake_verl.py -c PROBE | -m verl.trainer.main_ppo SETTINGS… | -m verl.model_merger merge … | -m MODULE ARGUMENTS

How it plays is said by the JSON file that SKILLFACTORY_FAKE names: `missing` and `version` for the probe; `model`, the
folder that merging gives; `pattern`, how many rollouts of a group are right at each step (the last for all later ones);
`fail_at`, `hang_at`, the step at which it fails or waits; `dev`, accuracies by step.
"""

import json
import os
import runpy
import shutil
import sys
import time
from pathlib import Path
from typing import Any


def play() -> dict[str, Any]:
    return dict(json.loads(Path(os.environ["SKILLFACTORY_FAKE"]).read_text()))


def settings(words: list[str]) -> dict[str, Any]:
    """Hydra's overrides; text without quotes inside, as the tests' is."""
    found: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        found[name.lstrip("+")] = json.loads(value.replace("'", '"'))
    return found


def train(given: dict[str, Any]) -> int:
    import pyarrow.parquet as pq

    prompts, group = given["data.train_batch_size"], given["actor_rollout_ref.rollout.n"]
    steps, every = given["trainer.total_training_steps"], given["trainer.save_freq"]
    rows = pq.read_table(given["data.train_files"]).to_pylist()
    assert len(rows) == steps * prompts
    compute_score = runpy.run_path(given["reward.custom_reward_function.path"])["compute_score"]
    folder = Path(given["trainer.default_local_dir"])
    tracker = folder / "latest_checkpointed_iteration.txt"
    done = int(tracker.read_text()) if tracker.exists() else 0
    rollouts = Path(given["trainer.rollout_data_dir"])
    rollouts.mkdir(parents=True, exist_ok=True)
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0) as log:
        print(f"begins after step {done}", flush=True)
        for step in range(done + 1, steps + 1):
            if play().get("fail_at") == step:
                print("torch.OutOfMemoryError: CUDA out of memory.", flush=True)
                return 1
            while play().get("hang_at") == step:
                time.sleep(0.02)
            pattern = play()["pattern"]
            right = pattern[min(step, len(pattern)) - 1]
            scores = []
            with (rollouts / f"{step}.jsonl").open("w") as dump:
                for number, row in enumerate(rows[(step - 1) * prompts : step * prompts]):
                    for sample in range(group):
                        truth = row["reward_model"]["ground_truth"]
                        said = f"<answer>{truth if sample < right else 'none'}</answer>"
                        score = compute_score(row["data_source"], said, truth, row["extra_info"])["score"]
                        scores.append(score)
                        line = {"input": "", "output": said, "gts": truth, "score": score, "step": step}
                        dump.write(json.dumps(line | {"uid": f"u{number}_{sample}_0"}) + "\n")
            if step % every == 0 or step == steps:
                (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
                (folder / f"global_step_{step}" / "data.pt").write_text("")
                tracker.write_text(str(step))
            data = {
                "critic/score/mean": sum(scores) / len(scores), "response_length/mean": 9.5, "response_length/max": 12,
                "response_length/clip_ratio": 0.25, "actor/entropy": 0.5, "actor/pg_loss": 0.125, "actor/lr": 1e-6,
                "actor/grad_norm": 2.0, "timing_s/gen": 1.5, "timing_s/step": 3.25,
            }  # fmt: skip
            if str(step) in play().get("dev", {}):
                data["val-core/multiplication/acc/mean@1"] = play()["dev"][str(step)]
            log.write(json.dumps({"step": step, "data": data}).encode() + b"\n")
    return 0


def merge(words: list[str]) -> int:
    source, target = (Path(words[words.index(name) + 1]) for name in ("--local_dir", "--target_dir"))
    assert source.is_dir(), source
    shutil.copytree(play()["model"], target)
    with Path(os.environ["SKILLFACTORY_FAKE"]).with_name("merged").open("a") as file:
        file.write(f"{source.parent.name}\n")
    return 0


def main(words: list[str]) -> int:
    if words[0] == "-c":
        print(json.dumps([play().get("missing", []), play().get("version", "0.9.1")]))
        return 0
    module, *others = words[1:]
    if module == "verl.trainer.main_ppo":
        return train(settings(others))
    if module == "verl.model_merger":
        return merge(others)
    return os.execv(sys.executable, [sys.executable, "-m", module, *others])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
