"""Weights in S3 or Google Cloud Storage: looked at from here, read by the replica's own loader.

Each replica's node downloads the folder by Ray Serve LLM's loader, or vLLM streams it (`load_format: runai_streamer`).
Credentials are those of the environment, as the clouds' own tools find them; AWS_ENDPOINT_URL_S3 names another S3.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from serving.errors import WeightsError, WeightsGated, WeightsMissing, WeightsUnreachable
from serving.weights import folders

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
# vLLM's loaders that read a bucket while they load, with the package that each needs and its module
STREAMING = {"runai_streamer": ("runai-model-streamer", "runai_model_streamer"),
             "runai_streamer_sharded": ("runai-model-streamer", "runai_model_streamer"),
             "tensorizer": ("tensorizer", "tensorizer")}
# where the clouds' clients look for credentials first, for messages
_CREDENTIALS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
                "gs": ("GOOGLE_APPLICATION_CREDENTIALS",)}


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket. `size`: bytes."""

    size: int
    config: Mapping[str, Any]


def streamer(engine_args: Mapping[str, Any]) -> str | None:
    """vLLM's loader that reads the bucket while it loads, so that nothing is kept on a disk; None: Ray downloads."""
    named = engine_args.get("load_format")
    return str(named) if named in STREAMING else None


def address_for(source: str, engine_args: Mapping[str, Any]) -> str:
    """What an engine is given for a source: a bucket for the loader and the client that are there, others as it is."""
    # Ray's client for s3:// is boto3, which Flotilla does not need otherwise; its other one is Arrow's
    return f"pyarrow-{source}" if source.startswith("s3://") and streamer(engine_args) is None else source


def require_streamer(load_format: str, source: str) -> None:
    """Raises: WeightsError when the package that reads a bucket for this `load_format` is not here."""
    package, module = STREAMING[load_format]
    if not _installed(module):
        raise WeightsError(f"{source}: load_format {load_format} needs the package {package}, which is not installed; "
                           "install it, or leave load_format out: the weights are then downloaded first")


def look(source: str) -> Bucket:
    """What there is at s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

    Raises: WeightsMissing, WeightsGated, WeightsUnreachable, WeightsDamaged for a config.json that is none.
    """
    from pyarrow import ArrowException, fs

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
    except (OSError, ArrowException) as error:
        raise _told(source, error) from error
    return Bucket(sum(names.values()), config)


def _client(scheme: str) -> Any:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=15))
    return fs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3"), request_timeout=15,
                           connect_timeout=5)


def _told(source: str, error: Exception) -> WeightsGated | WeightsMissing | WeightsUnreachable:
    said = str(error)
    if any(word in said for word in ("ACCESS_DENIED", "AccessDenied", "403", "Forbidden", "PermissionDenied",
                                   "PERMISSION_DENIED", "OAuth2", "invalid_grant")):
        return WeightsGated(f"{source} may not be read with the credentials of this process ({_credentials(source)}): "
                            f"{_line(said)}")
    if any(word in said for word in ("NO_SUCH_BUCKET", "NoSuchBucket", "404", "does not exist", "No such file")):
        return WeightsMissing(f"{source}: there is no such folder or bucket")
    return WeightsUnreachable(f"{source} could not be looked at: {_line(said)}")


def _credentials(source: str) -> str:
    names = _CREDENTIALS[source.partition(":")[0]]
    there = [name for name in names if os.environ.get(name)]
    if there:
        return f"those of {there[0]}"
    return f"none are set: {', '.join(names)}, a file of the cloud's tools, or the machine's own"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _line(said: str) -> str:
    return said.strip().splitlines()[0][:300] if said.strip() else "no reason given"
