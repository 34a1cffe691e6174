"""Proves that a model scales live without losing anything: the work of `./tests/scaling`.

A fleet of one small model begins at zero replicas. Two people ask for long answers, then eight, then two, then
nobody: 0, 1, 2, 1, 0 replicas. Held to: every request of every load test whole, none of them a 5xx or cut; streams that
ran on a replica when it was told to go ended whole there; books that add up; every change of number with its reason in
the log and in the metrics; and at zero again, a request that waits for the start and says how long that took.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]
from live_calls import CHAT, Caller, chat  # noqa: E402
from live_fleet import LiveFleet, Samples, eventually, no_interrupts  # noqa: E402

FLEET = ROOT / "deployments" / "fleets" / "laptop-scaling.yaml"
MODEL, FEW, MANY = "qwen", "scaling-few", "scaling-many"
CHANGE = re.compile(r"model qwen: (\d) -> (\d) replicas: (.*?) \((.*)\)")
COURSE = [(0, 1), (1, 2), (2, 1), (1, 0)]


class Watch(threading.Thread):
    """Looks at the fleet's metrics once a second: (Unix seconds, replicas there are to be, replicas there are)."""

    def __init__(self, fleet: LiveFleet) -> None:
        super().__init__(daemon=True)
        self._fleet, self.over = fleet, threading.Event()
        self.seen: list[tuple[float, int, int]] = []

    def run(self) -> None:
        while not self.over.wait(1.0):
            try:
                found = self._fleet.metrics()
            except OSError:
                continue
            self.seen.append((time.time(), int(found.sum("flotilla_autoscale_target_replicas", model=MODEL)),
                              int(found.sum("flotilla_replicas", model=MODEL))))

    def course(self) -> list[tuple[int, int]]:
        """(to be, there) each time that either changed."""
        kept: list[tuple[int, int]] = []
        for _, target, there in self.seen:
            if not kept or kept[-1] != (target, there):
                kept.append((target, there))
        return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="./tests/scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="of the longest load test (default 180)")
    parser.add_argument("--out", type=Path, help="folder for the load tests' reports; left out: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was seen here")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="also keep the fleet's logs here")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fleet = LiveFleet(folder / "state", FLEET)
        try:
            fleet.start()
            seen = prove(fleet, asked.out or folder / "reports", asked.seconds)
        finally:
            with no_interrupts():
                fleet.run("down", timeout_s=120)
            if asked.keep_logs:
                shutil.copytree(folder / "state" / "logs", asked.keep_logs, dirs_exist_ok=True)
    failed = show(seen)
    if asked.json:
        asked.json.write_text(json.dumps(seen, indent=1) + "\n")
    return 1 if failed else 0


def prove(fleet: LiveFleet, out: Path, seconds: float) -> dict[str, Any]:
    """Everything that was seen."""
    watch, reports = Watch(fleet), {}
    watch.start()
    for number, (scenario, share) in enumerate(((FEW, 0.5), (MANY, 1.0), (FEW, 1.0)), 1):
        where, lasts = out / f"{number}-{scenario}", seconds * share
        done = fleet.run("loadtest", scenario, "--out", str(where), "--duration", str(lasts), timeout_s=lasts + 500)
        print(f"… {scenario}: {watch.course()}", flush=True)
        if not (where / "report.json").exists():
            raise RuntimeError(f"{scenario} left no report ({done.returncode}):\n{done.stdout}\n{done.stderr}")
        reports[where.name] = where
    eventually(lambda: fleet.metrics().sum("flotilla_replicas", model=MODEL) == 0, "back to zero", 300, 1)
    caller, began = Caller(fleet.port, fleet.new_key("demo")), time.monotonic()
    cold = caller.open(CHAT, chat(MODEL, max_tokens=8), timeout_s=300)
    said, took = cold.rest(), time.monotonic() - began
    fleet.settled(60)
    watch.over.set()
    log = (Path(fleet.state.logs) / "scaling.log").read_text()
    return {
        "requests": {name: requests(where) for name, where in reports.items()},
        "gateway": [list(row) for row in fleet.rows(
            "SELECT code, outcome, COUNT(*) FROM requests GROUP BY code, outcome")],
        "reconcile": json.loads(fleet.say("cost", "reconcile", "--json")),
        "changes": [{"at": line[:24], "from": int(m[1]), "to": int(m[2]), "reason": m[3], "because": m[4]}
                    for line in log.splitlines() if (m := CHANGE.search(line))],
        "decisions": decisions(fleet.metrics()), "course": watch.course(), "drained": drained(fleet, watch),
        "cold": {"status": cold.status, "seconds": round(took, 1), "answer": bool(json.loads(said)["choices"]),
                 "header": cold.headers.get("x-flotilla-cold-start-s", "")},
    }


