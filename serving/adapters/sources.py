"""Where an adapter's or a model's files are: a folder of this machine, or a repository of a Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from serving.errors import AdapterRefused

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_FILES = ["adapter_*", "*.json"]


def folder_of(source: str) -> Path:
    """The folder of an adapter, fetched from the hub into its cache where it is not here yet.

    Raises: AdapterRefused.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise AdapterRefused(f"{source}: is a file; name the folder with adapter_config.json in it")
    if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise AdapterRefused(f"{source}: there is no such folder; an adapter is a folder of this machine, a hub id "
                             "(org/name), or small:lora")
    return _fetched(source)


def cached(source: str, revision: str | None) -> Path | None:
    """The folder of a model's weights, as far as it is on this machine; nothing is fetched."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return None


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_FILES))
    except GatedRepoError:
        raise AdapterRefused(f"{hub_id}: its owners let only those in who have asked; ask at the hub, and set HF_TOKEN"
                             ) from None
    except RepositoryNotFoundError:
        raise AdapterRefused(f"{hub_id}: the hub has no such repository (or it is private: set HF_TOKEN), and there is "
                             "no such folder here") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise AdapterRefused(f"{hub_id}: is neither a folder nor in the hub's cache here, and the hub does not answer"
                             ) from None
    except (HfHubHTTPError, OSError) as error:
        raise AdapterRefused(f"{hub_id}: could not be fetched: {str(error).splitlines()[0]}") from error
