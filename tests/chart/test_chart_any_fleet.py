"""Any valid fleet file renders valid objects, in which the fleet is what was checked and has the room that it needs.

A few fleets by default; many, which takes a while:

    CHART_FLEETS=500 ./tests/run -- tests/chart/test_chart_any_fleet.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chart_fleets
import yaml
from chart_policies import POLICIES, objects_are_valid
from chart_rig import GATEWAY_API, VERSIONS, Doc, groups, one, rendered_text
from hypothesis import HealthCheck, Phase, event, given, settings

from serving.cli import fleet as cli_fleet
from serving.cli import render
from serving.cli.render import as_yaml, cluster_fleet
from serving.errors import ConfigError
from serving.fleet import resources
from serving.fleet.catalogue import Fleet
from serving.kubernetes.clusterfleet import FLEET_FILE
from serving.kubernetes.values import merged
from serving.plan import Changes, fleet

FLEETS = int(os.environ.get("CHART_FLEETS", "6"))


# without shrinking, which takes minutes of Helm: the fleet that failed is printed, and `chart_fleets` is short
@settings(max_examples=FLEETS, derandomize="CHART_FLEETS" not in os.environ, database=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
@given(chart_fleets.fleet_files(), chart_fleets.OVERLAYS)
def test_any_fleet_renders_valid_objects(data: dict[str, Any], overlay: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, found = chart_fleets.loaded(data, Path(folder))
        cluster = cluster_fleet(path, found)
        values = as_yaml(merged(chart_fleets.values(path, found), overlay))
        docs = rendered_text(values, api=[GATEWAY_API])
        for policy in POLICIES:
            if policy is objects_are_valid:
                objects_are_valid(docs, (VERSIONS[0], VERSIONS[-1]))
            else:
                policy(docs)
        mounted = one(docs, "ConfigMap", "flotilla-fleet")["data"]
        assert mounted == {name: _clipped(text) for name, text in cluster.files.items()}
        is_what_was_checked(mounted, cluster.fleet, Path(folder) / "mounted")
    every_model_is_told_of(docs, found)
    every_replica_has_room(docs, found)
    the_longest_stream_is_waited_for(docs, found)


@settings(max_examples=2 * FLEETS, derandomize="CHART_FLEETS" not in os.environ, database=None,
          suppress_health_check=list(HealthCheck))
@given(chart_fleets.fleet_files(any_split=True))
def test_what_is_checked_is_rendered_and_what_is_refused_is_refused_by_both(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, _ = chart_fleets.loaded(data, Path(folder))
        checked, rendered = refusal(cli_fleet.check, path), refusal(render.values, path)
        assert checked == rendered
        ranks = [m["engine"]["args"].get("data_parallel_size", 1) for m in data["models"].values()]
        event(f"{'refused' if checked else 'taken'}, at most {max(ranks)} ranks")


def refusal(command: Callable[[Path], None], path: Path) -> str:
    """What a command says against a fleet; empty when it takes it."""
    try:
        command(path)
    except ConfigError as error:
        return str(error)
    return ""


def _clipped(text: str) -> str:
    return text.rstrip("\n") + "\n"  # a block of YAML ends with one line break


def is_what_was_checked(mounted: dict[str, str], wanted: Fleet, folder: Path) -> None:
    """Pods read the fleet that was accepted."""
    folder.mkdir()
    for name, text in mounted.items():
        (folder / name).write_text(text, encoding="utf-8")
    assert fleet(folder / FLEET_FILE, Changes({})).model_dump() == wanted.model_dump()


def every_model_is_told_of(docs: list[Doc], found: Fleet) -> None:
    """Ray Serve runs one application per model and the gateways'."""
    told = yaml.safe_load(one(docs, "RayService")["spec"]["serveConfigV2"])["applications"]
    assert [a["args"].get("model") for a in told] == [*found.models, None]
    scaling = [a["deployments"][0]["autoscaling_config"] for a in told[:-1]]
    assert [(s["min_replicas"], s["max_replicas"]) for s in scaling] == [
        (m.replicas.min, m.replicas.max) for m in found.models.values()]


def every_replica_has_room(docs: list[Doc], found: Fleet) -> None:
    """A group's pods have the devices of all its replicas, at least and at most, and each pod those that one needs."""
    by_mark = {mark: g for g in groups(docs).values() for mark in g.get("resources", ())}
    for profile in found.accelerators:
        specs = [m for m in found.models.values() if m.accelerator == profile]
        group = by_mark.get(resources.profile_resource(profile))
        assert (group is None) == (not specs)
        if group is None:
            continue
        devices = int(group["resources"][resources.profile_resource(profile)])
        assert devices >= max(map(resources.node_devices, specs))
        assert group["minReplicas"] * devices >= sum(m.devices * m.replicas.min for m in specs)
        assert group["maxReplicas"] * devices >= sum(m.devices * m.replicas.max for m in specs)
        assert (group["minReplicas"] == 0) == (not any(m.replicas.min for m in specs))


def the_longest_stream_is_waited_for(docs: list[Doc], found: Fleet) -> None:
    """Of pods that end, of the old cluster of an upgrade, and of the load balancers on the way."""
    longest = found.gateway.request_timeout_s
    assert one(docs, "RayService")["spec"]["rayClusterDeletionDelaySeconds"] > longest
    for name, group in groups(docs).items():
        spec = group["template"]["spec"]
        told = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        assert spec["terminationGracePeriodSeconds"] > float(told) > longest, name
    for ingress in (d for d in docs if d["kind"] == "Ingress"):
        assert int(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest
