"""Servers that a benchmark starts: each in a process group of its own, watched, charged with its CPU, and ended.

What a server's own descendants do (Ray starts daemons in sessions of their own) belongs to it: they are found by
descent from its holder (`serving.bench.hold`), which adopts orphans. May not happen in here: what the servers are.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from serving.bench.client import BadLoad, Load, Seen
from serving.errors import StartFailed

_POLL_S = 0.25
_PORTS = iter(range(21_000 + os.getpid() % 70 * 100, 29_000))


def free_port() -> int:
    """A free port below those that the kernel and Ray give out by themselves while other servers start."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed("no free port is left between 21000 and 28999")


@dataclass(frozen=True)
class Launch:
    """How to start a server. `probe`: a JSON request that it must answer with 200 before it counts as started."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path  # its working directory and log
    url: str
    path: str
    headers: Mapping[str, str]
    probe: str
    start_s: float = 240.0
    stop_s: float = 5.0  # between the request to end and force
    files: Mapping[str, str] = field(default_factory=dict)  # written into `folder` first
    cores: tuple[int, ...] = ()  # that it may run on; none: any


class Child:
    """A running server."""

    def __init__(self, name: str, launch: Launch) -> None:
        self.name, self._launch = name, launch
        launch.folder.mkdir(parents=True, exist_ok=True)
        for file, text in launch.files.items():
            (launch.folder / file).write_text(text)
        self.log = launch.folder / f"{name}.log"
        with open(self.log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.bench.hold", str(launch.folder), f"{launch.stop_s:g}",
                 ",".join(map(str, launch.cores)), *launch.command],
                env=dict(launch.env), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self._tree: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        """Of its holder."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Until a real request has been answered. Raises: StartFailed with the log's last lines."""
        launch, said = self._launch, "no answer"
        deadline = time.monotonic() + launch.start_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StartFailed(f"it ended with code {self._process.returncode}; {self.last_words()}")
            request = urllib.request.Request(launch.url + launch.path, launch.probe.encode(),
                                             {"content-type": "application/json", **launch.headers})
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    if answer.status == 200 and json.loads(answer.read()).get("choices"):
                        return
                    said = f"status {answer.status}"
            except urllib.error.HTTPError as error:
                said = f"status {error.code}: {error.read(300).decode('utf-8', 'replace')}"
            except (OSError, ValueError, http.client.HTTPException) as error:
                said = str(error)
            time.sleep(_POLL_S)
        raise StartFailed(f"no good answer within {launch.start_s:g} s ({said}); {self.last_words()}")

    def last_words(self, count: int = 3) -> str:
        """The end of its log, in one line."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its log ends: {' | '.join(lines[-count:])[-600:]}"

    def tree(self) -> list[psutil.Process]:
        """Its processes that live, the holder among them."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            self._tree |= {p.pid: p for p in (root, *root.children(recursive=True))}
        self._tree = {pid: p for pid, p in self._tree.items() if p.is_running()}
        return list(self._tree.values())

    def cpu(self, roles: Mapping[str, str] | None = None) -> dict[tuple[str, int], float]:
        """CPU seconds so far by role and process. `roles`: patterns of command lines, the first that fits counts."""
        found = {}
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline()) or process.name()
                role = next((r for r, pattern in (roles or {}).items() if re.search(pattern, line)), "rest")
                times = process.cpu_times()
                found[role, process.pid] = times.user + times.system
        return found

    def rss(self) -> int:
        """Memory of all its processes but the holder, bytes; shared pages count each time."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss if process.pid != self.pid else 0
        return total

    def stop(self) -> None:
        """End it and whatever it has left. Returns when nothing lives."""
        left = self.tree()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._launch.stop_s + 15)
        for process in left:  # the holder's work, in case it could not do it
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        self._process.wait()


def spent(before: Mapping[tuple[str, int], float], after: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """CPU seconds by role between two readings of `Child.cpu`."""
    found: dict[str, float] = {}
    for (role, pid), seconds in after.items():
        found[role] = found.get(role, 0.0) + seconds - before.get((role, pid), 0.0)
    return found


def busy() -> float:
    """CPU seconds that the whole machine has worked so far; what a hypervisor kept for others counts too."""
    times = psutil.cpu_times()
    return times.user + times.system + times.nice + times.irq + times.softirq + times.steal


def apply(load: Load) -> Seen:
    """Run the client in a process of its own; the CPU it tells is that of the whole process. Raises: BadLoad."""
    command = [sys.executable, "-m", "serving.bench.client"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        try:
            out, _ = child.communicate(load.to_json().encode(), timeout=load.timeout_s + 30)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise BadLoad(f"the client ended with code {child.returncode}")
    seen, after = Seen.from_json(out.decode()), resource.getrusage(resource.RUSAGE_CHILDREN)
    seen.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seen


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change a server behind our back."""
    dropped = ("FLOTILLA_", "RAY_", "VLLM_", "LITELLM_", "OMP_", "PROMETHEUS_MULTIPROC_DIR")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
