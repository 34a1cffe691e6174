"""The control process: `python -m serving.control`, with a `Plan` on standard input. Prints `ready` when it listens.
On a cluster `--fleet FILE` serves the admin API alone: limits are counted in Redis there.

One per fleet and machine. It holds the book in which gateways count limits together, unless a quota URL names another
place, and serves the admin API and the console where the fleet file asks for them. Gateways live on without it, as the
fleet file says.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving import processes, runstate
from serving.fleet.catalogue import Fleet
from serving.plan import Changes, Plan, fleet
from serving.quotastore.server import BookServer
from serving.settings import Settings
from serving.telemetry import logs, scraping

log = logging.getLogger("flotilla.control")
SOCKET = "quotas.sock"


def needed(found: Fleet, settings: Settings) -> bool:
    """Whether a fleet has anything for this process to do."""
    return found.admin.enabled or not settings.quota_url


async def serve(plan: Plan, found: Fleet, settings: Settings, counts: bool = True, pods: tuple[str, ...] = ()) -> None:
    """Until SIGTERM. `counts`: whether limits may be counted here; `pods`: pages of metrics beside the exporter's.

    Raises: OSError when an address is taken.
    """
    asked, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    book = None
    if counts and not settings.quota_url:
        book = BookServer(Path(plan.work_dir) / SOCKET)
        await book.start()
    admin = await _admin(plan, found, settings, pods) if found.admin.enabled else None
    print("ready", flush=True)
    await asked.wait()
    if book is not None:
        await book.stop()
    if admin is not None:
        server, task, feed = admin
        await feed.close()  # open consoles end by themselves
        server.should_exit = True
        with suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(task, 5)


async def _admin(plan: Plan, found: Fleet, settings: Settings, pods: tuple[str, ...]
                 ) -> tuple[Any, asyncio.Task[None], Any]:
    import uvicorn

    from serving.admin.adapters import Place
    from serving.admin.app import application
    from serving.console.assemble import Around, add
    from serving.console.looking import Run
    from serving.identity.oidc import OidcKeyring
    from serving.ledger.live import LedgerKeyring
    from serving.ledger.store import Ledger

    ledger, pepper = Ledger.later(settings.database), settings.pepper()
    keys = LedgerKeyring(ledger, pepper)
    app = application(ledger, OidcKeyring(found.oidc, keys) if found.oidc else keys, pepper, found.callable_names,
                      place=Place(found, settings.checkpoints_dir))

    def run() -> Run:
        state = runstate.read(settings.state_dir)
        return Run({f.model: f.message for f in state.failures} if state else {}, plan.changes.sources)

    feed = add(app, Around(found, ledger, scraping.Pods(plan.metrics, pods), run, plan.api,
                           settings.reports_dir.absolute()))
    config = uvicorn.Config(app, host=found.admin.host, port=found.admin.port, log_level="warning", access_log=False,
                            lifespan="off", server_header=False, proxy_headers=False,
                            timeout_graceful_shutdown=2)  # a playground's stream need not end
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    sock = config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        if task.done():
            raise OSError("the admin API did not start")
        await asyncio.sleep(0.01)
    return server, task, feed


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m serving.control")
    parser.add_argument("--fleet", type=Path, help="the fleet file; without it a Plan is read from standard input")
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="with --fleet: the API, for the console")
    parser.add_argument("--metrics", default="http://127.0.0.1:9464/metrics", help="with --fleet: the exporter")
    parser.add_argument("--pods", action="append", default=[], metavar="URL",
                        help="with --fleet: metrics of the pods behind a name; may be repeated")
    asked, settings = parser.parse_args(), Settings.read(os.environ)
    if asked.fleet is None:
        processes.die_with_parent(signal.SIGTERM)
        plan = Plan.from_json(sys.stdin.read())
    else:
        plan = Plan("", str(settings.state_dir), "", str(asked.fleet), "", asked.api, asked.metrics, Changes({}))
    found = fleet(Path(plan.fleet_file), plan.changes)
    logs.configure(found.logs, "control")
    import uvloop

    uvloop.run(serve(plan, found, settings, counts=asked.fleet is None, pods=tuple(asked.pods)))


if __name__ == "__main__":
    main()
