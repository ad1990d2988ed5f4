"""A headless Chromium that is installed already, driven by Playwright, for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("SKILLFACTORY_CHROMIUM") or shutil.which("chromium") or ""


def require_browser() -> None:
    """Skip the test where there is no browser to drive, or nothing to drive it with."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install playwright)")
    if not Path(CHROMIUM).is_file():
        pytest.skip("no chromium on the path, nor one that SKILLFACTORY_CHROMIUM names")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; its pages see no network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open, and what it did that no page of ours may do: complain, ask the network, or open a dialog."""

    page: Any
    told: list[str] = field(default_factory=list)


@contextmanager
def visit(browser: Any, file: Path, fragment: str = "", **context: Any) -> Iterator[Visit]:
    """Open a file offline. At the end nothing may have been told. `context`: of the browser, such as `color_scheme`."""
    opened = browser.new_context(offline=True, **context)
    opened.set_default_timeout(5000)
    seen = Visit(opened.new_page())
    url = file.as_uri()
    seen.page.on("console", lambda message: seen.told.append(f"{message.type}: {message.text}"))
    seen.page.on("pageerror", lambda error: seen.told.append(f"error: {error}"))
    seen.page.on("dialog", lambda dialog: (seen.told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    seen.page.on(
        "request", lambda request: None if request.url.partition("#")[0] == url else seen.told.append(request.url)
    )
    try:
        seen.page.goto(url + fragment)
        yield seen
        assert seen.told == []
    finally:
        opened.close()
