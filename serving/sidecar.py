"""What runs beside Ray in every worker pod of a cluster: `python -m serving.sidecar`.

`/metrics` on one port per pod: the counters of the gateways in this pod, what waits on its disk for the ledger, and
vLLM's own metrics of the replicas in it, so that Prometheus needs no way to the replicas' ports. It also brings to the
ledger what processes of this pod left on disk when they died, and where nodes decide prices it keeps their labels at
what they are (`--node`). The fleet's own metrics are the exporter's (`serving.exporter`). May not happen in here: Ray,
prices.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import yaml
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serving import ledgermetrics
from serving.fleet.observing import LogSpec, MetricsSpec
from serving.fleet.resources import COUNTERS_DIR
from serving.ledger.durable import Adopter
from serving.ledger.store import Ledger
from serving.settings import Settings
from serving.telemetry import exporter, logs, pushing
from serving.telemetry.exporter import Target

log = logging.getLogger("flotilla.sidecar")
_ADOPT_S = 10.0
_SCRAPE_S = 3.0
_TARGETS_S = 15.0  # for so long the ledger is not asked again which replicas there are


class Engines:
    """vLLM's metrics of the replicas that listen on this pod's address, each sample with its model and replica."""

    def __init__(self, host: str, targets: Callable[[], Iterable[Target]],
                 fetch: Callable[[str], str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`targets`: all replicas of the fleet; may raise. `fetch`: the text at a URL. `clock`: seconds."""
        self._prefix, self._targets, self._fetch, self._clock = f"{host}:", targets, fetch or _fetch, clock
        self._known: tuple[Target, ...] = ()
        self._asked_at = float("-inf")

    def collect(self) -> Iterator[Metric]:
        """Families of all replicas here, one per name. A replica that does not answer is left out, and logged."""
        families: dict[str, Metric] = {}
        for target in self._here():
            try:
                told = list(text_string_to_metric_families(self._fetch(f"http://{target.address}/metrics")))
            except (OSError, ValueError) as error:
                log.warning("the metrics of %s at %s cannot be read: %s", target.replica, target.address, error)
                continue
            for family in told:
                if not family.name.startswith("vllm:"):
                    continue  # the process's own: a pod may hold several replicas, and no one asks for their sum
                kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = dict(sample.labels) | {"model": target.model, "replica": target.replica}
                    kept.add_sample(sample.name, labels, sample.value)
        yield from families.values()

    def _here(self) -> tuple[Target, ...]:
        if self._clock() - self._asked_at > _TARGETS_S:
            self._asked_at = self._clock()
            try:
                self._known = tuple(t for t in self._targets() if t.address.startswith(self._prefix))
            except Exception as error:  # the ledger is away: what was there is there still
                log.warning("the ledger does not tell which replicas are here: %s", error)
        return self._known


def _fetch(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_SCRAPE_S) as answer:
        return str(answer.read().decode())


def _pusher(file: Path, counters: Path) -> pushing.Pusher | None:
    """By the two parts of the fleet file that it needs; all of it has been checked before it came into a pod."""
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    return pushing.pusher(MetricsSpec.model_validate(told.get("metrics", {})), told["name"], counters)


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m serving.sidecar")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=9464, help="port to listen on")
    parser.add_argument("--counters", type=Path, default=Path(COUNTERS_DIR), help="folder of the gateways' counters")
    parser.add_argument("--fleet", type=Path, help="the fleet file, which says whether these counters are also pushed")
    parser.add_argument("--node", default="", help="the pod's node; its labels go to FLOTILLA_NODE_LABELS' file")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    logs.configure(LogSpec(), "sidecar")
    settings = Settings.read(os.environ)
    ledger = Ledger.later(settings.database)
    asked.counters.mkdir(parents=True, exist_ok=True)
    samples = ledgermetrics.LedgerSamples(ledger)
    engines = Engines(settings.replica_address()[0], samples.targets)
    adopter = Adopter(settings.spool_dir, ledger, _ADOPT_S)
    if asked.node and settings.labels_file is not None:
        from serving.kubernetes import cluster, nodelabels  # a client that other pods need no memory for

        nodelabels.Keeper(cluster.connect, asked.node, settings.labels_file).start()
    server = exporter.serve_pod(asked.host, asked.port, str(asked.counters), engines.collect,
                                    lambda: ledgermetrics.spools(settings.spool_dir))
    pusher = None if asked.fleet is None else _pusher(asked.fleet, asked.counters)
    if pusher is not None:
        pusher.start()
    print("ready", flush=True)
    try:
        server.serve_forever()
    finally:
        if pusher is not None:
            pusher.close()
        adopter.close(timeout_s=1)


if __name__ == "__main__":
    main()
