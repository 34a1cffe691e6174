"""Commands in running containers, as `kubectl exec` runs them, through the official client's websockets."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import IO

from serving.errors import ClusterError, ClusterUnreachable, NotAllowed
from serving.kubernetes.cluster import Cluster

_OUT, _ERR = 1, 2
_SAID = 2_000  # bytes of a failed command's words that its error repeats


def run(cluster: Cluster, pod: str, container: str, command: Sequence[str], seconds: float = 120.0) -> bytes:
    """What a command prints. Raises: as `copy`."""
    out = io.BytesIO()
    copy(cluster, pod, container, command, out, seconds)
    return out.getvalue()


def copy(cluster: Cluster, pod: str, container: str, command: Sequence[str], out: IO[bytes],
         seconds: float = 600.0) -> None:
    """Write what a command prints to a file, as it comes. `seconds`: without a byte after which it counts as dead.

    Raises: NotAllowed; ClusterError when the command fails, with its own words; ClusterUnreachable.
    """
    from kubernetes import client  # as in cluster.py, no sooner than it is needed
    from kubernetes.stream import stream
    from websocket import WebSocketException

    api = client.CoreV1Api(client.ApiClient(cluster.api.configuration))  # `stream` changes its client meanwhile
    try:
        told = stream(api.connect_get_namespaced_pod_exec, pod, cluster.namespace, container=container,
                      command=list(command), stdout=True, stderr=True, stdin=False, tty=False, binary=True,
                      _preload_content=False)
    except client.ApiException as error:
        if error.status in (401, 403) or "403" in str(error.reason):
            raise NotAllowed(f"{cluster.context}: you may not run commands in pods of {cluster.namespace} (get and "
                               "create pods/exec); ask whoever runs the cluster for that right") from error
        raise ClusterError(f"{cluster.context}: no command can be run in {pod}: {error.reason}") from error
    said = b""
    try:
        heard = time.monotonic()
        while told.is_open():
            told.update(timeout=1)
            data, words = told.read_channel(_OUT), told.read_channel(_ERR)
            out.write(data)
            said = (said + words)[-_SAID:]
            if data or words:
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                raise ClusterError(f"{cluster.context}: `{' '.join(command)}` in {pod} said nothing for {seconds:g} s")
        out.write(told.read_channel(_OUT))
        said += told.read_channel(_ERR)
        code = told.returncode
    except (WebSocketException, OSError, TypeError) as error:  # TypeError: it ended without a word about how
        raise ClusterUnreachable(cluster.context, error) from error
    finally:
        told.close()
    if code:
        raise ClusterError(f"{cluster.context}: `{' '.join(command)}` in {pod} ended with {code}: "
                           f"{said.decode(errors='replace').strip()}")
