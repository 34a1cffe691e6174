"""Where engines keep what they compile and inspect: folders of Flotilla's own, so that later starts are quick.

By itself a user's programs share one folder of the machine for it. A compiler that is killed leaves an empty file
there, which every later engine that needs it takes for compiled code and fails on ("file too short"). Whatever else is
in the folders is for the engines to judge.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

log = logging.getLogger(__name__)
FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "VLLM_CACHE_ROOT": "vllm"}
_WRITTEN_IN_S = 30.0  # a younger empty file may be one that another engine's compiler is about to fill


def environment(state_dir: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The folders, by the names that torch, Triton and vLLM read. `given`: an environment that may choose others."""
    return {name: given.get(name) or str(state_dir / "cache" / folder) for name, folder in FOLDERS.items()}


def mend(environ: Mapping[str, str], now: float | None = None) -> list[Path]:
    """Remove what a killed compiler left in the folders of an environment, before an engine begins. `now`: Unix
    seconds. Returns what was removed; nothing in here fails."""
    end = (time.time() if now is None else now) - _WRITTEN_IN_S
    removed = []
    for name in FOLDERS:
        for path in _code(environ.get(name, "")):
            try:
                if not (found := path.stat()).st_size and found.st_mtime <= end:
                    path.unlink()
                    removed.append(path)
            except OSError as error:  # another engine was faster, or may and we may not
                log.info("%s stays: %s", path, error)
    if removed:
        log.warning("removed %d empty files that a killed compiler left, such as %s", len(removed), removed[0])
    return removed


def _code(folder: str) -> Iterator[Path]:
    for where, _, names in os.walk(folder) if folder else ():
        yield from (Path(where, name) for name in names if name.endswith(".so"))
