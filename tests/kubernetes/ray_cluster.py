"""A Ray of one node that is told what to serve as KubeRay does it: by a PUT of serveConfigV2 to its dashboard.

Everything that a pod has comes from here: the environment of its secrets, the resources that its group offers. May
not happen in here: assertions about what the fleet answers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from serving import launch
from serving.fleet.resources import GATEWAY, profile_resource

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayCluster:
    """Started by `ray start --head`, as in a head pod that is also the only worker."""

    def __init__(self, folder: Path, environment: dict[str, str], profiles: tuple[str, ...]) -> None:
        self._folder = folder
        self._work = Path(tempfile.mkdtemp(prefix="flo-"))  # short: paths of unix sockets are limited to 107 bytes
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOTILLA_")}
        self.environment = kept | launch.EVERYWHERE | environment | {
            "FLOTILLA_STATE_DIR": str(folder / "state"), "RAY_AUTH_MODE": "disabled"}
        self.dashboard = free_port()
        offered = {GATEWAY: 1} | {profile_resource(p): 8 for p in profiles}
        ports = {name: free_port() for name in ("port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
                                                "metrics-export-port", "ray-client-server-port")}
        self.gcs = ports["port"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=4",
                   "--node-ip-address=127.0.0.1", f"--dashboard-port={self.dashboard}", f"--temp-dir={self._work}",
                   f"--resources={json.dumps(offered)}", "--object-store-memory=100000000",
                   *(f"--{name}={port}" for name, port in ports.items())]
        self._log = open(folder / "ray.log", "ab")
        self._process = subprocess.Popen(command, env=self.environment, stdout=self._log, stderr=self._log,
                                         start_new_session=True)

    def put(self, config: dict[str, Any]) -> None:
        """Tell Ray Serve what to run, once the dashboard answers."""
        request = urllib.request.Request(self._url, json.dumps(config).encode(), {"Content-Type": "application/json"},
                                         method="PUT")
        deadline = time.monotonic() + 90
        while True:
            try:
                OPEN(request, timeout=60).close()
                return
            except urllib.error.HTTPError as error:
                raise AssertionError(f"the dashboard said {error.code}: {error.read().decode()}") from error
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, self.log()
                time.sleep(0.5)

    def applications(self) -> dict[str, Any]:
        """What KubeRay looks at: each application's status."""
        with OPEN(self._url, timeout=30) as answer:
            return json.load(answer)["applications"]

    def await_running(self, within_s: float = 240) -> dict[str, Any]:
        """Wait until every application runs."""
        return eventually(lambda: self._running(), within_s, lambda: f"{self.applications()}\n{self.log()}")

    def _running(self) -> dict[str, Any] | None:
        found = self.applications()
        failed = {n: a["message"] for n, a in found.items() if a["status"] in ("DEPLOY_FAILED", "UNHEALTHY")}
        assert not failed, failed
        return found if found and all(a["status"] == "RUNNING" for a in found.values()) else None

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"

    def log(self) -> str:
        return (self._folder / "ray.log").read_text()[-3000:]

    def stop(self) -> None:
        """End it and all that it has started, known by the state directory in their environment."""
        mark = str(self._folder / "state")
        for hard in (False, True):
            found = [p for p in psutil.process_iter() if _marked(p, mark)]
            for process in found:
                try:
                    process.kill() if hard else process.terminate()
                except psutil.Error:
                    continue
            psutil.wait_procs(found, timeout=10)
        self._process.wait(20)
        self._log.close()
        shutil.rmtree(self._work, ignore_errors=True)


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("FLOTILLA_STATE_DIR") == mark or mark.removesuffix("/state") in " ".join(
            process.cmdline())
    except psutil.Error:
        return False


def eventually(read: Callable[[], Any], within_s: float, told: Callable[[], str]) -> Any:
    """The first true value. Raises: AssertionError with `told()`."""
    deadline = time.monotonic() + within_s
    while not (found := read()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.5)
    return found
