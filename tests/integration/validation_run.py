"""Holds the simulator against a live run on this machine: the work of `./tests/validation`.

The laptop's fleet answers a load test; `flotilla profile fit` makes engine profiles of what its replicas learned and of
the first half of the run, and simulates the second half, of which it has used nothing. Held to: the medians of TTFT and
TPOT and the throughput of each model within 15% of what was seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]
from live_fleet import LAPTOP, LiveFleet, no_interrupts  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when a figure is too far off."""
    parser = argparse.ArgumentParser(prog="./tests/validation", description=__doc__.splitlines()[0])
    parser.add_argument("--fleet", type=Path, default=LAPTOP, help="fleet file (default: the laptop's)")
    parser.add_argument("--scenario", default="laptop-mix", help="of the load test (default laptop-mix)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the load test (default 180)")
    parser.add_argument("--out", type=Path, help="folder for the load test's report; left out: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found here")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fleet = LiveFleet(folder / "state", asked.fleet)
        try:
            fleet.start()
            found = held(fleet, asked.scenario, asked.seconds, asked.out or folder / "report")
        finally:
            with no_interrupts():
                fleet.run("down", timeout_s=120)
    show(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["within"] else 1


def held(fleet: LiveFleet, scenario: str, seconds: float, out: Path) -> dict[str, Any]:
    """What `profile fit` says of a load test."""
    done = fleet.run("loadtest", scenario, "--out", str(out), "--duration", str(seconds), timeout_s=seconds + 300)
    if not (out / "records.jsonl").exists():
        raise RuntimeError(f"{scenario} left no records ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    fleet.settled(30)
    fit = fleet.run("profile", "fit", str(out), "--fleet", str(fleet.file), "--json", timeout_s=600)
    if fit.returncode not in (0, 1):
        raise RuntimeError(f"profile fit ({fit.returncode}):\n{fit.stdout}\n{fit.stderr}")
    return dict(json.loads(fit.stdout))


def show(found: dict[str, Any]) -> None:
    """A line for each figure."""
    for name, model in found["models"].items():
        for figure, of in model.get("validation", {}).items():
            print(f"{'ok' if of['within'] else 'FAILED':6}  {name:12} {figure:20} live {of['live']:10.4g}  simulated "
                  f"{of['simulated']:10.4g}  {of['simulated'] / of['live'] if of['live'] else 0:.3f}")
        if "missing" in model:
            print(f"FAILED  {name:12} {model['missing']}")


if __name__ == "__main__":
    sys.exit(main())
