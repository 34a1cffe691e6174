"""Why a request cost what it did: its steps, its part of them, what was for nothing, and what came on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serving.costs import figures
from serving.fleet.money import NS_PER_HOUR, apportion
from serving.fleet.records import Amounts, ChargeRecord, Method, RequestRecord, Segment, SourceRecord, StepFit, Tokens
from serving.fleet.stepmodel import PRIOR, StepModel

PARTS = ("fixed", "token", "attention", "cache")
METHODS: dict[Method, str] = {
    "step-shapley-fit": "each engine step's cost is shared by the step model fitted to this replica",
    "step-shapley-prior": "each engine step's cost is shared by assumed coefficients: the replica had no fit yet for "
                          "at least one of the steps",
    "window": "the engine told no steps: time is shared in equal parts among the requests that were there",
}
POLICIES = {
    "pro_rata": "pro rata: idle time and cold starts go to requests in proportion to their own work, at most "
                "{max_loading:g} times that",
    "unallocated": "unallocated: idle time and cold starts are charged to no request",
    "owner": "owner: the tenant who asked for the replica pays for its idle time and cold starts, no request does",
}
_RESOLUTION = 1 << 40


@dataclass(frozen=True)
class Line:
    """Consecutive steps of one kind. `context` and `sharing` are means per step; `share` is of the steps' cost.

    `parts`: the amount by what it is due to, nano-USD; empty where the engine told no steps.
    """

    phase: str
    steps: int
    tokens: int
    context: float
    sharing: float
    seconds: float
    share: float | None
    nanousd: int
    parts: Mapping[str, int]


@dataclass(frozen=True)
class OnReplica:
    """What the request cost on one replica. `price_nanousd_per_hour`: when it ran."""

    source_id: str
    model: str
    variant: str
    price_nanousd_per_hour: int
    outcome: str
    method: Method
    fit: StepFit | None
    amounts: Amounts
    tokens: Tokens
    preemptions: int
    recomputed: int
    rejected: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Compared:
    """The same tokens at an API, nano-USD; `saving` of the fully loaded cost as a share of it."""

    name: str
    role: str
    nanousd: int
    saving: float | None


@dataclass(frozen=True)
class Explanation:
    """All that is known of one request's cost."""

    request_id: str
    request: RequestRecord | None
    tenant: str
    amounts: Amounts
    tokens: Tokens
    replicas: tuple[OnReplica, ...]
    compared: tuple[Compared, ...]

    @property
    def under_way(self) -> bool:
        """Whether it still runs somewhere."""
        return any(r.outcome == "running" for r in self.replicas)

    def parts(self) -> dict[str, int]:
        """Its own work by what it is due to, nano-USD, over all replicas."""
        lines = [line for r in self.replicas for line in r.lines]
        return {part: sum(line.parts.get(part, 0) for line in lines) for part in PARTS}


def split(segment: Segment, fit: StepFit | None) -> dict[str, int]:
    """A segment's amount by what it is due to: the step's fixed part, its tokens, attention, reading the cache.

    By today's coefficients of the replica (or the assumed ones): those of the moment were close to them, not the same.
    """
    model = StepModel(fit.fixed, fit.token, fit.attention, fit.cache) if fit else PRIOR
    sizes = (model.fixed * segment.parts, model.token * segment.tokens, model.attention * segment.pairs,
             model.cache * segment.context)
    whole = sum(sizes)
    if whole <= 0:
        return {}
    weights = [round(size / whole * _RESOLUTION) for size in sizes]
    return dict(zip(PARTS, apportion(segment.nanousd, weights), strict=True))


def line(segment: Segment, price_nanousd_per_hour: int, method: Method, fit: StepFit | None) -> Line:
    """One segment for people."""
    cost = price_nanousd_per_hour * segment.step_ns / NS_PER_HOUR
    return Line(segment.phase, segment.steps, segment.tokens, segment.context / segment.steps,
                segment.shared / segment.steps, segment.step_ns / 1e9, segment.nanousd / cost if cost else None,
                segment.nanousd, {} if method == "window" else split(segment, fit))


