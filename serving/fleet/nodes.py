"""What the labels of a Kubernetes node say about its price: instance type, region, provider, spot or on demand.

Clouds label their nodes differently, and some say "on demand" by saying nothing. Where nothing can be known, nothing
is guessed: a wrong price would make every cost wrong without anyone seeing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import ConfigError
from serving.fleet.accelerator_book import Capacity

INSTANCE_TYPE = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
REGION = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
CAPACITY: dict[str, dict[str, Capacity]] = {
    "karpenter.sh/capacity-type": {"on-demand": "on_demand", "spot": "spot"},
    "eks.amazonaws.com/capacityType": {"ON_DEMAND": "on_demand", "SPOT": "spot"},
    "cloud.google.com/gke-spot": {"true": "spot", "false": "on_demand"},
    "cloud.google.com/gke-preemptible": {"true": "spot", "false": "on_demand"},
    "cloud.google.com/gke-provisioning": {"standard": "on_demand", "spot": "spot", "preemptible": "spot"},
    "kubernetes.azure.com/scalesetpriority": {"spot": "spot", "regular": "on_demand"},
}
# prefixes of labels that only one provider's nodes carry, and the provider's name in the price book
PROVIDER = {"eks.amazonaws.com/": "aws", "karpenter.k8s.aws/": "aws", "k8s.io/cloud-provider-aws": "aws",
            "cloud.google.com/": "gcp", "kubernetes.azure.com/": "azure"}
# providers that label their spot nodes only: without such a label a node is on demand
SILENT_ON_DEMAND = ("gcp", "azure")


@dataclass(frozen=True)
class NodeFacts:
    """What a node's labels say. `provider` and `region` are None where they do not."""

    instance_type: str
    region: str | None
    provider: str | None
    capacity: Capacity


def facts(labels: Mapping[str, str]) -> NodeFacts:
    """Read a node's labels. Raises: ConfigError when they do not say the instance type, or spot or on demand."""
    instance_type = _first(labels, INSTANCE_TYPE)
    if not instance_type:
        raise ConfigError(f"the node has no label {INSTANCE_TYPE[0]}, so its price cannot be known; map one of its "
                          "labels to a price under the profile's price.nodes")
    providers = sorted({name for prefix, name in PROVIDER.items() if any(label.startswith(prefix) for label in labels)})
    if len(providers) > 1:
        raise ConfigError(f"the node has labels of several providers ({', '.join(providers)}); map one of its labels "
                          "to a price under the profile's price.nodes")
    provider = providers[0] if providers else None
    return NodeFacts(instance_type, _first(labels, REGION), provider, _capacity(labels, provider))


def _first(labels: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((labels[name] for name in names if labels.get(name)), None)


def _capacity(labels: Mapping[str, str], provider: str | None) -> Capacity:
    said: dict[Capacity, str] = {}
    for label, meanings in CAPACITY.items():
        if (value := labels.get(label)) is None:
            continue
        if value not in meanings:
            raise ConfigError(f"the node's label {label}={value} is neither spot nor on demand; map it to a price "
                              "under the profile's price.nodes")
        said[meanings[value]] = f"{label}={value}"
    if len(said) > 1:
        raise ConfigError(f"the node's labels disagree: {' and '.join(said.values())}; map them to a price under the "
                          "profile's price.nodes")
    if said:
        return next(iter(said))
    if provider in SILENT_ON_DEMAND:
        return "on_demand"
    raise ConfigError("the node's labels do not say whether it is spot or on demand; looked for "
                      f"{', '.join(CAPACITY)}. Map one of its labels to a price under the profile's price.nodes")
