"""A pod's init container: asks for its node's labels and leaves them in a file, for prices that nodes decide.

`python -m serving.kubernetes.nodelabels --out FILE`, with the node's name in NODE_NAME. The settings read the file by
FLOTILLA_NODE_LABELS=@FILE. Needs a service account that may get nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving.errors import FlotillaError


def in_cluster(node: str) -> Mapping[str, str]:
    """The labels of a node, by the pod's service account. Raises: FlotillaError, which says what is missing."""
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        config.load_incluster_config()
        return client.CoreV1Api().read_node(node, _request_timeout=20).metadata.labels or {}
    except config.ConfigException as error:
        raise FlotillaError(f"this is no pod with a service account's token: {error}") from error
    except client.ApiException as error:
        hint = "the service account may not get nodes; the chart grants it with nodeLabels.enabled" \
            if error.status == 403 else f"the API server answered {error.status} {error.reason}"
        raise FlotillaError(f"the labels of the node {node!r} cannot be read: {hint}") from error
    except HTTPError as error:
        raise FlotillaError(f"the API server cannot be reached: {error}") from error


def main(arguments: Sequence[str] | None = None, read: Callable[[str], Mapping[str, str]] = in_cluster) -> int:
    """Exit status: 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(prog="python -m serving.kubernetes.nodelabels")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    out = parser.parse_args(arguments).out
    node = os.environ.get("NODE_NAME", "")
    try:
        if not node:
            raise FlotillaError("NODE_NAME is not set; the chart takes it from spec.nodeName")
        text = json.dumps(dict(read(node)), sort_keys=True)
    except FlotillaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
