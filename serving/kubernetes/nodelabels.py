"""The labels of a pod's node in a file, for prices that nodes decide: asked for before the pod begins, and followed.

Init container: `python -m serving.kubernetes.nodelabels --out FILE`, with the node's name in NODE_NAME. The sidecar
keeps the file at what the labels are by `Keeper`. The settings read it by FLOTILLA_NODE_LABELS=@FILE. Needs a service
account that may get, list and watch nodes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from serving.errors import FlotillaError
from serving.kubernetes import kinds
from serving.kubernetes.cluster import Cluster
from serving.kubernetes.watching import watch

log = logging.getLogger(__name__)
_AGAIN_S = 60.0  # after what waiting may mend: rights that an upgrade of the release brings


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


def write(out: Path, labels: Mapping[str, str], at_s: float) -> bool:
    """Leave labels in a file that was changed at a moment, Unix seconds. Returns whether they are others than before.

    Whoever reads the file meanwhile sees the old text or the new one.
    """
    text = json.dumps(dict(labels), sort_keys=True)
    if out.exists() and out.read_text(encoding="utf-8") == text:
        return False
    draft = out.with_name(f"{out.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.utime(draft, (at_s, at_s))
    os.replace(draft, out)
    return True


def keep(cluster: Cluster, node: str, out: Path, clock: Callable[[], float] = time.time,
         pause: Callable[[float], None] = time.sleep) -> None:
    """Keep a file at a node's labels, without end. A node that goes leaves them as they were: its pods go with it.

    Raises: NotAllowed, NotServed, ClusterError: what waiting does not mend.
    """
    for change in watch(cluster, kinds.NODES, fields=f"metadata.name={node}", pause=pause):
        if change.what != "DELETED" and write(out, change.doc["metadata"].get("labels") or {}, clock()):
            log.info("the labels of the node %s are new", node)


class Keeper:
    """Does so in a thread of a process that lives as long as the pod."""

    def __init__(self, connect: Callable[[], Cluster], node: str, out: Path,
                 pause: Callable[[float], None] = time.sleep) -> None:
        self._connect, self._node, self._out, self._pause = connect, node, out, pause
        self._thread = threading.Thread(target=self._run, name="node-labels", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def _run(self) -> None:
        while True:
            try:
                keep(self._connect(), self._node, self._out, pause=self._pause)
            except Exception as error:  # were this thread to end, prices would stay as they are and no one would know
                log.warning("the labels of the node %s are not followed: %s; again in %g s", self._node, error,
                            _AGAIN_S)
            self._pause(_AGAIN_S)


def main(arguments: Sequence[str] | None = None, read: Callable[[str], Mapping[str, str]] = in_cluster) -> int:
    """Exit status: 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(prog="python -m serving.kubernetes.nodelabels")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    out = parser.parse_args(arguments).out
    node = os.environ.get("NODE_NAME", "")
    try:
        if not node:
            raise FlotillaError("NODE_NAME is not set; the chart takes it from spec.nodeName")
        write(out, read(node), time.time())
    except FlotillaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
