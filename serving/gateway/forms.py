"""Multipart forms, read as strictly as the engine's own parser or more so.

The gateway decides by the form's model who may ask and who answers; a form that two parsers could read in two ways
would let a caller name one model here and another there. What is not plain is refused. May not happen in here: keeping
or copying what files contain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from serving.errors import MalformedRequest

_VALUE = rb'(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^\s";,]*))'
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*([!#-'*+.^_`|~0-9A-Za-z-]+)=" + _VALUE)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")
_HEAD = 4096  # bytes that the headers of a part may take
_PARTS = 200


def parts(data: bytes, content_type: bytes) -> tuple[bytes, dict[bytes, tuple[int, int]]]:
    """The form's content type in its plainest spelling, and where the value of each part begins and ends.

    Raises: MalformedRequest, also for two parts named model.
    """
    kind, _, _ = content_type.partition(b";")
    if kind.strip().lower() != b"multipart/form-data":
        raise MalformedRequest("this endpoint takes multipart/form-data with a boundary")
    boundary = _parameters(content_type[len(kind) :], b"boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("this endpoint takes multipart/form-data with a boundary of 1 to 200 plain characters")
    found: dict[bytes, tuple[int, int]] = {}
    for name, begin, end in _cut(data, b"--" + boundary):
        if name in found and name == b"model":
            raise MalformedRequest("the form has more than one part named model")
        found[name] = begin, end
    return b'multipart/form-data; boundary="%b"' % boundary, found


def _cut(data: bytes, mark: bytes) -> Iterator[tuple[bytes, int, int]]:
    line, at = b"\r\n" + mark, 0
    if not data.startswith(mark):
        raise MalformedRequest("the form does not begin with its boundary")
    for _ in range(_PARTS):
        at += len(mark)
        if data.startswith(b"--", at):
            return
        head = data.find(b"\r\n\r\n", at, at + _HEAD)
        end = data.find(line, head + 4)
        if head < 0 or end < 0 or not data.startswith(b"\r\n", at):
            raise MalformedRequest("the form is not whole: a part lacks its headers, its end or a clean boundary")
        yield _name(data[at + 2 : head]), head + 4, end
        at = end + 2
    raise MalformedRequest(f"the form has more than {_PARTS} parts")


def _name(head: bytes) -> bytes:
    """The name of a part by its headers."""
    said = [value for name, _, value in (each.partition(b":") for each in head.split(b"\r\n"))
            if name.strip().lower() == b"content-disposition"]
    name = None
    if len(said) == 1 and said[0].strip().lower().startswith(b"form-data"):
        name = _parameters(said[0].strip()[len(b"form-data") :], b"name")
    if name is None:
        raise MalformedRequest('every part of the form needs one header `Content-Disposition: form-data; name="…"`')
    return name


def _parameters(text: bytes, wanted: bytes) -> bytes | None:
    """One parameter of a header; None where it is not there, or where the parameters cannot be read in one way only."""
    at, found = 0, None
    while at < len(text.rstrip()):
        each = _PARAMETER.match(text, at)
        if each is None:
            return None
        if each[1].lower() == wanted:
            if found is not None or (each[2] is not None and b"\\" in each[2]):
                return None
            found = each[2] if each[2] is not None else each[3]
        at = each.end()
    return found
