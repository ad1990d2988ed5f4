"""Take the pictures of a report that the documents show.

    python docs/make_screenshots.py runs/NAME/report.html

Writes docs/images/report-{light,dark,viewer,phone}.png. The page may be a comparison's as well. Needs playwright, and a
chromium on the path or one that SKILLFACTORY_CHROMIUM names.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
MOST = 300_000  # bytes of a picture: they lie in the repository
SCREEN, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Questions that only the trained model gets right, and where it shows what it does; all, where there are none.
VIEWS = ("#viewer?change=gained&reflects=yes", "#viewer?reflects=yes", "#viewer?")


def main(report: Path) -> None:
    """Take all four."""
    chromium = os.environ.get("SKILLFACTORY_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take(browser, report, "light", viewport=SCREEN)
        take(browser, report, "dark", viewport=SCREEN, color_scheme="dark")
        take(browser, report, "viewer", VIEWS, viewport=SCREEN | {"height": 1100})
        take(browser, report, "phone", viewport=PHONE)
        browser.close()


def take(browser: Any, report: Path, name: str, views: tuple[str, ...] = ("",), **context: Any) -> None:
    """One picture of what is seen first, or of the first of these views of the trace viewer that holds a question."""
    page = browser.new_page(**context)
    for view in views:
        page.goto("about:blank")  # a page that is open would not read the address again
        page.goto(report.resolve().as_uri() + view)
        if not view or page.locator(".viewer-question").count():
            break
    if views != ("",):
        page.locator("#viewer-filters").evaluate("box => { box.open = false; }")
        page.locator("#viewer").evaluate("viewer => viewer.scrollIntoView()")
    file = IMAGES / f"report-{name}.png"
    page.screenshot(path=file)
    page.close()
    size = file.stat().st_size
    print(f"{file} ({size // 1000} kB)")
    if size > MOST:
        sys.exit(f"{file} is larger than {MOST // 1000} kB.")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("Which page? python docs/make_screenshots.py runs/NAME/report.html")
    main(Path(sys.argv[1]))
