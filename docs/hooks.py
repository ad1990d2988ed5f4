"""What the site shows of files outside docs/: the changes, and the sources and pictures that pages link to.

On GitHub such a link leads to the file. In the site, which stands alone, each of these files is a page of its own.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".md": "markdown", ".toml": "toml", ".json": "json"}
CHANGES = "CHANGELOG.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    files.append(File.generated(config, "changelog.md", content=(ROOT / CHANGES).read_text(encoding="utf-8")))
    wanted = {path for file in files.documentation_pages() for path in map(_outside, *_links(file)) if path}
    for path in sorted(wanted):
        source = ROOT / path
        if source.suffix in (".png", ".svg"):
            files.append(File.generated(config, f"source/{path}", abs_src_path=str(source)))
        else:
            files.append(File.generated(config, _page_of(path), content=_page(path, source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files outside docs/ lead to their pages."""
    if page.file.src_uri.startswith("source/"):
        return markdown

    def moved(match: re.Match[str]) -> str:
        path = _outside(page.file.src_uri, match[0])
        target = path and (f"source/{path}" if path.endswith((".png", ".svg")) else _page_of(path))
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".") if target else match[0]

    return LINK.sub(moved, markdown)


def _links(file: File) -> tuple[list[str], list[str]]:
    found = LINK.findall(file.content_string)
    return [file.src_uri] * len(found), found


def _outside(page: str, link: str) -> str:
    """The path from the repository's root of a link's target outside docs/; "" for other links."""
    if "://" in link:
        return ""
    path = os.path.normpath(os.path.join("docs", posixpath.dirname(page), link))
    return "" if path.startswith(("docs/", "..")) else path


def _page_of(path: str) -> str:
    return f"source/{path.removesuffix('/')}.md"


def _page(path: str, source: Path) -> str:
    if source.is_dir():
        names = sorted(f"{each.name}{'/' if each.is_dir() else ''}" for each in source.iterdir())
        body, language = "\n".join(names), "text"
    else:
        body, language = source.read_text(encoding="utf-8").rstrip(), LANGUAGES.get(source.suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n````````{language}\n{body}\n````````\n"
