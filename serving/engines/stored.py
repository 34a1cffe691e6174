"""Bounds for what vLLM keeps of /v1/responses.

vLLM keeps every response, its messages and its events for good, so that they can be fetched, continued and cancelled.
Here the newest are kept, by number and by weight. May not happen in here: anything about what they mean.
"""

from __future__ import annotations

from typing import Any

RESPONSES = 1_000  # newest responses that can be fetched or continued
_EVENTS = 64  # newest streams in the background that can be joined again
_MIB = 1024 * 1024
_HEAVIEST = 64 * _MIB  # of each kind


class Newest(dict[str, Any]):
    """A dictionary that forgets its oldest entries above `most` entries or `heaviest` bytes, roughly counted."""

    def __init__(self, most: int, heaviest: int = _HEAVIEST) -> None:
        super().__init__()
        self._most, self._heaviest = most, heaviest
        self._weights: dict[str, int] = {}
        self._weight = 0

    def __setitem__(self, key: str, value: Any) -> None:
        self._forget(key)
        super().__setitem__(key, value)
        self._weights[key] = weight = _weight(value)
        self._weight += weight
        while len(self) > 1 and (len(self) > self._most or self._weight > self._heaviest):
            del self[next(iter(self))]

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._forget(key)

    def _forget(self, key: str) -> None:
        if key in self._weights:
            self._weight -= self._weights.pop(key)
            super().pop(key, None)


def bound(serving: Any) -> None:
    """Bound the stores of vLLM's server of responses; None (a model that does not generate) has none."""
    if serving is not None:
        serving.response_store = Newest(RESPONSES)
        serving.msg_store = Newest(RESPONSES)
        serving.event_store = Newest(_EVENTS)


def _weight(value: Any) -> int:
    """About how many bytes a value of texts, lists, dictionaries and plain objects takes."""
    total, todo = 0, [value]
    while todo:
        found = todo.pop()
        total += 64
        if isinstance(found, str | bytes):
            total += len(found)
        elif isinstance(found, dict):
            todo += found.values()
        elif isinstance(found, list | tuple):
            todo += found
        elif isinstance(members := getattr(found, "__dict__", None), dict):
            todo += members.values()
    return total
