"""The Locust process: started in a session of its own, listened to through a pipe, and always brought down.

Its own session, so that Ctrl-C in the terminal reaches only the parent, which then stops the child in order;
the pipe, so that the child notices when the parent is killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadtests.errors import RunError
from loadtests.progress import Progress
from loadtests.scenario import Scenario
from loadtests.team import Address

_PACKAGE = Path(__file__).resolve().parent
_GRACE_S = 15.0
_LOG_TAIL = 1500
_WORKERS_WITHIN_S = 600
_LOCUST = (sys.executable, "-m", "locust", "-f", str(_PACKAGE / "locustfile.py"))


@dataclass(frozen=True)
class Job:
    """What the child is to do, and where its records and its log go.

    beside: folder of the scenario's file, where its traces are. processes: workers; one is Locust without a master.
    only, salt: see `passes`. web: host and port of Locust's interface, if somebody wants to watch. lead: where workers
    of other machines find this one, `processes` of them; None: workers are its own children.
    """

    scenario: Scenario
    base_url: str
    records: Path
    log: Path
    beside: Path = Path(".")
    processes: int = 1
    only: str | None = None
    salt: int = 0
    web: tuple[str, int] | None = None
    lead: Address | None = None


class Process:
    """A running child."""

    def __init__(self, popen: subprocess.Popen[bytes], pipe: int, log: Path) -> None:
        self._popen, self._pipe, self._log = popen, pipe, log
        self._said_final = False
        self._stops = 0
        self._killer: threading.Timer | None = None

    def progress(self) -> Iterator[Progress]:
        """Progress as it comes; ends when the child closes the pipe."""
        with os.fdopen(self._pipe, "rb") as lines:
            for line in lines:
                progress = Progress.model_validate_json(line)
                self._said_final = self._said_final or progress.final
                yield progress

    def stop(self) -> None:
        """Ask for an orderly end; insist after fifteen seconds or when asked again. Safe in a signal handler."""
        self._stops += 1
        if self._stops > 1:
            self._signal(signal.SIGKILL)
            return
        # To the leader alone: it has the workers stop and collects their last records.
        with suppress(ProcessLookupError):
            os.kill(self._popen.pid, signal.SIGTERM)
        self._killer = threading.Timer(_GRACE_S, self._signal, (signal.SIGKILL,))
        self._killer.daemon = True
        self._killer.start()

    def check(self) -> None:
        """Wait for the end. Raises RunError if the child died without a last word, unasked."""
        self._popen.wait()
        if not self._said_final and not self._stops:
            tail = self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()
            raise RunError(f"the load generator ended with code {self._popen.returncode}:\n{tail}")

    def destroy(self) -> None:
        """Whatever happened: no process of the child's session stays."""
        if self._killer is not None:
            self._killer.cancel()
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        # The session's group exists as long as anyone of it lives, also after its leader has ended.
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


@contextmanager
def started(job: Job) -> Iterator[Process]:
    """Start the child; on leaving the block it is gone."""
    with tempfile.TemporaryDirectory(prefix="flotilla-loadtest-") as folder:
        scenario_file = Path(folder) / "scenario.json"
        scenario_file.write_text(job.scenario.model_dump_json(), encoding="utf-8")
        reading, writing = os.pipe()
        with job.log.open("wb") as log:
            popen = subprocess.Popen(
                _command(job, scenario_file, writing),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                pass_fds=(writing,),
                start_new_session=True,
            )
        os.close(writing)
        process = Process(popen, reading, job.log)
        try:
            yield process
        finally:
            process.destroy()


def _command(job: Job, scenario_file: Path, progress_fd: int) -> list[str]:
    locust = list(_LOCUST)
    if job.web is None:
        locust += ["--headless"]
    else:
        locust += ["--autostart", "--web-host", job.web[0], "--web-port", str(job.web[1])]
    locust += ["--users", "1", "--spawn-rate", "1", "--only-summary", "--host", job.base_url]
    # Failed requests are a result, not a failure of the generator.
    locust += ["--exit-code-on-error", "0"]
    if job.lead is not None:
        locust += ["--master", "--master-bind-host", job.lead.host, "--master-bind-port", str(job.lead.locust)]
        locust += ["--expect-workers", str(job.processes), "--expect-workers-max-wait", str(_WORKERS_WITHIN_S)]
    elif job.processes > 1:
        # A port of its own: two load tests may run side by side.
        port = str(_free_port())
        locust += ["--processes", str(job.processes), "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        locust += ["--master-port", port]
    ours = ["--scenario", str(scenario_file), "--beside", str(job.beside.resolve())]
    ours += ["--records", str(job.records.resolve()), "--salt", str(job.salt), "--only", job.only or ""]
    return [*locust, *ours, "--progress-fd", str(progress_fd)]


def worker_command(leader: Address) -> list[str]:
    """A worker that looks for its master elsewhere; all else comes by orders."""
    return [*_LOCUST, "--worker", "--master-host", leader.host, "--master-port", str(leader.locust),
            "--die-with-parent"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment() -> dict[str, str]:
    """What a Locust process gets."""
    # Locust reads settings from LOCUST_* too; a run must depend on its scenario alone.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    paths = [str(_PACKAGE.parent), inherited.get("PYTHONPATH", "")]
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
