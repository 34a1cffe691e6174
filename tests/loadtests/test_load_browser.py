"""A real browser opens the report without any network: nothing is asked for, nothing complains, nothing overflows.

Chromium is driven by its own DevTools protocol, over the WebSocket client that the Kubernetes client brings; without
Chromium on this machine the tests are skipped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import websocket
from load_samples import failed
from test_load_report import RECORDS, report
from test_load_stretches import alone_and_mixed, step, swept

from loadtests.report import render_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Browser:
    """One tab. events: everything that the browser said meanwhile."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=20, suppress_origin=True)
        self._numbers = count(1)
        self.events: list[dict] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params):
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

    def open(self, file: Path, width: int, dark: bool) -> None:
        """Load a file at a width."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv()))

    def value(self, expression: str):
        """What an expression is on the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={tmp_path_factory.mktemp('browser')}", "about:blank"]
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


REPORTS = {
    "mix": lambda: report([*RECORDS, failed()]),
    "sweep": lambda: swept(step(4, 0, 0.0, True), step(8, 30, 0.02, True), step(16, 60, 0.7, False), highest=8.0,
                           missed=16.0),
    "interference": lambda: alone_and_mixed(1.5),
}


@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_is_quiet_and_fits(browser, tmp_path, kind, width, dark):
    file = tmp_path / "report.html"
    file.write_text(render_html(REPORTS[kind]()))
    assert file.stat().st_size < 5_000_000
    browser.open(file, width, dark)
    asked = [event["params"]["request"]["url"] for event in browser.events
             if event["method"] == "Network.requestWillBeSent"]
    assert asked == [file.as_uri()]
    loud = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown",
                                                                    "Runtime.consoleAPICalled")]
    assert loud == []
    assert browser.value("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
    wide = browser.value("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
                         ".map(e => e.getAttribute('aria-label'))")
    if width == 1280:
        assert wide == [], "tables fit an ordinary screen"
    reachable = "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))"
    assert browser.value(reachable)
    names = browser.value("[...document.querySelectorAll('svg[role=img]')].every(e => e.querySelector('title') && "
                          "e.querySelector('desc'))")
    assert names
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 22, 28)" if dark else "rgb(246, 247, 249)")
