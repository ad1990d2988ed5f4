"""The documents as a site: built without a warning, whole, and readable without a network, search included."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium, require_browser
from documents import DOCS, ROOT

pytestmark = pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs-material is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


class Found(HTMLParser):
    """What a page points to: (attribute, address), and the ids that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.links.append((f"{tag}.{name}", value))
            elif name in ("id", "name") and value:
                self.ids.add(value)


def test_every_page_is_there(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()
    assert (site / "changelog.html").is_file()


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {page: Found(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, found in pages.items():
        for kind, link in found.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                assert kind == "a.href", f"{page}: {link} would be loaded from a network"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{page}: {link}"


def test_styles_and_scripts_name_no_network(site: Path) -> None:
    for file in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", file.read_text(encoding="utf-8")), file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_browser()
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_search_finds(site: Path, browser: Any, width: int) -> None:
    """From a folder, without a network."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": 800})
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
    for name in ("index", "tutorial", "reference/recipe", "scaling", "troubleshooting", "howto/index"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    if width < 1000:
        page.click("label.md-header__button[for=__search]")
    page.click(".md-search__input")
    page.keyboard.type("budget forcing", delay=20)
    first = page.locator(".md-search-result__item a").first
    first.wait_for(timeout=20_000)
    hits = page.locator(".md-search-result__item a").evaluate_all("each => each.map(a => a.getAttribute('href'))")
    assert any("compare.html" in hit for hit in hits)
    assert told == []
    context.close()
