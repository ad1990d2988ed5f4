"""Writes docs/reference/licences.md: what a base installation brings along, and under which licences.

    python docs/make_licences.py            # write the page
    python docs/make_licences.py --check    # exit code 1 where the page lacks a package, or says another licence

Either fails where a package has none of the licences in ALLOWED, which go with Apache-2.0 and ask nothing of a user who
only runs them. The licences are those that pip-licenses reads from the installed packages.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent / "reference" / "licences.md"
ALLOWED = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public License|Unlicense|Zlib|CC0|Public Domain"
)
# Its metadata says MIT, its LICENSE file this.
KNOWN = {"spylls": "MPL-2.0"}
HEAD = """\
# Licences of what is installed with it

Made by `python docs/make_licences.py` from the packages that `pip install skillfactory` brings along, without extras.
"""


def base_packages() -> list[str]:
    """All packages that the base installation needs, and that are installed here; not this package itself."""
    found: set[str] = set()
    left = ["skillfactory"]
    while left:
        name = left.pop()
        try:
            needs = [Requirement(each) for each in requires(name) or []]
        except PackageNotFoundError:  # for other platforms or Python versions
            continue
        found.add(name)
        for need in needs:
            wanted = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in need.extras or {""})
            other = canonicalize_name(need.name)
            if wanted and other not in found:
                left.append(other)
    return sorted(found - {"skillfactory"})


def licences(packages: list[str]) -> dict[str, str]:
    """{package: licence}, as pip-licenses reads them."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--packages", *packages]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {canonicalize_name(row["Name"]): row["License"] for row in rows} | KNOWN


def main() -> None:
    found = licences(base_packages())
    if strange := {name: licence for name, licence in found.items() if not ALLOWED.search(licence)}:
        sys.exit(f"Licences to look at: {strange}")
    rows = [f"| {name} | {found[name]} |\n" for name in sorted(found)]
    if "--check" not in sys.argv:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(f"{HEAD}\n| package | licence |\n|---|---|\n{''.join(rows)}", encoding="utf-8")
    elif missing := set(rows) - set(PAGE.read_text(encoding="utf-8").splitlines(keepends=True)):
        sys.exit(f"{PAGE} lacks {''.join(sorted(missing))}Write it anew with `python docs/make_licences.py`.")


if __name__ == "__main__":
    main()
