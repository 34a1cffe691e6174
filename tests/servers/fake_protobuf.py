"""Secrets as Kubernetes' protobuf has them: Helm writes its releases in it, and takes JSON for an answer.

Only what a Secret needs, by the field numbers of k8s.io/api/core/v1/generated.proto and
k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto. May not happen in here: any other kind.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

Doc = dict[str, Any]
CONTENT = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_META = {1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion"}


def secret(body: bytes) -> Doc:
    """A Secret from its envelope. Raises: ValueError when it is something else."""
    if not body.startswith(_MAGIC):
        raise ValueError("no Kubernetes protobuf")
    envelope = dict(_fields(body[len(_MAGIC):]))
    kind = dict(_fields(envelope[1]))
    if kind.get(2) != b"Secret":
        raise ValueError(f"the fake API server reads protobuf of Secrets only, not of {kind.get(2)!r}")
    doc: Doc = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {}}
    for number, value in _fields(envelope[2]):
        if number == 1:
            doc["metadata"] = _metadata(value)
        elif number == 2:
            key, data = _entry(value)
            doc["data"][key] = base64.b64encode(data).decode()
        elif number == 3:
            doc["type"] = value.decode()
    return doc


def _metadata(value: bytes) -> Doc:
    meta: Doc = {}
    for number, inner in _fields(value):
        if number in (11, 12):
            key, text = _entry(inner)
            meta.setdefault("labels" if number == 11 else "annotations", {})[key] = text.decode()
        elif number in _META and inner:
            meta[_META[number]] = inner.decode()
    return meta


def _entry(value: bytes) -> tuple[str, bytes]:
    entry = dict(_fields(value))
    return entry.get(1, b"").decode(), entry.get(2, b"")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            yield number, data[at:at + length]
            at += length
        else:
            at += {1: 8, 5: 4}[wire]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
