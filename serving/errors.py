"""The one exception tree of Flotilla.

Every failure that a caller may want to tell apart has a class here. Nothing in this module knows HTTP: the gateway
translates these classes to status codes in one table (`serving.gateway.errors`), the command line to exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlotillaError(Exception):
    """Base of all errors that Flotilla raises on purpose. The message is meant to be read by a person."""


class ConfigError(FlotillaError):
    """A fleet file, setting or argument is wrong. Names the place, what was found and what would be right."""


class AdapterRefused(ConfigError):
    """A LoRA adapter cannot be added or removed. Says what is wrong with it and what would be right."""


class RequestError(FlotillaError):
    """A request cannot be served because of what it says or who sends it."""


class MalformedRequest(RequestError):
    """The body is not what the endpoint needs: not JSON, not an object, or without a model name."""


class BodyTooLarge(RequestError):
    """The body is longer than the gateway's limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class InvalidKey(RequestError):
    """The bearer key is missing, unknown, expired or revoked."""


class UnknownModel(RequestError):
    """No model, alias of a model or adapter goes by this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        message = f"the model {name!r} does not exist in this fleet."
        if near := nearest(name, known):
            message += f" Did you mean {near!r}?"
        super().__init__(f"{message} Models: {', '.join(known) or 'none'}")
        self.name = name


class UnknownEndpoint(RequestError):
    """No endpoint is served at this path."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"there is no endpoint {method} {path}; GET /openapi.json lists them")


class WrongMethod(RequestError):
    """The path is served, but not by this method."""

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(f"{path} takes {' or '.join(self.allowed)}, not {method}")


class UnsupportedEndpoint(RequestError):
    """The engine of this model does not serve this endpoint."""

    def __init__(self, model: str, endpoint: str) -> None:
        super().__init__(f"the model {model!r} does not serve {endpoint}: it is a model of another kind")


class UnknownResponse(RequestError):
    """No replica holds a stored response of this id."""

    def __init__(self, response_id: str) -> None:
        super().__init__(f"there is no stored response {response_id[:80]!r}: responses are kept by the replica that "
                         "made them, the newest only, and go with it")


class HeadersTooLarge(RequestError):
    """The request line or the headers exceed the gateway's limits. The message says which."""


class BodyTimeout(RequestError):
    """The request's headers or body stopped arriving."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(f"the request stopped arriving: nothing came for {pause_s:g} s")


class ModelNotAllowed(RequestError):
    """The model is there, but not for this tenant."""

    def __init__(self, name: str, tenant: str, allowed: Iterable[str]) -> None:
        message = f"the tenant {tenant!r} may not use the model {name!r}"
        super().__init__(f"{message}. Allowed: {', '.join(sorted(allowed)) or 'none'}")
        self.name, self.tenant = name, tenant


class MediaRefused(RequestError):
    """A picture or another file that the request names by URL is not taken: from there, or of that kind or size."""


class MediaUnavailable(RequestError):
    """A picture or another file that the request names by URL could not be fetched."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"a file could not be fetched{f' from {host!r}' if host else ''}: {why}")
        self.host = host


class PresetRefuses(RequestError):
    """The preset that the request names does not allow a field of it, or has no place at this endpoint."""


class TooManyWaiting(RequestError):
    """The model's queue is full and this tenant has the most in it for its share."""

    def __init__(self, model: str, retry_after_s: int) -> None:
        super().__init__(f"the model {model!r} is full and too many of your requests wait for it already; "
                         f"retry in {retry_after_s} s")
        self.model, self.retry_after_s = model, retry_after_s


class ScopeMissing(RequestError):
    """The key is good, but not for this."""

    def __init__(self, scope: str, has: Iterable[str]) -> None:
        super().__init__(f"this key has no scope {scope!r}; it has: {', '.join(sorted(has)) or 'none'}")
        self.scope = scope


class RateLimited(RequestError):
    """A limit per minute, or of requests under way, is used up."""

    def __init__(self, limit: str, asked: str, retry_after_s: int, unit: str = "", most: int = 0,
                 used: int = 0) -> None:
        super().__init__(f"{limit} is used up{asked}; retry in {retry_after_s} s")
        self.retry_after_s, self.unit, self.most, self.used = retry_after_s, unit, most, used


class RequestTooLarge(RequestError):
    """The request alone may use more than a limit allows in a minute, so that to wait would not help."""

    def __init__(self, limit: str, asked: str, advice: str) -> None:
        super().__init__(f"this request is larger than {limit}{asked}; {advice}")


class BudgetExhausted(RequestError):
    """A budget's hard mark is reached, or what is left of it does not pay for this request."""


class ServiceError(FlotillaError):
    """The request was fine; the fleet could not answer it."""


