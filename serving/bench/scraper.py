"""Serves a gateway's counters as the exporter does, and scrapes them again and again: `python -m serving.bench.scraper
FOLDER`. Each scrape begins a tenth of a second after the one before, fifty times as often as Prometheus would."""

from __future__ import annotations

import sys
import threading
import time
import urllib.request

from serving.telemetry import exporter

_PAUSE_S = 0.1


def main(folder: str) -> None:
    """Until ended."""
    server = exporter.serve("127.0.0.1", 0, folder, tuple, tuple)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    print("ready", flush=True)
    while True:
        with plain.open(f"http://127.0.0.1:{server.server_address[1]}/metrics", timeout=10) as answer:
            answer.read()
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
