"""Checks of the libraries: those that this package needs, against its ranges and the versions that are tried."""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from skillfactory.checkup.check import Check, ok, problem, warning

_PACKAGE = Path(__file__).parent.parent
Find = Callable[[str], str]  # the installed version of a name, "" for none

_SHOWN = ("torch", "transformers", "trl", "datasets", "accelerate")
# What else a recipe may ask for, and by which setting; their versions are their users' own affair.
OTHERS = {
    "vllm": "engine vllm",
    "deepspeed": "training.shard: zero2 or zero3",
    "verl": "training.backend: verl (in an environment of its own)",
    "llamafactory": "training.sft: llamafactory (in an environment of its own)",
    "flash-attn": "machine.attention: flash_attention_2",
    "tensorboard": "report_to: [tensorboard]",
    "trackio": "report_to: [trackio]",
    "wandb": "report_to: [wandb]",
}
EXTRAS = {
    "openai": "engine openai",
    "ray": "engine ray",
    "lora": "sft.lora and rl.lora",
    "reasoning-gym": "tasks reasoning_gym:…",
}


def checks() -> Iterator[Check]:
    """Libraries that are needed, then those that are there for a setting."""
    needed, extras = requirements()
    yield from required(needed, tried(), installed)
    for extra, what in EXTRAS.items():
        yield from optional(extra, what, extras.get(extra, []), installed)
    found = {name: there for name in OTHERS if (there := installed(name))}
    if found:
        yield ok("others", ", ".join(f"{name} {there} ({OTHERS[name]})" for name, there in found.items()))


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What this package needs: always, and for each of its extras."""
    needed, extras = [], dict[str, list[Requirement]]()
    for each in map(Requirement, requires("skillfactory") or []):
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            needed.append(each)
            continue
        for extra in EXTRAS:
            if each.marker.evaluate({"extra": extra}):
                extras.setdefault(extra, []).append(each)
    return needed, extras


def tried() -> dict[str, str]:
    """The versions of constraints.txt, which the tests run with: {name: version}; {} where the file is not there."""
    places = (_PACKAGE / "constraints.txt", _PACKAGE.parent / "constraints.txt")  # installed; in a checkout
    file = next((path for path in places if path.is_file()), None)
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    pairs = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {canonicalize_name(name): pin for name, equals, pin in pairs if equals}


def installed(name: str) -> str:
    """The installed version of a distribution; "" for none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def required(needed: list[Requirement], pins: Mapping[str, str], find: Find) -> Iterator[Check]:
    """One check of all that are in range, and one of each that is missing, out of range, or newer than tried."""
    good = {}
    for each in needed:
        there = find(each.name)
        pin = pins.get(canonicalize_name(each.name), "")
        if not there:
            yield problem("libraries", f"{each.name} is not installed.", f"pip install '{each.name}{each.specifier}'")
        elif not each.specifier.contains(there, prereleases=True):
            yield problem(
                "libraries", f"{each.name} {there} is not what is needed ({each.specifier}).",
                f"pip install '{each.name}{each.specifier}'",
            )  # fmt: skip
        elif is_newer(there, pin):
            yield warning(
                "libraries", f"{each.name} {there} is newer than what is tried ({pin}).",
                f"If something fails: pip install '{each.name}=={pin}'",
            )  # fmt: skip
        else:
            good[each.name] = there
    named = ", ".join(f"{name} {good[name]}" for name in _SHOWN if name in good)
    yield ok("libraries", f"{len(good)} of the {len(needed)} that are needed are as tried or older: {named}.")


def optional(extra: str, what: str, wanted: list[Requirement], find: Find) -> Iterator[Check]:
    """An extra: whether it is there, and in range."""
    for each in wanted:
        there = find(each.name)
        install = f"pip install 'skillfactory[{extra}]'"
        if not there:
            yield ok(extra, f"{each.name} is not installed; it is for {what}: {install}")
        elif not each.specifier.contains(there, prereleases=True):
            yield warning(extra, f"{each.name} {there} is not what {what} is tried with ({each.specifier}).", install)
        else:
            yield ok(extra, f"{each.name} {there}, for {what}")


def is_newer(there: str, pin: str) -> bool:
    """Whether a version is newer than a pin by more than a correction: 2.14.0 than 2.13.0, but not 2.13.1."""
    try:
        return bool(pin) and Version(there).release[:2] > Version(pin).release[:2]
    except InvalidVersion:
        return False
