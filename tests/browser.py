"""What a headless Chromium finds wrong with a page, without any package: its protocol over two pipes."""

import fcntl
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-pipe",
)
# Waits for the pictures, then tells what is seen.
_LOOK = """
Promise.all([...document.images].map(image => image.decode().then(() => true, () => false))).then(loaded => ({
  page: document.documentElement.scrollWidth, screen: window.innerWidth,
  pictures: loaded.length, broken: loaded.filter(ok => !ok).length,
  cut: [...document.querySelectorAll(".number .value, h1, h2, .note, .scroll:not(:has(.runs))")]
    .filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.textContent),
}))
"""


class Browser:
    """A Chromium with one tab; use it as a context manager."""

    def __init__(self, profile: Path):
        reads, tells = os.pipe(), os.pipe()
        # Chromium reads from descriptor 3 and writes to 4, so that neither may stand there itself.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (reads[0], tells[1])]

        def place():
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=place,  # noqa: PLW1509
        )
        for end in (*ends, reads[0], tells[1]):
            os.close(end)
        self._to, self._from = os.fdopen(reads[1], "wb", buffering=0), os.fdopen(tells[0], "rb")
        self._number, self._rest, self.events = 0, b"", []
        self._session = None
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        with suppress(OSError, EOFError):
            self.call("Browser.close")
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._to.close()
        self._from.close()

    def call(self, method, **params):
        """Send a command and return its result; what happens meanwhile goes to ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def look(self, page: Path, width: int):
        """Open a page at a width; return what is seen, the requests made and what the console says."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        seen = self.call("Runtime.evaluate", expression=_LOOK, awaitPromise=True, returnByValue=True)
        requests = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        said = [
            event["params"]
            for event in self.events
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]
        own = (page.as_uri(), "data:")
        return seen["result"]["value"] | {
            "requests": [url for url in requests if not url.startswith(own)],
            "console": said,
        }

    def _next(self):
        while b"\0" not in self._rest:
            more = os.read(self._from.fileno(), 1 << 16)
            if not more:
                raise EOFError("Chromium has ended")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
