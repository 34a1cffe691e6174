"""A real browser on the console of a live fleet: its models as they are, a chat through the playground, what that cost.

It takes a fleet of its own and leaves pictures for a person to look at, so it runs only when CONSOLE_PICTURES names a
folder for them.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from chromium import Browser
from live_calls import CHAT, Caller, chat
from live_fleet import ROOT, LiveFleet, eventually

FOLDER = os.environ.get("CONSOLE_PICTURES", "")
pytestmark = [pytest.mark.integration, pytest.mark.skipif(not FOLDER, reason="CONSOLE_PICTURES is not set"),
              pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")]
SIGHTS = {"light": (1280, False), "dark": (1280, True), "phone": (390, False)}
MOST_SERVING = """[...document.querySelectorAll('.models tbody tr')].filter(
  r => r.innerText.includes('serving')).length === 2"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.running(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def key(fleet: LiveFleet) -> str:
    return fleet.new_key("boss", "console", "--scopes", "admin,inference")


@pytest.fixture(scope="module", autouse=True)
def traffic(fleet: LiveFleet, callers: Callable[[str], Caller], key: str) -> Iterator[None]:
    """Streams to both models for as long as anyone looks, and now and then one that is refused."""
    over = threading.Event()

    def go(number: int) -> None:
        caller = callers("looked-at")
        for turn in range(1_000_000):
            if over.is_set():
                return
            most = 4000 if turn % 20 == 19 else 48  # more than the model takes
            caller.call(CHAT, chat(("qwen", "llama")[(number + turn) % 2], f"Ship {turn}", most, stream=True))

    callers("looked-at")
    threads = [threading.Thread(target=go, args=(n,), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(60)


def enter(browser: Browser, fleet: LiveFleet, key: str, width: int, dark: bool) -> None:
    """Open the page and type the key."""
    url = f"http://127.0.0.1:{fleet.admin_port}/console/"
    browser.open(url, width, dark)
    browser.value("sessionStorage.clear()")
    browser.open(url, width, dark)
    browser.until("document.activeElement.id === 'key'")
    browser.write(key)
    browser.press("Enter", 13, "\r")
    browser.until("!document.getElementById('inside').hidden")
    browser.until(MOST_SERVING, 30)


def ask(fleet: LiveFleet, key: str, path: str) -> Any:
    """What the console's data says."""
    sent = urllib.request.Request(f"http://127.0.0.1:{fleet.admin_port}/console/{path}",
                                  headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(sent, timeout=30) as answer:
        return json.load(answer)


def test_models_speed_and_cost_are_those_of_the_fleet(browser: Browser, fleet: LiveFleet, key: str) -> None:
    enter(browser, fleet, key, 1280, False)
    shown = browser.until("(() => { const t = document.getElementById('models').innerText;"
                          " return /cheaper|dearer|the price/.test(t) && /p95 [0-9]/.test(t) && t; })()", 60)
    assert "random weights" in shown and "SLO 30 s" in shown
    assert browser.value("document.getElementById('trouble').hidden")
    tiles = browser.value("document.getElementById('tiles').innerText")
    assert "$" in tiles, tiles
    assert browser.until("document.getElementById('budgets').innerText.includes('watcher')")
    assert "400" in browser.until("document.querySelector('#failures .log')?.innerText", 60)


def over(fleet: LiveFleet, key: str) -> tuple[str, int] | None:
    """The newest request of the console's own tenant that nothing more will be charged to, and its cost, nano-USD."""
    for row in ask(fleet, key, "requests?tenant=boss")["data"]:
        told = ask(fleet, key, f"requests/{row['request_id']}")
        if told["replicas"] and all(replica["outcome"] != "running" for replica in told["replicas"]):
            return row["request_id"], told["nanousd"]["loaded"]
    return None


def test_a_chat_streams_and_its_cost_is_the_ledgers_and_explained(browser: Browser, fleet: LiveFleet, key: str) -> None:
    enter(browser, fleet, key, 1280, False)
    browser.until("[...document.getElementById('play-model').options].some(o => o.value === 'qwen')")
    browser.value("document.getElementById('play-model').value = 'qwen'")
    browser.value("document.getElementById('play').requestSubmit()")
    browser.until("document.getElementById('play-figures').innerText.includes('as the ledger has it')", 60)
    request_id, loaded = eventually(lambda: over(fleet, key), "the chat's cost is settled", 30, 0.2)
    browser.value(f"document.getElementById('find-id').value = '{request_id}'")
    browser.value("document.getElementById('find').requestSubmit()")
    told = browser.until("document.querySelector('#explained article')?.innerText", 20)
    assert request_id in told and "$" in told
    listed = next(row for row in ask(fleet, key, "requests?tenant=boss")["data"] if row["request_id"] == request_id)
    assert listed["nanousd"] == ask(fleet, key, f"requests/{request_id}")["nanousd"]["loaded"] == loaded > 0
    steps = browser.value("document.querySelector('.timeline desc').textContent")
    assert "for the first token" in steps and "steps" in steps


@pytest.mark.parametrize("sight", SIGHTS)
def test_it_is_whole_quiet_and_readable_and_pictures_of_it_are_kept(browser: Browser, fleet: LiveFleet, key: str,
                                                                     sight: str) -> None:
    width, dark = SIGHTS[sight]
    enter(browser, fleet, key, width, dark)
    browser.until("document.querySelectorAll('#found button').length >= 6", 30)
    browser.value("document.querySelector('#found button').click()")
    browser.until("!!document.querySelector('#explained article')", 20)
    time.sleep(8)  # a few looks, so that the small charts have something to show
    wrong, pale = ((ROOT / "tests" / "console" / name).read_text() for name in ("what_is_wrong.js", "what_is_pale.js"))
    Path(FOLDER).mkdir(parents=True, exist_ok=True)
    (Path(FOLDER) / f"{sight}.png").write_bytes(base64.b64decode(browser.picture()))
    assert browser.loud() == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(wrong) == [] and browser.value(pale) == []
