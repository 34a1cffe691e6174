"""What a `source` of the fleet file names: told by its form, and by what is on this machine where forms overlap."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from serving.errors import WeightsMissing

# Hugging Face's rule for repository ids, with or without a namespace
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB_ID = re.compile(rf"{_PART}(/{_PART})?")
_BUCKET = re.compile(r"(s3|gs)://.+")
_OTHER_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


class Kind(Enum):
    """Who keeps the weights."""

    SMALL = "a small checkpoint made here"
    FOLDER = "a folder of this machine"
    HUB = "a repository of the hub"
    BUCKET = "a bucket"


def kind_of(source: str) -> Kind:
    """Who keeps these weights. A folder that is there goes before a repository of the same name, as in vLLM.

    Raises: WeightsMissing for what can be none of them.
    """
    if source.startswith("small:"):
        return Kind.SMALL
    if _BUCKET.fullmatch(source):
        return Kind.BUCKET
    if other := _OTHER_SCHEME.match(source):
        raise WeightsMissing(f"{source}: nothing is loaded from {other[1]}://; s3:// and gs:// are known, and hub ids "
                             "(org/name) and paths")
    if source.startswith(("/", "./", "../", "~")) or (source and Path(source).exists()):
        return Kind.FOLDER
    if _HUB_ID.fullmatch(source) and "--" not in source and ".." not in source:
        return Kind.HUB
    raise WeightsMissing(f"{source or 'an empty source'}: there is no such folder, and it is no hub id (org/name)")
