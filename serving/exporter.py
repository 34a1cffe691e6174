"""The exporter's process: `python -m serving.exporter HOST PORT MULTIPROCESS_DIR LEDGER`. Prints `ready` when bound."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from serving import app, processes
from serving.ledger.store import Ledger
from serving.telemetry import exporter


def main() -> None:
    """Serve until ended."""
    host, port, directory, ledger_path = sys.argv[1:]
    processes.die_with_parent(signal.SIGTERM)
    ledger = Ledger.open(Path(ledger_path))
    server = exporter.serve(host, int(port), directory, lambda: app.samples(ledger), lambda: app.targets(ledger))
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
