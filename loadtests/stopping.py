"""When a run ends before its time: the scenario's stop conditions, held against its counts. Pure."""

from __future__ import annotations

from loadtests.people import Stop


def reason_to_stop(stop: Stop | None, *, sent: int, done: int, errors: int) -> str | None:
    """The condition that is met, in words; None while there is none."""
    if stop is None:
        return None
    if stop.errors is not None and errors >= stop.errors:
        return f"{errors} requests failed, the limit is {stop.errors}"
    if stop.error_share is not None and done >= stop.after_requests and errors / done > stop.error_share:
        return f"{errors} of {done} requests failed ({errors / done:.0%}), the limit is {stop.error_share:.0%}"
    if stop.in_flight is not None and sent - done > stop.in_flight:
        return f"{sent - done} requests were under way at once, the limit is {stop.in_flight}"
    return None
