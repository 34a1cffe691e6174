"""Watching objects: every change once, whatever happens to the connection.

An API server ends watches when it likes, and forgets old versions: then one resumes, or lists again and tells the
difference. May not happen in here: knowing what is watched.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from serving.errors import ClusterError, ClusterUnreachable, TooOld
from serving.kubernetes.cluster import Cluster, Doc, selected
from serving.kubernetes.kinds import Kind

log = logging.getLogger(__name__)
_WATCH_S = 240  # after so long the server is to end a watch, so that a dead connection is noticed
_SLACK_S = 30.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Change:
    """What happened to an object, and the object."""

    what: Literal["ADDED", "MODIFIED", "DELETED"]
    doc: Doc


def watch(cluster: Cluster, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = "",
          pause: Callable[[float], None] = time.sleep, for_s: int = _WATCH_S) -> Iterator[Change]:
    """Changes without end, beginning with everything that is there. The caller stops by not asking on.

    `pause`: waits so many seconds before the server is asked again after it was away. `for_s`: of one connection.
    Raises: NotServed, NotAllowed: those do not go away by waiting.
    """
    known: dict[str, Doc] = {}
    version, wait = "", _PAUSE_S
    query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(for_s)} | selected(labels, fields)
    path = kind.path(cluster.namespace if namespace is None else namespace)
    while True:
        try:
            if not version:
                docs, version = cluster.listed(kind, namespace, labels, fields)
                for change in differences(known, docs):
                    _keep(known, change)
                    yield change
            for line in cluster.lines(path, query | {"resourceVersion": version}, for_s + _SLACK_S):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    _refused(event["object"])
                version, wait = event["object"]["metadata"]["resourceVersion"], _PAUSE_S
                if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    change = Change(event["type"], event["object"])
                    _keep(known, change)
                    yield change
        except TooOld:
            version = ""
        except (ClusterUnreachable, ValueError) as error:  # ValueError: a line that was cut off
            log.warning("watching %s: %s; again in %g s", kind.plural, error, wait)
            pause(wait)
            wait = min(2 * wait, _LONGEST_PAUSE_S)


def differences(known: dict[str, Doc], docs: list[Doc]) -> list[Change]:
    """What must have happened between what was known, by uid, and what is there now."""
    here = {_uid(doc): doc for doc in docs}
    gone = [Change("DELETED", doc) for uid, doc in known.items() if uid not in here]
    changed: list[Change] = []
    for uid, doc in here.items():
        before = known.get(uid)
        if before is None:
            changed.append(Change("ADDED", doc))
        elif before["metadata"]["resourceVersion"] != doc["metadata"]["resourceVersion"]:
            changed.append(Change("MODIFIED", doc))
    return gone + changed


def _keep(known: dict[str, Doc], change: Change) -> None:
    if change.what == "DELETED":
        known.pop(_uid(change.doc), None)
    else:
        known[_uid(change.doc)] = change.doc


def _uid(doc: Doc) -> str:
    return str(doc["metadata"].get("uid") or f"{doc['metadata'].get('namespace', '')}/{doc['metadata']['name']}")


def _refused(status: Doc) -> None:
    if status.get("code") == 410:
        raise TooOld(status.get("message", ""))
    raise ClusterError(f"the watch ended: {status.get('message') or status}")
