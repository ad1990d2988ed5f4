"""Estimated memory of SFT and GRPO (planning/memory.py) beside measured peaks: `python benchmarks/bench_memory.py`.

Every case is a process of its own that makes real steps by TRL, as the stages do, on a CPU: two updates of two
micro-batches each, of sequences of one length (in all but one row of a micro-batch). Measured is the highest resident
memory since the model was about to be loaded, less what was there by then. Writes benchmarks/results/memory.json.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from skillfactory.planning import memory
from skillfactory.planning.passes import Device
from skillfactory.planning.sizes import Weights, shape_of, weights_of
from skillfactory.recipe import Recipe
from skillfactory.recipes import load_recipe
from skillfactory.versions import libraries

RESULTS = Path(__file__).parent / "results" / "memory.json"
PROMPT = 64  # tokens
UPDATES, ACCUMULATED = 2, 2
TRACES = 6000
# Of SmolLM2-135M, with random weights: the estimate asks for no more than the shape.
SMOLLM2 = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One setting; `tokens` are of a sequence, the prompt included. `batch` is of sampling: 0 leaves it out."""

    model: str
    stage: str
    micro_batch: int
    tokens: int
    checkpointing: bool = False
    attention: str = "auto"
    dtype: str = "bfloat16"
    lora: int = 0
    batch: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        more = [f"{self.micro_batch} x {self.tokens}", *(["checkpointing"] if self.checkpointing else [])]
        more += [self.attention] if self.attention != "auto" else []
        more += [f"LoRA {self.lora}"] if self.lora else []
        more += [f"{self.batch} sampled at once"] if self.batch else []
        return f"{self.model}, {self.stage}: {', '.join(more)}"


CASES = [
    *(Case("tiny", "sft", rows, tokens) for rows, tokens in ((8, 512), (32, 512), (8, 1536), (64, 256))),
    *(Case("tiny", "sft", 32, 512, attention=code) for code in ("sdpa", "eager")),
    *(Case("tiny", "sft", rows, tokens, checkpointing=True) for rows, tokens in ((32, 512), (16, 1536), (64, 1024))),
    *(Case("tiny", "rl", rows, tokens) for rows, tokens in ((8, 600), (32, 600), (16, 1200))),
    Case("tiny", "rl", 32, 1200, checkpointing=True),
    *(Case("tiny", "rl", 2, 600, batch=batch) for batch in (256, 512)),
    *(Case("smollm2", "sft", rows, tokens) for rows, tokens in ((1, 512), (2, 512), (4, 512), (1, 1024))),
    *(Case("smollm2", "sft", rows, tokens, checkpointing=True) for rows, tokens in ((2, 512), (2, 1024))),
    Case("smollm2", "sft", 2, 512, attention="eager"),
    Case("smollm2", "sft", 2, 512, lora=16),
    *(Case("smollm2", "rl", rows, tokens) for rows, tokens in ((2, 320), (2, 512))),
    Case("smollm2", "rl", 2, 1024, checkpointing=True),
]


def main(names: list[str]) -> None:
    """Run the cases whose name holds one of `names`, all where there are none, and print and write what came out."""
    found = json.loads(RESULTS.read_text())["cases"] if names and RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        for case in CASES:
            if names and not any(name in case.name for name in names):
                continue
            found[case.name] = {"case": asdict(case), **apart("--case", json.dumps(asdict(case)), model)}
            print(row(found[case.name]), flush=True)
    found = {case.name: found[case.name] for case in CASES if case.name in found}
    ratios = [estimated(each).total / each["measured"] for each in found.values()]
    print(f"estimated / measured: {min(ratios):.2f} to {max(ratios):.2f}, median {median(ratios):.2f}")
    held = apart("--traces")
    print(f"traces, in each process of SFT: {held:.0f} bytes a token")
    facts = {"libraries": libraries(), "trace_bytes_a_token": held, "cases": found}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


def apart(*words: str) -> Any:
    """What this script says in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(figures: dict[str, Any]) -> str:
    """A line of the table in the documents, in MB."""
    said, measured = estimated(figures).total / 1e6, figures["measured"] / 1e6
    return f"| {Case(**figures['case']).name} | {said:,.0f} | {measured:,.0f} | {said / measured:.2f} |"


def table() -> list[str]:
    """The table in the documents, from what was measured last."""
    cases = json.loads(RESULTS.read_text())["cases"].values()
    return ["| case | estimated, MB | measured, MB | ratio |", "|---|---:|---:|---:|", *map(row, cases)]


def estimated(figures: dict[str, Any]) -> memory.Memory:
    """What planning/memory.py says of a case that has been measured."""
    case = Case(**figures["case"])
    recipe = recipe_of(case, "tiny")
    shape = shape_of(SMOLLM2) if case.model == "smollm2" else None
    weights = Weights(shape.parameters, "config", 2, shape) if shape else weights_of(recipe)
    device = Device("cpu", 0, figures["half"], figures["attention"])
    return memory.of_stage(recipe, case.stage, weights, device, memory.Lengths(PROMPT, case.tokens))


def recipe_of(case: Case, model: str) -> Recipe:
    """The demo's recipe with a case's settings."""
    rows = case.micro_batch * ACCUMULATED
    settings = {
        "model": model, "machine.device": "cpu", "machine.threads": 1,
        "machine.attention": case.attention, "machine.dtype": case.dtype, "machine.batch_size": case.batch or 1,
        f"{case.stage}.micro_batch": case.micro_batch, f"{case.stage}.lora.rank": case.lora,
        f"{case.stage}.gradient_checkpointing": case.checkpointing, "sft.batch_size": rows, "sft.epochs": 1,
        "rl.steps": UPDATES, "rl.prompts_per_step": max(1, rows // 16), "rl.group_size": min(rows, 16),
        "rl.mini_batch": 0, "rl.max_tokens": case.tokens - PROMPT, "traces.max_tokens": case.tokens,
    }  # fmt: skip
    if case.batch:
        settings |= {"rl.prompts_per_step": case.batch // 16, "rl.group_size": 16}
    return load_recipe("demo", [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def make_model(folder: Path) -> str:
    """A model of SmolLM2's shape with random weights, and the tiny base's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from skillfactory.tiny import FOLDER

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMOLLM2, eos_token_id=1, pad_token_id=0))
    model.to(torch.bfloat16).save_pretrained(folder / "smollm2")
    AutoTokenizer.from_pretrained(FOLDER).save_pretrained(folder / "smollm2")
    return str(folder / "smollm2")


