"""Brings a whole fleet up on one machine and holds it there: exporter, Ray, models, gateway.

Runs as a process of its own (`python -m serving.supervisor`), told what to do by a `Plan` on standard input. It ends on
SIGTERM, or when its guard dies, and takes everything with it. May not happen in here: talking to a person.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from serving import app, checkpoints, clusterweights, control, processes, runstate, weights
from serving.errors import FlotillaError, StartFailed, WeightsError
from serving.fleet.catalogue import ModelSpec, price_book
from serving.fleet.observing import LogSpec
from serving.plan import Plan, fleet
from serving.settings import Settings
from serving.stopping import StopRequest
from serving.telemetry import logs

log = logging.getLogger("flotilla.supervisor")
_LOOK_S = 1.0


class Supervisor:
    """One run, from start to end."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._plan, self._settings = plan, settings
        self._work = Path(plan.work_dir)
        self._fleet = fleet(Path(plan.fleet_file), plan.changes)
        self._control: subprocess.Popen[bytes] | None = None
        self._serving = False  # whether Ray Serve has been started
        state = runstate.read(settings.state_dir)
        assert state is not None, "the guard writes the first state"
        self._state = state

    @property
    def logs(self) -> LogSpec:
        """How it logs: steps of the start are told whatever the fleet file's level."""
        found = self._fleet.logs
        return found if found.level == "debug" else found.model_copy(update={"level": "info"})

    def up(self) -> None:
        """Bring everything up. Raises: StartFailed, which names the step."""
        steps = [("weights", self._weights), ("metrics", self._start_exporter)]
        steps += [("control", self._start_control)] if control.needed(self._fleet, self._settings) else []
        steps.append(("ray", self._start_ray))
        try:
            for name, step in steps:
                self._progress(name)
                step()
            book = price_book(self._fleet, Path(self._plan.fleet_file))
            app.deploy(self._fleet, book, self._sources, self._around(), self._environment(), self._progress,
                       self._failed)
            self._progress("first answer")
            self._await_api()
        except Exception as error:
            log.exception("the start failed")
            at = self._state.steps[-1].name if self._state.steps else "the start"
            raise StartFailed(f"{at}: {_in_short(error)} (logs: {self._state.logs})") from error
        self._note(replace(self._state.done(time.time()), state="up"))

    def failed(self, error: StartFailed) -> None:
        """Leave word of what went wrong."""
        self._note(replace(self._state, error=str(error)))

    def down(self) -> None:
        """Stop everything, gracefully where it answers, and whatever is left by force."""
        self._note(replace(self._state, state="stopping"))
        self._keep_logs()
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            if self._serving:  # else there is no one to wait for, and nothing that would answer
                from ray import serve

                stopper = threading.Thread(target=serve.shutdown, daemon=True)
                stopper.start()
                stopper.join(15)
            ray.shutdown()
        # the guard does the same after this process; when the guard itself was killed, this is what cleans up
        processes.sweep(processes.Run(self._plan.run, self._plan.work_dir), spare=frozenset({self._state.guard_pid}))
        if not processes.alive(self._state.guard_pid, self._plan.run):
            shutil.rmtree(self._work, ignore_errors=True)
            self._note(replace(self._state, state="stopped"))

    def _progress(self, step: str) -> None:
        log.info("step: %s", step)
        self._note(self._state.begin(step, time.time()))

    def _note(self, state: runstate.RunState) -> None:
        self._state = state
        runstate.write(self._settings.state_dir, state)

    def _around(self) -> app.Surroundings:
        return app.Surroundings(self._settings.database, self._settings.spool_dir, self._work / "metrics",
                                self._settings.pepper(), self._settings.gateway_secret(),
                                self._settings.quota_url or str(self._work / control.SOCKET),
                                Path(self._plan.logs).absolute())

    def _environment(self) -> dict[str, str]:
        return {processes.MARK: self._plan.run}

    def _weights(self) -> None:
        """Have all weights at hand before anything is started; a model whose weights cannot be had is left out."""
        self._sources = clusterweights.Sources({}, {})
        checked = self._settings.state_dir.absolute() / "checked-weights.json"
        hub = weights.Hub(checked=checked)
        for name, spec in self._fleet.models.items():
            try:
                source = self._source(name, spec, hub)
                self._sources.adapters[name] = self._adapters(spec, source)
                self._sources.models[name] = source
            except Exception as error:  # whatever it is, it is this model's matter alone
                log.error("model %s: %s", name, error, exc_info=not isinstance(error, FlotillaError))
                self._failed(name, error)
        if not self._sources.models:
            raise StartFailed("; ".join(f.message for f in self._state.failures))

    def _source(self, name: str, spec: ModelSpec, hub: weights.Hub) -> str:
        """What the engine of a model is to load. Raises: WeightsError, CheckpointError."""
        if spec.small_family:
            return str(checkpoints.make(spec.small_family, self._settings.checkpoints_dir))
        claimed = None if name in self._plan.changes.sources else spec.architecture  # the file describes its own source
        wanted = weights.Wanted(spec.source, spec.revision, claimed, spec.engine.args)
        return weights.prepare(wanted, hub, lambda note: self._progress(f"weights of {name}: {note}"))

    def _adapters(self, spec: ModelSpec, source: str) -> dict[str, str]:
        root, family = self._settings.checkpoints_dir, spec.small_family or ""
        return {
            adapter: str(checkpoints.make_adapter(Path(source), family, adapter, root))
            if found.source.startswith("small:") else found.source
            for adapter, found in spec.adapters.items()
        }

    def _failed(self, name: str, error: Exception) -> None:
        """A model does not come up. The others do."""
        cause = error.cause if isinstance(error, WeightsError) else "engine"
        self._note(self._state.failing(runstate.ModelFailure(name, cause, _in_short(error))))

    def _start_exporter(self) -> None:
        directory = self._work / "metrics"
        directory.mkdir(parents=True, exist_ok=True)
        metrics = self._fleet.metrics
        self._child("serving.exporter", f"the metrics exporter did not start; is {metrics.host}:{metrics.port} taken?")

    def _start_control(self) -> None:
        admin = self._fleet.admin
        taken = f"; is {admin.host}:{admin.port} taken?" if admin.enabled else ""
        self._control = self._child("serving.control", f"the control process did not start{taken}")

    def _child(self, module: str, otherwise: str) -> subprocess.Popen[bytes]:
        """A process of the fleet, once it says that it is ready. Raises: StartFailed."""
        child = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None and child.stdout is not None
        with child.stdin as told:
            told.write(self._plan.to_json().encode())
        if not child.stdout.readline().startswith(b"ready"):
            raise StartFailed(otherwise)
        return child

    def look_after(self) -> None:
        """Start what has died and can be started again: gateways go on meanwhile, as the fleet file says."""
        if self._control is not None and self._control.poll() is not None:
            log.error("the control process has ended (%s); it is started again", self._control.returncode)
            try:
                self._start_control()
            except StartFailed as error:
                log.error("%s", error)

    def _start_ray(self) -> None:
        import ray
        from ray import serve

        gateway = self._fleet.gateway
        _require_free(gateway.host, gateway.port)
        ray.init(
            num_cpus=max(os.cpu_count() or 1, self._cpus()), include_dashboard=False, log_to_driver=False,
            object_store_memory=100 * 1024 * 1024, _temp_dir=str(self._work / "ray"), _node_ip_address="127.0.0.1",
            configure_logging=False,
        )
        # gateways listen themselves and nothing passes through Ray's proxies; without a host Ray starts none
        serve.start(proxy_location="Disabled", http_options={"host": None})
        self._serving = True

    def _cpus(self) -> int:
        accelerators = self._fleet.accelerators
        need = sum(accelerators[m.accelerator].cpus * m.replicas.max for m in self._fleet.models.values())
        return int(need + 0.1 * self._fleet.gateway.replicas) + 1

    def _await_api(self, timeout_s: float = 60.0) -> None:
        import urllib.error
        import urllib.request

        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self._state.api}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        raise StartFailed(f"the API on {self._state.api} did not become ready within {timeout_s:g} s")

    def _keep_logs(self) -> None:
        """Ray's logs live in the run's temporary folder; what explains a failure moves to the state directory."""
        source, target = self._work / "ray" / "session_latest" / "logs", Path(self._state.logs) / "ray"
        for pattern in ("serve/*.log", "worker-*.err", "worker-*.out", "raylet.err", "gcs_server.err"):
            for file in source.glob(pattern):
                if file.stat().st_size:
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target / file.name)


def _in_short(error: BaseException) -> str:
    """What went wrong in one or two lines: a remote traceback's first line and its last error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*: \S", line)]
    return " … ".join(dict.fromkeys([*lines[:1], *causes[-1:]])) or type(error).__name__


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartFailed(f"the API's address {host}:{port} is taken ({error.strerror}); "
                              "stop what listens there or choose another with --port") from error


def main() -> int:
    """Run a plan from standard input until told to stop."""
    processes.die_with_parent(signal.SIGTERM)
    processes.adopt_orphans()
    plan = Plan.from_json(sys.stdin.read())
    settings = Settings.read(os.environ)
    logs.configure(LogSpec(level="info"), "supervisor")  # the fleet's own words about it may be wrong yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = StopRequest()
    supervisor = Supervisor(plan, settings)
    logs.configure(supervisor.logs, "supervisor")
    code = 0
    try:
        supervisor.up()
        while True:
            time.sleep(_LOOK_S)
            supervisor.look_after()
    except StartFailed as error:
        supervisor.failed(error)
        code = 1
    except SystemExit:
        pass
    finally:
        stop.leaving()
        supervisor.down()
    return code


if __name__ == "__main__":
    sys.exit(main())
