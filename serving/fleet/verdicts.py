"""From a request's demand to what it wants of each counter, and from the counters' answer to what its caller is told.

Pure. May not happen in here: counting, HTTP beyond the names of headers that callers know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from serving.errors import BudgetExhausted, RateLimited, RequestError, RequestTooLarge
from serving.fleet.demand import Ask, Demand
from serving.fleet.limits import Limit, bounds
from serving.fleet.money import usd
from serving.fleet.quotas import NO_END, Granted, Kind, Part, Refused, Want
from serving.fleet.records import Tokens

_MONEY_HEADROOM = 4  # times the estimate is held, so that a request that costs more than others is not cut off
_SMALL_PART = 10_000  # of a budget: so much may be held for any request, however little others have cost
_IN_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "prompt": "prompt tokens a minute",
             "completion": "completion tokens a minute", "seats": "requests at once"}
_HEADERS = {unit: tuple(f"x-ratelimit-{what}-{name}".encode() for what in ("limit", "remaining", "reset"))
            for unit, name in (("requests", "requests"), ("tokens", "tokens"), ("prompt", "prompt-tokens"),
                               ("completion", "completion-tokens"))}


@dataclass(frozen=True)
class Used:
    """What a request has used. `known`: whether that is all there is to know; else the ledger has to be asked."""

    tokens: Tokens | None
    nanousd: int | None
    known: bool = True

    @classmethod
    def nothing(cls) -> Used:
        """It never ran."""
        return cls(Tokens(), 0)

    @classmethod
    def unknown(cls) -> Used:
        """It ran, and its answer did not say."""
        return cls(None, None, False)

    @classmethod
    def reserved(cls, demand: Demand, nanousd: int) -> Used:
        """No one will ever say, so the most it may have used."""
        return cls(Tokens(demand.prompt, 0, demand.completion), nanousd)


@dataclass(frozen=True)
class Pass:
    """A request may begin.

    `completion`: the most completion tokens of each of its answers; None: as it likes. `nanousd`: what it may cost, at
    which its replica ends it; None: as much as it does. `headers`: for its answer.
    """

    completion: int | None = None
    nanousd: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Cost(Protocol):
    """What (prompt tokens, completion tokens, answers) cost, nano-USD."""

    def nanousd(self, prompt: int, completion: int, answers: int = 1, /) -> int:
        """The most that they are taken to cost by experience."""

    def bound(self, prompt: int, completion: int, answers: int = 1, /) -> int:
        """The most that they cost if the model keeps what it promises, or as it did when it kept least of it."""


def wants(limits: Sequence[Limit], demand: Demand, ask: Ask, cost: Cost,
          now: float) -> tuple[tuple[Want, ...], tuple[Limit, ...]]:
    """What the request wants of each counter, and the limits in that order; those that it does not touch are left out.

    Raises: RequestTooLarge when what it asks for can never fit.
    """
    found: list[tuple[Want, Limit]] = []
    for limit in limits:
        amount, least = _amounts(limit, demand, ask, cost)
        if amount:
            found.append((Want(limit.counter(now), limit.kind, limit.most, amount, least), limit))
    return tuple(w for w, _ in found), tuple(limit for _, limit in found)


def _amounts(limit: Limit, demand: Demand, ask: Ask, cost: Cost) -> tuple[int, int]:
    """(wanted, least) of one counter."""
    if limit.unit in ("requests", "seats"):
        return 1, 1
    if limit.unit == "prompt":  # a guess, so that one above the limit waits for an empty minute, and is not turned away
        amount = min(demand.prompt, limit.most)
        return amount, amount
    if limit.unit == "usd":
        begins = cost.nanousd(demand.prompt, min(demand.completion, demand.answers), demand.answers)
        asked = demand.prompt, demand.completion, demand.answers
        # where the budget is large no one is cut off because others cost little, or because idle time came to be due
        amount = _MONEY_HEADROOM * max(cost.nanousd(*asked), min(cost.bound(*asked), limit.most // _SMALL_PART))
        return (amount, begins) if limit.hard else (amount, 0)
    if ask.completion is not None and demand.least_completion > limit.most:
        raise RequestTooLarge(_named(limit), f": it asks for {demand.least_completion} completion tokens",
                              "ask for fewer")
    before = demand.prompt if limit.unit == "tokens" else 0
    return min(before + demand.completion, limit.most), min(before + demand.least_completion, limit.most)


def granted(limits: Sequence[Limit], asked: Sequence[Want], answer: Granted, demand: Demand, ask: Ask,
            now: float) -> Pass:
    """What the request may do, and what its caller is told of the limits."""
    completion, budget, warnings = demand.completion, None, []
    tightest: dict[tuple[bytes, ...], tuple[float, int, int, int]] = {}
    for limit, want, line in zip(limits, asked, answer.lines, strict=True):
        if limit.unit == "completion":
            completion = min(completion, line.granted)
        elif limit.unit == "tokens":
            completion = min(completion, max(1, line.granted - min(demand.prompt, want.amount)))
        elif limit.unit == "usd":
            if limit.hard:
                budget = line.granted if budget is None else min(budget, line.granted)
            if limit.soft is not None and line.used >= limit.soft:
                warnings.append(_warning(limit, line.used))
        if (names := _HEADERS.get(limit.unit)) is not None:
            left = max(0, limit.most - line.used)
            row = (left / limit.most, limit.most, left, math.ceil(line.reset_s))
            if names not in tightest or row < tightest[names]:
                tightest[names] = row
    headers: list[tuple[bytes, bytes]] = []
    for (most, remaining, reset), (_, limited, left, seconds) in tightest.items():
        headers += (most, b"%d" % limited), (remaining, b"%d" % left), (reset, b"%ds" % seconds)
    if warnings:
        headers.append((b"x-flotilla-budget", "; ".join(warnings).encode("ascii", "replace")))
    makes = ask.generates and ask.works
    return Pass(max(1, completion // max(1, demand.answers)) if makes else None, budget, tuple(headers))


def _warning(limit: Limit, used: int) -> str:
    mark = limit.most if limit.hard else limit.soft or 0
    return f"{limit.whose} has used {usd(used):.6g} of {usd(mark):.6g} USD of this {limit.period}"


def refusal(limit: Limit, want: Want, answer: Refused, now: float) -> RequestError:
    """Why a request may not begin."""
    if limit.unit == "usd":
        assert limit.period is not None
        anew = datetime.fromtimestamp(bounds(limit.period, now)[1], UTC).strftime("%Y-%m-%d")
        left = max(0, limit.most - answer.used)
        return BudgetExhausted(
            f"the budget of {limit.whose} for this {limit.period} does not pay for this request: of "
            f"{usd(limit.most):.9g} USD {usd(left):.9g} are neither spent nor held for requests under way. It begins "
            f"anew on {anew}, 00:00 UTC")
    retry = max(1, math.ceil(answer.retry_s))
    if limit.unit in ("requests", "seats"):
        return RateLimited(_named(limit), "", retry, limit.unit, limit.most, answer.used)
    return RateLimited(_named(limit), f": {max(0, limit.most - answer.used)} are left, this request may need "
                       f"{want.least}", retry, limit.unit, limit.most, answer.used)


def headers_of(error: RateLimited) -> list[tuple[bytes, bytes]]:
    """The limit that was hit, as headers."""
    names = _HEADERS.get(error.unit)
    if names is None:
        return []
    left = max(0, error.most - error.used)
    return list(zip(names, (b"%d" % error.most, b"%d" % left, b"%ds" % error.retry_after_s), strict=True))


def _named(limit: Limit) -> str:
    return f"the limit of {limit.most} {_IN_WORDS[limit.unit]} of {limit.whose}"


def parts(limits: Sequence[Limit], asked: Sequence[Want], used: Used) -> tuple[Part, ...]:
    """What the request has used of each of its counters."""
    return tuple(Part(want.key, want.kind, _of(limit.unit, used)) for limit, want in zip(limits, asked, strict=True))


def parts_by_name(counters: Sequence[tuple[str, Kind]], used: Used) -> tuple[Part, ...]:
    """The same for a request of which only its counters' names are known."""
    return tuple(Part(key, kind, _of(_unit(key, kind), used)) for key, kind in counters)


def _unit(key: str, kind: Kind) -> str:
    return "usd" if kind == "money" else key.rpartition("/")[2]


def _of(unit: str, used: Used) -> int:
    tokens = used.tokens or Tokens()
    if unit == "usd":
        return min(used.nanousd or 0, NO_END // 2)
    if unit == "prompt":
        return tokens.prompt
    if unit == "completion":
        return tokens.completion
    return tokens.prompt + tokens.completion if unit == "tokens" else 1
