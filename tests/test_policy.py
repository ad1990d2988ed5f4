"""Whole weights of a policy, split over devices or beside adapters, in the copy that is sampled and saved."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from helpers import make_recipe

from skillfactory.engines.models import load_model
from skillfactory.training.policy import SamplingCopy, whole_weights


def test_adapters_are_merged_into_the_copy(random_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    recipe = make_recipe(model=str(random_model))
    policy = get_peft_model(load_model(recipe, training=True), LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    copy = SamplingCopy(lambda: load_model(recipe))
    copy.follow(policy)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted, given = policy(input_ids=ids).logits, copy.model(input_ids=ids).logits
        before = load_model(recipe)(input_ids=ids).logits
    torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-3)
    assert float((before - wanted).abs().max()) > 0.1


SHARDED = """
import sys, torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from helpers import make_recipe
from skillfactory.engines.models import load_model
from skillfactory.training.policy import SamplingCopy
torch.distributed.init_process_group("gloo")
recipe = make_recipe(model=sys.argv[1])
policy, whole = load_model(recipe, training=True), load_model(recipe, training=True)
mesh = init_device_mesh("cpu", (2,))
for layer in policy.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(policy, mesh=mesh)
part = policy.model.layers[0].mlp.up_proj.weight
assert part.to_local().numel() < part.numel(), "it is split"
copy = SamplingCopy(lambda: load_model(recipe))
with torch.no_grad():
    for p in copy.model.parameters():
        p.zero_()
copy.follow(policy, here=torch.distributed.get_rank() == 0)
if torch.distributed.get_rank() == 0:
    for name, p in whole.named_parameters():
        assert torch.equal(dict(copy.model.named_parameters())[name], p), name
"""


def test_weights_split_by_fsdp2_are_brought_together(random_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [*words, str(random_model)], env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_plain_weights_are_given_as_they_are(random_model: Path) -> None:
    model = load_model(make_recipe(model=str(random_model)))
    given = dict(whole_weights(model))
    assert given.keys() == dict(model.named_parameters()).keys()
    assert all(given[name] is p for name, p in model.named_parameters())