def requests(report: Path) -> dict[str, Any]:
    """Requests of a load test, and how those went wrong that did not end whole."""
    found = json.loads((report / "report.json").read_text())
    rows = [json.loads(line) for line in (report / "records.jsonl").read_text().splitlines()]
    wrong = sorted({row["error"]["kind"] for row in rows if row["error"]})
    return {"all": len(rows), "wrong": wrong, "verdict": found["verdict"]["result"]}


def decisions(found: Samples) -> dict[str, int]:
    """How often each reason was given."""
    return {labels["reason"]: int(value) for labels, value in found.of("flotilla_autoscale_decisions_total")}


def drained(fleet: LiveFleet, watch: Watch) -> dict[str, Any]:
    """Requests that were under way at the replica that went when two became one, and how they ended."""
    pairs = zip(watch.seen, watch.seen[1:], strict=False)
    at = next((now[0] for then, now in pairs if (then[1], now[1]) == (2, 1)), None)
    if at is None:
        return {"under_way": 0, "ended": {}}
    rows = fleet.rows(
        "SELECT c.source_id, r.outcome, r.code FROM requests r JOIN charges c ON c.request_id = r.request_id "
        "WHERE r.started_at < ? AND r.started_at + r.duration_s > ?", at, at)
    gone = {row[0] for row in fleet.rows(
        "SELECT source_id FROM sources WHERE ended AND role = 'replica' AND seen_at > ?", at)}
    there = [row for row in rows if row[0] in gone]
    return {"under_way": len(there), "everywhere": len(rows), "ended": sorted({f"{o} {c}" for _, o, c in there})}


def show(seen: dict[str, Any]) -> list[str]:
    """Print what was seen; what of it did not hold."""
    changes = [(c["from"], c["to"]) for c in seen["changes"]]
    holds = {
        "every request of the load tests ended whole": all(r["all"] and not r["wrong"] for r in
                                                           seen["requests"].values()),
        "no 5xx, nothing cut": all(code == 200 and outcome == "finished" for code, outcome, _ in seen["gateway"]),
        "0 -> 1 -> 2 -> 1 -> 0 replicas": changes[:4] == COURSE,
        "streams were under way where a replica went": seen["drained"]["under_way"] > 0,
        "and ended whole": seen["drained"]["ended"] in ([], ["finished 200"]),
        "the books add up": seen["reconcile"]["residual_nanousd"] == 0,
        "every change has its reason in the metrics": all(seen["decisions"].get(r) for r in ("wake", "demand",
                                                          "less_demand", "to_zero")),
        "nothing was decided on old measurements alone": seen["decisions"].get("stale", 0) < 30,
        "a model at zero answers, and says what the start took": seen["cold"]["status"] == 200 and bool(
            seen["cold"]["header"]),
    }
    print(json.dumps(seen, indent=1))
    for what, held in holds.items():
        print(f"{'ok' if held else 'FAILED':6}  {what}")
    return [what for what, held in holds.items() if not held]


if __name__ == "__main__":
    sys.exit(main())
