"""What a headless Chromium finds wrong with a page."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Waits for the pictures, then measures the page.
_MEASURE = """
Promise.all([...document.images].map(image => image.decode().then(() => true, () => false))).then(loaded => ({
  page: document.documentElement.scrollWidth, screen: window.innerWidth,
  pictures: loaded.length, broken: loaded.filter(ok => !ok).length,
  cut: [...document.querySelectorAll(".number .value, h1, h2, .note, .scroll:not(:has(.runs))")]
    .filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.textContent),
}))
"""


@contextmanager
def open_browser():
    """Start the system's Chromium, and close it on leaving."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


def inspect_page(browser, path: Path, width: int):
    """Open a page at a width; return its measures, the requests it makes and its console messages."""
    viewport = {"width": width, "height": 900}
    requests, console = [], []
    with browser.new_context(viewport=viewport, is_mobile=width < 600) as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(path.as_uri())
        measures = page.evaluate(_MEASURE)
    own = (path.as_uri(), "data:")
    return measures | {"requests": [url for url in requests if not url.startswith(own)], "console": console}
