"""A headless Chromium for tests of pages, driven over a pipe (Chrome DevTools Protocol); no package is needed for it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --mute-audio --autoplay-policy=no-user-gesture-required --remote-debugging-pipe"
).split()


def find() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One tab. `problems` are messages of the console and exceptions, `requests` the addresses that pages asked for."""

    def __init__(self) -> None:
        program = find()
        assert program is not None, "ask find() first"
        self._profile = tempfile.TemporaryDirectory(prefix="mflamingo-browser-", ignore_cleanup_errors=True)
        ours, theirs_out = os.pipe()
        theirs_in, self._out = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', program, *FLAGS, f"--user-data-dir={self._profile.name}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in = open(ours, "rb", buffering=0)  # noqa: SIM115  (closed in `close`)
        self._unread, self._count, self._session = b"", 0, None
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of that size."""
        self.problems.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._note(self._read())

    def run(self, expression: str) -> Any:
        """The value of JavaScript, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 20.0) -> bool:
        """Whether an expression becomes true in time."""
        wait = "new Promise((done) => { const began = Date.now(); const look = () => (%s) ? done(true)"
        wait += " : Date.now() - began > %d ? done(false) : setTimeout(look, 30); look(); })"
        return bool(self.run(wait % (expression, 1000 * seconds)))

    def press(self, key: str) -> None:
        """A key, as the keyboard gives it."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="")

    def click(self, x: float, y: float) -> None:
        """The left button at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def close(self) -> None:
        """End the browser."""
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._in.close()
        self._profile.cleanup()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            part = self._in.read(1 << 20)
            assert part, "the browser has ended"
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        self._events.append(method)
        notes: dict[str, Callable[[], None]] = {
            "Runtime.exceptionThrown": lambda: self.problems.append(str(params["exceptionDetails"])),
            "Runtime.consoleAPICalled": lambda: self.problems.append(str(params["args"])),
            "Log.entryAdded": lambda: self.problems.append(params["entry"]["text"]),
            "Network.requestWillBeSent": lambda: self.requests.append(params["request"]["url"]),
        }
        if method in notes:
            notes[method]()
