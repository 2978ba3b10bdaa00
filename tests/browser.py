"""A real browser for the tests: headless Chromium, driven through a pipe by its DevTools protocol.

Nothing but the browser itself is needed: no driver program, no package, no port, no network.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 60.0  # seconds for one answer; a busy machine starts slowly
# Chromium reads commands from descriptor 3 and writes to 4.
_START = (
    "import os, sys; i, o = map(int, sys.argv[1:3]); os.dup2(i, 3); os.dup2(o, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--no-first-run", "--no-default-browser-check", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb",
    "--autoplay-policy=no-user-gesture-required", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def find_chromium():
    """The program; a test that asks skips without it."""
    named = os.environ.get("PSEUDO3D_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return found


class Browser:
    """One page of a headless Chromium.

    Attributes:
        console: texts of errors and warnings: of the console, of exceptions, of the network, of the page's policy.
        requests: addresses of everything that was asked for.
    """

    def __init__(self, profile):
        self._number, self._input = 0, b""
        self._loaded = False
        self.console, self.requests = [], []
        (inner_in, self._out), (self._in, inner_out) = _high_pipe(), _high_pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(inner_in), str(inner_out), find_chromium(), *_OPTIONS,
             f"--user-data-dir={profile}", "--window-size=1280,900", "about:blank"],
            pass_fds=(inner_in, inner_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(inner_in)
        os.close(inner_out)
        self._session = None
        try:
            self._attach()
        except BaseException:
            self._end()
            raise

    def _attach(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError, AssertionError):
            self._session = None
            self.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._end()

    def _end(self):
        """Stop the browser and the processes that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # start_new_session: the group is its own
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **parameters):
        """One command of the protocol and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        end = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(end, method)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self, end, waiting_for):
        while b"\0" not in self._input:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium does not answer to {waiting_for}"
            data = os.read(self._in, 1 << 20)
            assert data, f"Chromium has ended while it was asked for {waiting_for}"
            self._input += data
        message, _, self._input = self._input.partition(b"\0")
        said = json.loads(message)
        self._listen(said.get("method"), said.get("params", {}))
        return said

    def _listen(self, method, said):
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Log.entryAdded":
                self.console.append(said["entry"]["text"])
            case "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.console.append(" ".join(str(each.get("value", each)) for each in said["args"]))

    def open(self, path):
        """Show a file, from disk, and wait until its script has run."""
        self._loaded = False
        self.run("document.documentElement.dataset.ready = 'before'")
        failed = self.call("Page.navigate", url=Path(path).absolute().as_uri()).get("errorText")
        assert not failed, failed
        end = time.monotonic() + _PATIENCE
        while not self._loaded:
            self._next(end, "load a page")
        self.wait("document.documentElement.dataset.ready === 'yes'")

    def run(self, expression):
        """The value of an expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True,
                         userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition):
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + _PATIENCE
        while not (value := self.run(condition)):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)
        return value

    def settle(self):
        """Wait until the page is drawn as it is now."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def size(self, width, height, scale=1):
        """Set the window's inner size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=False)  # fmt: skip

    def media(self, kind="", **features):
        """Emulate "print", or features such as ``prefers_color_scheme="dark"``."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=told)

    def point(self, x, y):
        """Move the mouse to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x, y):
        """Click there."""
        self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def middle(self, selector):
        """Scroll an element into the window; where its middle is then."""
        box = self.run(f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "center", behavior: "instant"}}); const b = e.getBoundingClientRect();
            return [b.x + b.width / 2, b.y + b.height / 2]; }})()""")
        self.settle()
        return box

    def press(self, key, code=None):
        """Press and let go of a key."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        number = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                  "ArrowDown": 40}.get(key, 0)  # fmt: skip
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, windowsVirtualKeyCode=number,
                      text=text if kind == "keyDown" else "")  # fmt: skip

    def screenshot(self, path=None, *, clip=None):
        """The window, or a (left, top, width, height) of the page, as PNG bytes; written to ``path`` if given."""
        area = {}
        if clip is not None:
            area = {"clip": dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)}
        data = base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=clip is not None, **area)["data"]
        )
        if path is not None:
            Path(path).write_bytes(data)
        return data

    def pdf(self):
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


def _high_pipe():
    """A pipe whose ends are above 9, so that nothing is in the way of descriptors 3 and 4."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return tuple(ends)
