"""A node's labels lead to one price, or to a message; never to a guess."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import ConfigError
from serving.fleet import nodes
from serving.fleet.accelerator_book import COLUMNS, parse
from serving.fleet.accelerators import AcceleratorProfile, price_range, resolve

DATED = "2026-11-23T00:00:00Z,a list"
BOOK = parse(f"""\
{",".join(COLUMNS)}
H100,aws,us-east-1,p5.48xlarge,on_demand,6.88,8,{DATED}
H100,aws,us-east-1,p5.48xlarge,spot,2.12,8,{DATED}
H100,aws,eu-north-1,p5.48xlarge,on_demand,7.5,8,{DATED}
H100,gcp,us-central1,a3-highgpu-8g,on_demand,11,8,{DATED}
H100,gcp,us-central1,a3-highgpu-8g,spot,4,8,{DATED}
H100,azure,eastus,Standard_ND96isr_H100_v5,on_demand,12.25,8,{DATED}
H100,azure,eastus,Standard_ND96isr_H100_v5,spot,5,8,{DATED}
H100,nebius,,,on_demand,2.95,,{DATED}
H100,nebius,,,spot,1.25,,{DATED}
H200,aws,us-east-1,p5en.48xlarge,on_demand,7.91,8,{DATED}
L4,aws,us-east-1,,on_demand,1.32,,{DATED}
""", "prices.csv")
INSTANCE, REGION = "node.kubernetes.io/instance-type", "topology.kubernetes.io/region"
AWS = {INSTANCE: "p5.48xlarge", REGION: "us-east-1"}
GKE = {INSTANCE: "a3-highgpu-8g", REGION: "us-central1", "cloud.google.com/gke-nodepool": "gpus"}
AKS = {INSTANCE: "Standard_ND96isr_H100_v5", REGION: "eastus", "kubernetes.azure.com/cluster": "c"}
NEBIUS = {INSTANCE: "gpu-h100-sxm", REGION: "eu-north1"}
MAPPED = {"nodes": [{"labels": {INSTANCE: "gpu-h100-sxm", "example.com/preemptible": "true"}, "provider": "nebius",
                     "capacity": "spot"},
                    {"labels": {INSTANCE: "gpu-h100-sxm"}, "provider": "nebius"}]}


def profile(**price: Any) -> AcceleratorProfile:
    return AcceleratorProfile.model_validate({
        "kind": "gpu", "type": "H100", "memory_gib": 80.0, "price": {"from_node_labels": True} | price})


def usd(labels: dict[str, str] | None, **price: Any) -> float:
    return resolve(profile(**price), BOOK, labels).at(0) / 1e9


@pytest.mark.parametrize(("labels", "price"), [
    (AWS | {"eks.amazonaws.com/capacityType": "ON_DEMAND"}, 6.88),
    (AWS | {"eks.amazonaws.com/capacityType": "SPOT"}, 2.12),
    (AWS | {"karpenter.sh/capacity-type": "on-demand"}, 6.88),
    (AWS | {"karpenter.sh/capacity-type": "spot", "karpenter.k8s.aws/instance-family": "p5"}, 2.12),
    (AWS | {"karpenter.sh/capacity-type": "on-demand", REGION: "eu-north-1"}, 7.5),
    (GKE, 11), (GKE | {"cloud.google.com/gke-spot": "true"}, 4), (GKE | {"cloud.google.com/gke-spot": "false"}, 11),
    (GKE | {"cloud.google.com/gke-provisioning": "standard"}, 11),
    (GKE | {"cloud.google.com/gke-provisioning": "spot", "cloud.google.com/gke-spot": "true"}, 4),
    (GKE | {"cloud.google.com/gke-preemptible": "true"}, 4),
    (AKS, 12.25), (AKS | {"kubernetes.azure.com/scalesetpriority": "spot"}, 5),
    (AKS | {"kubernetes.azure.com/scalesetpriority": "regular"}, 12.25),
    ({"beta.kubernetes.io/instance-type": "p5.48xlarge", "failure-domain.beta.kubernetes.io/region": "us-east-1",
      "karpenter.sh/capacity-type": "spot"}, 2.12),
])
def test_labels_of_a_cloud_lead_to_its_price(labels: dict[str, str], price: float) -> None:
    assert usd(labels) == price


@pytest.mark.parametrize(("labels", "price"), [
    (NEBIUS, 2.95), (NEBIUS | {"example.com/preemptible": "true"}, 1.25),
    (NEBIUS | {"example.com/preemptible": "no"}, 2.95),
    (AWS | {"karpenter.sh/capacity-type": "spot"}, 2.12),  # no mapping fits: the labels themselves
])
def test_labels_that_say_too_little_are_mapped_by_the_profile(labels: dict[str, str], price: float) -> None:
    assert usd(labels, **MAPPED) == price


# labels, what the message must say
UNKNOWN = {
    "no labels": ({}, ["has no label node.kubernetes.io/instance-type", "price.nodes"]),
    "an instance type without price": (NEBIUS | {"karpenter.sh/capacity-type": "spot"},
                                       ["prices.csv", "H100 for the instance type 'gpu-h100-sxm'"]),
    "an instance type of another accelerator": (
        AWS | {INSTANCE: "p5en.48xlarge", "karpenter.sh/capacity-type": "spot"},
        ["'p5en.48xlarge'", "that one has H200"]),
    "a region without price": (AWS | {REGION: "us-east-2", "karpenter.sh/capacity-type": "spot"},
                               ["for the region 'us-east-2'", "did you mean 'us-east-1'?"]),
    "spot where there is none": (AWS | {REGION: "eu-north-1", "karpenter.sh/capacity-type": "spot"},
                                 ["no spot price", "$7.5"]),
    "spot or not": (AWS, ["whether it is spot or on demand", "karpenter.sh/capacity-type", "price.nodes"]),
    "a capacity block": (AWS | {"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"},
                         ["eks.amazonaws.com/capacityType=CAPACITY_BLOCK is neither", "price.nodes"]),
    "reserved": (AWS | {"karpenter.sh/capacity-type": "reserved"}, ["karpenter.sh/capacity-type=reserved is neither"]),
    "labels that disagree": (
        AWS | {"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "ON_DEMAND"},
        ["disagree: karpenter.sh/capacity-type=spot and eks.amazonaws.com/capacityType=ON_DEMAND"]),
    "two clouds": (GKE | AKS, ["several providers (azure, gcp)"]),
    "a region of another cloud": (GKE | {REGION: "us-east-1"}, ["at gcp for the region 'us-east-1'"]),
    "no region where there are two": (
        {INSTANCE: "p5.48xlarge", "eks.amazonaws.com/capacityType": "ON_DEMAND"}, ["several on_demand prices"]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_labels_do_not_say_is_not_guessed(name: str) -> None:
    labels, said = UNKNOWN[name]
    with pytest.raises(ConfigError) as caught:
        usd(labels)
    for part in said:
        assert part in str(caught.value)


def test_without_labels_the_message_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"labels of a replica's node.*give price_usd_per_hour"):
        usd(None)


def test_where_labels_are_not_known_yet_the_range_is() -> None:
    assert price_range(profile(), BOOK) == (2_120_000_000, 12_250_000_000)
    # what the profile maps belongs to it
    assert price_range(profile(**MAPPED), BOOK) == (1_250_000_000, 12_250_000_000)


def test_an_accelerator_that_no_label_could_lead_to_has_no_range() -> None:
    with pytest.raises(ConfigError, match="no row of prices.csv for 'L4' names an instance type"):
        price_range(profile(accelerator="L4"), BOOK)
    with pytest.raises(ConfigError, match="the provider 'nebus'; did you mean 'nebius'"):
        price_range(profile(nodes=[{"labels": {"a": "b"}, "provider": "nebus"}]), BOOK)


def test_facts_say_what_is_known() -> None:
    assert nodes.facts(GKE) == nodes.NodeFacts("a3-highgpu-8g", "us-central1", "gcp", "on_demand")
    bare = {INSTANCE: "x", "karpenter.sh/capacity-type": "spot"}
    assert nodes.facts(bare) == nodes.NodeFacts("x", None, None, "spot")
