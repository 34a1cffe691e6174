"""`flotilla loadtest --kubernetes`: the load test as the chart's Job beside a release, its report brought home."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.cli.output import stderr
from serving.cli.render import as_yaml
from serving.errors import ConfigError
from serving.kubernetes import cluster, helm, inpods, kinds, loadjob, release, rendered
from serving.kubernetes.checks import LEAST_KUBERNETES
from serving.kubernetes.loadjob import Run
from serving.kubernetes.values import merged

_KEY = "key"


@dataclass(frozen=True)
class Where:
    """Which release, in which cluster."""

    context: str | None
    namespace: str | None
    release: str
    chart: Path


class Beside:
    """Load tests beside a release. Raises: as `release.find`."""

    def __init__(self, where: Where) -> None:
        self.cluster = cluster.connect(where.context, where.namespace)
        self._where = where
        self.service = release.find(self.cluster, where.release)

    def fleet_files(self, folder: Path) -> Path:
        """The fleet that was installed, as files. Returns: the fleet file."""
        return release.fleet_files(self.cluster, self.service["metadata"]["name"], folder)

    def run(self, scenario: Path, name: str, more: Sequence[str], workers: int, target: Path, tenant: str,
            key: str) -> int:
        """Run a scenario and bring its report to `target`. Returns the load test's exit code.

        `more`: its further arguments; `key`: an API key, or none: then one of `tenant` is made and revoked.
        """
        values = self._values()
        with self._key(values, loadjob.named(name), tenant, key) as reference:
            run = self._rendered(values, name, scenario.read_text(encoding="utf-8"), reference, more, workers)
            loadjob.start(self.cluster, run)
            stderr.print(f"[dim]the Job {run.main['metadata']['name']} runs in {self.cluster.namespace}; Ctrl-C ends "
                         "it, and what it has measured comes home[/]", highlight=False)
            try:
                code = loadjob.follow(self.cluster, run, _say)
            except KeyboardInterrupt:
                loadjob.stop(self.cluster, run)
                code = 130
            loadjob.fetch(self.cluster, run, target)
            loadjob.clear(self.cluster, run)
        return code

    def fetch(self, name: str, target: Path) -> None:
        """Bring the report of an earlier run home."""
        values = self._values()
        reference = {"secretName": "none", "secretKey": _KEY}
        loadjob.fetch(self.cluster, self._rendered(values, loadjob.named(name), "-", reference, (), 1), target)

    def _values(self) -> dict[str, Any]:
        where = self._where
        chosen = ["--kube-context", where.context] if where.context else []
        said = helm.run(["get", "values", where.release, "-n", self.cluster.namespace, "-o", "yaml", *chosen])
        found = yaml.safe_load(said) or {}
        if not isinstance(found, dict) or "fleet" not in found:
            raise ConfigError(f"the release {where.release} was installed without `flotilla render values`; its load "
                              "test cannot be rendered")
        return found

    def _rendered(self, values: dict[str, Any], name: str, scenario: str, key: dict[str, str], more: Sequence[str],
                  workers: int) -> Run:
        over = {"loadtest": {"enabled": True, "name": name, "scenario": scenario, "apiKey": key,
                             "workers": workers if workers > 1 else 0}}
        version = max(self.cluster.version(), LEAST_KUBERNETES)
        said = helm.template(self._where.chart, self._where.release, self.cluster.namespace, [],
                             as_yaml(merged(values, over)), self.cluster.api_versions(), ".".join(map(str, version)),
                             loadjob.TEMPLATE)
        return loadjob.rendered(name, rendered.parsed(said), more)

    @contextlib.contextmanager
    def _key(self, values: dict[str, Any], name: str, tenant: str, key: str) -> Iterator[dict[str, str]]:
        """Where the Job finds its key: the release's own secret for it, or one that is there for the run alone."""
        own = (values.get("loadtest") or {}).get("apiKey")
        if isinstance(own, dict) and not key:
            yield own
            return
        text, made = (key, "") if key else self._made(tenant, f"load test {name}")
        secret = f"{self.service['metadata']['name']}-loadtest-{name}-key"[:63]
        try:
            self.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret},
                                "data": {_KEY: base64.b64encode(text.encode()).decode()}})
            yield {"secretName": secret, "secretKey": _KEY}
        finally:
            self.cluster.delete(kinds.SECRETS, secret)
            if made:
                self._flotilla("keys", "revoke", made)

    def _made(self, tenant: str, name: str) -> tuple[str, str]:
        """A key and its id."""
        told = json.loads(self._flotilla("keys", "create", "--tenant", tenant, "--name", name, "--json"))
        return told["key"], told["key_id"]

    def _flotilla(self, *arguments: str) -> bytes:
        pod = loadjob.exporter(self.cluster, self._where.release)
        return inpods.run(self.cluster, pod, "exporter", ["flotilla", *arguments])


def _say(line: str) -> None:
    stderr.print(line, markup=False, highlight=False, soft_wrap=True)

