"""Reading a fleet's metrics over HTTP, by whatever shows them live: one exporter's, or those of every pod that counts.

On one machine the exporter tells all. On a cluster it tells what the ledger knows, and gateways and Ray Serve's
controller count in their own pods; their addresses stand behind a name (a headless Service).
"""

from __future__ import annotations

import logging
import socket
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from serving.telemetry.view import Scrape

log = logging.getLogger("flotilla.scraping")
TIMEOUT_S = 5.0
_AT_ONCE = 16
_KEPT_S = 30.0  # what a pod that does not answer said last counts on for so long


def scrape(url: str, timeout_s: float = TIMEOUT_S) -> Scrape:
    """All samples of a page in Prometheus' text form, now. Raises: OSError, or ValueError where that is none."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with plain.open(url, timeout=timeout_s) as answer:
        return Scrape.parse(time.monotonic(), answer.read().decode())


def addresses(url: str) -> tuple[str, ...]:
    """The URL once for each address behind its host's name. Raises: OSError when the name is not known."""
    split = urlsplit(url)
    found = {str(info[4][0]) for info in socket.getaddrinfo(split.hostname, split.port, type=socket.SOCK_STREAM)}
    return tuple(split._replace(netloc=f"{f'[{ip}]' if ':' in ip else ip}:{split.port}").geturl()
                 for ip in sorted(found))


class Pods:
    """One scrape of a fleet's exporter and of its pods. A pod that does not answer counts with what it said last, for
    some seconds; a fleet whose exporter does not answer cannot be seen."""

    def __init__(self, exporter: str, pods: Iterable[str], read: Callable[[str], Scrape] = scrape,
                 resolve: Callable[[str], tuple[str, ...]] = addresses,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """`exporter`: the page of the exporter; `pods`: pages whose host stands for several pods."""
        self._exporter, self._pods, self._read, self._resolve, self._clock = exporter, tuple(pods), read, resolve, clock
        self._last: dict[str, Scrape] = {}
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scrape")

    def __call__(self) -> Scrape:
        """All samples now. Raises: OSError, ValueError: of the exporter's page."""
        first = self._workers.submit(self._read, self._exporter)
        urls = self._there()
        read = list(self._workers.map(self._of, urls))
        found = {url: seen for url, seen in zip(urls, read, strict=True) if seen is not None}
        self._last = found
        return Scrape.together(self._clock(), {self._exporter: first.result()} | found)

    def _there(self) -> list[str]:
        urls: list[str] = []
        for page in self._pods:
            try:
                urls += self._resolve(page)
            except OSError as error:  # as long as no pod is there
                log.info("no pods behind %s: %s", page, error)
        return urls

    def _of(self, url: str) -> Scrape | None:
        try:
            return self._read(url)
        except (OSError, ValueError) as error:
            log.warning("the metrics at %s cannot be read: %s", url, error)
            last = self._last.get(url)
            return last if last is not None and last.at > self._clock() - _KEPT_S else None
