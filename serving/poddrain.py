"""The preStop hook of a cluster's Ray pods: `python -m serving.poddrain ROLE --for SECONDS`.

Kubernetes ends a pod by a signal that Ray answers by killing what runs. Before that comes this hook: a gateway's pod
waits until no request is under way in it, a model's pod asks Ray to drain the node and waits until its replicas have
gone, and the head waits for the others. Returning early is right as soon as nothing is left to wait for; at the end of
the time Kubernetes goes on whatever this says. May not happen in here: stopping anything by force.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from serving.fleet.resources import COUNTERS_DIR

_IN_FLIGHT = "flotilla_requests_in_flight"
_REPLICA = "ServeReplica"  # in the titles that Ray gives to replicas' processes
_LISTS_CHANGE_S = 5.0  # until no proxy sends new connections to this pod any more
_LOOK_S = 1.0
_GCS_PORT = 6379


def in_flight(counters: Path) -> int:
    """Requests under way in the gateways of this pod."""
    if not counters.is_dir():
        return 0
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(counters))
    return int(sum(s.value for f in registry.collect() if f.name == _IN_FLIGHT for s in f.samples))


def replicas() -> int:
    """Replicas of Ray Serve that run in this pod."""
    found = 0
    for process in psutil.process_iter():
        try:
            found += _REPLICA in " ".join(process.cmdline()[:1])
        except psutil.Error:
            continue
    return found


def drain_node(seconds: int) -> None:
    """Ask Ray to take this node out of use, so that its replicas are replaced elsewhere first and then stop gracefully.

    That Ray cannot be asked, because its head is gone already, is no reason not to wait.
    """
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", "auto",
               "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the pod is being ended",
               "--deadline-remaining-seconds", str(seconds)]
    try:
        subprocess.run(command, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"Ray cannot be asked ({error}); waiting all the same", flush=True)


def other_nodes(port: int = _GCS_PORT) -> int:
    """Other pods that are connected to the GCS in this one."""
    here = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port]
    return len({c.raddr.ip for c in here if c.raddr and c.raddr.ip != c.laddr.ip})


def wait(left: Callable[[], int], seconds: float, what: str, clock: Callable[[], float] = time.monotonic,
         pause: Callable[[float], None] = time.sleep) -> bool:
    """Wait until nothing is left, twice in a row, for at most that long. Returns whether it is."""
    deadline, quiet, shown = clock() + seconds, 0, -1
    while True:
        count = left()
        quiet = 0 if count else quiet + 1
        if quiet == 2:
            return True
        if count != shown:
            shown = count
            print(f"{count} {what}", flush=True)
        if clock() >= deadline:
            return False
        pause(_LOOK_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 always: Kubernetes would only log anything else."""
    parser = argparse.ArgumentParser(prog="python -m serving.poddrain")
    parser.add_argument("role", choices=("gateway", "model", "head"))
    parser.add_argument("--for", dest="seconds", type=int, required=True, help="most seconds to wait")
    parser.add_argument("--counters", type=Path, default=Path(COUNTERS_DIR), help="folder of the gateways' counters")
    asked = parser.parse_args(arguments)
    if asked.role == "gateway":
        time.sleep(min(_LISTS_CHANGE_S, asked.seconds))
        wait(lambda: in_flight(asked.counters), asked.seconds - _LISTS_CHANGE_S, "requests under way")
    elif asked.role == "model":
        if replicas():
            drain_node(asked.seconds)
        wait(replicas, asked.seconds, "replicas running")
    else:
        wait(other_nodes, asked.seconds, "other nodes connected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
