"""What a check says."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One sentence on one thing, and where something is to be mended how. A warning lets a run start."""

    name: str
    state: State
    text: str
    mend: str = ""


def ok(name: str, text: str) -> Check:
    """All is well."""
    return Check(name, "ok", text)


def warning(name: str, text: str, mend: str = "") -> Check:
    """A run may start, but."""
    return Check(name, "warning", text, mend)


def problem(name: str, text: str, mend: str = "") -> Check:
    """A run would fail."""
    return Check(name, "problem", text, mend)


def failed(name: str, error: Exception) -> Check:
    """What an error says: the errors of this package name the mend themselves."""
    return Check(name, "problem", " ".join(str(error).split()) or type(error).__name__)


def as_facts(checks: list[Check]) -> dict[str, Any]:
    """For --json."""
    counts = {state: sum(check.state == state for check in checks) for state in ("ok", "warning", "problem")}
    return {"checks": [asdict(check) for check in checks], **counts}