def explain(request_id: str, request: RequestRecord | None, charges: Sequence[ChargeRecord],
            sources: Mapping[str, SourceRecord], roles: Mapping[str, str],
            prices: Mapping[str, int] | None = None) -> Explanation:
    """Put a request's rows together.

    `roles`: what each comparator shows, by name. `prices`: nano-USD per hour of each source when the request ran,
    where that is known; else its price now.
    """
    replicas = []
    for charge in charges:
        source = sources.get(charge.source_id)
        now = source.price_nanousd_per_hour if source else 0
        price = (prices or {}).get(charge.source_id, now)
        fit = source.fit if source else None
        replicas.append(OnReplica(
            charge.source_id, source.model if source else "", source.variant if source else "", price, charge.outcome,
            charge.method, fit, charge.amounts, charge.tokens, charge.preemptions, charge.recomputed, charge.rejected,
            tuple(line(segment, price, charge.method, fit) for segment in charge.segments if segment.steps)))
    amounts = sum((c.amounts for c in charges), Amounts())
    theirs: dict[str, int] = {}
    for charge in charges:
        for name, nanousd in charge.compared.items():
            theirs[name] = theirs.get(name, 0) + nanousd
    order = list(figures.ROLES)
    compared = sorted(
        (Compared(name, roles.get(name, ""), nanousd, figures.saving(amounts.loaded, nanousd))
         for name, nanousd in theirs.items()),
        key=lambda c: (order.index(c.role) if c.role in order else len(order), c.name))
    tokens = request.tokens if request and request.tokens else sum((c.tokens for c in charges), Tokens())
    tenant = request.tenant if request else charges[0].tenant if charges else ""
    return Explanation(request_id, request, tenant, amounts, tokens, tuple(replicas), tuple(compared))


def sentence(told: Explanation) -> str:
    """Why it cost this, in plain words."""
    if not told.replicas:
        return "It cost nothing: no engine worked for it."
    a, said = told.amounts, []
    lines = [line for r in told.replicas for line in r.lines]
    steps = sum(x.steps for x in lines)
    so_far = "has cost so far" if told.under_way else "cost"
    begin = f"This request {so_far} {figures.money(a.loaded)}: {figures.money(a.work)} for its own work"
    if steps:
        others = sum((x.sharing - 1) * x.steps for x in lines) / steps
        count = figures.quantity(round(others, 1))
        shared = "alone"
        if others >= 0.05:
            shared = f"shared with {count} {'other' if count == '1' else 'others'} on average"
        begin += f" in {steps:,} engine {'step' if steps == 1 else 'steps'}, {shared}"
    said.append(begin)
    if a.waste:
        said.append(f"of which {figures.money(a.waste)} was for nothing ({why_waste(told)})")
    if a.idle or a.cold_start:
        names = [name for name, amount in (("idle time", a.idle), ("cold start", a.cold_start)) if amount]
        said.append(f"plus {figures.money(a.idle + a.cold_start)} as its part of the replica's {' and '.join(names)}")
    text = ", ".join(said) + "."
    parts = told.parts()
    if whole := sum(parts.values()):
        most = max(parts, key=lambda part: parts[part])
        text += f" {figures.percent(parts[most] / whole)} of the work was {_PART_WORDS[most]}."
    return text


_PART_WORDS = {
    "fixed": "its part of what a step costs whatever is in it, which falls with more requests at once",
    "token": "computing its tokens", "attention": "attention over its earlier tokens",
    "cache": "reading the cache of its earlier tokens",
}


def why_waste(told: Explanation) -> str:
    """What the waste was, in words."""
    why = []
    for outcome, word in (("aborted", "the caller went away"), ("failed", "the engine failed")):
        if any(r.outcome == outcome for r in told.replicas):
            why.append(word)
    if recomputed := sum(r.recomputed for r in told.replicas):
        why.append(f"{recomputed:,} tokens computed again after a preemption")
    if rejected := sum(r.rejected for r in told.replicas):
        why.append(f"{rejected:,} drafted tokens thrown away")
    return ", ".join(why) or "no one received it"


def plain(told: Explanation) -> dict[str, Any]:
    """All of it as JSON has it, with the sentence that sums it up as `why`."""
    return {
        "request_id": told.request_id, "tenant": told.tenant,
        "request": asdict(told.request) if told.request else None, "tokens": asdict(told.tokens),
        "nanousd": asdict(told.amounts) | {"work": told.amounts.work, "loaded": told.amounts.loaded},
        "cost_usd": figures.exact(told.amounts.loaded), "work_parts_nanousd": told.parts(),
        "replicas": [asdict(r) | {"lines": [asdict(line) | {"parts": dict(line.parts)} for line in r.lines]}
                     for r in told.replicas],
        "compared": [asdict(c) for c in told.compared], "under_way": told.under_way, "why": sentence(told),
    }
