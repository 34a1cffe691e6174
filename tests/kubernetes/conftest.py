"""A fake API server for each test that asks for one, and the client that talks to it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kubernetes import FakeKubernetes

from serving.kubernetes import helm
from serving.kubernetes.cluster import Cluster, connect

_template = functools.cache(helm.template)


@pytest.fixture(autouse=True)
def rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same chart with the same values is the same text, and takes Helm a second."""
    def template(chart, release, namespace, files, values, api=(), version=None, only=""):
        return _template(chart, release, namespace, tuple(files), values, tuple(api), version, only)

    monkeypatch.setattr(helm, "template", template)


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    fake = FakeKubernetes()
    fake.objects.create("v1", "namespaces", "", {"metadata": {"name": "models"}})
    yield fake
    fake.close()


@pytest.fixture
def kubeconfig(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


@pytest.fixture
def cluster(kubeconfig: Path) -> Cluster:
    return connect()
