"""A headless Chromium, driven over a pipe by the DevTools protocol: no driver, no port.

https://chromedevtools.github.io/devtools-protocol/: messages are JSON, each ended by a NUL byte;
the browser reads them from descriptor 3 and writes to 4 (`--remote-debugging-pipe`).
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 30.0

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)

_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 20) for end in sys.argv[1:3]]
for end, wanted in zip(ends, (3, 4)):
    os.dup2(end, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipes where the browser looks for them, then becomes the browser."""


def chromium():
    """Return the browser's path, None where none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Seen:
    """What a page did while it was loaded: requests, and whatever went wrong."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Browser:
    """One browser with one page; a context manager."""

    def __init__(self, path, folder):
        self.path, self.folder = path, folder
        self.number, self.events, self.unread = 0, [], b""

    def __enter__(self):
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={self.folder}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to start as root with it
        ends = (str(theirs_in), str(theirs_out))
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, *ends, self.path, *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.session = None
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)

    def open(self, path, width, height=900):
        """Load a file in a window of so many CSS pixels; return what was seen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        failed = self.call("Page.navigate", url=path.as_uri()).get("errorText")
        assert failed is None, failed
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events))
        seen = Seen()
        for event in self.events:
            self._note(event["method"], event["params"], seen)
        return seen

    def evaluate(self, expression):
        """Return the value of a JavaScript expression, from outside the page's own policy."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        answers = []

        def answered():
            answers[:] = [event for event in self.events if event.get("id") == self.number]
            return bool(answers)

        self._until(answered)
        self.events = [event for event in self.events if "id" not in event]
        assert "error" not in answers[0], answers[0]["error"]
        return answers[0]["result"]

    def _note(self, method, params, seen):
        if method == "Network.requestWillBeSent":
            seen.requests.append(params["request"]["url"])
        elif method == "Network.loadingFailed":
            seen.faults.append(f"failed request: {params['errorText']}")
        elif method == "Runtime.exceptionThrown":
            seen.faults.append(f"exception: {params['exceptionDetails']['text']}")
        elif method == "Runtime.consoleAPICalled":
            seen.faults.append(f"console.{params['type']}")
        elif method == "Log.entryAdded":
            seen.faults.append(f"{params['entry']['level']}: {params['entry']['text']}")

    def _until(self, done):
        end = time.monotonic() + TIMEOUT_S
        while not done():
            left = end - time.monotonic()
            assert left > 0, "the browser does not answer"
            ready, _, _ = select.select([self.back], [], [], left)
            if not ready:
                continue
            read = os.read(self.back, 1 << 20)
            assert read, "the browser is gone"
            *whole, self.unread = (self.unread + read).split(b"\0")
            self.events += [
                event for part in whole if "id" in (event := json.loads(part)) or "params" in event
            ]
