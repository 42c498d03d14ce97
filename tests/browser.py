"""A page in a real browser: Chromium without a window, spoken to through its pipe for debuggers; no driver is needed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
"""Where a browser is installed; None where none is."""
TIMEOUT_SEC = 60.0
SWITCHES = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


@dataclass
class Seen:
    """What became of a page: complaints on its console, and what it asked for beside itself."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """One tab of a browser; its protocol is Chrome's, a JSON object and a NUL at a time."""

    def __init__(self, into: int, out: int) -> None:
        self.into, self.out, self.buffer, self.number = into, out, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self._send(message)
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _send(self, message: dict[str, Any]) -> None:
        # A pipe takes some of a long message at a time.
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self.into, rest) :]

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SEC
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self.out, 1 << 16)
            assert part, "the browser has ended"
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Seen:
        """Load a file, and wait until it is."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(1), 100)))")
        seen = Seen()
        for event in self.events:
            method, said = event.get("method"), event.get("params", {})
            if method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
                seen.complaints.append(said["entry"]["text"])
            elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                seen.complaints.append(json.dumps(said))
            elif method == "Network.requestWillBeSent" and said["request"]["url"] != page.as_uri():
                seen.requests.append(said["request"]["url"])
        return seen

    def run(self, script: str) -> Any:
        """The value of an expression in the page, or of what it promises."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended at the end."""
    assert CHROMIUM is not None
    to_browser, into = os.pipe()
    out, from_browser = os.pipe()
    # The browser reads its third descriptor and writes its fourth.
    shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash"]
    process = subprocess.Popen(
        [*shell, CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    try:
        os.close(to_browser)
        os.close(from_browser)
        browser = Browser(into, out)
        yield browser
        with contextlib.suppress(AssertionError, OSError):
            browser.session = None
            browser.ask("Browser.close")
    finally:
        process.terminate()
        process.wait(timeout=30)
        for end in (into, out):
            os.close(end)
