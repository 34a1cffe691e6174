"""From a fleet file to a Kubernetes cluster and back: Helm values, what a cluster lacks, what runs there, node prices.

`clusterfleet`, `groups` and `values` are pure. Only this room imports a Kubernetes client. May not happen in here: Ray,
HTTP other than to the API server, deciding anything that the fleet file does not say.
"""
