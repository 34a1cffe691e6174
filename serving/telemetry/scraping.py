"""Reading the exporter's metrics over HTTP, by whatever shows them live."""

from __future__ import annotations

import time
import urllib.request

from serving.telemetry.view import Scrape

TIMEOUT_S = 5.0


def scrape(url: str, timeout_s: float = TIMEOUT_S) -> Scrape:
    """All samples of a page in Prometheus' text form, now. Raises: OSError, or ValueError where that is none."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with plain.open(url, timeout=timeout_s) as answer:
        return Scrape.parse(time.monotonic(), answer.read().decode())
