"""Puts the commit that a wheel or sdist is built from into it, for `skillfactory --version`."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds skillfactory/COMMIT where this folder is a git checkout; a wheel made from an sdist has it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not (Path(self.root) / ".git").exists():
            return
        asked = subprocess.run(
            ["git", "-C", self.root, "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
        )
        if asked.returncode == 0:
            self._folder = tempfile.TemporaryDirectory()
            file = Path(self._folder.name) / "COMMIT"
            file.write_text(asked.stdout, encoding="utf-8")
            build_data["force_include"][str(file)] = "skillfactory/COMMIT"
