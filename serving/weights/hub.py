"""Weights from a Hugging Face hub, by its own client: looked at first, fetched into its cache, held to its checksums.

The hub is where HF_ENDPOINT says (a mirror of a company's own, for example), the cache where HF_HUB_CACHE or HF_HOME
says, the token HF_TOKEN or the one that `hf auth login` has kept. The client compares sizes only; checksums are
compared here, once for each file. Where the hub does not answer, a whole copy in the cache is used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from serving.errors import (
    DiskFull,
    WeightsDamaged,
    WeightsError,
    WeightsGated,
    WeightsMissing,
    WeightsUnreachable,
)
from serving.weights import folders

_AT_ONCE = 8  # downloads side by side
_PIECE = 1 << 20
# What engines read beside the weights. Sub-folders of other formats (original/, onnx/, metal/) are left where they are.
_SMALL = ("*.json", "*.txt", "*.jinja", "*.model", "*.py", "*.tiktoken", "*.jsonl", "*/config.json")
_FORMATS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")  # the first that a repository has, as vLLM chooses


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it. `sha256` for large files, `blob_id` (git's SHA-1) for the others; bytes."""

    name: str
    size: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit. `folder`: a copy in the cache that is used because the hub does not answer."""

    name: str
    commit: str
    files: tuple[HubFile, ...]
    config: Mapping[str, Any] | None
    missing_bytes: int = 0
    folder: Path | None = None


class Hub:
    """A hub and its cache on this machine.

    `cache`, `endpoint`: None for the client's own, by its environment. `checked`: a file that remembers which cached
    files have been held to their checksum; None: each is, every time. `free`: bytes free where a folder is to be.
    """

    def __init__(self, cache: Path | None = None, endpoint: str | None = None, checked: Path | None = None,
                 free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free) -> None:
        self._cache, self._endpoint, self._checked, self._free = cache, endpoint, checked, free

    @property
    def cache(self) -> Path:
        """Where files are kept."""
        from huggingface_hub import constants

        return Path(self._cache or constants.HF_HUB_CACHE)

    @property
    def endpoint(self) -> str:
        """The hub's address."""
        from huggingface_hub import constants

        return self._endpoint or constants.ENDPOINT

    def look(self, name: str, revision: str | None = None) -> Repository:
        """What the hub says of a repository, and its config.json, which shows whether one may have its files.

        Raises: WeightsMissing, WeightsGated, WeightsUnreachable; DiskFull when it would not fit.
        """
        from huggingface_hub import HfApi

        try:
            info = HfApi(endpoint=self._endpoint).model_info(name, revision=revision, files_metadata=True, timeout=15)
        except Exception as error:
            return self._cached(name, revision, self._told(error, name, revision))
        described = [HubFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id)
                     for s in info.siblings or ()]
        names = set(wanted(file.name for file in described))
        files = tuple(file for file in described if file.name in names)
        commit = str(info.sha)
        missing = sum(file.size for file in files if not self._has(name, commit, file.name))
        self._require_weights(name, files)
        config = None
        if "config.json" in names:
            text = self._download(name, commit, "config.json", bool(info.gated)).read_bytes()
            config = folders.read_config(text, name)
        self.require_space(missing, name)
        return Repository(name, commit, files, config, missing)

    def require_space(self, size: int, source: str) -> None:
        """Raises: DiskFull when `size` bytes more do not fit into the cache."""
        there = next(p for p in (self.cache.absolute(), *self.cache.absolute().parents) if p.exists())
        free = self._free(there)
        if size > free:
            raise DiskFull(f"{source} needs {gibibytes(size)} in {self.cache}, where {gibibytes(free)} are free: make "
                           "room, or let HF_HUB_CACHE name a folder on a larger disk")

    def fetch(self, repository: Repository) -> Path:
        """The folder with all files of a repository, downloaded where they are missing, each held to its checksum.

        Raises: WeightsDamaged, WeightsGated, WeightsUnreachable, DiskFull.
        """
        if repository.folder is not None:
            return repository.folder
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            paths = list(pool.map(lambda f: self._download(repository.name, repository.commit, f.name),
                                  repository.files))
        for file, path in zip(repository.files, paths, strict=True):
            self._hold_to_checksum(repository.name, file, path)
        first, path = repository.files[0], paths[0]
        return path.parents[first.name.count("/")]

    # -- the client

    def _has(self, name: str, commit: str, file: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(name, file, cache_dir=self._cache, revision=commit), str)

    def _download(self, name: str, commit: str, file: str, gated: bool = False) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        try:
            return Path(hf_hub_download(name, file, revision=commit, cache_dir=self._cache, endpoint=self._endpoint))
        except Exception as error:
            raise self._told(error, name, commit, gated) from error

    def _cached(self, name: str, revision: str | None, error: WeightsError) -> Repository:
        """The copy in the cache, where the hub could not be asked. Raises: the error, where there is none."""
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(error, WeightsUnreachable):
            raise error
        found = try_to_load_from_cache(name, "config.json", cache_dir=self._cache, revision=revision)
        if not isinstance(found, str):
            raise error
        folder = Path(found).parent
        return Repository(name, folder.name, (), folders.read_config(Path(found).read_bytes(), name), folder=folder)

    def _told(self, error: Exception, name: str, revision: str | None, gated: bool = False) -> WeightsError:
        """The client's error as one of ours."""
        from huggingface_hub import errors as theirs

        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, theirs.GatedRepoError) or (gated and status in (401, 403)):
            return WeightsGated(f"{name} is gated: its licence has to be accepted at {self.endpoint}/{name}, by the "
                                f"account whose token this process has ({_token()})")
        if isinstance(error, theirs.RevisionNotFoundError):
            return WeightsMissing(f"{name} has no revision {revision!r}; correct revision:, or leave it out for the "
                                  "newest")
        if isinstance(error, theirs.DisabledRepoError):
            return WeightsMissing(f"{name} has been disabled by {self.endpoint}")
        if isinstance(error, theirs.RepositoryNotFoundError):
            return WeightsMissing(f"{self.endpoint} has no repository {name!r}, or it is private and not for this "
                                  f"token ({_token()}); check the name")
        if isinstance(error, theirs.RemoteEntryNotFoundError):
            return WeightsMissing(f"{name} lists a file that {self.endpoint} does not have: {_line(error)}")
        if isinstance(error, theirs.HFValidationError):
            return WeightsMissing(f"{name!r} is no hub id: {_line(error)}")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(f"{name} did not fit into {self.cache}: {error.strerror}; make room, or let HF_HUB_CACHE "
                            "name a folder on a larger disk")
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return WeightsGated(f"{name} cannot be kept in {self.cache}: {error.strerror}; let HF_HUB_CACHE name a "
                                "folder that this user may write to")
        if "Consistency check failed" in str(error):
            return WeightsDamaged(f"{name} was cut short on the way: {_line(error)}; start again to fetch the rest")
        said = f"status {status}" if status else f"{type(error).__name__}: {_line(error)}"
        return WeightsUnreachable(f"{name} could not be fetched from {self.endpoint} ({said}), and there is no copy in "
                                  f"{self.cache}; is the hub reachable from here? HF_ENDPOINT names another")

    # -- checksums

    def _hold_to_checksum(self, name: str, file: HubFile, path: Path) -> None:
        blob = path.resolve()
        if self._was_checked(blob):
            return
        kind, published = ("SHA-256", file.sha256) if file.sha256 else ("git SHA-1", file.blob_id)
        found = _sha256(blob) if file.sha256 else _git_sha1(blob)
        if published is not None and found != published:
            for spoilt in {path, blob}:
                spoilt.unlink(missing_ok=True)
            raise WeightsDamaged(f"{name}: {file.name} has {kind} {found[:12]}…, {self.endpoint} publishes "
                                 f"{published[:12]}…; the file has been removed, start again to fetch it anew")
        self._remember(blob)

    def _was_checked(self, blob: Path) -> bool:
        return self._noted().get(str(blob)) == _stamp(blob)

    def _remember(self, blob: Path) -> None:
        if self._checked is None:
            return
        noted = self._noted() | {str(blob): _stamp(blob)}
        draft = self._checked.with_name(f"{self._checked.name}.{os.getpid()}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(noted, indent=1))
        draft.replace(self._checked)

    def _noted(self) -> dict[str, list[int]]:
        try:
            return dict(json.loads(self._checked.read_text())) if self._checked else {}
        except (OSError, ValueError, TypeError):
            return {}

    @staticmethod
    def _require_weights(name: str, files: Iterable[HubFile]) -> None:
        if not any(fnmatch(file.name, pattern) for file in files for pattern in _FORMATS):
            raise WeightsMissing(f"{name} holds no weights that vLLM could load ({', '.join(_FORMATS)})")


def wanted(names: Iterable[str]) -> tuple[str, ...]:
    """Of a repository's files those that vLLM reads: the weights in one format, and what is beside them."""
    names = tuple(names)
    top = [name for name in names if "/" not in name]
    weights: list[str] = []
    for pattern in _FORMATS:
        weights = [name for name in top if fnmatch(name, pattern)]
        if weights:
            break
    if any(not name.startswith("consolidated") for name in weights):  # Mistral's own format, beside the same weights
        weights = [name for name in weights if not name.startswith("consolidated")]
    chosen = set(weights)
    return tuple(name for name in names if name in chosen or any(
        fnmatch(name, pattern) and ("/" in pattern) == ("/" in name) for pattern in _SMALL))


def gibibytes(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def _token() -> str:
    from huggingface_hub import get_token

    return "a token is set" if get_token() else "none is set: HF_TOKEN, or `hf auth login`"


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _stamp(blob: Path) -> list[int]:
    found = blob.stat()
    return [found.st_size, found.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    """Git's id of a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
