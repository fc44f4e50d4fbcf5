"""The system's Chromium, headless, driven by Playwright, which downloads no browser of its own."""

import contextlib
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Browser:
    """One page, the errors on its console and the addresses that it asked for."""

    def __init__(self, page):
        self.errors, self.requests, self._page = [], [], page
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path, width, height=1000):
        """Open a local file in a window of the given size."""
        self._page.set_viewport_size({"width": width, "height": height})
        self._page.goto(Path(path).resolve().as_uri())

    def run(self, script):
        """Run JavaScript, wait for its promise, and return its value."""
        return self._page.evaluate(script)

    def press(self, key):
        """Press a key, such as "Tab" or "Enter"."""
        self._page.keyboard.press(key)

    def until(self, condition):
        """Wait until a JavaScript condition holds."""
        self._page.wait_for_function(condition)

    def until_in_frame(self, condition):
        """Wait until a JavaScript condition holds in the page's frame."""
        self._page.frames[1].wait_for_function(condition)

    def _console(self, message):
        if message.type in ("error", "assert"):
            self.errors.append(message.text)


@contextlib.contextmanager
def browser(program):
    """Start a browser and yield its page."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield Browser(chromium.new_page())
        chromium.close()
