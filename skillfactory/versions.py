"""Which code this is, for `--version` and manifests, and the memory it took."""

import hashlib
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from skillfactory import __version__

_LIBRARIES = ("torch", "transformers", "trl", "datasets", "accelerate", "tokenizers", "numpy", "pyarrow")


@cache
def code() -> str:
    """Version and a hash of this package's source, such as `0.1.0+3f2a91c04d5e`."""
    root = Path(__file__).parent
    hashed = hashlib.blake2b(digest_size=6)
    for path in sorted(root.rglob("*.py")):
        hashed.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{hashed.hexdigest()}"


def commit() -> str:
    """The git commit of this code: of the checkout it lies in, or that its wheel was built from. "" where not known."""
    package = Path(__file__).parent
    if (package.parent / ".git").exists():
        ask = ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
        try:
            return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
    built = package / "COMMIT"  # hatch_build.py writes it
    return built.read_text(encoding="utf-8").strip() if built.exists() else ""


@cache
def libraries() -> dict[str, str]:
    """Versions of the libraries that results may depend on, those that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> int:
    """Most memory that this process, or one that it has started and seen end, has held so far, in MB."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # getrusage counts KiB on Linux, bytes on macOS
    return round(peak / (1 if sys.platform == "darwin" else 1 / 1024) / 1_000_000)