def measure(case: Case, smollm2: str) -> dict[str, Any]:
    """The peak of one case in bytes, for a process that does nothing else; and how the model computes."""
    from skillfactory.engines.models import ChatTokenizer, load_model
    from skillfactory.stage import Stage
    from skillfactory.training import common

    recipe = recipe_of(case, smollm2 if case.model == "smollm2" else "tiny")
    chat = ChatTokenizer.load(recipe)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder) / case.stage)
        stage.path.mkdir()
        half = bool(common.trainer_settings(recipe, recipe.sft, stage)["bf16"])
        make = sft_trainer if case.stage == "sft" else rl_trainer
        prepared = make(recipe, case, chat, stage)
        before = resident()
        model = load_model(recipe, training=True)
        attention = model.config._attn_implementation
        prepared(model).train()
        return {"measured": peak() - before, "half": half, "attention": attention}


def traces_held() -> float:
    """Bytes of main memory that SFT has for each token of the traces, as rows, lists of ids, and TRL's data set."""
    from datasets import Dataset

    from skillfactory.engines.models import ChatTokenizer
    from skillfactory.records import Trace
    from skillfactory.training import sft

    chat = ChatTokenizer.load(load_recipe("demo"))
    before = resident()
    prompt = [{"role": "user", "content": "What is it?"}]
    traces = [
        Trace(str(i), "", "", [], prompt, "".join(map(str, range(i, i + 300))), 0) for i in range(TRACES)
    ]  # fmt: skip
    examples = [sft.tokenize(chat, trace) for trace in traces]
    data = Dataset.from_list(examples)
    held = status("VmRSS") - before
    return held / sum(map(len, data["input_ids"]))


def sft_trainer(recipe: Any, case: Case, chat: Any, stage: Any) -> Any:
    """Makes TRL's trainer of a model that is still to be loaded, as sft.py does."""
    from datasets import Dataset
    from trl import SFTTrainer

    from skillfactory.training import common, sft

    lengths = [tokens(case, row) for row in range(case.micro_batch * ACCUMULATED * UPDATES)]
    rows = [
        {"input_ids": ids(n, i), "completion_mask": [0] * PROMPT + [1] * (n - PROMPT)} for i, n in enumerate(lengths)
    ]
    data = Dataset.from_list(rows)
    args, _ = sft.configure(recipe, stage, len(rows))
    args.save_strategy = "no"
    return lambda model: SFTTrainer(
        model=model, args=args, train_dataset=data, processing_class=chat.tokenizer,
        peft_config=common.lora_of(recipe.sft),
    )  # fmt: skip


def rl_trainer(recipe: Any, case: Case, chat: Any, stage: Any) -> Any:
    """Makes TRL's trainer of a model that is still to be loaded, as rl.py does; rewards are the flip of a coin."""
    from skillfactory.engines.models import load_model
    from skillfactory.tasks.questions import task_of
    from skillfactory.training import rl
    from skillfactory.training.policy import SamplingCopy

    questions = {q.id: q for q in task_of(recipe.questions.task).generate(recipe.rl.prompts_per_step, 0, "rl")}
    rl.stop_ids = lambda *_: [chat.tokenizer.eos_token_id + 10**9]  # every sample runs to its cap
    rollouts = rl.Rollouts(recipe, chat, SamplingCopy(lambda: load_model(recipe)))

    def fixed(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        rollouts.copy.follow(trainer.accelerator.unwrap_model(trainer.model))
        completions = [ids(tokens(case, i) - PROMPT, i) for i in range(len(prompts))]
        return {"prompt_ids": [ids(PROMPT, 0)] * len(prompts), "completion_ids": completions, "logprobs": None}

    def coin(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(i % 2) for i in range(len(completion_ids))]

    def make(model: Any) -> Any:
        sampled = rollouts if case.batch else fixed
        trainer = rl.make_trainer(recipe, stage, questions, chat, model, sampled, recipe.rl.steps)
        trainer.args.save_strategy = "no"
        trainer.reward_funcs = [coin]
        return trainer

    return make


def tokens(case: Case, row: int) -> int:
    """Of a row: in each micro-batch one is shorter, so that there is padding, where there are several."""
    return case.tokens - 8 * (case.micro_batch > 1 and row % case.micro_batch == 0)


def ids(count: int, seed: int) -> list[int]:
    """Words of no meaning."""
    return [5 + (seed * 7919 + i * 104_729) % 700 for i in range(count)]


def resident() -> int:
    """Bytes of memory that the process holds now; the peak counts anew from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    """Bytes of memory that it has held at most."""
    return status("VmHWM")


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(measure(Case(**json.loads(sys.argv[2])), sys.argv[3])))
    elif sys.argv[1:2] == ["--traces"]:
        print(traces_held())
    else:
        main(sys.argv[1:])
