"""What a model promises to its callers, and which requests keep it.

Pure. An objective is the share of eligible requests that must be good, as in Google's SRE workbook, chapter 5. Requests
that callers spoil (4xx, and those who leave) are not eligible: they say nothing about the fleet.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serving.fleet.config import Strict
from serving.fleet.records import RequestRecord
from serving.fleet.specs import Name

Promise = Literal["availability", "ttft", "tpot", "goodput"]
PROMISES: tuple[Promise, ...] = ("availability", "ttft", "tpot", "goodput")
Objective = Annotated[float, Field(gt=0, lt=1)]


class TenantSlo(Strict):
    """What the model promises to one tenant beyond what it promises to all. What is left out is as for all."""

    ttft_ms: float | None = Field(None, gt=0, description="Time to first token, milliseconds.")
    tpot_ms: float | None = Field(None, gt=0, description="Time per output token after the first, milliseconds.")
    availability: Objective | None = Field(None, description="Share of requests that must not end in an error of the "
                                                             "fleet.")
    latency: Objective | None = Field(None, description="Share of streams that must keep ttft_ms, and share that must "
                                                        "keep tpot_ms.")
    goodput: Objective | None = Field(None, description="Share of requests that must keep all promises at once.")

    @model_validator(mode="after")
    def _says_something(self) -> TenantSlo:
        if not self.model_dump(exclude_none=True):
            raise ValueError(f"promises nothing of its own; give one of {', '.join(type(self).model_fields)}, or leave "
                             "the tenant out: what is promised to all holds for it")
        return self


class Slo(Strict):
    """What the model promises to a caller. The thresholds also hold in load tests, at the percentile that the scenario
    asks for."""

    ttft_ms: float = Field(gt=0, description="Time to first token, milliseconds.")
    tpot_ms: float = Field(gt=0, description="Time per output token after the first, milliseconds.")
    availability: Objective = Field(0.999, description="Share of requests that must not end in an error of the fleet.")
    latency: Objective = Field(0.95, description="Share of streams that must keep ttft_ms, and share that must keep "
                                                 "tpot_ms.")
    goodput: Objective = Field(0.9, description="Share of requests that must keep all promises at once.")
    tenants: dict[Name, TenantSlo] = Field(default_factory=dict, description="What is promised to single tenants, with "
                                           "error budgets and alerts of their own. Scaling and load tests keep to what "
                                           "is promised to all.")

    def own(self) -> dict[str, Slo]:
        """What is promised to each tenant that has promises of its own, whole."""
        return {name: self.model_copy(update={**said.model_dump(exclude_none=True), "tenants": {}})
                for name, said in self.tenants.items()}

    def objective(self, promise: Promise) -> float:
        """The share of eligible requests that must be good."""
        return self.latency if promise in ("ttft", "tpot") else getattr(self, promise)


def kept(record: RequestRecord, slo: Slo) -> dict[Promise, bool]:
    """Which promises this request was eligible for, and whether it got what they say.

    availability: no 5xx and no stream that broke off. ttft: streams, from arrival at the gateway to the first byte; one
    that broke before it is bad. tpot: streams that ended with two tokens or more. goodput: all of these that apply.
    """
    if record.code < 200 or 400 <= record.code < 500:
        return {}
    found: dict[Promise, bool] = {"availability": record.code < 500 and record.outcome != "failed"}
    if record.stream:
        found["ttft"] = record.ttft_s is not None and record.ttft_s * 1e3 <= slo.ttft_ms
        per_token = time_per_output_token_s(record)
        if per_token is not None:
            found["tpot"] = per_token * 1e3 <= slo.tpot_ms
    return found | {"goodput": all(found.values())}


def time_per_output_token_s(record: RequestRecord) -> float | None:
    """(end - first token) / (tokens - 1) of a stream that ended as it should; None where that says nothing."""
    if record.ttft_s is None or record.outcome != "finished" or not record.tokens or record.tokens.completion < 2:
        return None
    return (record.duration_s - record.ttft_s) / (record.tokens.completion - 1)
