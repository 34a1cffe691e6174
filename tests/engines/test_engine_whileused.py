"""Back to zero: a replica stays while any has been used lately, whatever Ray itself can see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serving.engines.whileused import IDLE, WhileUsed


def context(target: int, idle: dict[str, float | None], waiting: float = 0.0) -> SimpleNamespace:
    """What Ray tells. `idle`: by running replica, None for one that has not reported."""
    told = {name: [SimpleNamespace(value=0.0), SimpleNamespace(value=seconds)]
            for name, seconds in idle.items() if seconds is not None}
    return SimpleNamespace(total_num_requests=waiting, current_num_replicas=len(idle), target_num_replicas=target,
                           running_replicas=list(idle), raw_metrics={IDLE: told} if told else {})


@pytest.mark.parametrize(
    ("target", "idle", "waiting", "wanted"),
    [
        (0, {}, 0, 0),  # at zero it stays there
        (0, {}, 1, 1),  # until someone waits
        (1, {}, 0, 1),  # on its way up it is not called back
        (1, {"a": None}, 0, 1),  # a new one has not reported yet
        (1, {"a": 0.0}, 0, 1),
        (1, {"a": 299.0}, 0, 1),
        (1, {"a": 301.0}, 0, 0),
        (1, {"a": 301.0}, 1, 1),
        (2, {"a": 301.0, "b": 10.0}, 0, 2),
        (2, {"a": 301.0, "b": None}, 0, 2),
        (2, {"a": 301.0, "b": 400.0}, 0, 0),
    ],
)
def test_how_many_there_should_be(target: int, idle: dict, waiting: float, wanted: int) -> None:
    assert WhileUsed(300.0)(context(target, idle, waiting))[0] == wanted
