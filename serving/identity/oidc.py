"""OpenID Connect: a JWT of the configured issuer becomes a principal.

Signatures are checked by PyJWT with the issuer's own keys, which are fetched once and again when a token names one that
is not known, at most every half minute. Only asymmetric algorithms are taken: a secret that the API knew could be
turned round. A token that was good is remembered, by its hash, until it ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jwt

from serving.errors import InvalidKey, KeysUnavailable
from serving.fleet.specs import OidcSpec
from serving.fleet.tenants import DEFAULT_SCOPES, Principal

log = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_S = 30.0  # that clocks may differ
_AGAIN_S = 30.0  # between fetches of the issuer's keys
_KEPT_S = 3600.0  # after which keys are fetched anew, so that one taken out is no longer good
_PATIENCE_S = 5.0
_REMEMBERED = 10_000
_LONGEST = 16 * 1024


class Keyring(Protocol):
    """What knows all other keys."""

    async def principal(self, key: str) -> Principal:
        """Who this key belongs to. Raises: InvalidKey, KeysUnavailable."""
        ...


def fetch(url: str) -> Any:
    """JSON from a URL. Raises: OSError, ValueError."""
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310 - https, by the fleet file's check
        return json.loads(answer.read(1024 * 1024))


class OidcKeyring:
    """A keyring that takes the issuer's tokens, and asks another one about everything else."""

    def __init__(self, spec: OidcSpec, other: Keyring, read: Callable[[str], Any] = fetch,
                 clock: Callable[[], float] = time.time) -> None:
        """`read`: JSON from a URL, called in a thread. `clock`: Unix seconds."""
        self._spec, self._other, self._read, self._clock = spec, other, read, clock
        self._keys: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._good: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    async def principal(self, key: str) -> Principal:
        """Who this token or key belongs to. Raises: InvalidKey, KeysUnavailable."""
        if key.count(".") != 2 or key.startswith("flt_"):
            return await self._other.principal(key)
        if len(key) > _LONGEST:
            raise InvalidKey("this token is too long")
        hashed, now = hashlib.sha256(key.encode()).hexdigest(), self._clock()
        known = self._good.get(hashed)
        if known is not None and now < known[0]:
            return known[1]
        self._good.pop(hashed, None)
        claims = await self._checked(key)
        who = self._principal(claims)
        self._good[hashed] = (min(float(claims["exp"]), now + _KEPT_S), who)
        while len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return who

    async def _checked(self, token: str) -> dict[str, Any]:
        try:
            head = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise InvalidKey("this is neither an API key of this fleet nor a token") from error
        if head.get("alg") not in ALGORITHMS:
            raise InvalidKey("this token is signed in a way that is not taken; taken are " + ", ".join(ALGORITHMS))
        key = await self._key(str(head.get("kid", "")))
        try:
            return jwt.decode(
                token, key, algorithms=[key.algorithm_name], audience=self._spec.audience, issuer=self._spec.issuer,
                leeway=_LEEWAY_S, options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False,
                                           "verify_iat": False}) | self._timely(token)
        except jwt.InvalidTokenError as error:
            raise InvalidKey(f"this token is not good here: {error}") from error

    def _timely(self, token: str) -> dict[str, Any]:
        """Whether a token holds now, by our clock. Raises: jwt.InvalidTokenError."""
        claims, now = jwt.decode(token, options={"verify_signature": False}), self._clock()
        try:
            ends, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (TypeError, ValueError) as error:
            raise jwt.DecodeError("exp and nbf must be numbers") from error
        if now >= ends + _LEEWAY_S:
            raise jwt.ExpiredSignatureError("it has expired")
        if now < begins - _LEEWAY_S:
            raise jwt.ImmatureSignatureError("it is not good yet")
        return {}

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        spec, subject = self._spec, str(claims.get("sub", ""))[:128]
        value = claims.get(spec.tenant_claim)
        values = [str(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
        tenants = [spec.tenants[v] for v in values if v in spec.tenants] if spec.tenants else values
        has = claims.get(spec.admin_claim) if spec.admin_claim else None
        admin = bool({str(v) for v in (has if isinstance(has, list) else [has])} & set(spec.admin_values))
        if len(tenants) != 1 and not (admin and not tenants):
            raise InvalidKey(f"this token's claim {spec.tenant_claim!r} names "
                             + ("no tenant of this fleet" if not tenants else "more than one tenant"))
        scopes = (*(DEFAULT_SCOPES if tenants else ()), *(("admin",) if admin else ()))
        return Principal(tenants[0] if tenants else "", f"oidc:{subject}", None, frozenset(scopes))

    async def _key(self, name: str) -> Any:
        now = time.monotonic()
        if now - self._read_at > _KEPT_S or (name not in self._keys and now - self._read_at > _AGAIN_S):
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._refresh())
            await asyncio.shield(self._reading)
        if not self._keys:
            raise KeysUnavailable("the issuer's keys cannot be read just now; try again")
        found = self._keys.get(name)
        if found is None:
            raise InvalidKey("this token is signed with a key that its issuer does not publish")
        return found

    async def _refresh(self) -> None:
        self._read_at = time.monotonic()
        try:
            self._keys = await asyncio.to_thread(self._published)
        except Exception as error:  # whatever came instead of keys; those that are known stay good
            log.warning("the keys of the issuer cannot be read (%s: %s)", type(error).__name__, error)

    def _published(self) -> dict[str, Any]:
        url = self._spec.jwks_url
        if url is None:
            found = self._read(self._spec.issuer.rstrip("/") + "/.well-known/openid-configuration")
            url = str(found["jwks_uri"])
            if not OidcSpec.is_safe(url):
                raise ValueError("the discovery document's jwks_uri is not https")
        keys = {}
        for each in self._read(url)["keys"]:
            if each.get("use", "sig") != "sig":
                continue
            try:
                key = jwt.PyJWK(each)
            except jwt.PyJWTError:  # of a kind that is not known here
                continue
            if key.algorithm_name in ALGORITHMS:
                keys[str(each.get("kid", ""))] = key
        return keys