class QuotasUnavailable(ServiceError):
    """Limits hold for this request and cannot be counted now, and the fleet file says to refuse it then."""

    def __init__(self, retry_after_s: int = 2) -> None:
        super().__init__(f"limits hold for this request and cannot be counted just now; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class KeysUnavailable(ServiceError):
    """The keys have never been readable, so no one can be told good from bad."""


class NoReplica(ServiceError):
    """The model has no replica that could take the request now."""

    def __init__(self, model: str, retry_after_s: int, starting: bool = False) -> None:
        """`starting`: a first one is on its way and is expected by then."""
        super().__init__(f"the model {model!r} had no replica and starts one, expected in about {retry_after_s} s; "
                         "retry then" if starting else
                         f"the model {model!r} has no replica ready; retry in {retry_after_s} s")
        self.model, self.retry_after_s = model, retry_after_s


class ModelFailed(ServiceError):
    """The model did not come up when the fleet started."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model!r} could not be started; whoever runs the fleet sees why by "
                         "`flotilla status`")
        self.model = model


class Overloaded(ServiceError):
    """The model's replicas are full, and no seat became free in time."""

    def __init__(self, model: str, retry_after_s: int) -> None:
        super().__init__(f"the model {model!r} is full; retry in {retry_after_s} s")
        self.model, self.retry_after_s = model, retry_after_s


class LedgerFull(ServiceError):
    """What this request uses could not be written down, and the fleet file says to refuse it then."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"what requests use cannot be written down just now; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class ReplicaFailed(ServiceError):
    """The replica broke the connection before or during its answer."""


class DeadlineExceeded(ServiceError):
    """The answer was not whole by the request's deadline."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"no whole answer within {deadline_s:g} s, the deadline of this request")
        self.deadline_s = deadline_s


class Draining(ServiceError):
    """This gateway is about to stop and takes no new requests."""


class LedgerError(FlotillaError):
    """The ledger's database cannot be opened, read or written."""


class SpoolFull(LedgerError):
    """The database is away and the disk space for what waits for it is used up."""


class FleetRunning(FlotillaError):
    """A fleet already runs from this state directory."""


class FleetNotRunning(FlotillaError):
    """No fleet runs from this state directory."""


class StartFailed(FlotillaError):
    """A part of the fleet did not come up. Names the part and where its log is."""


class WeightsError(FlotillaError):
    """A model's weights cannot be loaded, found out before a replica is started. `cause` says why in one word, for
    programs; the message names the source, what is wrong and what to do."""

    cause = "weights"


class WeightsMissing(WeightsError):
    """There is no such folder, repository, revision or file."""

    cause = "missing"


class WeightsGated(WeightsError):
    """They are there, but whoever asks may not have them: a licence to accept, a token or credentials without access.
    """

    cause = "gated"


class WeightsUnreachable(WeightsError):
    """Whoever keeps them does not answer, and there is no whole copy here."""

    cause = "unreachable"


class WeightsDamaged(WeightsError):
    """What is here is not what was published: another checksum, a file cut short, a part that is missing."""

    cause = "damaged"


class DiskFull(WeightsError):
    """They do not fit where they are to be kept."""

    cause = "disk_full"


class UnsupportedArchitecture(WeightsError):
    """vLLM cannot run this architecture, or it is another than the fleet file says."""

    cause = "architecture"


class ConsoleFull(FlotillaError):
    """So many consoles or playgrounds are open that no further one may be."""


class GatewayAway(FlotillaError):
    """The API does not answer the console."""


class NoSuchRow(FlotillaError):
    """There is no request, report or other thing of that name."""


class ClusterError(FlotillaError):
    """A Kubernetes cluster did not do what it was asked for."""


class WrongContext(ConfigError):
    """No cluster is configured, or not the one that was named."""


class ClusterUnreachable(ClusterError):
    """The API server does not answer."""

    def __init__(self, context: str, why: object) -> None:
        super().__init__(f"{context}: the API server cannot be reached: {why}. Is the cluster up, and is this the "
                         "right context? Choose another with --context")


class NotAllowed(ClusterError):
    """Whoever asks may not do that in the cluster, or is not known there."""


class NotServed(ClusterError):
    """The API server knows no such kind of object: what brings it is not installed, or only half."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the cluster does not serve {what}: its definition (CRD) is not installed there; "
                         "`flotilla doctor` says what is missing")


class AlreadyThere(ClusterError):
    """An object of that name exists already."""


class ChangedMeanwhile(ClusterError):
    """Someone else changed the object, or owns the field."""


class TooOld(ClusterError):
    """The API server has forgotten the version that was asked for."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is near enough to suggest."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """How a message about an unknown name ends: with the nearest one, or after `otherwise` with all there are."""
    there = list(known)
    near = nearest(name, there)
    return f"did you mean {near!r}?" if near else f"{otherwise}: {', '.join(there) or 'none'}"
