"""Parts of the fleet file about traffic: limits under overload, adapters, routes, tenants and their quotas, who is who,
the gateway and the admin API."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from serving.fleet.config import Strict
from serving.fleet.limits import NO_LIMITS, LimitsSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: use 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a-z or 0-9")
    return value


Name = Annotated[str, AfterValidator(_name)]


def as_tuple(value: object) -> object:
    """YAML lists as the tuples of a frozen value."""
    return tuple(value) if isinstance(value, list) else value


class AdapterSpec(Strict):
    """A LoRA adapter of a model, loaded when it is first asked for as `model:adapter`."""

    source: str = Field(description="Path of the adapter, hub id, or small:lora for one made here.")
    description: str = Field("", description="What it is for, for people.")
    tenants: tuple[Name, ...] | None = Field(
        None, description="Tenants that may use it, beside those whose models name it. Left out: whoever may use the "
        "model.")

    _lists = field_validator("tenants", mode="before")(as_tuple)

    @property
    def small_kind(self) -> str | None:
        """The kind of an adapter made here, or None for a real one."""
        return self.source.removeprefix("small:") if self.source.startswith("small:") else None


class LoraSpec(Strict):
    """Room for adapters that are added while the fleet runs. It costs memory and some time in every step."""

    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        16, description="Highest rank that an adapter may have.")
    max_loaded: int = Field(8, ge=1, description="Adapters that a replica keeps at once; for one more, that which was "
                                                 "not used for longest goes.")
    max_per_step: int = Field(4, ge=1, description="Adapters that one engine step may mix; device memory is kept for "
                                                   "so many of the highest rank.")

    @model_validator(mode="after")
    def _steps_use_what_is_loaded(self) -> LoraSpec:
        if self.max_per_step > self.max_loaded:
            raise ValueError(f"max_per_step ({self.max_per_step}) is above max_loaded ({self.max_loaded})")
        return self


class OverloadSpec(Strict):
    """What happens when more comes than the replicas can take."""

    max_in_flight: int | None = Field(
        None, ge=1, description="Requests that gateways send to one replica at once. Empty: max_num_seqs and a quarter "
        "more (at least 4), so that the engine always finds one waiting.")
    max_queue: int = Field(256, ge=0, description="Requests per model that wait in one gateway; above it the answer is "
                                                  "429.")
    max_wait_s: float = Field(30.0, gt=0, description="Longest wait for a seat, seconds; then the answer is 503.")


class RouteSpec(Strict):
    """A name whose traffic is spread over several models, for example 90 to 10 for a canary."""

    variants: dict[Name, Annotated[int, Field(ge=1)]] = Field(min_length=1, description="Model to weight.")
    aliases: tuple[Name, ...] = Field((), description="Further names of the route.")
    description: str = Field("", description="What it is for, for people.")

    _lists = field_validator("aliases", mode="before")(as_tuple)


class TenantSpec(Strict):
    """A team that uses the fleet. Its keys live in the ledger, hashed."""

    description: str = Field("", description="Who this is, for people.")
    models: tuple[str, ...] | None = Field(
        None, description="Models (with their adapters), routes, presets and model:adapter that it may use. Left out: "
        "all.")
    weight: float = Field(1.0, gt=0, description="Its share when requests have to wait, beside other tenants' weights.")
    limits: LimitsSpec = Field(NO_LIMITS, description="What all its keys together may use.")
    model_limits: dict[Name, LimitsSpec] = Field(default_factory=dict, description="What they may use of one model.")

    _lists = field_validator("models", mode="before")(as_tuple)


class QuotaSpec(Strict):
    """What becomes of limits while the place where they are counted is away."""

    when_away: Literal["open", "closed"] = Field(
        "closed", description="closed: requests that a limit holds for are refused with 503. open: each gateway lets "
        "its own share of each limit through, and counts it once the place is back.")


class AdminSpec(Strict):
    """The admin API: keys, tenants, usage and the audit log, on an address of its own."""

    enabled: bool = Field(False, description="Whether it is served.")
    host: str = Field("127.0.0.1", description="Address to listen on; never the API's.")
    port: int = Field(9465, ge=1, le=65535, description="Port to listen on.")


class OidcSpec(Strict):
    """Whose tokens are taken beside keys: JWTs of one issuer, by OpenID Connect."""

    issuer: str = Field(description="The issuer, as its tokens' iss claim says.")
    audience: str = Field(description="What a token's aud claim must name: this API.")
    jwks_url: str | None = Field(None, description="Where the issuer's keys are. Empty: its discovery document says.")
    tenant_claim: str = Field("tenant", description="The claim that names the tenant.")
    tenants: dict[str, Name] = Field(default_factory=dict, description="The claim's values to tenants. Empty: the "
                                                                       "value is the tenant's name.")
    admin_claim: str | None = Field(None, description="The claim that makes an admin, such as groups.")
    admin_values: tuple[str, ...] = Field((), description="Values of it, any of which does.")

    _lists = field_validator("admin_values", mode="before")(as_tuple)

    @staticmethod
    def is_safe(url: str) -> bool:
        """Whether what comes from there can be trusted to come from there."""
        return url.startswith("https://") or bool(
            re.match(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:\d+)?(/|$)", url))

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is None or cls.is_safe(value):
            return value
        raise ValueError(f"{value!r}: keys that arrive by plain HTTP prove nothing; write https://… (http:// works on "
                         "this machine's own address)")


class GatewaySpec(Strict):
    """The API's door."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    replicas: int = Field(1, ge=1, description="Gateway processes.")
    max_body_mib: float = Field(20.0, gt=0, description="Longest request body, MiB; above it the answer is 413.")
    max_header_kib: float = Field(32.0, ge=1, description="Longest request line and headers, KiB; above it 431.")
    request_timeout_s: float = Field(600.0, gt=0, description="Longest time for one answer, seconds; a caller may ask "
                                                              "for less by x-flotilla-timeout-s.")
    body_timeout_s: float = Field(30.0, gt=0, description="Longest pause while a request arrives, seconds; then 408.")
    write_timeout_s: float = Field(60.0, gt=0, description="Longest time that a caller may not read, seconds.")
    drain_s: float = Field(30.0, gt=0, description="Longest wait for answers under way when a gateway stops, seconds.")

    @property
    def max_body_bytes(self) -> int:
        """Longest request body, bytes."""
        return int(self.max_body_mib * 1024 * 1024)
