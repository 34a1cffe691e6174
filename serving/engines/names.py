"""Names that replicas and those who look for them agree on. Light: imports nothing of Ray or vLLM."""

SERVER = "ModelServer"  # the replica's class
GATEWAY_APP, GATEWAY_DEPLOYMENT = "gateway", "Gateway"  # the gateways' Serve application and its one deployment
ENDPOINT = "endpoint"  # key of the address in a replica's metadata
CARRIER = "carrier"  # key of its carrier's address
START_S = "start_s"  # key of the seconds that it took to start


def app_name(model: str) -> str:
    """Name of a model's Serve application."""
    return f"model-{model}"


def deployment_name(model: str) -> str:
    """Name of a model's deployment, as ray.serve.llm forms it."""
    return f"{SERVER}:{model.replace('/', '--').replace('.', '_')}"
