"""Checks of a recipe's model: whether its files are there, or can be fetched; and the length of what it reads."""

import json
from pathlib import Path
from typing import Any

from skillfactory.checkup.check import Check, ok, problem, warning
from skillfactory.console import bytes_text
from skillfactory.engines.models import first_line, hub_options, locate
from skillfactory.errors import ModelError
from skillfactory.planning.sizes import weights_of
from skillfactory.recipe import Recipe

SECONDS = 5.0  # to wait for the hub


def weights(recipe: Recipe) -> Check:
    """Whether there is a model that can be loaded: in a folder, in the cache, or on the hub."""
    name = locate(recipe)
    folder = Path(name).expanduser() if Path(name).expanduser().is_dir() else cached(name, recipe.revision)
    if folder is None:
        return on_hub(name, recipe.revision)
    files = list(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        return problem("model", f"{folder} has no config.json.", "Name the folder that `save_pretrained` has written.")
    if not files:
        return problem(
            "model", f"{folder} has no *.safetensors.", "Save the weights with `save_pretrained`, which writes them."
        )
    if lost := _lost(folder):
        return problem("model", f"{folder} lacks {lost}, which its index names.", "Copy or fetch the model again.")
    known = weights_of(recipe)
    size = f"{known.parameters / 1e6:,.0f} M parameters" if known.parameters else "size not known"
    return ok("model", f"{recipe.model}: {size}, {bytes_text(sum(file.stat().st_size for file in files))} in {folder}.")


def _lost(folder: Path) -> str:
    """The first file of weights that the index of a folder names and that is not there; "" for none."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ""
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"a readable {index.name}"
    return next((name for name in sorted(map(str, named)) if not (folder / name).is_file()), "")


def cached(name: str, revision: str) -> Path | None:
    """The folder of a hub model in the cache, where its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return found if any(found.glob("*.safetensors")) else None


def on_hub(name: str, revision: str) -> Check:
    """A model that is still to be fetched: whether the hub has it, how large it is, and whether the cache has room."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    offline = problem(
        "model", f"{name} is neither a folder nor in the cache, and the hub cannot be reached.",
        "Fetch it where there is a network (`hf download`), or name a folder.",
    )  # fmt: skip
    if constants.is_offline_mode():
        return offline
    try:
        found = HfApi().model_info(name, revision=revision or None, files_metadata=True, timeout=SECONDS)
    except GatedRepoError:
        return problem(
            "model", f"{name} is gated.", f"Accept its terms at {constants.ENDPOINT}/{name} and set HF_TOKEN."
        )
    except RevisionNotFoundError:
        return problem("model", f"{name} has no revision {revision} on the hub.", "Mend `revision`.")
    except RepositoryNotFoundError:
        return problem("model", f"The hub has no model {name}, or not for you.", "Mend `model`, or set HF_TOKEN.")
    except Exception:  # of whichever HTTP library huggingface_hub has
        return offline
    return fetched(
        name, {each.rfilename: each.size or 0 for each in found.siblings or []}, Path(constants.HF_HUB_CACHE)
    )


def fetched(name: str, files: dict[str, int], cache: Path) -> Check:
    """Whether these files of a hub model, with their bytes, are what can be loaded, and fit into the cache."""
    from skillfactory.checkup.machine import disk

    size = sum(bytes_ for file, bytes_ in files.items() if file.endswith(".safetensors"))
    if not any(file.endswith(".safetensors") for file in files):
        return problem(
            "model", f"{name} has no *.safetensors on the hub.", "Take one that has; other formats are not read."
        )
    room = disk("model", cache, size * 1.05, size)
    if room.state != "ok":
        return Check("model", room.state, f"{name} is to be fetched, {bytes_text(size)}: {room.text}", room.mend)
    return ok("model", f"{name} is not here yet: the first run fetches {bytes_text(size)}.")


def context_of(recipe: Recipe) -> int | None:
    """Tokens that the model can read and write in all, as its config says; None where it does not.

    Raises ModelError for a config that cannot be read, or is of a kind that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(locate(recipe), **hub_options(recipe)).get_text_config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"Model `{recipe.model}`: its config.json cannot be used ({first_line(error)}); "
            "see whether a newer transformers knows it."
        ) from error
    return getattr(config, "max_position_embeddings", None)


def longest_texts(recipe: Recipe, prompt: int) -> dict[str, int]:
    """Tokens of the longest texts that a recipe asks for, by the setting that says so, after so long a prompt."""
    from skillfactory import methods
    from skillfactory.rounds import stage_of

    stages = set(map(stage_of, methods.stages(recipe)))
    found = {}
    if "traces" in stages:
        found["attempts.max_tokens"] = prompt + recipe.attempts.max_tokens
        found["reflections.max_tokens"] = prompt + recipe.attempts.max_tokens + recipe.reflections.max_tokens
        found["traces.max_tokens"] = recipe.traces.max_tokens
    if "rl" in stages:
        found["rl.max_tokens"] = prompt + recipe.rl.max_tokens
    found["evaluation.max_tokens"] = prompt + recipe.evaluation.max_tokens
    if recipe.evaluation.forcing.budgets:
        found["evaluation.forcing.budgets"] = prompt + max(recipe.evaluation.forcing.budgets)
    return found


def lengths(recipe: Recipe, prompt: int, context: int | None) -> Check:
    """Whether prompts, and the longest texts after them, fit into the model's context."""
    if context is None:
        return warning("context", "The model's config does not say how many tokens it can read.")
    if prompt >= context:
        return problem(
            "context", f"A prompt of {prompt:,} tokens leaves no room in the model's {context:,}.",
            "Take a model with a longer context, or shorter questions.",
        )  # fmt: skip
    over = {key: tokens for key, tokens in longest_texts(recipe, prompt).items() if tokens > context}
    if over:
        named = ", ".join(f"{key} ({tokens:,})" for key, tokens in over.items())
        return warning(
            "context", f"With a prompt of {prompt:,} tokens these go beyond the model's {context:,}: {named}.",
            "Lower them, or what is longer is cut there.",
        )  # fmt: skip
    return ok("context", f"The longest prompt has {prompt:,} tokens; all that follows fits the model's {context:,}.")


def trace_lengths(recipe: Recipe) -> Check:
    """Whether traces, by what the recipe assumes of samples, are short enough for SFT, and for RL to write."""
    from skillfactory.planning.estimate import expected_curation

    tokens, cap = expected_curation(recipe).trace_tokens, recipe.traces.max_tokens
    each = f"at {recipe.estimate.filled:g} of the max_tokens of its parts"
    if tokens >= cap:
        return warning(
            "trace length", f"A usual trace is longer than traces.max_tokens ({cap:,}), {each}: many are left out.",
            "Raise it, or lower traces.max_pairs or the others; `run --dry-run` tries some questions.",
        )  # fmt: skip
    if tokens > recipe.rl.max_tokens:
        return warning(
            "trace length", f"A usual trace has {tokens:,.0f} tokens, {each}, more than rl.max_tokens "
            f"({recipe.rl.max_tokens:,}): RL would cut off what SFT teaches.",
            "Raise rl.max_tokens.",
        )  # fmt: skip
    return ok("trace length", f"A usual trace has about {tokens:,.0f} tokens, {each}; at most {cap:,} are learnt.")
