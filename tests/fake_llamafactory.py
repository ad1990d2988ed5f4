"""Plays llamafactory-cli: does with its files what LLaMA-Factory does, without training anything.

    fake_llamafactory.py version | train FILE | export FILE

The JSON file that SKILLFACTORY_FAKE names says how: `model`, the folder that training gives; `steps`; `fail_at`, the
step at which it fails.
"""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml


def train(given: dict[str, Any], play: dict[str, Any]) -> int:
    lines = (Path(given["dataset_dir"]) / "train.jsonl").read_text().splitlines()
    assert all(json.loads(line)["messages"][-1]["role"] == "assistant" for line in lines)
    out = Path(given["output_dir"])
    out.mkdir(exist_ok=True)
    done = max((int(path.name.rpartition("-")[2]) for path in out.glob("checkpoint-*")), default=0)
    print(f"begins after step {done}; {os.environ['NPROC_PER_NODE']} devices", flush=True)
    for step in range(done + 1, play["steps"] + 1):
        if play.get("fail_at") == step:
            print("ValueError: something is wrong", flush=True)
            return 1
        with (out / "trainer_log.jsonl").open("a") as log:
            log.write(json.dumps({"current_steps": step, "loss": 1 / step, "lr": 1e-6, "epoch": 1.0}) + "\n")
        if step % given["save_steps"] == 0 or step == play["steps"]:
            checkpoint = out / f"checkpoint-{step}"
            checkpoint.mkdir()
            for name in ("optimizer.pt", "rng_state.pth"):
                with zipfile.ZipFile(checkpoint / name, "w") as file:  # as torch.save writes it
                    file.writestr("data.pkl", b"")
            (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
            (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    with (out / "trainer_log.jsonl").open("a") as log:
        log.write(json.dumps({"current_steps": step, "epoch": 1.0}) + "\n")
    if given["finetuning_type"] == "full":
        shutil.copytree(play["model"], out, dirs_exist_ok=True)
    (out / "train_results.json").write_text("{}")
    return 0


def main(words: list[str]) -> int:
    play = json.loads(Path(os.environ["SKILLFACTORY_FAKE"]).read_text())
    if words[0] == "version":
        print(f"| Welcome to LLaMA Factory, version {play.get('version', '0.9.5')}    |")
        return 0
    given = yaml.safe_load(Path(words[1]).read_text())
    if words[0] == "train":
        return train(given, play)
    assert given["adapter_name_or_path"] == "../checkpoints"
    shutil.copytree(play["model"], given["export_dir"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
