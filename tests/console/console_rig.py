"""The console on a real port, over a made-up fleet and a ledger in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from asgi_server import served
from fake_fleet import FakeFleet
from ledger_samples import PEPPER, fresh

from serving.admin.app import application
from serving.console.assemble import Around, add
from serving.console.looking import Run
from serving.ledger import keys, tenants
from serving.ledger.keys import Grant
from serving.ledger.live import LedgerKeyring
from serving.ledger.store import Ledger

EVERY_S = 0.05


@dataclass
class Rig:
    """`url`: of the page. `run`: what the run's state says."""

    fake: FakeFleet
    ledger: Ledger
    key: str
    plain_key: str
    url: str = ""
    run: Run = Run({}, {})
    folder: Path = field(default_factory=Path)


@contextmanager
def running(folder: Path, every_s: float = EVERY_S, api: str = "http://127.0.0.1:9") -> Iterator[Rig]:
    """A console, served by a thread until the end. `api`: the gateway's address."""
    ledger = fresh(folder / "ledger.db")
    fake = FakeFleet()
    tenants.seed(ledger, fake.fleet.tenants, 1.0)
    text, _ = keys.create(ledger, "shop", "root", PEPPER, 1.0, Grant(scopes=("admin",)))
    plain, _ = keys.create(ledger, "shop", "app", PEPPER, 1.0)
    rig = Rig(fake, ledger, text, plain, folder=folder)
    app = application(ledger, LedgerKeyring(ledger, PEPPER, max_age_s=0.05, miss_age_s=0.0), PEPPER, lambda: ("qwen",))
    add(app, Around(fake.fleet, ledger, fake.scrape, lambda: rig.run, api, folder / "reports"), every_s)
    try:
        with served(app) as url:
            rig.url = f"{url}/console/"
            yield rig
    finally:
        ledger.close()
