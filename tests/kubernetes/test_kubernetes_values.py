"""From a fleet to values and back: what is installed is what was checked, and groups hold what the fleet needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.cli.render import cluster_fleet, fleet_values
from serving.errors import ConfigError
from serving.fleet import digests
from serving.fleet.catalogue import Fleet
from serving.kubernetes.clusterfleet import FLEET_FILE, for_cluster
from serving.kubernetes.groups import group_name, groups, pods
from serving.plan import Changes, fleet

ROOT = Path(__file__).resolve().parents[2]
FLEETS = sorted((ROOT / "deployments" / "fleets").glob("*.yaml"))


def load(path: Path) -> Fleet:
    return fleet(path, Changes({}))


@pytest.mark.parametrize("path", FLEETS, ids=lambda p: p.stem)
def test_what_is_rendered_is_what_was_checked(path: Path, tmp_path: Path) -> None:
    cluster = cluster_fleet(path, load(path))
    for name, text in cluster.files.items():
        (tmp_path / name).write_text(text)
    again = load(tmp_path / FLEET_FILE)
    assert again.model_dump() == cluster.fleet.model_dump()
    assert digests.of_gateway(again) == digests.of_gateway(cluster.fleet)


def test_serve_config_names_every_model_and_the_gateways() -> None:
    path = ROOT / "deployments/fleets/h200-production.yaml"
    told = yaml.safe_load(fleet_values(path, load(path))["serve"]["config"])
    names = [a["name"] for a in told["applications"]]
    assert names == ["model-deepseek-r1", "model-qwen-235b", "model-qwen-32b", "model-kimi-k2", "gateway"]
    assert told["applications"][-1]["deployments"] == [{"name": "Gateway", "num_replicas": 3}]
    assert all(a["route_prefix"] is None for a in told["applications"])


def test_a_digest_changes_with_what_it_is_of_and_with_nothing_else() -> None:
    found = load(ROOT / "deployments/fleets/laptop.yaml")
    qwen = found.models["qwen"]

    def changed(**update: object) -> Fleet:
        return found.model_copy(update={"models": found.models | {"qwen": qwen.model_copy(update=update)}})

    longer = changed(engine=qwen.engine.model_copy(update={"max_model_len": 1024}))
    before = digests.of_model(found, "qwen")
    assert digests.of_model(longer, "qwen") != before
    assert digests.of_model(longer, "llama") == digests.of_model(found, "llama")
    tenants = found.model_copy(update={"tenants": found.tenants | {"second": found.tenants["demo"]}})
    assert digests.of_model(tenants, "qwen") == before and digests.of_gateway(tenants) != digests.of_gateway(found)
    more = changed(replicas=qwen.replicas.model_copy(update={"max": 5}))
    assert digests.of_model(more, "qwen") == before


def test_groups_of_the_production_fleet() -> None:
    h200, pair = groups(load(ROOT / "deployments/fleets/h200-production.yaml"))
    assert (h200.devices, h200.least, h200.most, pair.least, pair.most) == (8, 2, 4, 2, 2)


@given(st.lists(st.integers(1, 8), max_size=40))
def test_pods_hold_all_units_and_not_many_more(units: list[int]) -> None:
    found = pods(units, 8)
    assert sum(units) <= found * 8
    assert found <= len(units) and (found < 2 or sum(units) > (found - 1) * 4)


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True))
def test_group_names_are_parts_of_pod_names(profile: str) -> None:
    assert len(group_name(profile)) <= 30
    assert all(c.isalnum() or c == "-" for c in group_name(profile)) and group_name(profile)[0].isalnum()
    assert group_name(profile, {group_name(profile)}) != group_name(profile) or group_name(profile) != profile


def test_who_listens_and_who_fetches_follows_from_the_fleet() -> None:
    found = load(ROOT / "deployments/fleets/laptop.yaml")
    told = found.model_copy(update={
        "admin": found.admin.model_copy(update={"enabled": True, "port": 9999}),
        "media": found.media.model_copy(update={"hosts": ("images.example.com",)})})
    path = ROOT / "deployments/fleets/laptop.yaml"
    made = fleet_values(path, told)
    assert made["admin"] == {"enabled": True, "port": 9999} and made["gateways"]["fetches"] is True
    assert cluster_fleet(path, told).fleet.admin.host == "0.0.0.0"
    assert fleet_values(path, found)["gateways"]["fetches"] is False
    clash = found.model_copy(update={"admin": found.admin.model_copy(update={"enabled": True,
                                                                             "port": found.gateway.port})})
    with pytest.raises(ConfigError, match="admin.port"):
        fleet_values(path, clash)


def test_data_parallel_ranks_stay_on_one_host() -> None:
    found = load(ROOT / "deployments/fleets/h200-production.yaml")

    def split(**args: int) -> Fleet:
        model = found.models["qwen-32b"]
        engine = model.engine.model_copy(update={"args": args, "tensor_parallel_size": 2})
        return found.model_copy(update={"models": {"qwen-32b": model.model_copy(update={"engine": engine})}})

    (group,) = groups(split(data_parallel_size=4, enable_expert_parallel=1))
    assert (group.devices, group.least, group.spans) == (8, 2, False)
    with pytest.raises(ConfigError, match="models.qwen-32b: 8 data-parallel ranks have 16 devices.*on one host"):
        for_cluster(split(data_parallel_size=8), "", None)


def test_books_that_are_too_large_are_refused() -> None:
    with pytest.raises(ConfigError, match="a ConfigMap holds"):
        for_cluster(load(ROOT / "deployments/fleets/laptop.yaml"), "x" * 1_000_001, None)


def test_models_of_the_catalogue_are_rendered_filled_in() -> None:
    """The catalogue's folder is not mounted: a cluster's fleet file must stand without it, and lose nothing by that."""
    path = ROOT / "deployments/fleets/open-models.yaml"
    found = load(path)
    told = yaml.safe_load(cluster_fleet(path, found).files[FLEET_FILE])
    assert "catalogue" not in told
    llama, of = told["models"]["llama"], found.models["llama"]
    assert "catalogue" not in llama and llama["source"] == of.source and llama["licence"]["gated"] is True
    assert llama["engine"]["max_model_len"] == of.engine.max_model_len
    assert fleet_values(path, found)["models"]["hub"] is True
