"""Consoles open on a benchmark's gateway: `python -m serving.bench.consoles FOLDER COUNT`. Prints `ready` once all have
seen a frame, and at SIGTERM the CPU seconds per second that serving and reading them took, with the looks' own.

FOLDER is the gateway's: its fleet file, counters and ledger are the ones that the console looks at. Every tenth page
never reads again after its first frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

import uvicorn

from serving.admin.app import application
from serving.console.assemble import Around, add
from serving.console.looking import Run
from serving.fleet import catalogue
from serving.ledger import keys
from serving.ledger.keys import Grant
from serving.ledger.live import LedgerKeyring
from serving.ledger.store import Ledger
from serving.ledgermetrics import LedgerSamples
from serving.settings import Settings
from serving.telemetry import exporter, scraping

_SLOW = 10  # one page in so many reads nothing
_PEPPER = b"of a benchmark"


async def _page(port: int, key: str, reads: bool, seen: asyncio.Event, over: asyncio.Event) -> None:
    """One page, until it is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(f"GET /console/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"a console was refused: {status!r}")
    while await reader.read(65_536):
        seen.set()
        if not reads:
            break
    await over.wait()
    writer.close()


async def main(folder: Path, count: int) -> None:
    """Until SIGTERM."""
    fleet = catalogue.load(folder / "fleet.yaml", ())
    ledger = Ledger.open(Settings(state_dir=folder / "state").database)
    key, _ = keys.create(ledger, next(iter(fleet.tenants)), "console", _PEPPER, time.time(), Grant(scopes=("admin",)))
    metrics = exporter.serve("127.0.0.1", 0, str(folder / "metrics"), LedgerSamples(ledger), tuple)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
    app = application(ledger, LedgerKeyring(ledger, _PEPPER), _PEPPER, tuple)
    url = f"http://127.0.0.1:{metrics.server_address[1]}/metrics"
    around = Around(fleet, ledger, lambda: scraping.scrape(url), lambda: Run({}, {}), "http://127.0.0.1:9", folder)
    feed = add(app, around)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    over, seen = asyncio.Event(), [asyncio.Event() for _ in range(count)]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    pages = [asyncio.create_task(_page(port, key, bool(n % _SLOW), event, over)) for n, event in enumerate(seen)]
    await asyncio.gather(*(event.wait() for event in seen))
    print("ready", flush=True)
    cpu, began = time.process_time(), time.monotonic()
    await over.wait()
    print(f"{(time.process_time() - cpu) / (time.monotonic() - began):.4f}", flush=True)
    await feed.close()
    server.should_exit = True
    await asyncio.gather(*pages, return_exceptions=True)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(serving, 5)
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
