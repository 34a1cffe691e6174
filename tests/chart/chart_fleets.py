"""Fleet files of any kind that `flotilla check` takes, and what a platform may set beside them.

May not happen in here: a fleet that is wrong on purpose; other tests have those. `fleet_files(any_split=True)` has some
that one machine could run and no cluster: more data-parallel ranks of a replica than a host has devices, a port shared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from chart_rig import ROOT
from hypothesis import strategies as st

from serving.cli.render import fleet_values
from serving.fleet.catalogue import Fleet
from serving.plan import Changes, fleet

PRICES = ROOT / "deployments" / "prices"
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
USD = st.integers(1, 10**6).map(lambda thousandths: thousandths / 1000)
SHARES = st.sampled_from([1, 2, 4, 8])

CPU_PROFILES = st.fixed_dictionaries({
    "kind": st.just("cpu"), "memory_gib": st.floats(0.5, 16), "cpus": st.floats(0.1, 8),
    "price_usd_per_hour": USD, "price_source": TEXTS})
GPU_PRICES = st.one_of(
    st.fixed_dictionaries({"price_usd_per_hour": USD}),
    st.sampled_from([{"provider": "nebius"}, {"provider": "nebius", "capacity": "spot"}, {"from_node_labels": True}])
    .map(lambda price: {"price": price}))
GPU_PROFILES = st.builds(lambda one, price: one | price, st.fixed_dictionaries({
    "kind": st.just("gpu"), "type": st.just("H100"), "memory_gib": st.floats(1, 192), "cpus": st.floats(0.1, 32),
}), GPU_PRICES)


@st.composite
def engines(draw: st.DrawFn, gpu: bool, any_split: bool) -> dict[str, Any]:
    """A model's engine section."""
    found: dict[str, Any] = {"max_model_len": draw(st.integers(16, 10**6)), "env": draw(
        st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,9}", fullmatch=True), TEXTS, max_size=2))}
    if gpu:
        found |= {"tensor_parallel_size": draw(SHARES), "pipeline_parallel_size": draw(st.integers(1, 3))}
    args: dict[str, Any] = {"enable_prefix_caching": draw(st.booleans()), "hf_overrides": {"note": draw(TEXTS)}}
    if gpu and draw(st.booleans()):
        least = found["tensor_parallel_size"] * found["pipeline_parallel_size"]  # on one host, if any
        args["data_parallel_size"] = draw(st.sampled_from(
            [n for n in (1, 2, 4, 8, 16) if any_split or n == 1 or n * least <= 8]))
    return found | {"args": args}


@st.composite
def models(draw: st.DrawFn, profiles: dict[str, dict[str, Any]], any_split: bool) -> dict[str, Any]:
    """A model on one of the profiles."""
    accelerator = draw(st.sampled_from(sorted(profiles)))
    least = draw(st.integers(0, 3))
    small = draw(st.booleans())
    return {
        "source": "small:qwen3" if small else draw(st.sampled_from(["org/name", "/models/own weights"])),
        "architecture": "Qwen3ForCausalLM", "accelerator": accelerator,
        "slo": {"ttft_ms": draw(st.floats(1, 1e5)), "tpot_ms": draw(st.floats(1, 1e3))},
        "replicas": {"min": least, "max": max(1, least + draw(st.integers(0, 3)))},
        "engine": draw(engines(profiles[accelerator]["kind"] == "gpu", any_split)),
    }


@st.composite
def fleet_files(draw: st.DrawFn, any_split: bool = False) -> dict[str, Any]:
    """A whole fleet file, as data."""
    profiles = draw(st.dictionaries(NAMES, st.one_of(CPU_PROFILES, GPU_PROFILES), min_size=1, max_size=4))
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    tenants = draw(st.dictionaries(NAMES, st.fixed_dictionaries({"description": TEXTS}), min_size=1, max_size=3))
    made = {
        "name": draw(NAMES), "prices": str(PRICES / "api.json"), "accelerators": profiles, "tenants": tenants,
        "accelerator_prices": str(PRICES / "accelerators.csv"),
        "models": {name: draw(models(profiles, any_split)) for name in names},
        "gateway": {"replicas": draw(st.integers(1, 4)), "port": draw(st.integers(1024, 9463)),
                    "request_timeout_s": draw(st.floats(0.5, 7200))},
        "media": {"hosts": draw(st.sampled_from([[], ["images.example.com", "*.example.org"]]))},
    }
    if any_split:
        made["admin"] = {"enabled": draw(st.booleans()), "host": "127.0.0.2",
                         "port": draw(st.sampled_from([9464, made["gateway"]["port"]]))}
    return made


#: Values of a platform that can stand beside any fleet.
OVERLAYS = st.fixed_dictionaries({
    "secrets": st.just({"keyPepper": "pepper-of-tests", "replicaSecret": "replica-of-tests",
                        "databaseUrl": "postgresql://u:word-of-tests@db/f"}),
}, optional={
    "postgresql": st.just({"enabled": True}), "redis": st.just({"enabled": True}),
    "modelCache": st.sampled_from([{"type": "pvc"}, {"type": "node"}, {"type": "pvc", "existingClaim": "mine"}]),
    "upgrade": st.sampled_from([{"strategy": "NewCluster"}, {"gatewayClassName": "envoy"}, {"strategy": "None"}]),
    "podMonitor": st.just({"enabled": True}), "prometheusRule": st.just({"enabled": True}),
    "ingress": st.just({"enabled": True, "hosts": ["a.example"]}),
    "loadtest": st.just({"enabled": True, "apiKey": "key-of-tests", "scenario": "name: x\n"}),
    "commonLabels": st.just({"team": "x"}), "networkPolicy": st.just({"enabled": False}),
})


def loaded(data: dict[str, Any], folder: Path) -> tuple[Path, Fleet]:
    """The fleet of a file, as every command reads it."""
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path, fleet(path, Changes({}))


def values(path: Path, found: Fleet) -> dict[str, Any]:
    """The chart's values of it."""
    return fleet_values(path, found)
