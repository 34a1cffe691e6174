"""serveConfigV2 of a fleet: what Ray Serve is told to run on a cluster, one application per model and one of gateways.

The counterpart of `serving.builders`, which Ray Serve calls with the arguments that stand here. Pure; stands above the
engines because it needs their names, and imports nothing of Ray.
"""

from __future__ import annotations

from typing import Any

from serving.engines import scaling
from serving.engines.names import GATEWAY_APP, GATEWAY_DEPLOYMENT, app_name, deployment_name
from serving.engines.scaling import Place
from serving.fleet import digests
from serving.fleet.catalogue import Fleet, comparisons
from serving.fleet.prices import PriceBook
from serving.fleet.resources import COUNTERS_DIR


def serve_config(fleet: Fleet, book: PriceBook, mounted: str) -> dict[str, Any]:
    """The config. `fleet`: as the cluster has it; `book`: its prices of APIs; `mounted`: where pods find its file.

    How many replicas there are stands beside the arguments: Ray Serve changes that without restarting any.
    """
    models = [{
        "name": app_name(name),
        "import_path": "serving.builders:model",
        "route_prefix": None,
        "args": {"fleet": mounted, "model": name,
                 "digest": digests.of_model(fleet, name, comparisons(fleet, name, book))},
        "deployments": [{"name": deployment_name(name),
                         "autoscaling_config": scaling.of_model(fleet, name, Place(COUNTERS_DIR))}],
    } for name in fleet.models]
    gateways = {
        "name": GATEWAY_APP,
        "import_path": "serving.builders:gateway",
        "route_prefix": None,
        "args": {"fleet": mounted, "digest": digests.of_gateway(fleet)},
        "deployments": [{"name": GATEWAY_DEPLOYMENT, **scaling.of_gateways(fleet)}],
    }
    # Ray insists on a proxy in the head's pod, which no one needs: gateways listen themselves
    return {"proxy_location": "Disabled", "http_options": {"host": "127.0.0.1"},
            "logging_config": {"enable_access_log": False}, "applications": [*models, gateways]}
