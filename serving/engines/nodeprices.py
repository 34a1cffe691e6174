"""A replica's price by its node's labels, while it lives: a pod's sidecar keeps the labels in a file, and a change of
them changes the price from the moment on at which the sidecar saw it.

Where the new labels lead to no price, the old one stays and the log says why: a replica does not stop serving for it.
May not happen in here: asking Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from serving.errors import ConfigError
from serving.fleet.money import PriceLine
from serving.settings import Settings

log = logging.getLogger(__name__)


async def follow(settings: Settings, line_of: Callable[[Mapping[str, str]], PriceLine], line: PriceLine,
                 reprice: Callable[[float, PriceLine], None], every_s: float = 1.0) -> None:
    """Until cancelled. `line_of`: what a replica costs on a node with such labels; `line`: what it costs so far;
    `reprice`: told of another line and since when, Unix seconds. Returns at once when the labels are in no file."""
    file = settings.labels_file
    seen: tuple[int, int] | None = None
    complained = ""
    while file is not None:
        try:
            stat = file.stat()
            mark = (stat.st_mtime_ns, stat.st_ino)
            if mark != seen:
                new, seen = line_of(settings.labels() or {}), mark
                if new != line:
                    line = new
                    reprice(stat.st_mtime, line)
            complained = ""
        except (OSError, ConfigError) as error:
            if str(error) != complained:
                complained = str(error)
                log.warning("the price of this replica stays as it is: %s", error)
        await asyncio.sleep(every_s)
