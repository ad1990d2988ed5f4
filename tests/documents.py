"""The documents, their fenced blocks, and what the block's mark says a test does with it.

A mark is an HTML comment right before the block:

- `<!-- not run: REASON -->`: a command that cannot run here; its words are parsed, and its recipe is loaded.
- `<!-- slow -->`: run by `make test-slow` alone.
- `<!-- output -->`: a text that the block before it prints.
- `<!-- example: WHAT -->`: a text that nothing prints.

Blocks without a mark are run (bash, python) or read (yaml, json, jsonl). A `title="FILE"` is the name under which the
block is written before those that follow it on the page are run.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GENERATED = {
    DOCS / "reference" / name for name in ("recipe.md", "commands.md", "tasks.md", "python.md", "deviations.md")
}
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (slow|output|not run|example)(?:: (.+))? -->\n$")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, mark with what it gives as reason, and file name."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    reason: str
    title: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(source):
        language, _, rest = match["info"].strip().partition(" ")
        mark, title = _MARK.search(source[: match.start()]), _TITLE.search(rest)
        line = source.count("\n", 0, match.start()) + 1
        kind, reason = (mark[1], mark[2] or "") if mark else ("", "")
        found.append(Block(page, line, language, match["text"], kind, reason, title[1] if title else ""))
    return found


def without_blocks(page: Path) -> str:
    """The prose of a page."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


BLOCKS = [block for page in PAGES if page not in GENERATED for block in blocks_of(page)]
