"""What a manifest says of the code that made a stage, and of the memory it took."""

import hashlib
import resource
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
