"""A real browser opens the console: it works, is quiet, loads nothing from elsewhere; hands and ears can use it.

Without Chromium on this machine the tests are skipped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import chromium
import console_rig
import fake_api
import ledger_of_requests
import pytest
from chromium import Browser
from console_rig import Rig
from fake_api import FakeApi

from serving.console.looking import Run
from serving.costs import figures
from serving.fleet.autoscaling.signals import REASONS

pytestmark = pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")
INSIDE = "!document.getElementById('inside').hidden"
BUSY = ('flotilla_budget_spent_usd{model="",tenant="shop",period="month"} 0.83\n'
        'flotilla_budget_usd{model="",tenant="shop",period="month",mark="soft"} 0.8\n'
        'flotilla_budget_usd{model="",tenant="shop",period="month",mark="hard"} 1\n'
        'flotilla_autoscale_decisions_total{model="qwen",reason="steady"} 9\n')
WRONG, PALE = (Path(__file__).with_name(name).read_text() for name in ("what_is_wrong.js", "what_is_pale.js"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.running(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with fake_api.running() as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, api: FakeApi) -> Iterator[Rig]:
    """A busy fleet with one model that failed, budgets, decisions and requests."""
    with console_rig.running(tmp_path_factory.mktemp("console"), 0.1, api.url) as made:
        ledger_of_requests.fill(made.ledger, time.time())
        made.run = Run({"kimi": "engine: its weights cannot be reached"}, {})
        made.fake.more = BUSY + 'flotilla_autoscale_target_replicas{model="qwen"} 3\n'
        yield made


def enter(browser: Browser, rig: Rig, width: int = 1280, dark: bool = False) -> None:
    """Open the page and type the key, as a person does."""
    browser.open(rig.url, width, dark)
    browser.value("sessionStorage.clear()")
    browser.open(rig.url, width, dark)
    browser.until("document.activeElement.id === 'key'")
    browser.write(rig.key)
    browser.press("Enter", 13, "\r")
    browser.until(INSIDE)
    rig.fake.serve("qwen", 3, 0.7)
    browser.until("document.querySelectorAll('.models tbody tr').length === 4")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, True)])
def test_the_page_is_quiet_own_readable_and_fits(browser: Browser, shared: Rig, width: int, dark: bool) -> None:
    enter(browser, shared, width, dark)
    browser.until("document.querySelectorAll('#found button').length >= 6")
    browser.value("[...document.querySelectorAll('#found button')].find(b => b.textContent === 'flo-1').click()")
    browser.until("!!document.querySelector('#explained article')")
    assert browser.loud() == []
    asked = browser.requested()
    assert asked and all(url.startswith(shared.url) for url in asked), "nothing comes from elsewhere"
    assert not any(shared.key in url for url in asked), "a key never stands in a URL"
    assert browser.value("document.documentElement.scrollWidth") <= width
    if width == 1280:
        wide = browser.value("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
                             ".map(e => e.getAttribute('aria-label'))")
        assert wide == [], "tables fit an ordinary screen"
    assert browser.value(WRONG) == []
    assert browser.value(PALE) == []
    assert browser.value("document.cookie") == "" and browser.value("localStorage.length") == 0


def test_models_are_shown_with_state_speed_and_cost(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    rows = browser.until("(() => { const r = [...document.querySelectorAll('.models tbody tr')].map(e => e.innerText);"
                         " return r[0].includes('% dearer') && r; })()")
    assert "serving" in rows[0] and "random weights" in rows[0] and "SLO 500 ms" in rows[0]
    assert "failed" in rows[2] and "its weights cannot be reached" in rows[2] and "at zero" in rows[3]
    assert "soft mark passed" in browser.until("document.getElementById('budgets').innerText")
    assert "503" in browser.until("document.querySelector('#failures .log')?.innerText")
    shared.fake.more = (BUSY + 'flotilla_autoscale_target_replicas{model="qwen"} 4\n'
                        'flotilla_autoscale_decisions_total{model="qwen",reason="backlog"} 1\n')
    told = browser.until("(() => { const t = document.getElementById('scaling').innerText;"
                         " return t.includes('3 → 4') && t; })()")
    assert REASONS["backlog"] in told


def test_promises_are_shown_with_what_is_left_of_their_budgets(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    shared.fake.serve("qwen", 1, code=503)
    rows = browser.until("(() => { const r = [...document.querySelectorAll('.promises tbody tr')]; const t = r.map(e =>"
                         " e.innerText); return t[1]?.includes('its budget is used') && t; })()")
    assert len(rows) == 6 and "to everyone" in rows[0] and "to shop" in rows[1] and "to search" in rows[2]
    assert "promised 99.99%" in rows[1] and "promised 95% within 800 ms" in rows[1]
    assert rows[2].count("no request yet") == 4, "of tenants who have not called nothing is said"
    assert "used up" in browser.value("document.getElementById('promises-hint').textContent")


def test_a_change_of_state_is_announced_and_figures_are_not(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    browser.value("window.said = []; new MutationObserver(() => said.push(document.getElementById('news').textContent))"
                  ".observe(document.getElementById('news'), {childList: true, characterData: true, subtree: true})")
    shared.fake.serve("qwen", 5)
    shared.fake.replicas = {"qwen": 2}
    try:
        said = browser.until("said.length && said")
    finally:
        shared.fake.replicas = {"qwen": 2, "llama": 1}
    assert len(said) == 1 and said[0].startswith("llama is down now")


def test_a_request_is_explained_as_a_picture_with_who_shared_it(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    browser.value("document.getElementById('find-id').focus()")
    browser.write("flo-1")
    browser.press("Enter", 13, "\r")
    told = browser.until("document.querySelector('#explained article')?.innerText")
    assert told.startswith("Request flo-1: $0.000344") and "3.00 an hour" in told
    assert "shared with 1.8 others on average" in told
    words = browser.value("document.querySelector('.timeline desc').textContent")
    assert "for the first token" in words and "60 steps" in words
    assert browser.value("[...document.querySelectorAll('.beside button')].map(b => b.textContent)") == [
        "flo-2", "flo-3", "flo-4"]
    own = browser.value("[...document.querySelectorAll('.timeline .own')].map(r => Number(r.getAttribute('height')))")
    whole = browser.value("Number(document.querySelector('.timeline .step').getAttribute('height'))")
    assert [round(h / whole, 2) for h in own] == [0.27, 0.24, 0.54], "filled by its share of the steps' cost"
    browser.value("document.querySelector('.beside button').click()")
    browser.until("document.querySelector('#explained h3').textContent.startsWith('Request flo-2')")
    browser.value("document.getElementById('find-id').value = 'flo-99'")
    browser.value("document.getElementById('find').requestSubmit()")
    assert "no request 'flo-99'" in browser.until("document.getElementById('find-wrong').textContent")


def test_the_playground_streams_with_speed_and_cost(browser: Browser, shared: Rig, api: FakeApi) -> None:
    enter(browser, shared)
    browser.until("document.getElementById('play-model').value === 'qwen'")
    assert "embed" not in browser.value("document.getElementById('play-model').innerText"), "no one can talk to it"
    browser.value("document.getElementById('play').requestSubmit()")
    browser.until("document.getElementById('play-answer').innerText.includes('wörd11')")
    shown = browser.until("(() => { const t = document.getElementById('play-figures').innerText;"
                          " return t.includes('as the ledger has it') && t; })()")
    assert "$0.00000210" in shown and "12" in shown
    assert browser.value("document.querySelector('[data-kind=thought]').textContent") == "hm hm "
    assert not browser.value("document.getElementById('play-noise').hidden"), "its weights are random"
    api.words, api.pause_s = 5_000, 0.005
    api.left.clear()
    browser.value("document.getElementById('play').requestSubmit()")
    browser.until("document.getElementById('play-answer').innerText.includes('wörd5 ')")
    browser.value("document.getElementById('play-stop').click()")
    assert api.left.wait(5), "stopping frees the gateway"
    browser.until("document.getElementById('play-answer').innerText.includes('(stopped)')")
    api.words, api.pause_s = 12, 0.0


def test_hands_without_a_mouse_reach_everything(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    first = "document.querySelector('a, button, input, select, textarea, [tabindex=\"0\"]')"
    assert browser.value(f"{first}.className") == "skip"
    browser.value(f"{first}.focus()")
    reached = set()
    for _ in range(60):
        reached.add(browser.value("document.activeElement.id || document.activeElement.textContent.trim()"))
        browser.press("Tab", 9)
    assert {"theme", "leave", "find-id", "find-model", "play-model", "play-prompt", "play-send"} <= reached
    outlined = browser.value("document.getElementById('theme').focus(), "
                             "getComputedStyle(document.getElementById('theme')).outlineStyle")
    assert outlined != "none"


def test_colours_can_be_chosen(browser: Browser, shared: Rig) -> None:
    enter(browser, shared)
    browser.value("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert "dark" in browser.value("document.getElementById('theme').getAttribute('aria-label')")


def test_a_wrong_key_ends_at_the_gate_and_a_forgotten_one_too(browser: Browser, shared: Rig) -> None:
    browser.open(shared.url, 1280, False)
    browser.value("sessionStorage.clear()")
    browser.open(shared.url, 1280, False)
    browser.until("document.activeElement.id === 'key'")
    browser.write(shared.plain_key)
    browser.press("Enter", 13, "\r")
    assert "admin" in browser.until("document.getElementById('key-wrong').textContent")
    assert not browser.value(INSIDE) and browser.value("sessionStorage.getItem('flotilla.key')") is None
    browser.write(shared.key)
    browser.press("Enter", 13, "\r")
    browser.until(INSIDE)
    browser.value("document.getElementById('leave').click()")
    assert not browser.value(INSIDE) and browser.value("sessionStorage.length") <= 1, "no key is kept"


def test_amounts_are_written_as_everywhere_else(browser: Browser, shared: Rig) -> None:
    browser.open(shared.url, 1280, False)
    amounts = [0, 2.68e-6, 1e-9, 0.0123, 0.5, 1, 12.345, 99.999, 123.4, 45_678.9, -3.2e-5]
    times = [4.2e-7, 0.000_9, 0.001, 0.0931, 0.5, 1.3, 119, 121, 7_000, 8_000, 40_000]
    near = [0, 0.5, 0.9, 0.95, 0.999, 0.9995, 0.99956, 0.9999999, 1]
    shares = [0, 3e-8, 0.00057, 0.0092, 0.174, 0.785, 1, 12.3]
    savings = [-0.25, 0.75, 0.9, 0.996, 0, -0.9, -1.3, -40.2, -500]
    said = browser.value(f"""import('{shared.url}page/format.js').then(f => [
        {json.dumps(amounts)}.map(f.dollars), {json.dumps(times)}.map(f.seconds), {json.dumps(shares)}.map(f.percent),
        {json.dumps(savings)}.map(f.verdict), {json.dumps(near)}.map(f.attained)])""")
    assert said == [[figures.dollars(v) for v in amounts], [figures.seconds(v) for v in times],
                    [figures.percent(v) for v in shares], [figures.verdict(v) for v in savings],
                    [figures.attained(v) for v in near]]
