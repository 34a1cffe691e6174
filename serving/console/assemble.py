"""The console of a running fleet: its parts, fitted to the fleet's metrics, ledger and state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from fastapi import FastAPI

from serving.console.facts import Facts
from serving.console.feed import Feed, Frame
from serving.console.looking import EVERY_S, Look, Run
from serving.console.playing import Playground
from serving.console.reports import Reports
from serving.console.routes import Parts, routes
from serving.fleet.catalogue import Fleet
from serving.ledger.store import Ledger
from serving.telemetry.view import Scrape


@dataclass(frozen=True)
class Around:
    """Where the fleet is. `scrape`: its metrics now; `run`: what the run's state says now; `api`: the gateway's
    address, http://host:port; `reports`: the folder of load-test reports."""

    fleet: Fleet
    ledger: Ledger
    scrape: Callable[[], Scrape]
    run: Callable[[], Run]
    api: str
    reports: Path


def add(app: FastAPI, around: Around, every_s: float = EVERY_S) -> Feed:
    """Put the console on the admin API's application. Close what it returns when that ends."""
    look = Look(around.fleet, around.scrape, Facts(around.ledger), around.run, every_s)

    def frame() -> Frame:
        seen = look()
        return Frame(msgspec.json.encode(seen), msgspec.json.encode(seen.trace()))

    feed = Feed(frame, every_s)
    parts = Parts(feed, around.fleet, around.ledger, Playground(around.api), Reports(around.reports))
    app.include_router(routes(parts))
    return feed
