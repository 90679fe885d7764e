"""A headless Chromium that opens pages from disk and presses keys, driven by its debugging pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
LIMIT = 180  # seconds after which a page hangs
# The browser reads orders on file descriptor 3 and answers on 4, which pytest may be using.
START = """
import fcntl, os, sys
pipe = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(pipe[0], 3), os.dup2(pipe[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}


def installed() -> str | None:
    """The path of Chromium, if it is here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a Chromium of its own. Leaving it as a context manager ends it.

    Attributes:
        said: errors and warnings of the pages, in order.
        asked: addresses of all that the pages asked for.
    """

    def __init__(self, program: str):
        self.said: list[str] = []
        self.asked: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        orders, self._out = os.pipe()
        self._in, answers = os.pipe()
        command = [
            program,
            *FLAGS,
            f"--user-data-dir={self._profile.name}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(orders), str(answers), *command],
            pass_fds=(orders, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(orders), os.close(answers)
        self._rest, self._number, self._session = b"", 0, None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.resize(1280, 800)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out), os.close(self._in)
        self._profile.cleanup()

    def open(self, page: Path) -> None:
        """Opens a file and waits until all of it is there."""
        self.said.clear(), self.asked.clear()
        self._call("Page.navigate", url=page.absolute().as_uri())
        self.wait_for(
            lambda: self.run("location.protocol === 'file:' && document.readyState === 'complete'")
        )

    def run(self, script: str) -> Any:
        """The value of an expression on the page, or of the promise that it is."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key as a user would; what it does by itself (Enter on a link) happens, too."""
        text = {"text": "\r"} if key == "Enter" else {}
        what = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        for _ in range(times):
            self._call("Input.dispatchKeyEvent", type="keyDown", **what, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", **what)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Clicks at half the height of an element, at a share of its width, even beside it."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})"
        )
        x, y, width, height = self.place(selector)
        at = {"x": x + across * width, "y": y + height / 2, "button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", buttons=1, **at)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def place(self, selector: str) -> list[float]:
        """Where an element is in the window: left, top, width, height, px."""
        script = "(({x, y, width, height}) => [x, y, width, height])"
        return self.run(
            f"{script}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window in px, and whether its user likes it dark."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def wait_for(self, happened: Callable[[], Any]) -> None:
        """Asks the browser again and again, until something has happened."""
        deadline = time.monotonic() + LIMIT
        while not happened():
            assert time.monotonic() < deadline, self.said

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends an order, takes note of what happens meanwhile, and returns the answer."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        order |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(order).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer.get("method"), answer.get("params", {}))
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], LIMIT)[0], "the browser hangs"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.said.append(str(facts["exceptionDetails"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] in ("warning", "error"):
            self.said.append(facts["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.asked.append(facts["request"]["url"])
