"""Teach a language model cognitive skills before RL, with its own samples alone (SkillFactory, arXiv 2512.04072)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skillfactory.store import LoadedRun as LoadedRun
    from skillfactory.store import load_run as load_run

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`skillfactory.load_run`, without loading pyarrow and pydantic for those who only ask for the version."""
    if name in ("load_run", "LoadedRun"):
        from skillfactory import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
