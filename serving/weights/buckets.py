"""Weights in S3 or Google Cloud Storage: looked at from here, read by the replica's own loader.

Each replica's node downloads the folder by Ray Serve LLM's loader, or vLLM streams it (`load_format: runai_streamer`).
Credentials are those of the environment, as the clouds' own tools find them; AWS_ENDPOINT_URL_S3 names another S3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import WeightsGated, WeightsMissing, WeightsUnreachable
from serving.weights import folders

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket. `address`: for Ray's loader, by the client that is installed; `size`: bytes."""

    address: str
    size: int
    config: Mapping[str, Any]


def look(source: str) -> Bucket:
    """What there is at s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

    Raises: WeightsMissing, WeightsGated, WeightsUnreachable, WeightsDamaged for a config.json that is none.
    """
    from pyarrow import fs

    scheme, _, path = source.rstrip("/").partition("://")
    try:
        files = _client(scheme)
        found = [f for f in files.get_file_info(fs.FileSelector(path, recursive=True)) if f.is_file]
        names = {f.path.removeprefix(path + "/"): f.size for f in found}
        if "config.json" not in names:
            raise WeightsMissing(f"{source}: there is no config.json in that folder, which has {len(names)} files")
        if not any(name.endswith(_WEIGHTS) for name in names):
            raise WeightsMissing(f"{source}: there are no weights in that folder ({', '.join(_WEIGHTS)})")
        with files.open_input_stream(f"{path}/config.json") as file:
            config = folders.read_config(file.read(), source)
    except FileNotFoundError as error:
        raise WeightsMissing(f"{source}: there is no such folder or bucket") from error
    except OSError as error:
        raise _told(source, error) from error
    # Ray's client for s3:// is boto3, which Flotilla does not need otherwise; its other one is Arrow's
    return Bucket(f"pyarrow-{source}" if scheme == "s3" else source, sum(names.values()), config)


def _client(scheme: str) -> Any:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem()
    return fs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3"), request_timeout=15,
                           connect_timeout=5)


def _told(source: str, error: OSError) -> WeightsGated | WeightsMissing | WeightsUnreachable:
    said = str(error)
    if any(word in said for word in ("ACCESS_DENIED", "AccessDenied", "403", "Forbidden", "PermissionDenied")):
        return WeightsGated(f"{source} may not be read with the credentials of this process: {_line(said)}")
    if any(word in said for word in ("NO_SUCH_BUCKET", "NoSuchBucket", "404", "does not exist")):
        return WeightsMissing(f"{source}: there is no such folder or bucket")
    return WeightsUnreachable(f"{source} could not be looked at: {_line(said)}")


def _line(said: str) -> str:
    return said.strip().splitlines()[0][:300] if said.strip() else "no reason given"
