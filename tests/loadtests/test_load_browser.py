"""A real browser opens the report without any network: nothing is asked for, nothing complains, nothing overflows.

Without Chromium on this machine the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import chromium
import pytest
from chromium import Browser
from load_samples import failed
from test_load_report import RECORDS, report
from test_load_stretches import alone_and_mixed, step, swept

from loadtests.report import render_html

pytestmark = pytest.mark.skipif(chromium.CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with chromium.running(tmp_path_factory.mktemp("browser")) as found:
        yield found


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
    assert browser.requested() == [file.as_uri()]
    assert browser.loud() == []
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
