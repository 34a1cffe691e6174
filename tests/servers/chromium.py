"""A real browser, driven by its own DevTools protocol, over the WebSocket client that the Kubernetes client brings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One tab. events: everything that the browser said since the last page was opened."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=20, suppress_origin=True)
        self._numbers = count(1)
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if getattr(self, "_session", None) else {}
        self._socket.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)

    def open(self, page: Path | str, width: int, dark: bool) -> None:
        """Load a file or URL at a width."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv()))

    def value(self, expression: str) -> Any:
        """What an expression is on the page; of a promise, what it becomes."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, within_s: float = 10.0) -> Any:
        """The first true value of an expression. Raises: AssertionError when there is none in time."""
        deadline = time.monotonic() + within_s
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {expression}"
            time.sleep(0.02)
        return found

    def press(self, key: str, code: int = 0, text: str = "", shift: bool = False) -> None:
        """One key, as a hand presses it."""
        held = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **held, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **held)

    def write(self, text: str) -> None:
        """Text into whatever has the focus."""
        self.ask("Input.insertText", text=text)

    def picture(self, whole: bool = True) -> str:
        """The page as PNG, base64."""
        return str(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def loud(self) -> list[dict[str, Any]]:
        """What the browser complained about."""
        return [e for e in self.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown",
                                                          "Runtime.consoleAPICalled")]

    def requested(self) -> list[str]:
        """Every URL that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """A browser with one tab, until the end. `folder`: where it keeps what it must."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"ws://\S+", line):
                break
        else:
            raise AssertionError("the browser did not start")
        yield Browser(found[0])
    finally:
        process.terminate()
        process.wait(10)
